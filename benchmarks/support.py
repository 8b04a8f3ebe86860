"""What the pipeline benchmarks share: an S3 endpoint, many real-looking uploads, and a clock."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from akosha.lake.s3_store import S3Store, make_client
from ceph import gateway
from corpus import docstrings

ANCHOR = datetime(2026, 11, 20, tzinfo=UTC)
BUCKET = "benchmark"
TABLE = "conversations_v2"
COLUMNS = {
    "id": "VARCHAR", "content": "VARCHAR", "embedding": "FLOAT[384]", "category": "VARCHAR", "project": "VARCHAR",
    "timestamp": "TIMESTAMP", "metadata": "VARCHAR", "memory_tier": "VARCHAR", "access_count": "INTEGER",
}  # fmt: skip
APPENDED_ROWS = 20_000
INSERT = """
INSERT INTO {table} BY NAME
SELECT left(sha256(content), 16) AS id, * EXCLUDE (place, number)
FROM (
    SELECT number, 'Note ' || number || ' of the benchmark. ' || body AS content, embedding, 'context' AS category,
        'benchmark' AS project, TIMESTAMP '{anchor}' - to_minutes((7 * (number % 20000))::INTEGER) AS timestamp,
        '{{"project": "benchmark"}}' AS metadata, 'long_term' AS memory_tier, 0 AS access_count, number AS place
    FROM range({start}, {end}) AS r(number)
    JOIN real ON real.place = number % {texts}
    JOIN vectors ON vectors.place = number - {start}
)
ORDER BY number
"""


@dataclass(frozen=True, slots=True)
class Lap:
    """Seconds between two moments: on the wall, and of CPU in this process and its finished children."""

    wall: float
    cpu: float


@contextmanager
def lap(into: list[Lap]) -> Iterator[None]:
    """Append the lap of the block to `into`."""
    wall, cpu = time.perf_counter(), _cpu()
    yield
    into.append(Lap(time.perf_counter() - wall, _cpu() - cpu))


@contextmanager
def s3_endpoint() -> Iterator[str]:
    """A throw-away S3 server on a free port of 127.0.0.1, with a bucket, and with credentials in the environment.

    It is moto, or with ``AKOSHA_BENCHMARK_S3=ceph`` Ceph's gateway (see `ceph`), which lists many objects faster.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ.update(AWS_ACCESS_KEY_ID="benchmark", AWS_SECRET_ACCESS_KEY="benchmark", AWS_DEFAULT_REGION="us-east-1")
    ceph = os.environ.get("AKOSHA_BENCHMARK_S3", "moto") == "ceph"
    with gateway(port, "benchmark", "benchmark") if ceph else _moto(port) as endpoint:
        make_client(endpoint).create_bucket(Bucket=BUCKET)
        yield endpoint


