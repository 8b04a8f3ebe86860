"""The reading process: ``python -m akosha.uploads.sandbox_child <bytes of memory for DuckDB>``, started by `akosha.uploads.sandbox`.

It imports DuckDB and Arrow once, keeps a connection ready, and never opens a database itself. For each file it forks a child that gives up
everything it does not need, reads, and reports through a pipe; this process only watches the clock and the exit status.

One JSON document per line: requests on stdin, replies on stdout. A reply is ``{"outcome": ...}`` with ``result`` when
the outcome is ``read``, else ``detail``. Outcomes: read, unknown-tables, invalid-payload, damaged, too-large, timeout,
unreadable, disk-full.
"""

from __future__ import annotations

import errno
import gc
import importlib
import json
import math
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any, ClassVar, Final


class _LeftOut(MetaPathFinder):
    """Arrow would import these only to ask whether a list is a series or an array: most of what this process costs.

    That is time when it starts, and memory, which every fork has to map again.
    """

    names: ClassVar = {"numpy", "pandas"}

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """Refuse what is left out, leave the rest to the others."""
        del path, target
        if fullname in self.names:
            raise ModuleNotFoundError(fullname)


if __name__ == "__main__":
    sys.meta_path.insert(0, _LeftOut())

import duckdb  # noqa: E402

from akosha.uploads import graph_reader, payload, reader, syscalls  # noqa: E402

ADDRESS_SPACE_BYTES: Final = 3 << 30  # besides DuckDB's own memory: 1 GiB mapped at start, Arrow batches, thread stacks
MAX_REPLY_BYTES: Final = 4 << 20
FORMS: Final[dict[str, Callable[..., dict[str, Any]]]] = {
    "keys": reader.extract_keys,
    "rows": reader.extract_rows,
    "graph": graph_reader.extract_graph,
    "memories": payload.extract_memories,
}
_OPEN_FILES: Final = 64
_RESULT_FD: Final = 3
_SET_PARENT_DEATH_SIGNAL: Final = 1  # linux/prctl.h
_DETAIL_CHARS: Final = 300
_DAMAGE = ("corrupt", "checksum", "failed to load metadata", "could not read", "deserialize", "serialization")
_SIGNALS_OF_LIMITS = {signal.SIGXCPU: "timeout", signal.SIGXFSZ: "too-large", signal.SIGKILL: "too-large"}


def main(memory_bytes: int) -> int:
    """Answer requests until stdin closes."""
    ready = reader.connect(memory_bytes)
    reader.warm_up(ready)
    graph_reader.warm_up()
    gc.freeze()  # a collection would write to every object, and so copy in each child what it shares
    gc.disable()
    _send(1, {"outcome": "ready"})
    pending = b""
    while chunk := os.read(0, 65_536):
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            _send(1, _serve(json.loads(line), ready))
    return 0


