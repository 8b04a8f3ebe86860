"""Uploads become records in hot, every 15 minutes."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronDataIntervalTimetable, Param, dag, get_current_context, task

from akosha_airflow import (
    HOT,
    FailureNotice,
    as_of,
    backfill_interval,
    carry_out,
    default_args,
    dry_run_param,
    hand_out,
    lake_run_id,
    library_errors,
    scope_params,
)
from akosha_events import or_when_uploads_arrive, woken_systems

DOC = """
### What it does
Finds uploads that no earlier run has dealt with, reads each one in a locked-down process, and commits its new and
changed records to the tier **hot**. `plan` discovers and groups the shards, one mapped `ingest` works through each
group, `finish` sums up. It takes everything that is due, whatever its data interval: a missed run needs no back-fill.
One huge system does not hold up the others: a run takes a bounded share of each, and what it leaves is the *backlog*,
which the message and the counts name and the next run goes on with.

A run of Airflow's own back-fill takes the uploads made in its data interval, and those again that were dealt with.

An upload that breaks its contract goes to quarantine with a reason; the others are unaffected and the run is green and
says so. `akosha quarantine list` shows them.

### Is a re-run safe?
Yes, at any time. An upload is applied in one commit or not at all; what is already applied is recognised and left
alone.

### On failure
1. Open the red task and read its last line: it says what was expected, what was found and what to do.
2. A refused setting, bucket or credential names the variable to change: `akosha doctor` checks them all.
3. The next run takes up whatever is left by itself. Clear the run if you do not want to wait for it.
"""


@dag(
    description=__doc__,
    doc_md=DOC,
    schedule=or_when_uploads_arrive(CronDataIntervalTimetable("*/15 * * * *", timezone="UTC")),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=6),
    default_args=default_args(execution_timeout=timedelta(hours=2)),
    on_failure_callback=FailureNotice(),
    params=scope_params()
    | {
        "listing": Param(
            "auto",
            enum=["auto", "recent", "full"],
            type="string",
            title="Listing",
            description="Which part of the bucket to list: auto is full in the first run of a day (UTC) and recent "
            "otherwise; recent = where new uploads appear, of systems at their turn; full = all.",
        )
    }
    | dry_run_param("Only say which uploads would be taken in, how many and how large; commit nothing."),
    tags=["akosha", "hot"],
)
def akosha_ingest() -> None:
    @task(pool="akosha_ingest")
    def plan() -> list[dict[str, object]]:
        from akosha import jobs

        context = get_current_context()
        params, interval = context["params"], backfill_interval(context)
        system, shard = params["system"] or "", params["shard"]
        with library_errors():
            if interval:
                systems = [system] if system else []
                return hand_out(
                    jobs.plan_backfill(
                        lake_run_id(context),
                        systems=systems,
                        shard=shard,
                        between=interval,
                        force=True,
                        dry_run=params["dry_run"],
                    )
                )
            return hand_out(
                jobs.plan_ingest(
                    lake_run_id(context),
                    system=system,
                    shard=shard,
                    listing=params["listing"],
                    wake=woken_systems(context),
                    at=as_of(context),
                    dry_run=params["dry_run"],
                )
            )

    carry_out(plan(), work="ingest", pool="akosha_ingest", asset=HOT)


akosha_ingest()
