"""The demo's launcher: whatever happens to it, no process stays behind."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
# A program like Airflow's: a child in a session of its own, which ignores TERM.
STUBBORN = """
import os, signal, subprocess, sys, time
child = subprocess.Popen(
    [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"],
    start_new_session=True,
)
open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid}")
time.sleep(600)
"""
# A launcher that starts two of them and then waits.
LAUNCHER = """
import signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import keeper, processes
keeper.adopt_orphans()
processes._GRACE_SECONDS = 1.0
children = processes.Children(Path(sys.argv[2]), {})
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
try:
    for name in ("one", "two"):
        children.start(name, [sys.executable, "-c", sys.argv[3], Path(sys.argv[2], name + ".pids")], service=True)
    children.wait(lambda: False, "ever", seconds=60)
except processes.LauncherError as error:
    print(error)
    sys.exit(6)
finally:
    children.stop()
"""


@pytest.fixture
def deploy(monkeypatch):
    monkeypatch.syspath_prepend(str(DEPLOY))


@pytest.fixture
def launcher(tmp_path):
    """A running launcher, and the processes of its programs."""
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, DEPLOY, tmp_path, STUBBORN], stdout=subprocess.PIPE, text=True
    )
    files = [tmp_path / "one.pids", tmp_path / "two.pids"]
    wait_until(lambda: all(file.exists() and len(file.read_text().split()) == 2 for file in files))
    yield process, [int(pid) for file in files for pid in file.read_text().split()]
    process.kill()
    process.communicate()


def wait_until(done, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def alive(pids):
    living = set()
    for pid in pids:
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
            living.add(pid)
    return living


def keepers_of(launcher):
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return [int(pid) for pid in children]


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=str)
def test_a_launcher_that_is_stopped_or_killed_takes_every_process_with_it(launcher, number):
    process, programs = launcher
    everything = {*programs, *keepers_of(process.pid)}
    assert alive(everything) == everything
    process.send_signal(number)
    wait_until(lambda: not alive(everything))
    assert process.wait(10) == (5 if number == signal.SIGTERM else -signal.SIGKILL)


@linux
@pytest.mark.slow
def test_a_keeper_that_is_killed_stops_the_launcher_and_leaves_nothing_either(launcher):
    process, programs = launcher
    keepers = keepers_of(process.pid)
    os.kill(keepers[0], signal.SIGKILL)
    wait_until(lambda: not alive([*programs, *keepers]))
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 6
    assert "ended by itself" in output


def test_a_keeper_passes_on_the_exit_code_of_its_program():
    done = subprocess.run(
        [sys.executable, DEPLOY / "keeper.py", "1", sys.executable, "-c", "raise SystemExit(7)"],
        stdin=subprocess.PIPE,
        check=False,
    )
    # Its standard input was closed at once, so the program may also have been ended: only these two are possible.
    assert done.returncode in {7, 128 + signal.SIGTERM}


def test_a_taken_port_is_replaced_by_a_free_one(deploy):
    from airflow_stack import free_port

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert free_port(port) != port


def test_secrets_are_made_once_and_readable_by_their_owner_only(deploy, tmp_path):
    from airflow_stack import load_secrets

    path = tmp_path / "secrets.json"
    made = load_secrets(path)
    assert load_secrets(path) == made
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(made.jwt) >= 64


def test_a_failed_task_is_named_with_its_first_error_line_and_its_log(deploy, tmp_path):
    import progress

    task = {
        "dag_id": "akosha_ingest",
        "dag_run_id": "manual__1",
        "task_id": "ingest",
        "map_index": 1,
        "rendered_map_index": "shard 017 · 3 uploads",
        "state": "failed",
        "try_number": 2,
    }
    log = tmp_path / "dag_id=akosha_ingest/run_id=manual__1/task_id=ingest/map_index=1/attempt=2.log"
    log.parent.mkdir(parents=True)
    detail = [{"exc_type": "AirflowFailException", "exc_value": "the bucket is not there\nmore"}]
    events = [{"level": "info", "event": "begins"}, {"level": "error", "event": "Task failed", "error_detail": detail}]
    log.write_text("\n".join(map(json.dumps, events)))
    text = progress.explain(task, tmp_path)
    assert "akosha_ingest: ingest [shard 017 · 3 uploads] failed" in text
    assert "AirflowFailException: the bucket is not there\n" in text
    assert str(log) in text


def test_without_a_terminal_only_changes_are_printed_each_on_a_line(deploy):
    import progress

    out = io.StringIO()
    screen = progress.Screen(out)
    for head, text in (("1 s ", "a"), ("2 s ", "a"), ("3 s ", "b")):
        screen.live(head, text)
    screen.line("done")
    assert out.getvalue().splitlines() == ["1 s a", "3 s b", "done"]


def test_a_second_demo_in_the_same_folder_is_refused(tmp_path):
    import fcntl

    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            [sys.executable, DEPLOY / "demo.py", "--once", "--state", tmp_path],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1
    assert "another demo is running" in done.stderr