@contextmanager
def _moto(port: int) -> Iterator[str]:
    server = subprocess.Popen(
        [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(300):
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@contextmanager
def lake_folder() -> Iterator[Path]:
    """A folder for lake and cache, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="akosha-benchmark-") as name:
        yield Path(name)


def texts(count: int) -> list[str]:
    """Different texts of about 1.4 KB: real docstrings, each told apart by a first sentence of its own."""
    real = docstrings(2_000)
    return [f"Note {number} of the benchmark. {real[number % len(real)]}" for number in range(count)]


def write_database(path: Path, records: int, *, first: int, short: bool = False, most: int = 1 << 20) -> None:
    """Append `records` rows of a client's table to a database file, numbered from `first`; no two texts are equal.

    `short` texts have 60 bytes and no vector: for filling a lake fast. Other texts are cut at `most` characters.
    """
    with duckdb.connect(str(path), config={"threads": 1}) as con:
        con.execute(
            f"CREATE TABLE IF NOT EXISTS {TABLE} ({', '.join(f'{name} {kind}' for name, kind in COLUMNS.items())})"
        )
        real = [""] if short else [text[:most] for text in docstrings(2_000)]
        con.register("real", pa.table({"place": range(len(real)), "body": real}))
        for start in range(first, first + records, APPENDED_ROWS):
            end = min(start + APPENDED_ROWS, first + records)
            con.register("vectors", _vectors(end - start, None if short else start))
            query = INSERT.format(
                table=TABLE, start=start, end=end, texts=len(real), anchor=ANCHOR.replace(tzinfo=None)
            )
            con.execute(query)
        con.execute("CHECKPOINT")


def _vectors(count: int, seed: int | None) -> pa.Table:
    if seed is None:
        return pa.table({"place": range(count), "embedding": pa.nulls(count, pa.list_(pa.float32(), 384))})
    vectors = np.random.default_rng(seed).normal(size=(count, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return pa.table(
        {"place": range(count), "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 384)}
    )


def put_upload(endpoint: str, system_id: str, database: Path, *, compress: bool, later: int = 0) -> None:
    """Put one upload of a system into the bucket, `later` seconds after the anchor."""
    client = make_client(endpoint)
    made = ANCHOR + timedelta(seconds=later)
    upload_id = f"{made:%Y%m%d_%H%M%S}_{system_id}"
    folder = f"systems/{system_id}/uploads/{upload_id}"
    if compress:
        client.put_object(
            Bucket=BUCKET, Key=f"{folder}/reflection.duckdb", Body=gzip.compress(database.read_bytes(), 1)
        )
    else:
        client.upload_file(str(database), BUCKET, f"{folder}/reflection.duckdb")
    manifest = _manifest(system_id, upload_id, folder, made, "gzip" if compress else "none")
    client.put_object(Bucket=BUCKET, Key=f"{folder}/manifest.json", Body=json.dumps(manifest).encode())


def write_uploads(endpoint: str, *, systems: int, records: int) -> list[Path]:
    """Put one upload per system into the bucket; returns the unpacked databases, kept for the reference."""
    store = S3Store(make_client(endpoint), BUCKET, "", setting="benchmark")
    contents = texts(systems * records)
    kept = Path(tempfile.mkdtemp(prefix="akosha-benchmark-uploads-"))
    paths = []
    for number in range(systems):
        system_id = f"bench-{number:02d}"
        path = kept / f"{system_id}.duckdb"
        _write_database(path, contents[number * records : (number + 1) * records], seed=number)
        upload_id = f"{ANCHOR:%Y%m%d_%H%M%S}_{system_id}"
        folder = f"systems/{system_id}/uploads/{upload_id}"
        store.put(f"{folder}/reflection.duckdb", gzip.compress(path.read_bytes(), 6))
        store.put(f"{folder}/manifest.json", json.dumps(_manifest(system_id, upload_id, folder)).encode())
        paths.append(path)
    return paths


def _manifest(
    system_id: str, upload_id: str, folder: str, made: datetime = ANCHOR, compression: str = "gzip"
) -> dict[str, object]:
    file = {
        "name": "reflection.duckdb",
        "path": f"{folder}/reflection.duckdb",
        "size_bytes": 0,
        "compression": compression,
        "checksum": "",
    }
    return {"upload_id": upload_id, "system_id": system_id, "timestamp": made.isoformat(), "files": [file],
            "metadata": {"uploader": "session-buddy", "version": "1.0.0"}}  # fmt: skip


def _write_database(path: Path, contents: list[str], *, seed: int) -> None:
    count = len(contents)
    vectors = np.random.default_rng(seed).normal(size=(count, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    made = [(ANCHOR - timedelta(minutes=7 * number)).replace(tzinfo=None) for number in range(count)]
    rows = pa.table(
        {
            "id": [hashlib.sha256(text.encode()).hexdigest()[:16] for text in contents],
            "content": contents,
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 384),
            "category": ["context"] * count,
            "project": ["benchmark"] * count,
            "timestamp": pa.array(made, pa.timestamp("us")),
            "metadata": ['{"project": "benchmark"}'] * count,
            "memory_tier": ["long_term"] * count,
            "access_count": pa.array([0] * count, pa.int32()),
        }
    )
    with duckdb.connect(str(path)) as con:
        con.execute(f"CREATE TABLE {TABLE} ({', '.join(f'{name} {kind}' for name, kind in COLUMNS.items())})")
        con.register("incoming", rows)
        con.execute(f"INSERT INTO {TABLE} BY NAME SELECT * FROM incoming")  # noqa: S608 - the name is ours
        con.execute("CHECKPOINT")


def _cpu() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
