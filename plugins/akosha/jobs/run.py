"""Running a plan: batch by batch, by Airflow's mapped tasks or by the command line's own processes."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Final

from akosha.embedding.source import progress_log
from akosha.errors import PermanentError, WorkerLostError
from akosha.jobs import embed, ingest, maintain, moves, promote, undo, validation
from akosha.jobs.estimates import lines, spent
from akosha.jobs.plans import Plan, Result, Summary, open_lake, read_plan, require_all_batches, write_summary
from akosha.jobs.stopping import stoppable
from akosha.lake.documents import Document
from akosha.uploads.sandbox import keep_reading_process

log = logging.getLogger(__name__)

JOBS: Final[dict[str, ModuleType]] = {
    ingest.JOB: ingest,
    embed.JOB: embed,
    moves.HOT_TO_WARM: moves,
    moves.WARM_TO_COLD: moves,
    validation.JOB: validation,
    undo.UNDO: undo,
    undo.RELEASE: undo,
    promote.OPERATION: promote,
    maintain.JOB: maintain,
}
# Embedding computes on one core; a process of its own costs 2.5 CPU-s, as much as 50 texts.
PARALLEL_WEIGHT: Final = {ingest.JOB: 16_000, embed.JOB: 1_024, moves.HOT_TO_WARM: 20_000, moves.WARM_TO_COLD: 20_000}


def run_batch(plan_key: str, batch: int) -> Result:
    """Do one batch of a plan. Safe to repeat: what is done already is found done. SIGTERM ends it between two commits.

    Returns:
        JSON: the batch's number and one outcome per shard.
    """
    started = time.monotonic()
    lake = open_lake()
    plan = read_plan(lake, plan_key)
    with stoppable():
        result: Result = JOBS[plan["job"]].run_batch(lake, plan, batch)
    requests = result.get("requests", 0) + lake.store.requests.total + lake.cold.requests.total
    took = {"seconds": round(time.monotonic() - started, 3), "requests": requests}
    log.info(
        "batch job=%s run=%s batch=%d shards=%d seconds=%.1f requests=%d",
        plan["job"], plan["run_id"], batch, len(result["shards"]), took["seconds"], requests,
    )  # fmt: skip
    return {**result, **took}


def finish(plan_key: str, results: Sequence[Result], *, declined: str = "") -> Summary:
    """Add up a run and write its summary into the lake.

    Args:
        plan_key: of the run.
        results: of its batches.
        declined: why nothing of the plan was done, when a person did not approve it; then there are no results.

    Raises:
        PermanentError: a batch did not report; the summary of the others is written first.
        IntegrityError: validation found something wrong, or the figures of an ingest do not add up.
    """
    lake = open_lake()
    plan = read_plan(lake, plan_key)
    if declined:
        return _reported(write_summary(lake, plan, {**_said_of(plan), **_declined(plan, declined)}, ()))
    shards = sorted({outcome["shard"] for result in results for outcome in result["shards"]})
    if plan["batches"] and not results:
        require_all_batches(plan, results)
    # An ingest run without uploads has counts as well: those of its listing.
    counted = results or plan["job"] == ingest.JOB
    body: Summary = JOBS[plan["job"]].summarise(lake, plan, results) if counted else _nothing_to_do(plan)
    complete = len(results) == len(plan["batches"])
    took = spent(body["counts"], seconds=_total("seconds", results), requests=int(_total("requests", results)))
    ok = body.get("ok", True) and complete
    summary = _reported(write_summary(lake, plan, {**_said_of(plan), "spent": took, **body, "ok": ok}, shards))
    require_all_batches(plan, results)
    validation.require_success(summary)
    return summary


def run_all(plan: Plan, *, progress: Callable[[str], None]) -> Summary:
    """Run every batch of a plan on this machine and finish it, as the command line does.

    Args:
        plan: as planned.
        progress: is told one line per batch.
    """
    batches = plan["batches"]
    workers = min(open_lake().settings.workers or os.cpu_count() or 1, len(batches))
    if workers < 2 or plan["weight"] < PARALLEL_WEIGHT.get(plan["job"], 1 << 60):
        results = []
        for batch in batches:
            results.append(run_batch(plan["plan_key"], batch["batch"]))
            progress(f"{len(results)}/{len(batches)} {batch['label']}")
        return finish(plan["plan_key"], results)
    return finish(plan["plan_key"], _in_processes(plan, workers, progress))


@contextmanager
def progress_shown() -> Iterator[None]:
    """Within the block, the progress lines of long jobs go to standard error, also from the processes they start."""
    handler = _show_progress()
    try:
        yield
    finally:
        progress_log.removeHandler(handler)
        progress_log.propagate = True


def _show_progress() -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("  %(message)s"))
    progress_log.addHandler(handler)
    progress_log.setLevel(logging.INFO)
    progress_log.propagate = False  # a root handler would show them a second time
    return handler


def _in_processes(plan: Plan, workers: int, progress: Callable[[str], None]) -> list[Result]:
    results: list[Result] = []
    failures: list[Exception] = []
    shown = bool(progress_log.handlers)
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(shown,)
    ) as pool:
        running = {pool.submit(run_batch, plan["plan_key"], batch["batch"]): batch for batch in plan["batches"]}
        for future in as_completed(running):
            error = future.exception()
            if error is None:
                results.append(future.result())
                progress(f"{len(results)}/{len(running)} {running[future]['label']}")
            elif isinstance(error, BrokenProcessPool):
                message = (
                    "a worker process was killed, most likely for want of memory: lower AKOSHA_WORKERS and run again"
                )
                failures.append(WorkerLostError(message, setting="AKOSHA_WORKERS"))
            elif isinstance(error, Exception):
                failures.append(error)
            else:
                raise error
    if failures:
        finish_error = _finish_partial(plan, results)
        raise failures[0] from finish_error
    return sorted(results, key=lambda result: int(result["batch"]))


def _start_worker(shown: bool) -> None:  # noqa: FBT001 - the pool passes it by position
    """A process of the pool: its batches share what is dear to start, and show progress where their starter does.

    It ends with its starter, also when that is killed: then nobody wants its results.
    """
    starter = parent_process()
    if starter is not None:
        threading.Thread(target=_end_with, args=(starter,), daemon=True).start()
    keep_reading_process()
    if shown:
        _show_progress()


def _end_with(starter: BaseProcess) -> None:
    starter.join()
    os._exit(1)


def _finish_partial(plan: Plan, results: list[Result]) -> PermanentError | None:
    """Write the summary of what was done although a batch failed; that batch's own error is raised by the caller."""
    try:
        finish(plan["plan_key"], results)
    except PermanentError as error:
        return error
    return None


