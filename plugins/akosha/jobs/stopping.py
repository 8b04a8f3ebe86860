"""Stopping on SIGTERM, or when the time limit of a task is over: abandon the current shard cleanly instead of working on until the kill comes.

Airflow hands a SIGTERM to the task's process and gives it seconds; a task that ignores it is killed with SIGKILL. Here the
first SIGTERM raises in the main thread, wherever it is: context managers discard what was staged, the reading process of an
upload ends, and nothing is half done, because only a commit makes anything visible. A commit that was being put is left
as it is: its files stay until the sweep knows its outcome.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import active_children
from types import FrameType
from typing import Any

from akosha.errors import StoppedError


class _Stop(BaseException):
    """Not an `Exception`: libraries that retry or translate whatever fails must let it pass."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block the first SIGTERM ends the work. Outside of the main thread, or within another block, it does nothing.

    A library may put its own error in the place of one that a signal raised in it: DuckDB turns Airflow's timeout into
    "invalid input", which reads like damage. Whatever comes out after a signal is therefore the signal's doing.

    Raises:
        StoppedError: SIGTERM came, or the time limit of the caller (SIGALRM) was over; the work may be repeated.
    """
    if threading.current_thread() is not threading.main_thread() or _Handler.installed:
        yield
        return
    handler, alarm = _Handler(), _Alarm(signal.getsignal(signal.SIGALRM))
    before = signal.signal(signal.SIGTERM, handler)
    timed = callable(alarm.before)
    if timed:
        signal.signal(signal.SIGALRM, alarm)
    _Handler.installed = True
    try:
        yield
    except BaseException as error:
        cause = "SIGTERM" if handler.stopped else "the time limit of the task" if alarm.rung else ""
        # An error that is no `Exception` can only be the signal's own: the caller knows it.
        if cause and (handler.stopped or isinstance(error, Exception)) and not isinstance(error, StoppedError):
            message = f"stopped by {cause}: what was committed stays, the shard at work is as it was; run again"
            raise StoppedError(message) from error
        raise
    finally:
        _Handler.installed = False
        signal.signal(signal.SIGTERM, before)
        if timed:
            signal.signal(signal.SIGALRM, alarm.before)


class _Alarm:
    """Notes that the alarm went off, and does what was to be done then."""

    def __init__(self, before: Any) -> None:  # noqa: ANN401 - what `signal.getsignal` returns
        self.before = before
        self.rung = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.rung = True
        self.before(number, frame)


class _Handler:
    """Raises once; a second SIGTERM must not interrupt the cleaning up after the first."""

    installed = False

    def __init__(self) -> None:
        self.stopped = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.stopped:
            return
        self.stopped = True
        for worker in active_children():
            worker.terminate()
        raise _Stop
