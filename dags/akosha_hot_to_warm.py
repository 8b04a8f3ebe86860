"""Records past their hot days move to warm, every night."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronDataIntervalTimetable, dag, get_current_context, task

from akosha_airflow import (
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
Moves records older than `AKOSHA_HOT_DAYS` from **hot** to **warm**: vectors become 8-bit codes, the three-sentence
summary stays beside them, the full text goes into the archive. Each move is staged, read back and compared; only then
one commit per shard swaps both tiers. Before a group of shards is committed, a sample of queries must still find what
they found before (`AKOSHA_RECALL_FLOOR`).

Age is decided by *As of*, by default the end of the data interval. When it is done it announces `akosha://warm`, which
starts `akosha_warm_to_cold`.

### Is a re-run safe?
Yes, at any time, also after a kill: what was not committed is invisible, what was committed is not moved again. A *dry
run* commits nothing.

### On failure
1. Open the red task and read its last line.
2. *A refused recall gate* means that nothing of that group was committed and search still reads the records in hot.
   It needs a person: look at `akosha validate` before you lower the floor.
3. *Damage* (a digest that does not match) names the file: run `akosha fsck --read-data`. The source was not touched.
4. Everything else heals with the next night, or clear the run.
"""


@dag(
    description=__doc__,
    doc_md=DOC,
    schedule=CronDataIntervalTimetable("30 2 * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=12),
    default_args=default_args(execution_timeout=timedelta(hours=4)),
    on_failure_callback=FailureNotice(),
    params=move_params(),
    tags=["akosha", "hot", "warm"],
)
def akosha_hot_to_warm() -> None:
    @task(pool="akosha_move")
    def plan() -> list[dict[str, object]]:
        from akosha import jobs

        context = get_current_context()
        params = context["params"]
        with library_errors():
            return hand_out(
                jobs.plan_move(
                    lake_run_id(context),
                    "hot-to-warm",
                    as_of=as_of(context),
                    system=params["system"],
                    shard=params["shard"],
                    dry_run=params["dry_run"],
                    force=params["force"],
                    continues=params["continues"],
                )
            )

    carry_out(plan(), work="move", pool="akosha_move", asset=WARM, announce_when=all_moved) >> GoOn(pool="akosha_move")


akosha_hot_to_warm()
