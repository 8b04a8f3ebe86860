"""What the DAG files share, and the only code besides them that knows Airflow.

The library decides, these few functions translate: Airflow's context into plain values on the way in, the library's
errors and summaries into states, retries and asset events on the way out. Nothing here imports `akosha` before a task
runs: DAG files are parsed every few seconds.
"""

from __future__ import annotations

import hashlib
import logging
import re
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Asset, AssetAlias, BaseNotifier, Context, Param, TriggerRule, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from airflow.sdk import XComArg

log = logging.getLogger(__name__)

HOT, WARM, COLD, VALIDATED = (Asset(f"akosha://{name}") for name in ("hot", "warm", "cold", "validated"))

# `finish` runs whatever became of the batches: it reports what was committed before it fails the run.
AFTER_ALL_BATCHES = TriggerRule.ALL_DONE
# Set by `label` as the first act of a mapped task: a template that cannot be rendered fails a task after its work.
MAP_LABEL = "{{ batch_label }}"
# How long an approval waits. Nobody answered = rejected.
APPROVAL_WAIT = timedelta(hours=24)
# What an asset event tells besides the counts, where a summary has it.
_TOLD = ("spent", "quarantine_reasons", "held", "left", "recall")
_ASKED, _ANSWER = "approval", "answer"


class FailureNotice(BaseNotifier):
    """One line in the log for whatever failed, with what is needed to find it. Teams subclass it to page somebody."""

    def notify(self, context: Context) -> None:
        """Log the line. `context` is that of a task instance, or of a whole run (then it has no ``exception``)."""
        task = context.get("task_instance")
        run = context.get("dag_run")
        log.error(
            "akosha failure dag=%s run=%s task=%s map_index=%s try=%s error=%s",
            run.dag_id if run else "",
            run.run_id if run else "",
            task.task_id if task else "",
            task.map_index if task else "",
            task.try_number if task else "",
            _first_line(context.get("exception") or context.get("reason") or ""),
        )


def _first_line(error: object) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def default_args(*, execution_timeout: timedelta) -> dict[str, Any]:
    """Arguments of every task of a DAG: two retries, 60 s and 120 s apart, and a notice when they are used up.

    Args:
        execution_timeout: the longest one task may take. Cut off, it is retried; what it has committed stays.
    """
    return {
        "owner": "akosha",
        "retries": 2,
        "retry_delay": timedelta(seconds=60),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=10),
        "execution_timeout": execution_timeout,
        "on_failure_callback": FailureNotice(),
    }


def text_param(title: str, description: str, *, most: int = 512, **schema: str) -> Param:
    """A form field for text that may stay empty. Airflow's form asks for a value wherever null is not allowed.

    A field that was cleared comes as None: read it with ``or ""``.
    """
    return Param("", type=["null", "string"], maxLength=most, title=title, description=description, **schema)


def scope_params() -> dict[str, Param]:
    """The form fields that narrow a run to one system or one shard."""
    return {
        "system": text_param("System", "Only this system id; empty = all systems."),
        "shard": Param(
            None,
            type=["null", "integer"],
            minimum=0,
            maximum=255,
            title="Shard",
            description="Only this shard, 0 to 255; empty = all shards.",
        ),
    }


def as_of_param() -> dict[str, Param]:
    """The form field for the instant that a run decides with."""
    return {
        "as_of": Param(
            None,
            type=["null", "string"],
            format="date-time",
            title="As of",
            description="Decide ages as of this instant (with its UTC offset); empty = the end of the run's data "
            "interval, or the time at which the run was due.",
        )
    }


def dry_run_param(description: str, *, default: bool = False) -> dict[str, Param]:
    """The form field for a run that only says what it would do; on by default where a run is destructive."""
    return {"dry_run": Param(default=default, type="boolean", title="Dry run", description=description)}


