"""Stopping on SIGTERM: abandon the current shard cleanly instead of working on until the kill comes.

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

from akosha.errors import StoppedError


class _Stop(BaseException):
    """Not an `Exception`: libraries that retry or translate whatever fails must let it pass."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block the first SIGTERM ends the work. Outside of the main thread, or within another block, it does nothing.

    Raises:
        StoppedError: SIGTERM came; the work may be repeated.
    """
    if threading.current_thread() is not threading.main_thread() or _Handler.installed:
        yield
        return
    handler = _Handler()
    before = signal.signal(signal.SIGTERM, handler)
    _Handler.installed = True
    try:
        yield
    except BaseException as error:
        if handler.stopped and not isinstance(error, StoppedError):
            # Whatever came out of it: a library may have put its own error in the place of ours.
            message = "stopped by SIGTERM: what was committed stays, the shard at work is as it was; run again"
            raise StoppedError(message) from error
        raise
    finally:
        _Handler.installed = False
        signal.signal(signal.SIGTERM, before)


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