def _nothing_to_do(plan: Plan) -> Summary:
    dry_run = plan["parameters"].get("dry_run", False)
    message = plan["message"] if dry_run else f"nothing to do: {plan['message']}"
    return {"message": message, "counts": {}, "rows_changed": 0}


def _declined(plan: Document, why: str) -> Summary:
    message = f"{why}; planned was: {plan['message']}"
    return {"message": message, "counts": {}, "rows_changed": 0, "declined": why, "ok": True}


def _said_of(plan: Document) -> Summary:
    """What every summary says of its plan."""
    parameters = plan["parameters"]
    estimate = {"estimate": parameters["estimate"]} if "estimate" in parameters else {}
    return {"plan": parameters, "dry_run": bool(parameters.get("dry_run", False)), **estimate}


def _total(name: str, results: Sequence[Result]) -> float:
    return sum(float(result.get(name, 0)) for result in results)


def _reported(summary: Summary) -> Summary:
    """Every number of a run in its log: one line, and those of the estimate when it is a dry run."""
    numbers = {
        **summary["counts"],
        **{f"quarantined_{reason}": count for reason, count in summary.get("quarantine_reasons", {}).items()},
        **{f"spent_{name}": value for name, value in summary.get("spent", {}).items()},
    }
    said = " ".join(f"{name}={value}" for name, value in numbers.items())
    log.info("finished job=%s run=%s message=%r %s", summary["job"], summary["run_id"], summary["message"], said)
    for line in lines(summary["estimate"]) if summary["dry_run"] and "estimate" in summary else ():
        log.info("%s", line)
    return summary
