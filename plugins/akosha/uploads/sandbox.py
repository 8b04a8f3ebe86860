"""Reading a database file from a stranger without letting it do more than be read.

One prepared process serves a whole job (`akosha.uploads.sandbox_child`); it forks a locked-down child per file.
Whatever a file does to its reader, the job goes on with the next one.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.util import Finalize
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self, cast

import akosha
from akosha.errors import ConfigurationError, DiskFullError, InvalidUploadError
from akosha.uploads.reader import Limits, kind_of, limits_document

if TYPE_CHECKING:
    from types import TracebackType

START_SECONDS: Final = 120.0
INLINE_ROWS: Final = 4_096  # reading these along costs less than a second child
MAX_ROWS: Final = 20_000_000
_GRACE_SECONDS: Final = 30.0  # past a file's own time limit before its reading process is given up as well

Kind = Literal["conversation", "reflection"]
Ranges = Mapping[str, Sequence[tuple[int, int]]]
Form = Literal["keys", "rows", "graph", "memories"]

_INVALID = "unreadable"
_AGAIN = "Have the system upload again"
_MESSAGES: Final[dict[str, str]] = {
    "damaged": "the database file is damaged: {detail}. " + _AGAIN + "; an upload made during a checkpoint can be torn",
    "unknown-tables": "no table of a known layer was found, only: {detail}. Expected conversations_v2, conversations, "
    "*_conversations or the same for reflections, in a knowledge graph kg_entities or kg_relationships; if the client is newer, update Akosha and replay the upload",
    "invalid-payload": "the document of conversations cannot be used: {detail}. " + _AGAIN,
    "too-large": "reading the database needs more than one upload may take: {detail}. If the system is trusted, "
    "replay it on a machine with free memory",
    "timeout": "reading the database took too long: {detail}. Replay it when the machine is idle; if it repeats, "
    "the file is hostile or broken",
    "unreadable": "the database cannot be read: {detail}. " + _AGAIN + "; if it repeats, keep the file as evidence",
}


@dataclass(frozen=True, slots=True)
class TableReading:
    """One source table: `keys` and, when they were read, `texts` are Arrow IPC files (`akosha.uploads.sources` reads them)."""

    name: str
    kind: Kind
    rows: int
    keys: Path
    texts: Path | None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a database file held: its source tables by name, and the tables and views that were left alone."""

    tables: tuple[TableReading, ...]
    ignored: tuple[str, ...]


@contextmanager
def reading_process() -> Iterator[Sandbox]:
    """The sandbox of one batch: its own, or the one that this process keeps for all its batches (`keep_reading_process`)."""
    sandbox = _kept or Sandbox()
    try:
        yield sandbox
    except BaseException:
        sandbox.stop()  # it may still owe an answer
        raise
    if sandbox is not _kept:
        sandbox.stop()


def keep_reading_process() -> None:
    """Have all batches of this process share one reading process until it ends: to start one costs half a CPU-second."""
    global _kept
    _kept = Sandbox()
    Finalize(_kept, _kept.stop, exitpriority=0)


