"""Ceph's RADOS Gateway as a throw-away S3 server on 127.0.0.1: one monitor, one store in memory, one gateway.

Needs the programs of the Debian packages radosgw, ceph-mon and ceph-osd. Nothing is kept, nothing is authenticated but S3.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

READY_SECONDS: Final = 90
CONFIGURATION: Final = """[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{monitor_port}
ms bind msgr1 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
ms mon cluster mode = crc
ms mon service mode = crc
ms mon client mode = crc
ms cluster mode = crc
ms service mode = crc
ms client mode = crc
mon allow pool size one = true
mon data avail crit = 1
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = {bytes}
run dir = {folder}
log file = {folder}/$name.log
admin socket = {folder}/$name.asok
mon data = {folder}/mon
osd data = {folder}/osd
"""


@contextmanager
def gateway(port: int, access: str, secret: str, *, store_bytes: int = 4 << 30) -> Iterator[str]:
    """Run a gateway on `port`, the monitor on the next one; yields its endpoint.

    Args:
        port: free, and so the one after it.
        access: key id of its only user.
        secret: of that user.
        store_bytes: of memory that objects may take.
    """
    with tempfile.TemporaryDirectory(prefix="akosha-ceph-") as name, ExitStack() as running:
        folder = Path(name)
        fsid = str(uuid.uuid4())
        (folder / "mon").mkdir()
        (folder / "osd").mkdir()
        text = CONFIGURATION.format(fsid=fsid, monitor_port=port + 1, folder=folder, bytes=store_bytes)
        (folder / "ceph.conf").write_text(text)
        monitors = ["--addv", "a", f"[v2:127.0.0.1:{port + 1}]", str(folder / "monmap")]
        _run(folder, "monmaptool", "--create", "--fsid", fsid, *monitors)
        _run(folder, "ceph-mon", "-i", "a", "--mkfs", "--monmap", str(folder / "monmap"))
        running.enter_context(_started(folder, "ceph-mon", "-f", "-i", "a"))
        osd = str(uuid.uuid4())
        number = _run(folder, "ceph", "osd", "new", osd).strip()
        _run(folder, "ceph-osd", "-i", number, "--mkfs", "--osd-uuid", osd)
        running.enter_context(_started(folder, "ceph-osd", "-f", "-i", number))
        user = ["--uid=benchmark", "--display-name=benchmark", f"--access-key={access}", f"--secret-key={secret}"]
        _run(folder, "radosgw-admin", "user", "create", *user)
        front = ["--rgw-frontends", f"beast endpoint=127.0.0.1:{port}"]
        process = running.enter_context(_started(folder, "radosgw", "-f", "-n", "client.admin", *front))
        _wait_for(f"http://127.0.0.1:{port}", process, folder / "radosgw.out")
        yield f"http://127.0.0.1:{port}"


def _run(folder: Path, *command: str) -> str:
    """What a program of Ceph prints; its errors are in the exception."""
    done = subprocess.run(
        command, env=_environment(folder), capture_output=True, text=True, timeout=READY_SECONDS, check=False
    )
    if done.returncode:
        message = f"{' '.join(command[:3])}: {done.stderr.strip()[-500:]}"
        raise SystemExit(message)
    return done.stdout


@contextmanager
def _started(folder: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / f"{command[0]}.out").open("wb") as out:
        process = subprocess.Popen(command, env=_environment(folder), stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "CEPH_CONF": str(folder / "ceph.conf")}


def _wait_for(url: str, process: subprocess.Popen[bytes], said: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()  # noqa: S310 - our own server
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
        else:
            return
    message = (
        f"Ceph's gateway did not answer at {url} within {READY_SECONDS} seconds; it said: {said.read_text()[-500:]}"
    )
    raise SystemExit(message)
