"""What the reading child can no longer do, tried from inside. Cites I21: a client's database is opened only in a locked-down process."""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import platform
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from akosha.uploads import sandbox_child, syscalls
from akosha.uploads.sandbox_child import ADDRESS_SPACE_BYTES

pytestmark = pytest.mark.integration

MEMORY_BYTES = 64 << 30  # so large that this process, with all that a test run has loaded, fits beside it
OUTPUT_BYTES = 1 << 20
RESERVE_NOTHING = 0x4000  # MAP_NORESERVE of Linux
needs_filter = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in syscalls._MACHINES,
    reason="the platform has no seccomp, or a machine whose calls are not listed",
)


def in_child(action: Callable[[], Any]) -> tuple[Any, int]:
    """What `action` returns in a forked child, and the child's exit status; None when it did not get so far."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write_end, json.dumps(action()).encode())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(answer) if answer else None, status


def refused(action: Callable[[], object]) -> str:
    """The name of the error that `action` meets, "" for none."""
    try:
        action()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


def queue_signal(process: int) -> None:
    """rt_sigqueueinfo(2) with signal 0."""
    number = {"x86_64": 129, "aarch64": 138}[platform.machine()]
    libc = ctypes.CDLL(None, use_errno=True)
    about = (ctypes.c_int * 32)(0, 0, -1)  # siginfo_t: signal, error, SI_QUEUE
    if libc.syscall(number, process, 0, about):
        raise OSError(ctypes.get_errno(), "rt_sigqueueinfo")


def execute() -> None:
    os.execv("/bin/true", ["true"])  # noqa: S606 - that it may not start is what is tested


CALLS: dict[str, Callable[[], object]] = {
    "network socket": lambda: socket.socket(socket.AF_INET),
    "local socket": lambda: socket.socket(socket.AF_UNIX),
    "program": execute,
    "parent": lambda: os.kill(os.getppid(), 0),
    "parent's death": lambda: os.kill(os.getppid(), signal.SIGKILL),
    "init": lambda: os.kill(1, 0),
    "own group": lambda: os.kill(0, 0),
    "everybody": lambda: os.kill(-1, 0),
    "parent by descriptor": lambda: signal.pidfd_send_signal(os.pidfd_open(os.getppid()), 0),
    "parent by queue": lambda: queue_signal(os.getppid()),
}


@needs_filter
@pytest.mark.parametrize("name", sorted(CALLS))
def test_the_kernel_refuses_what_a_reader_has_no_use_for(name: str):
    """The control runs the same call without the filter."""
    call = CALLS[name]

    def confined() -> str:
        assert syscalls.forbid()
        return refused(call)

    assert in_child(confined) == ("EPERM", 0)


@needs_filter
@pytest.mark.parametrize(
    "name", ["network socket", "local socket", "parent", "own group", "parent by descriptor", "parent by queue"]
)
def test_without_the_filter_the_same_calls_are_allowed(name: str):
    """Else the test above would prove nothing."""
    assert in_child(lambda: refused(CALLS[name])) == ("", 0)


@needs_filter
def test_without_the_filter_a_program_runs():
    assert in_child(execute) == (None, 0)


@needs_filter
def test_a_confined_reader_can_still_read_write_and_end_itself(tmp_path: Path):
    def confined() -> str:
        syscalls.forbid()
        (tmp_path / "out").write_text("rows")
        text = (tmp_path / "out").read_text()
        os.kill(os.getpid(), 0)
        return text

    assert in_child(confined) == ("rows", 0)


@needs_filter
def test_calls_of_another_convention_end_the_process():
    """x32 numbers name the same calls with bit 30 set; none of them may slip through."""
    if platform.machine() != "x86_64":
        pytest.skip("only x86-64 has a second convention under the same architecture number")

    def confined() -> int:
        libc = ctypes.CDLL(None, use_errno=True)
        syscalls.forbid()
        return int(libc.syscall(0x40000000 | 41, socket.AF_INET, socket.SOCK_STREAM, 0))

    _, status = in_child(confined)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGSYS


# ---- limits: each is tried from inside


def locked_down(tmp_path: Path, action: Callable[[], Any], *, seconds: float = 60) -> tuple[Any, int]:
    """What `action` gives after the child has locked itself down; it answers through the result pipe."""
    answer = tmp_path / "answer"
    request = {
        "out_dir": str(tmp_path),
        "timeout_seconds": seconds,
        "limits": {"memory_bytes": MEMORY_BYTES, "output_bytes": OUTPUT_BYTES},
    }

    def confined() -> None:
        sandbox_child._lock_down(request, os.open(answer, os.O_WRONLY | os.O_CREAT))
        os.write(sandbox_child._RESULT_FD, json.dumps(action()).encode())

    _, status = in_child_without_answer(confined)
    text = answer.read_text()
    return json.loads(text) if text else None, status


def in_child_without_answer(action: Callable[[], None]) -> tuple[None, int]:
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return None, os.waitpid(child, 0)[1]


def test_processor_time_is_limited_and_reported_as_a_timeout(tmp_path: Path):
    def burn() -> None:
        while True:
            pass

    _, status = locked_down(tmp_path, burn, seconds=0)
    assert os.WIFSIGNALED(status)
    assert sandbox_child._judge(b"", status)["outcome"] == "timeout"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel ignores a limit of address space")
def test_memory_is_limited_and_reported_as_too_large(tmp_path: Path):
    size = MEMORY_BYTES + ADDRESS_SPACE_BYTES

    def reserve() -> None:  # no page of it is touched
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | RESERVE_NOTHING).close()

    reserve()
    assert locked_down(tmp_path, lambda: refused(reserve)) == ("ENOMEM", 0)
    assert sandbox_child.outcome_of(MemoryError()) == "too-large"


def test_a_file_that_grows_beyond_its_limit_is_cut_off(tmp_path: Path):
    def write() -> None:
        with (tmp_path / "rows").open("wb", buffering=0) as file:
            for _ in range(3):
                file.write(bytes(OUTPUT_BYTES // 2))
            file.write(b"x")

    assert locked_down(tmp_path, lambda: refused(write)) == ("EFBIG", 0)
    assert (tmp_path / "rows").stat().st_size == OUTPUT_BYTES
    assert sandbox_child.outcome_of(OSError(errno.EFBIG, "File too large")) == "too-large"


def test_few_files_can_be_open_and_none_is_inherited(tmp_path: Path):
    def opened() -> list[object]:
        before = sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1]  # noqa: PTH208 - names; the last one lists
        held = []
        try:
            while len(held) < 10_000:
                held.append(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            return [before, len(held), errno.errorcode[error.errno or 0]]
        return [before, len(held), ""]

    inherited = os.open(os.devnull, os.O_RDONLY)
    try:
        assert locked_down(tmp_path, opened) == ([[0, 1, 2, 3], 60, "EMFILE"], 0)
    finally:
        os.close(inherited)


def test_a_locked_down_child_has_no_environment_no_core_and_its_own_folder(tmp_path: Path):
    def state() -> list[object]:
        return [dict(os.environ), str(Path.cwd()), resource.getrlimit(resource.RLIMIT_CORE)[0]]

    os.environ["AWS_SECRET_ACCESS_KEY"] = "test"
    assert locked_down(tmp_path, state) == ([{}, str(tmp_path), 0], 0)
