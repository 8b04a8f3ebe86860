"""Every night, after the moves: is everything still there, and is it still found?"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import AssetOrTimeSchedule, CronDataIntervalTimetable, dag, get_current_context, task

from akosha_airflow import (
    COLD,
    VALIDATED,
    FailureNotice,
    always,
    as_of,
    as_of_param,
    carry_out,
    default_args,
    hand_out,
    lake_run_id,
    library_errors,
)

DOC = """
### What it does
Measures recall@10 of the 8-bit codes in warm against the original vectors, and checks that no record was lost or
doubled between tiers. The rules are Great Expectations suites; their history is written as Data Docs into the lake's
`reports/` folder. It reads only.

It starts when `akosha_warm_to_cold` has announced `akosha://cold`, and at 05:30 UTC in any case, should that have
failed.

### Is a re-run safe?
Yes. It changes no record; every run adds one report.

### On failure
1. Open the red task: its last line says which expectation failed, by how much, and where the report is.
2. *Conservation*: a record is in two tiers or in none. Pause the moves and run `akosha fsck --read-data`.
3. *Recall*: search still answers, but finds less than `AKOSHA_RECALL_FLOOR` asks for. The report has the queries.
"""


@dag(
    description=__doc__,
    doc_md=DOC,
    schedule=AssetOrTimeSchedule(timetable=CronDataIntervalTimetable("30 5 * * *", timezone="UTC"), assets=[COLD]),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=6),
    default_args=default_args(execution_timeout=timedelta(hours=2)),
    on_failure_callback=FailureNotice(),
    params=as_of_param(),
    tags=["akosha", "quality"],
)
def akosha_validate() -> None:
    @task(pool="akosha_validate")
    def plan() -> list[dict[str, object]]:
        from akosha import jobs

        context = get_current_context()
        with library_errors():
            return hand_out(jobs.plan_validate(lake_run_id(context), as_of=as_of(context)))

    # Great Expectations runs in `finish`, once per run: importing it takes seconds.
    carry_out(plan(), work="validate", pool="akosha_validate", asset=VALIDATED, announce_when=always)


akosha_validate()
