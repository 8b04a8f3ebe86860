"""Shards return to an earlier version, and are let go again, by hand."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag, get_current_context, task

from akosha_airflow import (
    Approval,
    FailureNotice,
    ask_approval,
    carry_out,
    default_args,
    dry_run_param,
    hand_out,
    lake_run_id,
    library_errors,
    scope_params,
    text_param,
)

DOC = """
### What it does
*Undo* returns shards to a **retained version**: by *Run* (the commits of one run, where they are the newest), by *To
time*, or one shard by *To version*. It is one more commit: it names what it took back, and **holds** the shard. While a
shard is held nothing else writes to it: ingestion, embedding and moves go on with the others, say so, and lose nothing.

*Release* lets held shards go. The uploads of the undone commits then count as new and are taken in again; *release, set
uploads aside* puts them into quarantine instead, where they can be replayed.

A run only says what it would do until **Dry run** is switched off. Then an undo waits for a person to approve it.

### Is a re-run safe?
Yes. What is undone or let go already is found so.

### On failure
1. Open the red task and read its last line.
2. *Not retained any more*, *one of its files is gone*: the version is too old (`AKOSHA_RETAIN_DAYS`); choose a newer one.
3. *Has moved on*: others have committed since; trigger it again and look at what would be undone now.
"""


@dag(
    description=__doc__,
    doc_md=DOC,
    schedule=None,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=48),
    default_args=default_args(execution_timeout=timedelta(hours=2)),
    on_failure_callback=FailureNotice(),
    params={
        "action": Param(
            "undo",
            enum=["undo", "release", "release, set uploads aside"],
            type="string",
            title="Action",
            description="Return shards to an earlier version, or let shards go that are held after that.",
        ),
        **scope_params(),
        "run": text_param("Run", "Undo the commits of this run, by its name below runs/ in the lake."),
        "to_time": Param(
            None, type=["null", "string"], format="date-time", title="To time",
            description="Undo everything committed after this instant (with its UTC offset).",
        ),
        "to_version": Param(
            None, type=["null", "integer"], minimum=0, title="To version",
            description="Return the shard or the system's shard named above to this version.",
        ),
        "reason": text_param("Reason", "A sentence for whoever finds the shards held.", most=1_000),
        **dry_run_param("Only say which commits, uploads and records are concerned; commit nothing.", default=True),
    },
    tags=["akosha", "hot", "warm", "cold"],
)  # fmt: skip
def akosha_undo() -> None:
    @task(pool="akosha_move")
    def plan() -> list[dict[str, object]]:
        from akosha import jobs

        context = get_current_context()
        params = context["params"]
        scope = {"shard": params["shard"], "system": params["system"] or "", "dry_run": params["dry_run"]}
        with library_errors():
            if params["action"] != "undo":
                return hand_out(jobs.plan_release(lake_run_id(context), **scope, skip=params["action"] != "release"))
            planned = jobs.plan_undo(
                lake_run_id(context),
                **scope,
                to_version=params["to_version"],
                to_time=params["to_time"],
                run=params["run"] or "",
                reason=params["reason"] or "",
            )
        if planned["batches"] and not params["dry_run"]:
            ask_approval(f"Undo: {planned['message']}", planned["estimate"])
        return hand_out(planned)

    carry_out(plan(), work="undo", pool="akosha_move", approve=Approval(pool="akosha_move"))


akosha_undo()
