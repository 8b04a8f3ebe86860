"""Real `akosha` commands to be killed, started in milliseconds: forked from a process that has imported everything.

``python -m tests.support.victims`` is that process. It opens nothing itself; each line on its standard input is a
command, and the forked child runs it exactly as the installed program does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Launcher:
    """Starts victims. Make one with `launcher`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._ask(None)

    def start(self, arguments: list[str], environment: dict[str, str], log: Path, *, crash_at: int = 0) -> int:
        """Start a command; its process id. What it prints is appended to `log`.

        With `crash_at` it kills itself just before it would make its n-th file appear, counted from 1.
        """
        request = {"arguments": arguments, "environment": environment, "log": str(log), "crash_at": crash_at}
        return int(self._ask(request))

    def kill(self, pid: int) -> int:
        """Kill -9 and wait; the wait status, which tells whether it had ended by itself before."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return self.wait(pid)

    def wait(self, pid: int) -> int:
        """The wait status of a command that ends by itself."""
        return int(self._ask({"wait": pid}))

    def _ask(self, request: dict[str, Any] | None) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if request is not None:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the launcher ended"
        return answer.strip()


@contextmanager
def launcher() -> Iterator[Launcher]:
    """A warm process to fork victims from, ended with the block."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AKOSHA_")}
    environment |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'plugins'}", "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.victims"],
        env=environment, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield Launcher(process)
    finally:
        process.communicate()


def _serve() -> None:
    from akosha import jobs
    from akosha.cli.main import main

    assert jobs.plan_move
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitpid(request["wait"], 0)[1]
        else:
            answer = os.fork()
            if answer == 0:
                _become_victim(request)
                os._exit(main(request["arguments"]))
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


def _become_victim(request: dict[str, Any]) -> None:
    os.setsid()
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(request["environment"])
    if request["crash_at"]:
        _crash_at(request["crash_at"])


def _crash_at(number: int) -> None:
    """Every object of a local store appears by one of two calls; die before the n-th."""
    left = number

    def counted(call: Callable[..., None]) -> Callable[..., None]:
        def crash_or_call(*given: Any, **options: Any) -> None:
            nonlocal left
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            call(*given, **options)

        return crash_or_call

    os.link, os.replace = counted(os.link), counted(os.replace)  # type: ignore[assignment]


if __name__ == "__main__":
    _serve()
