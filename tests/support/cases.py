"""Cases of the storm, each in a process of its own, forked from one that has imported everything and opened no database.

The warm process is ``python -m tests.support.case_kinds``: each line on its standard input is a case, each line on its
standard output what came of it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
WORKERS: Final = 2


@dataclass
class Outcome:
    """What came of a case.

    Attributes:
        points: failpoints the victim passed.
        fired: the point of the failure; "" when it never came to it.
        ended: how the victim ended: killed, failed, done.
        said: what it said of its failure.
        lost: records lost, in the lake the victim left and in the next run's.
        doubled: records twice.
        altered: records with another text or time.
        damage: what fsck found.
        differs: what else differs from an undisturbed run.
    """

    points: int = 0
    fired: str = ""
    ended: str = ""
    said: str = ""
    lost: int = 0
    doubled: int = 0
    altered: int = 0
    damage: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> bool:
        """Whether anything must never happen."""
        return bool(self.lost or self.doubled or self.altered or self.damage or self.differs)


Request = dict[str, Any]


class Pool:
    """Warm processes that run cases, each one case at a time."""

    def __init__(self, workers: Sequence[subprocess.Popen[str]]) -> None:
        self._idle: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
        for worker in workers:
            self._idle.put(worker)
        self._workers = len(workers)

    def ask(self, request: Request) -> dict[str, Any]:
        """Run one case and wait for its answer."""
        worker = self._idle.get()
        try:
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write(json.dumps(request) + "\n")
            worker.stdin.flush()
            line = worker.stdout.readline()
            assert line, f"the process that runs cases ended: {request}"
        finally:
            self._idle.put(worker)
        answer: dict[str, Any] = json.loads(line)
        assert "error" not in answer, f"{request}\n{answer['error']}"
        return answer

    def crash(self, request: Request) -> Outcome:
        """One case with one failure."""
        return Outcome(**self.ask(request))

    def map(self, call: Callable[[Request], Any], requests: Sequence[Request]) -> Iterator[Any]:
        """Several cases at a time, answers in order."""
        with ThreadPoolExecutor(self._workers) as threads:
            yield from threads.map(call, requests)


@contextmanager
def case_pool(workers: int = WORKERS, **environment: str) -> Iterator[Pool]:
    """Start the warm processes, end them with the block."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AKOSHA_")}
    kept |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'plugins'}", "OPENBLAS_NUM_THREADS": "1", **environment}
    with ExitStack() as stack:
        started = []
        for _ in range(workers):
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.case_kinds"],
                env=kept, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            stack.callback(process.communicate)
            started.append(process)
        yield Pool(started)


def memory_folder() -> Path | None:
    """Where files cost no disk: what is tested is the order of the calls, not the disk."""
    shared = Path("/dev/shm")  # noqa: S108 - a fresh folder below it
    return shared if os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > 1 << 30 else None


def in_child(act: Callable[[], Any]) -> Any:
    """Do something in a forked child; its answer, or ``{"error": ...}``."""
    with tempfile.TemporaryFile("w+") as answer:
        pid = os.fork()
        if pid == 0:
            try:
                json.dump(_answer(act), answer)
                answer.flush()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        answer.seek(0)
        text = answer.read()
    return json.loads(text) if text else {"error": "the case died"}


def _answer(act: Callable[[], Any]) -> Any:
    try:
        found = act()
    except BaseException:
        return {"error": traceback.format_exc()}
    return asdict(found) if isinstance(found, Outcome) else found
