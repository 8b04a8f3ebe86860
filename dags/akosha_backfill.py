"""Uploads of chosen systems and dates once more, by hand."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag, get_current_context, task

from akosha_airflow import (
    HOT,
    Approval,
    FailureNotice,
    ask_approval,
    carry_out,
    date_param,
    default_args,
    hand_out,
    lake_run_id,
    library_errors,
    text_param,
)

DOC = """
### What it does
Takes in the uploads of the systems and dates in the form, whatever the schedule and the limits of a run say. Without
**Force** these are uploads that no run has dealt with; with it also those that were applied, held nothing new, or are in
quarantine: after an undo, a repaired reader, a lost memo.

A forced run is a dry run: it says how many uploads, bytes, requests and minutes it would take. With **Dry run** set to
*no* it plans, shows the same estimate under *Required Actions* and waits a day for a person to approve or reject it.
Rejected, or not answered: nothing is done, the run is green and says so.

To repeat what `akosha_ingest` did at certain dates, Airflow's own back-fill of that DAG does the same.

### Is a re-run safe?
Yes. Ingestion compares every record with what the lake holds: an upload that brings nothing new ends as *unchanged* and
publishes no commit. An older upload never replaces a newer text.

### On failure
1. Open the red task and read its last line: it says what was expected, what was found and what to do.
2. Trigger it again with the same form, or only the systems that are left: what was taken in is recognised.
"""


@dag(
    description=__doc__,
    doc_md=DOC,
    schedule=None,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=48),
    default_args=default_args(execution_timeout=timedelta(hours=12)),
    on_failure_callback=FailureNotice(),
    params={
        "systems": text_param(
            "Systems", "Only these system ids, separated by commas; empty = all systems.", most=16_384
        ),
        "from_date": date_param("From", "Only uploads of this day (UTC) or later; empty = from the first."),
        "until_date": date_param("Until", "Only uploads of this day (UTC) or earlier; empty = up to the last."),
        "force": Param(
            default=False,
            type="boolean",
            title="Force",
            description="Also take in again what earlier runs have dealt with, and what is in quarantine.",
        ),
        "dry_run": Param(
            "when forced",
            enum=["when forced", "yes", "no"],
            type="string",
            title="Dry run",
            description="Only say which uploads would be taken in, how many and how large; commit nothing.",
        ),
    },
    tags=["akosha", "hot"],
)
def akosha_backfill() -> None:
    @task(pool="akosha_ingest")
    def plan() -> list[dict[str, object]]:
        from akosha import jobs

        context = get_current_context()
        params = context["params"]
        with library_errors():
            planned = jobs.plan_backfill(
                lake_run_id(context),
                systems=[name.strip() for name in (params["systems"] or "").split(",") if name.strip()],
                between=(params["from_date"], params["until_date"]),
                force=params["force"],
                dry_run={"yes": True, "no": False}.get(params["dry_run"]),
            )
        if params["force"] and planned["batches"]:
            ask_approval(f"Forced back-fill: {planned['message']}", planned["estimate"])
        return hand_out(planned)

    carry_out(plan(), work="ingest", pool="akosha_ingest", asset=HOT, approve=Approval(pool="akosha_ingest"))


akosha_backfill()
