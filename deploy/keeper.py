"""Run one program and let nothing of it outlive the launcher.

    keeper.py GRACE_SECONDS PROGRAM [ARGUMENT...]

Why a process in between? Airflow's components fork: executors, task supervisors, parsers, each of which may open a
process group of its own. Whoever kills only what it started leaves the rest behind, and a launcher killed with -9 can
kill nothing at all. So every program gets a keeper, which

* holds the reading end of a pipe as its standard input. The launcher holds the other end and never writes: however the
  launcher ends, the kernel closes it and the keeper reads end-of-file. (PR_SET_PDEATHSIG alone would not do: it fires
  when the *thread* that forked ends, and grandchildren never get it.)
* is a "child subreaper": processes orphaned below it become its children instead of init's, so that walking the process
  tree finds every one of them, whatever group or session it is in;
* asks its program to die with it (PR_SET_PDEATHSIG), for the case that the keeper itself is killed with -9. What that
  orphans is adopted and ended by the launcher, which is a subreaper too.

Standard library only and started with ``-I -S``: a keeper costs some 10 MB and 20 ms. Where there is no ``prctl``
(macOS) the pipe and the process group still work.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIFELINE = 0
_PAUSE_SECONDS = 0.02


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of whatever is orphaned below this process."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def descendants(root: int) -> list[int]:
    """Every process below ``root``, parents before children; zombies included, ``root`` not."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    found = [root]
    for pid in found:
        found.extend(children.get(pid, []))
    return found[1:]


def _parents() -> list[tuple[int, int]]:
    if not Path("/proc/self/stat").exists():
        listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=False).stdout
        return [(int(pid), int(parent)) for pid, parent in (line.split() for line in listing.splitlines())]
    pairs = []
    for entry in os.listdir("/proc"):  # noqa: PTH208  # a hundred processes, several times a second: names are enough
        if entry.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                # The name in parentheses may hold anything, the state and the parent follow the last one.
                fields = Path("/proc", entry, "stat").read_text(errors="replace").rpartition(")")[2].split()
                pairs.append((int(entry), int(fields[1])))
    return pairs


def reap() -> dict[int, int]:
    """Collect every child that has ended: pid to exit code (negative: the signal that ended it)."""
    ended = {}
    with contextlib.suppress(ChildProcessError):
        while (result := os.waitpid(-1, os.WNOHANG))[0]:
            ended[result[0]] = os.waitstatus_to_exitcode(result[1])
    return ended


def end_descendants(grace_seconds: float, *, asked: bool) -> dict[int, int]:
    """End every process below this one: TERM unless it was ``asked`` already, after the grace period KILL.

    Returns:
        Exit codes of the direct children that ended.
    """
    ended = reap()
    deadline = time.monotonic() + grace_seconds
    while below := descendants(os.getpid()):
        late = time.monotonic() > deadline
        if late or not asked:
            for pid in below:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
            asked = True
        time.sleep(_PAUSE_SECONDS)
        ended |= reap()
    return ended


def _watch(program: int) -> tuple[dict[int, int], bool]:
    """Wait until the program ends or somebody wants it to; what ended, and whether it was wanted."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    while True:
        # Reaped only after the handlers stand: a program that ended before them is found here, later ones wake the pipe.
        ended = reap()
        if program in ended:
            return ended, False
        ready, _, _ = select.select([_LIFELINE, woken], [], [])
        numbers = set(os.read(woken, 512)) if woken in ready else set()
        if _LIFELINE in ready or numbers - {signal.SIGCHLD}:
            return ended, True


def main() -> int:
    """Run the program; its exit code, or 128 + N when signal N ended it."""
    grace_seconds, command = float(sys.argv[1]), sys.argv[2:]
    adopt_orphans()
    program = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),  # one thread: safe
    ).pid
    ended, wanted = _watch(program)
    if wanted:
        # The group first, as a terminal would: Airflow's components pass the signal on to the groups they opened.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(program, signal.SIGTERM)
    ended |= end_descendants(grace_seconds, asked=wanted)
    code = ended.get(program, 0)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
