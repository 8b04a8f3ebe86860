"""What a victim does when it comes to its n-th failpoint: die, fail, stand still."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Final

from akosha.lake import failpoints


class InjectedError(Exception):
    """A fault that no code can know."""


def _raise(error: BaseException) -> None:
    raise error


FAILURES: Final[dict[str, Callable[[], object]]] = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exception": lambda: _raise(InjectedError("injected")),
    "memory": lambda: _raise(MemoryError("injected")),
    "ENOSPC": lambda: _raise(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
    "EIO": lambda: _raise(OSError(errno.EIO, os.strerror(errno.EIO))),
    "freeze": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}


COUNTING: Final = Lock()  # points are come to by several threads


@dataclass
class Failure:
    """Counts points and does `kind` at the one numbered `at`, from 1; ``0`` only counts. `fired` names that point."""

    kind: str
    at: int
    points: int = 0
    fired: str = ""

    def __call__(self, name: str) -> None:
        with COUNTING:
            self.points += 1
            mine = self.points == self.at
        if mine:
            self.fired = name
            FAILURES[self.kind]()

    def arm(self) -> None:
        """From now on, in this process."""
        failpoints.hooks.append(self)