def _serve(request: dict[str, Any], ready: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Fork, watch, and say how it ended."""
    deadline = time.monotonic() + request["timeout_seconds"]
    if request["arguments"].get("known"):
        _LeftOut.names.discard("numpy")  # only a large file names known texts, and there looking them up at once pays
        importlib.import_module("akosha.uploads.known_texts")
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        _child(request, ready, write_end)
    os.close(write_end)
    try:
        reply, in_time = _collect(read_end, deadline)
    finally:
        # The result is complete, or nobody waits for it any more; a child that has exited keeps its exit status.
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(read_end)
    if not in_time:
        return {"outcome": "timeout", "detail": f"not read within {request['timeout_seconds']:g} seconds"}
    return _judge(reply, status)


def _collect(read_end: int, deadline: float) -> tuple[bytes, bool]:
    """What the child wrote until it closed the pipe, and whether in time. Ends this process when its parent ends."""
    poll = select.poll()
    poll.register(read_end, select.POLLIN)
    poll.register(0, 0)  # only the hang-up: the job is gone
    reply = bytearray()
    while (left := deadline - time.monotonic()) > 0:
        events = dict(poll.poll(math.ceil(left * 1_000)))
        if 0 in events:
            os._exit(1)
        if read_end in events:
            chunk = os.read(read_end, 65_536)
            reply += chunk
            if not chunk or len(reply) > MAX_REPLY_BYTES:
                return bytes(reply), True
    return bytes(reply), False


def _judge(reply: bytes, status: int) -> dict[str, Any]:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name
        return {"outcome": _SIGNALS_OF_LIMITS.get(signal.Signals(number), "unreadable"), "detail": f"ended by {name}"}
    try:
        document = json.loads(reply)
    except ValueError:
        return {"outcome": "unreadable", "detail": "the reading process ended without an answer"}
    return document if isinstance(document, dict) else {"outcome": "unreadable", "detail": "no answer"}


def _child(request: dict[str, Any], ready: duckdb.DuckDBPyConnection, write_end: int) -> None:
    """Lock down, read, report. Never returns."""
    try:
        _lock_down(request, write_end)
        answer = _read(request, ready)
        _send(_RESULT_FD, answer)
        os._exit(0)
    finally:
        os._exit(1)


def _read(request: dict[str, Any], ready: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    try:
        limits = reader.limits_from(request["limits"])
        database, out_dir = Path(request["database"]), Path(request["out_dir"])
        result = FORMS[request["form"]](ready, database, out_dir, limits, **request["arguments"])
    except Exception as error:
        detail = str(error).strip().partition("\n")[0].replace(request["database"], "the file")[:_DETAIL_CHARS]
        return {"outcome": outcome_of(error), "detail": detail or type(error).__name__}
    return {"outcome": "read", "result": result}


def outcome_of(error: Exception) -> str:
    """The outcome that an error of the reading child stands for."""
    text = str(error).lower()
    if isinstance(error, reader.UnknownTablesError):
        return "unknown-tables"
    if isinstance(error, payload.PayloadError):
        return "invalid-payload"
    if isinstance(error, reader.LimitError | MemoryError) or "bad_alloc" in text or "out of memory" in text:
        return "too-large"  # a stream of rows says so in an `OSError`
    if isinstance(error, OSError):
        return {errno.ENOSPC: "disk-full", errno.EDQUOT: "disk-full", errno.EFBIG: "too-large"}.get(
            error.errno or 0, "unreadable"
        )
    broken = isinstance(error, duckdb.SerializationException | duckdb.InternalException | duckdb.FatalException)
    return "damaged" if broken or any(word in text for word in _DAMAGE) else "unreadable"


def _lock_down(request: dict[str, Any], write_end: int) -> None:
    """No descriptors but the result pipe, no environment, own folder, hard limits, no network, no life without the parent."""
    if sys.platform == "linux":
        syscalls.LIBC.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    null = os.open(os.devnull, os.O_RDWR)
    result = os.dup(write_end)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.dup2(result, _RESULT_FD)
    os.closerange(_RESULT_FD + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    os.environ.clear()
    os.umask(0o077)
    os.chdir(request["out_dir"])
    seconds = math.ceil(request["timeout_seconds"]) + 1
    memory = request["limits"]["memory_bytes"]
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, seconds, spare=1)  # at the hard limit the kernel kills without saying why
    _limit(resource.RLIMIT_FSIZE, request["limits"]["output_bytes"])
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    if sys.platform == "linux":  # elsewhere the kernel refuses or ignores it; DuckDB's own limit remains
        _limit(resource.RLIMIT_AS, memory + ADDRESS_SPACE_BYTES)
    syscalls.forbid()


def _limit(kind: int, wanted: int, *, spare: int = 0) -> None:
    """Allow `wanted` at most, and for ever no more than `spare` beyond it."""
    most = resource.getrlimit(kind)[1]
    soft, hard = (value if most == resource.RLIM_INFINITY else min(value, most) for value in (wanted, wanted + spare))
    resource.setrlimit(kind, (soft, hard))


def _send(descriptor: int, document: dict[str, Any]) -> None:
    data = json.dumps(document).encode() + b"\n"
    while data:
        data = data[os.write(descriptor, data) :]


if __name__ == "__main__":
    os._exit(main(int(sys.argv[1])))  # at a normal end DuckDB would report what is frozen as leaked
