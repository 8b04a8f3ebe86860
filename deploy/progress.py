"""Following a DAG run: what a person sees while it works, and what went wrong when it failed."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Task = dict[str, Any]
_ENDED = {"success", "failed", "upstream_failed", "skipped", "removed"}
_WORDS = {
    None: "waiting",
    "scheduled": "waiting",
    "queued": "waiting",
    "up_for_retry": "to be retried",
    "upstream_failed": "not run",
}


@dataclass(slots=True)
class Screen:
    """Lines for a terminal, where the last one may be replaced; elsewhere every change is a line of its own."""

    out: TextIO = field(default_factory=lambda: sys.stdout)
    _live: str = ""

    def line(self, text: str = "") -> None:
        """Print a line that stays."""
        self._clear()
        print(text, file=self.out, flush=True)

    def live(self, head: str, text: str) -> None:
        """Show the state of something; the clock in ``head`` alone is no change."""
        if self.out.isatty():
            shown = f"{head}{text}"
            self._clear()
            print(shown[: shutil.get_terminal_size().columns - 1], end="", file=self.out, flush=True)
            self._live = shown
        elif text != self._live:
            print(f"{head}{text}", file=self.out, flush=True)
            self._live = text

    def _clear(self) -> None:
        if self._live and self.out.isatty():
            print("\r\x1b[K", end="", file=self.out)
        self._live = ""


def describe(tasks: Sequence[Task]) -> str:
    """One line about a run: single tasks by state, mapped ones counted.

    Args:
        tasks: task instances as the REST API returns them.
    """
    by_name: dict[str, list[Task]] = {}
    for task in sorted(tasks, key=lambda task: task["start_date"] or "9"):
        by_name.setdefault(task["task_id"], []).append(task)
    # The order of a run, whatever has a start date: plan first, finish last.
    names = sorted(by_name, key=lambda name: (name == "finish", name != "plan"))
    return " · ".join(_describe(name, by_name[name]) for name in names)


def _describe(name: str, tasks: Sequence[Task]) -> str:
    states = Counter(_WORDS.get(task["state"], task["state"]) for task in tasks)
    if len(tasks) == 1 and tasks[0]["map_index"] < 0:
        state = next(iter(states))
        return f"{name} {'ok' if state == 'success' else 'nothing to do' if state == 'skipped' else state}"
    done = states.pop("success", 0)
    others = "".join(f", {count} {state}" for state, count in states.items() if state != "waiting")
    return f"{name} {done} of {len(tasks)}{others}"


def troubled(tasks: Sequence[Task]) -> list[Task]:
    """Tasks of which an attempt failed, those that others pulled down left out."""
    return [task for task in tasks if task["state"] in {"failed", "up_for_retry"}]


def explain(task: Task, logs: Path) -> str:
    """Which task it was, the first line of its error, and where its log is.

    Args:
        task: a task instance as the REST API returns it.
        logs: Airflow's log folder.
    """
    name = task["task_id"] + (f" [{task['rendered_map_index'] or task['map_index']}]" if task["map_index"] >= 0 else "")
    log = _log(task, logs)
    again = "; Airflow tries again" if task["state"] == "up_for_retry" else ""
    return (
        f"    {task['dag_id']}: {name} failed (attempt {task['try_number']}{again})\n"
        f"      {_error(log) if log else 'no log was written: the task did not start'}\n"
        f"      log: {log or logs}"
    )


def _log(task: Task, logs: Path) -> Path | None:
    folder = logs / f"dag_id={task['dag_id']}" / f"run_id={task['dag_run_id']}" / f"task_id={task['task_id']}"
    if task["map_index"] >= 0:
        folder /= f"map_index={task['map_index']}"
    log = folder / f"attempt={task['try_number']}.log"
    return log if log.exists() else None


def _error(log: Path) -> str:
    """The first line of the last error in a log, whose lines are JSON objects."""
    found = ""
    for line in log.read_text(errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event.get("error_detail"):
            # The first is the error itself, those behind it are its causes.
            detail = event["error_detail"][0]
            found = f"{detail['exc_type']}: {next(iter(str(detail['exc_value']).splitlines()), '')}"
        elif event.get("level") in {"error", "critical"} and not found:
            found = str(event.get("event", ""))
    return found or "the log names no error"


def finished(tasks: Sequence[Task]) -> bool:
    """Whether every task of the run has ended."""
    return bool(tasks) and all(task["state"] in _ENDED for task in tasks)


def clock(since: float) -> str:
    """Seconds since a `time.monotonic` value, right-aligned."""
    return f"{time.monotonic() - since:4.0f} s"
