"""Every night, last of all: what nobody needs any more goes, and a share of all bytes is read again."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import AssetOrTimeSchedule, CronDataIntervalTimetable, dag, get_current_context, task

from akosha_airflow import (
    VALIDATED,
    FailureNotice,
    carry_out,
    default_args,
    dry_run_param,
    hand_out,
    lake_run_id,
    library_errors,
    scope_params,
)

DOC = """
### What it does
**Sweeps** every shard: versions that ended more than `AKOSHA_RETAIN_DAYS` ago go, and with them the files that only they
named; files that killed writers left behind go, too. A file is first *condemned* by a commit of its own and deleted
`AKOSHA_SWEEP_GRACE_HOURS` later, by a later run. A shard that is held after an undo is left alone.

Then it **scrubs**: it reads today's share of all stored bytes again, so that each is read once within
`AKOSHA_SCRUB_DAYS`.

It starts when `akosha_validate` has announced `akosha://validated`, and at 06:30 UTC in any case. It never waits for a
person. A *dry run* only says what would go, and does not scrub.

### Is a re-run safe?
Yes, at any time, also after a kill: each step stands by itself, and the next run does the rest.

### On failure
1. Open the red task and read its last line.
2. *Damage*: the message names the object, what is recoverable and the command that recovers it. Nothing that was damaged
   was deleted.
3. Everything else heals with the next night, or clear the run.
"""


@dag(
    description=__doc__,
    doc_md=DOC,
    schedule=AssetOrTimeSchedule(timetable=CronDataIntervalTimetable("30 6 * * *", timezone="UTC"), assets=[VALIDATED]),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=12),
    default_args=default_args(execution_timeout=timedelta(hours=4)),
    on_failure_callback=FailureNotice(),
    params=scope_params() | dry_run_param("Only say which versions and files would be condemned and deleted."),
    tags=["akosha", "quality"],
)
def akosha_maintain() -> None:
    @task(pool="akosha_validate")
    def plan() -> list[dict[str, object]]:
        from akosha import jobs

        context = get_current_context()
        params = context["params"]
        with library_errors():
            return hand_out(
                jobs.plan_maintain(
                    lake_run_id(context),
                    system=params["system"] or "",
                    shard=params["shard"],
                    dry_run=params["dry_run"],
                )
            )

    carry_out(plan(), work="sweep", pool="akosha_validate")


akosha_maintain()
