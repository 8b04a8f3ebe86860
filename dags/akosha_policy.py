"""Another policy: what ages when, by hand."""

from __future__ import annotations

import logging
from datetime import timedelta

from airflow.sdk import Param, dag, get_current_context, task

from akosha_airflow import (
    Approval,
    FailureNotice,
    ask_approval,
    default_args,
    dry_run_param,
    library_errors,
    text_param,
)

log = logging.getLogger(__name__)

DOC = """
### What it does
Writes the next numbered policy: how long records stay in hot and warm, whether the archive keeps their full text, which
share of vectors is kept for audits, and reasons to stay: pinned records, importance, recent access, a minimum residence
after arrival. Leave a field empty to leave it as it is. With **System** the values count for that system only.

Task `plan` says what would change and how many records would move or stay on the next night. It is a *dry run* until
**Dry run** is switched off; then task `approve` waits for a person, and `write` writes the policy. The next run of each job
uses it; runs at work keep the policy they were planned under, and every commit names its policy.

### Is a re-run safe?
Yes. A policy that says so already is not written again. If somebody else has written one since it was planned, `write` fails
and asks to look again.

### On failure
1. Open the red task and read its last line: it names the field, what was found and what may be said.
2. `write` red with *another policy*: trigger the DAG again with the same form.
3. To take a change back, trigger it with the old values: `akosha policy show --number N` prints any earlier policy.
   What has moved meanwhile stays where it is: `akosha_promote` brings records back.
"""

FIELDS = ["hot_days", "warm_days", "archive", "audit_share", "min_residence_days", "importance_at_least",
          "importance_days", "access_days"]  # fmt: skip


def days_param(title: str, description: str, *, least: int = 0) -> Param:
    """A form field for a number of days, or nothing."""
    return Param(None, type=["null", "integer"], minimum=least, maximum=36_500, title=title, description=description)


def share_param(title: str, description: str) -> Param:
    """A form field for a number in 0-1, or nothing."""
    return Param(None, type=["null", "number"], minimum=0, maximum=1, title=title, description=description)


def records_param(title: str, description: str) -> Param:
    """A form field for records, one in each line."""
    return Param([], type=["null", "array"], items={"type": "string"}, title=title, description=description)


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
        "system": text_param("System", "Only for this system id; empty = the whole lake."),
        "hot_days": days_param("Hot days", "Age in days at which a record leaves hot.", least=1),
        "warm_days": days_param("Warm days", "Age in days at which a record leaves warm.", least=1),
        "archive": Param(
            None,
            type=["null", "string"],
            enum=[None, "on", "off"],
            title="Archive",
            description="Off: what leaves hot from then on loses its full text for good.",
        ),
        "audit_share": share_param("Audit share", "Share of archived records that keep their original vector."),
        "min_residence_days": days_param(
            "Minimum residence",
            "Days a record stays in hot after it arrived, and in warm after twice as long; 0 = off.",
        ),
        "importance_at_least": share_param("Importance", "From which importance a record stays longer in hot."),
        "importance_days": days_param("Days for importance", "How many days longer; 0 = off."),
        "access_days": days_param("Days for access", "Days a record stays in its tier after an access; 0 = off."),
        "reset": Param(
            [],
            type=["null", "array"],
            items={"type": "string", "enum": FIELDS},
            examples=FIELDS,
            title="Reset",
            description="Fields that return to their default; with a system, to what holds for the lake.",
        ),
        "pin": records_param("Pin", "Records that never leave their tier: SYSTEM / TABLE / ID, one in each line."),
        "unpin": records_param("Unpin", "Records to be let go again, written the same way."),
        "delete_absent": records_param("Delete absent", "Systems of which goes away what their newest upload lacks."),
        "keep_absent": records_param("Keep absent", "Systems of which nothing goes away (the default)."),
        **dry_run_param("Only say what would change; write nothing. Off: a person approves it first.", default=True),
    },
    tags=["akosha", "policy"],
)
def akosha_policy() -> None:
    @task(pool="akosha_move")
    def plan() -> dict[str, object]:
        from akosha.jobs import policy
        from akosha.jobs.policy_said import lines

        params = get_current_context()["params"]
        with library_errors():
            answer = policy.policy_set(policy.change_of(params), dry_run=True)
        said = list(lines(answer))
        log.info("%s", "\n".join(said))
        if answer["changes"] and not params["dry_run"]:
            ask_approval(f"Policy {answer['number']}: {answer['message']}", answer["estimate"], details=said)
        return {"on": answer["on"], "number": answer["number"], "changes": bool(answer["changes"])}

    @task(pool="akosha_move")
    def write(planned: dict[str, object]) -> dict[str, object]:
        from akosha.jobs import policy

        params = get_current_context()["params"]
        if params["dry_run"] or not planned["changes"]:
            return {"written": False, **planned}
        with library_errors():
            answer = policy.policy_set(policy.change_of(params), dry_run=False, on=planned["on"])
        return {"written": True, "number": answer["number"], "message": answer["message"]}

    planned = plan()
    planned >> Approval(pool="akosha_move") >> write(planned)


akosha_policy()