class Sandbox:
    """A context manager around the reading process. Serves one file at a time; not for several threads.

    Args:
        timeout_seconds: wall time one file may take.
        memory_bytes: what DuckDB may use for one file.
        max_output_bytes: Arrow bytes written for one file.
        max_rows: rows of one file.
    """

    def __init__(
        self,
        *,
        timeout_seconds: float = 600.0,
        memory_bytes: int = 384 << 20,
        max_output_bytes: int = 16 << 30,
        max_rows: int = MAX_ROWS,
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._memory_bytes = memory_bytes
        self._max_output_bytes = max_output_bytes
        self._max_rows = max_rows
        self._process: subprocess.Popen[bytes] | None = None
        self._pending = b""

    def __enter__(self) -> Self:
        return self  # the process starts with the first file: a run that finds nothing new needs none

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> int:
        """Start the reading process unless it runs, instead of with the first file; returns its process id.

        Raises:
            ConfigurationError: it does not start on this machine.
        """
        return (self._process or self._start()).pid

    def read(
        self,
        database: Path,
        out_dir: Path,
        *,
        inline_rows: int = INLINE_ROWS,
        form: Form = "keys",
        known: Path | None = None,
    ) -> Reading:
        """Read keys and digests of every row of `database` into `out_dir`, which is created, mode 0700.

        A file without any table, or with empty ones, is a success with no rows. On failure `out_dir` is gone. With `form`
        ``memories`` the file is a JSON document of conversations instead.

        Args:
            database: an unpacked upload.
            out_dir: must not exist.
            inline_rows: a file of up to so many rows is read whole at once; of others `read_rows` fetches the texts.
            form: ``keys``, or ``memories`` for a document.
            known: a file of `akosha.uploads.known_texts`, for ``keys``: the texts in it are not digested again.

        Raises:
            InvalidUploadError, DiskFullError, ConfigurationError: see `extract`.
        """
        arguments: dict[str, Any] = {}
        if form == "keys":
            arguments = {"inline_rows": inline_rows, "known": str(known.resolve()) if known else ""}
        result = self.extract(form, database, out_dir, **arguments)
        try:
            return _reading(result, out_dir)
        except BaseException:
            shutil.rmtree(out_dir, ignore_errors=True)
            raise

    def read_rows(self, database: Path, out_dir: Path, ranges: Ranges) -> dict[str, Path]:
        """Read texts and vectors of some rows into `out_dir`, which is created.

        Args:
            database: as it was read before.
            out_dir: must not exist.
            ranges: for each table first and last row number of its ranges, ascending, apart.

        Returns:
            an Arrow IPC file for each of the tables.

        Raises:
            as `read`.
        """
        listed = {name: [list(pair) for pair in pairs] for name, pairs in ranges.items()}
        result = self.extract("rows", database, out_dir, ranges=listed)
        if [table["name"] for table in result["tables"]] != list(ranges):
            raise _refused(_INVALID, "invalid answer")
        return {name: out_dir / f"{index:03d}.rows.arrow" for index, name in enumerate(ranges)}

    def extract(self, form: Form, file: Path, out_dir: Path, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Have a child read a file of some form into `out_dir`, which is created, mode 0700, and gone on failure.

        Args:
            form: what to do with it, see `akosha.uploads.sandbox_child.FORMS`.
            file: the file.
            out_dir: must not exist.
            arguments: of that form.

        Returns:
            What the child says of it, not checked.

        Raises:
            InvalidUploadError: ``damaged``, ``unknown-tables``, ``invalid-payload``, ``too-large``, ``timeout`` or
                ``unreadable``.
            DiskFullError: no room in `out_dir`.
            ConfigurationError: the reading process does not start on this machine.
        """
        if Path(f"{file}.wal").exists():
            message = f"a .wal file lies beside {file.name} and would be replayed; unpack into an empty folder"
            raise InvalidUploadError(message, reason="unreadable")
        out_dir.mkdir(mode=0o700, parents=True)
        request = {
            "form": form,
            "database": str(file.resolve()),
            "out_dir": str(out_dir.resolve()),
            "timeout_seconds": self._timeout_seconds,
            "limits": limits_document(Limits(self._memory_bytes, self._max_output_bytes, self._max_rows)),
            "arguments": arguments,
        }
        try:
            return _result(self._ask(request), out_dir)
        except BaseException:
            shutil.rmtree(out_dir, ignore_errors=True)
            raise

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send and wait; a reading process that dies is replaced, and the file gets one more chance."""
        line = json.dumps(request).encode() + b"\n"
        for _ in range(2):
            process = self._process or self._start()
            try:
                os.write(cast("Any", process.stdin).fileno(), line)
                answer = self._line(process, self._timeout_seconds + _GRACE_SECONDS)
            except BrokenPipeError:
                answer = None
            if answer is not None:
                return answer
            self.stop()
        return {"outcome": "unreadable", "detail": "the reading process died twice over this file"}

    def _line(self, process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any] | None:
        """The next reply; None when the process has ended, a timeout reply when it does not answer."""
        descriptor = cast("Any", process.stdout).fileno()
        deadline = time.monotonic() + seconds
        while b"\n" not in self._pending:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                self.stop()
                return {"outcome": "timeout", "detail": f"no answer within {seconds:g} seconds"}
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                return None
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        return cast("dict[str, Any]", json.loads(line))

    def _start(self) -> subprocess.Popen[bytes]:
        package_root = Path(akosha.__file__).resolve().parents[1]
        self._pending = b""
        self._process = process = subprocess.Popen(  # noqa: S603 - our own module, and a number
            [sys.executable, "-s", "-P", "-W", "ignore", "-m", "akosha.uploads.sandbox_child", str(self._memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            # Nothing of the job's environment, least of all credentials. One OpenBLAS thread, so that fork is safe.
            env={"PYTHONPATH": str(package_root), "OPENBLAS_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"},
        )
        answer = self._line(process, START_SECONDS)
        if answer is None or answer.get("outcome") != "ready":
            self.stop()
            message = "the process that reads uploads did not start; run `akosha doctor`, then `make setup`"
            raise ConfigurationError(message, python=sys.executable)
        return process

    def stop(self) -> None:
        """End the reading process, if there is one; the next file starts another."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


_kept: Sandbox | None = None


def _result(reply: dict[str, Any], out_dir: Path) -> dict[str, Any]:
    """What was read, or the error that the outcome stands for."""
    outcome = reply.get("outcome")
    if outcome == "disk-full":
        message = "no room left for the rows of an upload; free space or point AKOSHA_CACHE_DIR at a larger disk"
        raise DiskFullError(message, setting="AKOSHA_CACHE_DIR", path=str(out_dir))
    if outcome != "read":
        raise _refused(outcome if outcome in _MESSAGES else "unreadable", str(reply.get("detail", "")))
    return cast("dict[str, Any]", reply["result"])


def _refused(reason: str, detail: str) -> InvalidUploadError:
    readable = "".join(letter if letter.isprintable() else "?" for letter in detail)
    return InvalidUploadError(_MESSAGES[reason].format(detail=readable[:400]), reason=reason)


def _reading(result: dict[str, Any], out_dir: Path) -> Reading:
    """Judge a result. What the child says is checked like anything else that comes from the file."""
    tables = []
    for index, table in enumerate(result["tables"]):
        name = str(table["name"])
        kind = kind_of(name)
        if kind is None:
            raise _refused(_INVALID, "invalid answer")
        texts = out_dir / f"{index:03d}.rows.arrow" if result["complete"] else None
        keys = out_dir / f"{index:03d}.keys.arrow"
        tables.append(TableReading(name, cast("Kind", kind), int(table["rows"]), keys, texts))
    return Reading(tuple(tables), tuple(str(name) for name in result["ignored"]))
