"""The launcher's children: start, watch and end them. Nothing is left behind, however the launcher ends (see keeper)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import keeper

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_GRACE_SECONDS = 8.0
_TAIL_LINES = 12


class LauncherError(Exception):
    """The demo cannot go on; the message is for whoever started it."""


class Interrupted(BaseException):
    """Somebody asked the launcher to stop. Not an Exception: nothing on the way may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@dataclass(slots=True)
class Child:
    """One program under its keeper. ``log`` holds what it prints; a ``service`` is not expected to end."""

    name: str
    log: Path
    process: subprocess.Popen[bytes]
    service: bool = False

    def tail(self) -> str:
        """The last lines it printed, indented."""
        lines = self.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        return "\n".join(f"    {line}" for line in lines)


@dataclass(slots=True)
class Children:
    """Everything that the launcher has started.

    Args:
        logs: folder for what they print, one file per name.
        environment: what they find in ``os.environ``.
    """

    logs: Path
    environment: Mapping[str, str]
    running: list[Child] = field(default_factory=list)
    parent: int = field(default_factory=os.getppid)

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        variables: Mapping[str, str] | None = None,
        service: bool = False,
    ) -> Child:
        """Start a program in a process group of its own.

        Args:
            name: names it and its log.
            command: program and arguments.
            variables: put over `environment`.
            service: it is not expected to end.
        """
        log = self.logs / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", keeper.__file__, str(_GRACE_SECONDS), *map(str, command)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**self.environment, **(variables or {})},
                start_new_session=True,
            )
        child = Child(name, log, process, service)
        self.running.append(child)
        return child

    def finished(self, child: Child) -> str:
        """Wait for a program that ends by itself and return what it printed.

        Raises:
            LauncherError: it failed; shows its last lines.
        """
        self.wait(lambda: child.process.poll() is not None, f"{child.name} to end", seconds=600, ending=child)
        self.running.remove(child)
        if child.process.returncode:
            message = f"{child.name} failed with exit code {child.process.returncode}:\n{child.tail()}"
            raise LauncherError(message)
        return child.log.read_text(errors="replace")

    def wait(
        self, done: Callable[[], bool], what: str, *, seconds: float, every: float = 0.1, ending: Child | None = None
    ) -> None:
        """Wait until ``done()``, and notice meanwhile that a program died or that nobody is there any more.

        Args:
            done: asked repeatedly.
            what: names it in the error.
            seconds: how long to wait at most.
            every: pause in seconds.
            ending: the one program that may end.

        Raises:
            LauncherError: it took too long, or a program that should run has ended.
            Interrupted: the launcher's parent has ended.
        """
        deadline = time.monotonic() + seconds
        while not done():
            self.check(ending)
            if time.monotonic() > deadline:
                message = f"waited {seconds:.0f} s for {what}, in vain; the logs are in {self.logs}"
                raise LauncherError(message)
            time.sleep(every)

    def check(self, ending: Child | None = None) -> None:
        """Raise when something that should be alive is not; see `wait`."""
        if os.getppid() != self.parent:
            raise Interrupted(signal.SIGHUP)
        for child in self.running:
            code = child.process.poll()
            if child is not ending and code is not None and (code or child.service):
                message = (
                    f"{child.name} ended by itself with exit code {code}; its log ends with\n"
                    f"{child.tail()}\n    ({child.log})"
                )
                raise LauncherError(message)

    def end(self, name: str) -> None:
        """End the program of this name and all that it started."""
        ending = [child for child in self.running if child.name == name]
        self.running = [child for child in self.running if child not in ending]
        _end(ending)

    def stop(self) -> None:
        """End all of them at the same time; returns when no process is left below the launcher."""
        _end(self.running)
        self.running.clear()
        # Only what lost its keeper is still here.
        keeper.end_descendants(1.0, asked=False)


def _end(children: Sequence[Child]) -> None:
    for child in children:
        with contextlib.suppress(OSError):
            child.process.stdin.close()
    deadline = time.monotonic() + _GRACE_SECONDS + 2
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(max(0.0, deadline - time.monotonic()))
