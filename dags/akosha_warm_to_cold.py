"""Records past their warm days move to cold Parquet, after hot to warm."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import AssetOrTimeSchedule, CronDataIntervalTimetable, dag, get_current_context, task

from akosha_airflow import (
    COLD,
    WARM,
    FailureNotice,
    GoOn,
    all_moved,
    as_of,
    carry_out,
    default_args,
    hand_out,
    lake_run_id,
    library_errors,
    move_params,
)

DOC = """
### What it does
Moves records older than `AKOSHA_WARM_DAYS` from **warm** to **cold**: Parquet with one sentence, the fingerprint and 48
bytes of sign bits each. The full text stays in the archive. Each move is staged, read back and compared; only then one
commit per shard swaps both tiers.

It starts when `akosha_hot_to_warm` has announced `akosha://warm`, and at 04:30 UTC in any case, should that have
failed. When it is done it announces `akosha://cold`, which starts `akosha_validate`.

### Is a re-run safe?
Yes, at any time, also after a kill: what was not committed is invisible, what was committed is not moved again. A *dry
run* commits nothing.

### On failure
1. Open the red task and read its last line.
2. *Damage* (a digest that does not match) names the file: run `akosha fsck --read-data`. The source was not touched.
3. Everything else heals with the next night, or clear the run.
"""


@dag(
    description=__doc__,
    doc_md=DOC,
    schedule=AssetOrTimeSchedule(timetable=CronDataIntervalTimetable("30 4 * * *", timezone="UTC"), assets=[WARM]),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=12),
    default_args=default_args(execution_timeout=timedelta(hours=4)),
    on_failure_callback=FailureNotice(),
    params=move_params(),
    tags=["akosha", "warm", "cold"],
)
def akosha_warm_to_cold() -> None:
    @task(pool="akosha_move")
    def plan() -> list[dict[str, object]]:
        from akosha import jobs

        context = get_current_context()
        params = context["params"]
        with library_errors():
            return hand_out(
                jobs.plan_move(
                    lake_run_id(context),
                    "warm-to-cold",
                    as_of=as_of(context),
                    system=params["system"],
                    shard=params["shard"],
                    dry_run=params["dry_run"],
                    force=params["force"],
                    continues=params["continues"],
                )
            )

    carry_out(plan(), work="move", pool="akosha_move", asset=COLD, announce_when=all_moved) >> GoOn(pool="akosha_move")


akosha_warm_to_cold()
