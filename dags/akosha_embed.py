"""Records that arrived without a vector get one, while they are hot."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import AssetOrTimeSchedule, CronDataIntervalTimetable, Param, dag, get_current_context, task

from akosha_airflow import (
    HOT,
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
Fills the missing vectors of hot records with the pinned embedding model. It starts when an ingest changed something,
and once a night before the moves for whatever a budget or a failure left over. Vectors that came with uploads are judged by
a sample of each system and replaced where they are of another model. Where there is nothing to do no model is loaded. A record without a vector is already stored, exportable and found by its words.

### Is a re-run safe?
Yes. Each shard commits every 1,024 records, records that have a vector are left alone, and a run that stops early goes on where it
stopped.

### On failure
1. Open the red task and read its last line. A model whose weights do not match the pinned SHA-256 is refused: run
   `make setup` again, then `akosha doctor`.
2. Trigger the DAG again. Records wait in hot for their vector for `AKOSHA_VECTOR_WAIT_DAYS` past their line.
"""


@dag(
    description=__doc__,
    doc_md=DOC,
    schedule=AssetOrTimeSchedule(timetable=CronDataIntervalTimetable("30 1 * * *", timezone="UTC"), assets=[HOT]),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=6),
    default_args=default_args(execution_timeout=timedelta(hours=2)),
    on_failure_callback=FailureNotice(),
    params=scope_params()
    | {
        "budget_seconds": Param(
            None,
            type=["null", "number"],
            minimum=1,
            maximum=7200,
            title="Budget in seconds",
            description="Stop this run so long after its plan, all tasks together; empty = AKOSHA_EMBED_BUDGET_SECONDS.",
        )
    }
    | dry_run_param("Only say how many vectors are missing and what filling them would take; commit nothing."),
    tags=["akosha", "hot"],
)
def akosha_embed() -> None:
    @task(pool="akosha_embed")
    def plan() -> list[dict[str, object]]:
        from akosha import jobs

        context = get_current_context()
        params = context["params"]
        with library_errors():
            return hand_out(
                jobs.plan_embed(
                    lake_run_id(context),
                    system=params["system"] or "",
                    shard=params["shard"],
                    budget_seconds=params["budget_seconds"],
                    dry_run=params["dry_run"],
                )
            )

    # No asset event: new vectors are no new rows, and an event on hot would start this DAG again.
    carry_out(plan(), work="embed", pool="akosha_embed")


akosha_embed()