def move_params() -> dict[str, Param]:
    """The form fields of a move between tiers."""
    return (
        as_of_param()
        | scope_params()
        | dry_run_param("Only say which records would move, how many rows, bytes and files; commit nothing.")
        | {
            "force": Param(
                default=False,
                type="boolean",
                title="Force",
                description="Accept an 'As of' more than a day ahead of the clock. Records then age early.",
            ),
            "continues": text_param(
                "Continues",
                "Leave it empty. A run that takes the next slice of a large move names the plan it continues.",
            ),
        }
    )


def date_param(title: str, description: str) -> Param:
    """A form field for a day, or nothing."""
    return Param(None, type=["null", "string"], format="date", title=title, description=description)


def as_of(context: Context) -> str:
    """The instant this run decides with: the parameter, else the data interval's end, else when the run was due.

    Never the clock: a run that is retried or cleared decides again with the same instant.

    Returns:
        ISO 8601 with UTC offset.
    """
    chosen = context["params"].get("as_of")
    if chosen:
        return str(chosen)
    instant: datetime | None = context.get("data_interval_end") or context["dag_run"].run_after
    if instant is None:
        message = "the run has neither a data interval nor a due time: trigger it with 'as_of'"
        raise AirflowFailException(message)
    return instant.isoformat()


def backfill_interval(context: Context) -> tuple[str, str] | None:
    """Beginning and end of the data interval of a run of Airflow's own back-fill; None for every other run.

    Returns:
        ISO 8601 with UTC offset; the end is not included.
    """
    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    if context["dag_run"].run_type != "backfill" or start is None or end is None:
        return None
    return start.isoformat(), end.isoformat()


def lake_run_id(context: Context) -> str:
    """A name for this attempt to plan, safe as a path segment: one document under ``runs/`` belongs to it.

    The digest keeps apart runs whose names differ only in replaced characters; the try number keeps a cleared run
    from reading the plan of its first life.
    """
    run = context["dag_run"]
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", run.run_id)[:80]
    digest = hashlib.sha256(f"{run.dag_id}\n{run.run_id}".encode()).hexdigest()[:8]
    return f"{run.dag_id}.{readable}.{digest}.{context['task_instance'].try_number}"


@contextmanager
def library_errors() -> Iterator[None]:
    """Turn the library's errors into what Airflow should do about them.

    Raises:
        AirflowFailException: for a `PermanentError`: the task fails now, with the library's sentence.
        RetryableError: as it is: Airflow tries again. So does any error that nobody foresaw. Both name the runbook. SIGTERM
            ends the work with one (`akosha.jobs.stopping`); Airflow by itself would let the task go on until it is killed.
    """
    from akosha.errors import AkoshaError, PermanentError
    from akosha.jobs.stopping import stoppable

    try:
        with stoppable():
            yield
    except PermanentError as error:
        raise AirflowFailException(error.advice) from error
    except AkoshaError as error:
        error.add_note(f"see {error.runbook}")
        raise


def label(batch: Mapping[str, Any]) -> None:
    """Show a mapped task under its batch's name. Call it first: a task that fails earlier has no name."""
    get_current_context()["batch_label"] = batch["label"]  # type: ignore[typeddict-unknown-key]


