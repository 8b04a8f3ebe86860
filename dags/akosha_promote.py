"""Aged records come back to hot, by hand."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag, get_current_context, task

from akosha_airflow import (
    HOT,
    FailureNotice,
    carry_out,
    date_param,
    default_args,
    dry_run_param,
    hand_out,
    lake_run_id,
    library_errors,
    text_param,
)

DOC = """
### What it does
Brings records that are warm or cold **back to hot**, with their full text from the archive, and holds them there for
*Hold days*. Where the archive kept the original vector it comes back as well; other records are embedded anew, at once
when they are few, else by `akosha_embed`. The summary of the run says how many of each.

Name the records by a system and the days they were created on, or one by one.

### Is a re-run safe?
Yes. What is in hot already stays as it is; one commit per shard moves the rest, or nothing.

### On failure
1. Open the red task and read its last line.
2. *The archive has no text of …*: damage, and nothing was promoted; the message names the records and what to do. What was never
   archived is no failure: it stays where it is, and the summary names it.
3. Otherwise trigger it again with the same form.
"""


@dag(
    description=__doc__,
    doc_md=DOC,
    schedule=None,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=12),
    default_args=default_args(execution_timeout=timedelta(hours=4)),
    on_failure_callback=FailureNotice(),
    params={
        "system": text_param("System", "All aged records of this system id."),
        "from_date": date_param("From", "Of these only records created on this day (UTC) or later; empty = from the first."),
        "until_date": date_param("Until", "Of these only records created on this day (UTC) or earlier; empty = all."),
        "keys": text_param(
            "Records",
            "Instead of a system: one record on each line, as system, table and id, separated by tabs or ' / '.",
            most=1_048_576,
            format="multiline",
        ),
        "hold_days": Param(
            30, type="integer", minimum=1, maximum=36_500, title="Hold days",
            description="For so many days no move takes them down again.",
        ),
        **dry_run_param("Only say which records would come back, how many and how large; commit nothing."),
    },
    tags=["akosha", "hot"],
)  # fmt: skip
def akosha_promote() -> None:
    @task(pool="akosha_move")
    def plan() -> list[dict[str, object]]:
        from akosha import jobs

        context = get_current_context()
        params = context["params"]
        lines = [line.strip("\r\n") for line in (params["keys"] or "").splitlines() if line.strip()]
        with library_errors():
            return hand_out(
                jobs.plan_promote(
                    lake_run_id(context),
                    keys=[line.split("\t" if "\t" in line else " / ", 2) for line in lines],
                    system=params["system"] or "",
                    between=(params["from_date"], params["until_date"]),
                    hold_days=params["hold_days"],
                    dry_run=params["dry_run"],
                )
            )

    carry_out(plan(), work="promote", pool="akosha_move", asset=HOT)


akosha_promote()
