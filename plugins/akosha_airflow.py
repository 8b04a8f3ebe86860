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

from airflow.sdk import Asset, AssetAlias, BaseNotifier, Context, Param, TriggerRule, get_current_context
from airflow.sdk.exceptions import AirflowFailException

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

log = logging.getLogger(__name__)

HOT, WARM, COLD, VALIDATED = (Asset(f"akosha://{name}") for name in ("hot", "warm", "cold", "validated"))

# `finish` runs whatever became of the batches: it reports what was committed before it fails the run.
AFTER_ALL_BATCHES = TriggerRule.ALL_DONE
# Set by `label` as the first act of a mapped task: a template that cannot be rendered fails a task after its work.
MAP_LABEL = "{{ batch_label }}"


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


def scope_params() -> dict[str, Param]:
    """The form fields that narrow a run to one system or one shard."""
    return {
        "system": Param(
            "", type="string", maxLength=512, title="System", description="Only this system id; empty = all systems."
        ),
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


def move_params() -> dict[str, Param]:
    """The form fields of a move between tiers."""
    return (
        as_of_param()
        | scope_params()
        | {
            "dry_run": Param(
                default=False,
                type="boolean",
                title="Dry run",
                description="Only say which records would move, how many rows, bytes and files; commit nothing.",
            ),
            "force": Param(
                default=False,
                type="boolean",
                title="Force",
                description="Accept an 'As of' more than a day ahead of the clock. Records then age early.",
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
        RetryableError: as it is: Airflow tries again. So does any error that nobody foresaw. Both name the runbook.
    """
    from akosha.errors import AkoshaError, PermanentError

    try:
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
    get_current_context()["task_instance"].xcom_push("plan_key", plan["plan_key"])
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
    }
    context["outlet_events"][outlet(asset)].add(asset, extra=extra)