def hand_out(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Leave the plan's key for `finish` and return its batches for mapping; ids and labels only, no data.

    Returns:
        ``[{"plan_key", "batch", "label"}]``; empty when there is nothing to do, which is a success.
    """
    log.info("plan=%s batches=%d %s", plan["plan_key"], len(plan["batches"]), plan["message"])
    ti = get_current_context()["ti"]
    ti.xcom_push("plan_key", plan["plan_key"])
    ti.xcom_push("left", plan.get("left"))
    return [{"plan_key": plan["plan_key"], "batch": part["batch"], "label": part["label"]} for part in plan["batches"]]


def planned_key(context: Context) -> str:
    """The key that `hand_out` left.

    Raises:
        AirflowFailException: planning failed, so there is nothing to finish.
    """
    key = context["task_instance"].xcom_pull(task_ids="plan", key="plan_key")
    if not key:
        message = "nothing was planned: see the log of task 'plan'"
        raise AirflowFailException(message)
    return str(key)


def outlet(asset: Asset) -> AssetAlias:
    """What a task declares when it *may* change an asset; a plain outlet would claim a change on every success."""
    return AssetAlias(f"{asset.name} changed")


def announce(asset: Asset, summary: Mapping[str, Any], context: Context) -> None:
    """Publish that an asset changed, with the run's counts; DAGs scheduled on it start."""
    extra = {
        "run_id": summary["run_id"],
        "rows_changed": summary["rows_changed"],
        "counts": summary["counts"],
        "message": summary["message"],
        **{name: summary[name] for name in _TOLD if name in summary},
    }
    context["outlet_events"][outlet(asset)].add(asset, extra=extra)


class Approval(ApprovalOperator):
    """The task ``approve``: a person approves or rejects what is planned, before anything of it is done.

    It waits only when the plan asked (`ask_approval`) and passes at once otherwise. It holds no worker and no pool slot
    while it waits. Rejected, or unanswered for `APPROVAL_WAIT`: the tasks directly after it are skipped, and `finish`,
    which is not directly after it, learns why from `declined`.
    """

    def __init__(self, *, task_id: str = "approve", after: str = "plan", **arguments: Any) -> None:  # noqa: ANN401
        arguments.setdefault("response_timeout", APPROVAL_WAIT)
        arguments.setdefault("subject", "Approve what is planned")
        super().__init__(task_id=task_id, defaults="Reject", **arguments)
        self.after = after

    def execute(self, context: Context) -> Any:  # noqa: ANN401 - of the base class
        """Wait for an answer if one is asked for."""
        asked = context["ti"].xcom_pull(task_ids=self.after, key=_ASKED)
        if not asked:
            log.info("nothing to approve: the run is no destructive one, or a dry run")
            return None
        self.subject, self.body = asked["subject"], asked["body"]
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:  # noqa: ANN401 - of the base class
        """Keep who answered, for `declined`; then go on, or skip."""
        answer = {
            "option": (event.get("chosen_options") or [self.REJECT])[0],
            "by": (event.get("responded_by_user") or {}).get("name", ""),
            "timed_out": bool(event.get("timedout")),
        }
        log.info("approval option=%(option)s by=%(by)s timed_out=%(timed_out)s", answer)
        context["ti"].xcom_push(key=_ANSWER, value=answer)
        return super().execute_complete(context, event)


def ask_approval(subject: str, estimate: Mapping[str, Any], *, details: Sequence[str] = ()) -> None:
    """Make the run's `Approval` wait for a person, and show them what would be done. Called in the task before it.

    Args:
        subject: one line, what is to be approved.
        estimate: of `akosha.jobs.estimates.estimate`: the dry run's answer.
        details: lines to be shown in its place, where they say more.
    """
    from akosha.jobs.estimates import lines

    body = "\n".join(f"- {line}" for line in details or lines(estimate))
    get_current_context()["ti"].xcom_push(key=_ASKED, value={"subject": subject, "body": body})


def declined(context: Context, *, task_id: str = "approve") -> str:
    """Why nothing was done, as one sentence; empty when it was approved or nobody had to be asked."""
    answer = context["ti"].xcom_pull(task_ids=task_id, key=_ANSWER)
    if not answer or answer["option"] == ApprovalOperator.APPROVE:
        return ""
    if answer["timed_out"]:
        return f"nothing was done: nobody approved it within {APPROVAL_WAIT.total_seconds() / 3600:.0f} hours"
    return f"nothing was done: rejected by {answer['by'] or 'an operator'}"


def rows_changed(summary: Mapping[str, Any]) -> bool:
    """Whether a run changed rows."""
    return bool(summary["rows_changed"])


def always(summary: Mapping[str, Any]) -> bool:
    """Every run announces: it has something to say even when nothing changed."""
    del summary
    return True


def all_moved(summary: Mapping[str, Any]) -> bool:
    """Whether a move has nothing left, also when nothing was old enough: the next step of the night may begin."""
    return not summary["dry_run"] and not summary.get("left")


def carry_out(
    planned: XComArg,
    *,
    work: str,
    pool: str,
    asset: Asset | None = None,
    announce_when: Callable[[Mapping[str, Any]], bool] = rows_changed,
    approve: Approval | None = None,
) -> XComArg:
    """The rest of a DAG after its `plan`: one mapped task for each batch, then `finish`, which sums up.

    Args:
        planned: what `hand_out` returned in task ``plan``.
        work: name of the mapped task.
        pool: of both.
        asset: what a run may change.
        announce_when: whether a run with this summary announces the asset.
        approve: must pass before the batches start.

    Returns:
        the mapped task.
    """

    @task(task_id=work, pool=pool, map_index_template=MAP_LABEL)
    def run_batch(batch: dict[str, Any]) -> dict[str, Any]:
        label(batch)
        from akosha import jobs

        with library_errors():
            return jobs.run_batch(batch["plan_key"], batch["batch"])

    @task(pool=pool, trigger_rule=AFTER_ALL_BATCHES, outlets=[outlet(asset)] if asset else [])
    def finish(results: Sequence[dict[str, Any]] | None) -> dict[str, Any]:
        from akosha import jobs

        context = get_current_context()
        with library_errors():
            refusal = declined(context) if approve else ""
            summary = jobs.finish(planned_key(context), list(results or []), declined=refusal)
        if asset and announce_when(summary):
            announce(asset, summary, context)
        return summary

    done = run_batch.expand(batch=planned)
    if approve is not None:
        planned >> approve >> done
    planned >> finish(done)
    return done


class GoOn(TriggerDagRunOperator):
    """The task ``go_on``: another run of the same DAG, at once, when the plan has left a part of the move to it.

    It follows the batches whatever became of them, and `finish` not at all: a shard that cannot be moved must not keep the
    others waiting, and its run is red all the same. Each slice takes something, so that there is a last one.
    """

    operator_extra_links = ()  # its link to the new run is an error in the log of every run that has none

    def __init__(self, **arguments: Any) -> None:  # noqa: ANN401
        super().__init__(
            task_id="go_on",
            trigger_dag_id="{{ dag.dag_id }}",
            logical_date=None,
            skip_when_already_exists=True,
            trigger_rule=AFTER_ALL_BATCHES,
            **arguments,
        )

    def execute(self, context: Context) -> None:
        """Trigger the run, or find that nothing is left."""
        left = context["ti"].xcom_pull(task_ids="plan", key="left")
        if not left:
            log.info("nothing is left to another run")
            return
        params = context["params"]
        self.conf = {
            "as_of": as_of(context),
            "continues": planned_key(context),
            **{name: params[name] for name in ("system", "shard", "force")},
        }
        origin = re.sub(r"^slice_\d+__", "", context["run_id"])
        self.trigger_run_id = f"slice_{left['slice'] + 1}__{origin}"
        log.info("go_on run=%s left=%s", self.trigger_run_id, left)
        super().execute(context)


def move(kind: str, asset: Asset) -> None:
    """All tasks of a DAG that moves records between two tiers: `kind` is ``hot-to-warm`` or ``warm-to-cold``."""

    @task(pool="akosha_move")
    def plan() -> list[dict[str, Any]]:
        from akosha import jobs

        context = get_current_context()
        chosen = {name: context["params"][name] for name in ("shard", "dry_run", "force")}
        chosen |= {name: context["params"][name] or "" for name in ("system", "continues")}
        with library_errors():
            return hand_out(jobs.plan_move(lake_run_id(context), kind, as_of=as_of(context), **chosen))

    moved = carry_out(plan(), work="move", pool="akosha_move", asset=asset, announce_when=all_moved)
    moved >> GoOn(pool="akosha_move")
