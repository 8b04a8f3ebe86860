"""Both moves in one shard: what they cost per core and step, what a record takes in each tier, and what 1 % of a shard costs.

    python benchmarks/moves.py [--records 20000] [--files 12] [--json]

- Logical bytes are the Arrow bytes of the source rows: every column of hot (text, FLOAT[384], fingerprint, summary, key,
  provenance) or of warm. A rate is logical bytes per second of CPU time, which other work on the machine disturbs least.
- The ratio is to a plain copy of the source files to new, fsynced ones, in the same run.
- Steps are CPU seconds of the code named, less that of the steps inside it; "else" is what is left.
- Every lap runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from akosha.lake import cache, columns, edit, files, shard_log
from akosha.lake.commits import Tier
from akosha.lake.lake import Lake
from akosha.lake.local_store import LocalStore
from akosha.lake.provenance import about
from akosha.lake.schemas import BY_TIER
from akosha.lake.shard_log import Writer
from akosha.settings import Settings
from akosha.tiers import hot_to_warm, moves, warm_to_cold
from akosha.transforms.digests import utf8_digests
from akosha.uploads.derive import hot_rows
from akosha.uploads.texts import WantedRows
from corpus import documentation
from support import ANCHOR, lake_folder

SHARD: Final = 7
SYSTEM: Final = "bench-00"
MEGABYTE: Final = 1e6
GOALS: Final = {"hot-to-warm": 1e6 / 3_600, "warm-to-cold": 1e7 / 6 / 3_600}  # MB/s: 1 TB in 1 h, 10 TB in 6 h
SOURCES: Final[dict[str, Tier]] = {"hot-to-warm": "hot", "warm-to-cold": "warm"}
ARCHIVED: Final[tuple[Tier, ...]] = ("cold", "archive")
CODES: Final = ("codes", "scale", "embedding")
WRITER: Final = Writer("benchmark", 1, ANCHOR)
LATER: Final = ANCHOR + timedelta(days=400)
STEPS: Final[list[tuple[object, str, str]]] = [
    (cache, "xxh128_of", "hash the source files"),
    (files, "digests_of", "hash the new files"),
    (edit.files, "read", "read the source"),
    (hot_to_warm, "verify_content", "verify content digests"),
    (files, "verify_content", "verify content digests"),
    (hot_to_warm, "transform", "quantise, bounds, audit sample"),
    (warm_to_cold, "transform", "sentence and sign bits"),
    (hot_to_warm, "measure_gate", "recall gate"),
    (files, "_write_duckdb", "write DuckDB"),
    (files, "_write_parquet", "write Parquet"),
    (files, "verify_written", "read back and compare"),
    (LocalStore, "upload", "upload and fsync"),
    (shard_log.ShardLog, "publish", "commit"),
    (moves.ShardMove, "count_kept", "count kept by guess"),
    (edit.ShardEdit, "_write", "sort into file order"),
]


@dataclass(slots=True)
class Steps:
    """CPU seconds by step, each without those of the steps it calls."""

    seconds: dict[str, float] = field(default_factory=dict)
    _inner: list[float] = field(default_factory=list)

    def watch(self, owner: object, name: str, step: str) -> None:
        """Count the calls of one function as `step`."""
        setattr(owner, name, self._timed(getattr(owner, name), step))

    def _timed(self, function: Callable[..., Any], step: str) -> Callable[..., Any]:
        @wraps(function)
        def timed(*args: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever the function takes and gives
            start = time.process_time()
            self._inner.append(0.0)
            try:
                return function(*args, **named)
            finally:
                spent = time.process_time() - start
                self.seconds[step] = self.seconds.get(step, 0.0) + spent - self._inner.pop()
                if self._inner:
                    self._inner[-1] += spent

        return timed


def main() -> None:
    """Run once and print every figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=files.MAX_ROWS, help="records per file")
    parser.add_argument("--files", type=int, default=12, help="hot files of the shard")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with lake_folder() as folder:
        os.environ["OPENBLAS_NUM_THREADS"] = "1"  # a second thread that waits for work counts as CPU time
        os.environ.update(AKOSHA_LAKE_URL=f"file://{folder}/lake", AKOSHA_CACHE_DIR=f"{folder}/cache")
        figures = measure(folder, options.records, options.files)
    if options.json:
        sys.stdout.write(json.dumps(figures, indent=1) + "\n")
        return
    for name, value in figures.items():
        sys.stdout.write(f"{name:64} {value:14,.3f}\n")


def measure(folder: Path, records: int, count: int) -> dict[str, float]:
    """Every figure by name; the unit is in the name."""
    _alone(_fill, records, count)
    figures: dict[str, float] = {}
    laps: dict[str, dict[str, Any]] = {}
    for kind, source in SOURCES.items():
        part = _nightly(folder, kind, records * count)
        copied = _alone(_copy_all, folder, source)
        lap = laps[kind] = _alone(_move, kind, LATER)
        rate = lap["logical"] / MEGABYTE / lap["cpu"]
        figures |= {
            f"{kind}: logical MB/s per core": rate,
            f"{kind}: MB/s per core of file bytes": lap["stored"] / MEGABYTE / lap["cpu"],
            f"{kind}: logical MB/s, wall": lap["logical"] / MEGABYTE / lap["wall"],
            f"{kind}: records per core-second": lap["rows"] / lap["cpu"],
            f"{kind}: plain copy of the files, MB/s per core": lap["stored"] / MEGABYTE / copied["cpu"],
            f"{kind}: CPU time, plain copies of the same bytes": lap["cpu"] / copied["cpu"],
            f"{kind}: workers (cores) needed for the goal": GOALS[kind] / rate,
            f"{kind}: peak memory MiB": lap["peak"] / 1024,
            f"{kind}: logical bytes per record of {source}": lap["logical"] / lap["rows"],
            **{f"{kind}: share of: {step}": spent / lap["cpu"] for step, spent in lap["steps"].items()},
            **{f"{kind}: {name}": value for name, value in part.items()},
        }
        figures[f"{kind}: 1 % of the shard, share of the whole's CPU time"] = (
            part["1 % of the shard, CPU s"] / lap["cpu"]
        )
    figures["this machine now: SHA-256 MB/s per core"] = _alone(_hash_rate)
    return figures | _alone(_sizes, laps["hot-to-warm"]["stored"] / laps["hot-to-warm"]["rows"])


def _hash_rate() -> float:
    """What SHA-256 alone reaches: a yardstick for figures of a busy machine."""
    block = bytes(64 << 20)
    start = time.process_time()
    hashlib.sha256(block).digest()
    return len(block) / MEGABYTE / (time.process_time() - start)


def _alone(work: Callable[..., Any], *args: object) -> Any:  # noqa: ANN401 - whatever the work gives
    """Run in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, args)


def _fill(records: int, count: int) -> None:
    """A shard of `count` hot files: one of real rows, the others the same rows under other keys and at other times."""
    lake = Lake.create(Settings.from_environment(), now=ANCHOR)
    table = _rows(records)
    for number in range(count):
        with edit.edit_shard(lake, lake.shard(SHARD).head(), about()) as change:
            ids = pa.array([f"{row:08x}{number:08x}" for row in range(records)])
            times = pa.array(_times(records, records * (count - 1 - number)), table.schema.field("created_at").type)
            rows = table.set_column(2, table.schema.field(2), ids).set_column(3, table.schema.field(3), times)
            change.put("hot", rows)
            change.publish("ingest", WRITER, counts={})


def _rows(count: int) -> pa.Table:
    texts = documentation(count, shortest=880, longest=1_880)
    if len(texts) < count:
        message = f"there are only {len(texts)} texts; ask for at most so many --records"
        raise ValueError(message)
    vectors = np.random.default_rng(5).normal(size=(count, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    contents = pa.table({
        "content": texts, "content_sha256": utf8_digests(pa.array(texts)), "embedding": columns.vectors_column(vectors, np.ones(count, dtype=bool)),
        "project": [("web", "data", "infra")[row % 3] for row in range(count)],
        "metadata": [json.dumps({"session": f"{row // 40:06x}", "n": row}) for row in range(count)],
        "attributes": ["{}"] * count,
    })  # fmt: skip
    wanted = pa.table({
        "record_id": [f"{row:016x}" for row in range(count)],
        "created_at": pa.array(_times(count, 0), pa.timestamp("us", tz="UTC")), "time_evidence": ["id"] * count,
    })  # fmt: skip
    provenance = json.dumps({"upload": f"systems/{SYSTEM}/uploads/20261120_000000/manifest.json", **about()})
    return hot_rows(SYSTEM, WantedRows("conversations", wanted, contents), provenance)


def _times(count: int, first: int) -> list[datetime]:
    """One record a minute, ascending; number 0 is the youngest."""
    return [ANCHOR - timedelta(minutes=first + count - row) for row in range(count)]


def _nightly(folder: Path, kind: str, records: int) -> dict[str, float]:
    """Move the oldest 1 %, in a lake that is put back afterwards."""
    kept = folder / f"before-{kind}"
    shutil.copytree(folder / "lake", kept)
    days = {"hot-to-warm": 7, "warm-to-cold": 90}[kind]
    lap = _alone(_move, kind, ANCHOR - timedelta(minutes=records - records // 100) + timedelta(days=days))
    shutil.rmtree(folder / "lake")
    kept.rename(folder / "lake")
    return {
        "1 % of the shard, records": lap["rows"],
        "1 % of the shard, CPU s": lap["cpu"],
        **{f"1 % of the shard, CPU ms of: {step}": 1e3 * spent for step, spent in lap["steps"].items()},
    }


def _move(kind: str, as_of: datetime) -> dict[str, Any]:
    lake = Lake.open(Settings.from_environment())
    head = lake.shard(SHARD).head()
    source = SOURCES[kind]
    batch = hot_to_warm.move_batch if kind == "hot-to-warm" else warm_to_cold.move_batch
    pa.array([""])  # imports pandas, where it is installed: what a process pays once is not counted
    steps = Steps()
    for owner, name, step in STEPS:
        steps.watch(owner, name, step)
    wall, cpu = time.perf_counter(), time.process_time()
    outcome = batch(lake, [SHARD], lake.policy(), WRITER, as_of=as_of)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ((moved,), *_) = outcome if kind == "hot-to-warm" else (outcome,)
    spent = dict(steps.seconds)
    spent["else"] = cpu - sum(spent.values())
    sources = head.of_tier(source)
    logical = sum(Lake.open(lake.settings).rows(entry).nbytes for entry in sources)
    return {
        "rows": moved.rows, "cpu": cpu, "wall": wall, "peak": peak, "steps": spent,
        "logical": logical, "stored": sum(entry.bytes for entry in sources),
    }  # fmt: skip


def _copy_all(folder: Path, tier: Tier) -> dict[str, float]:
    lake = Lake.open(Settings.from_environment())
    paths = [folder / "lake" / entry.path for entry in lake.shard(SHARD).head().of_tier(tier)]
    start = time.process_time()
    for path in paths:
        with path.open("rb") as reader, (folder / "copy").open("wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
            writer.flush()
            os.fsync(writer.fileno())
    return {"cpu": time.process_time() - start}


def _sizes(hot: float) -> dict[str, float]:
    """Bytes per record of what the shard, now all cold, holds; and the saving against `hot` bytes per record."""
    lake = Lake.open(Settings.from_environment())
    head = lake.shard(SHARD).head()
    by_column = {tier: _by_column(lake, tier) for tier in ARCHIVED}
    rows = sum(entry.rows for entry in head.of_tier("cold"))
    cold = sum(entry.bytes for entry in head.of_tier("cold")) / rows
    archive = sum(entry.bytes for entry in head.of_tier("archive")) / rows
    codes = sum(by_column["archive"][name] for name in CODES) / rows
    figures = {"bytes per record: hot file": hot}
    for tier, sizes in by_column.items():
        figures |= {f"bytes per record: {tier}: {name}": size / rows for name, size in sizes.items()}
    return figures | {
        "bytes per record: cold file": cold,
        "bytes per record: archive file": archive,
        "bytes per record: of it codes, scales and audit vectors": codes,
        "saving %: search data only": 100 * (1 - cold / hot),
        "saving %: with the archive": 100 * (1 - (cold + archive - codes) / hot),
        "saving %: with the archive and its re-rank codes": 100 * (1 - (cold + archive) / hot),
    }


def _by_column(lake: Lake, tier: Tier) -> dict[str, int]:
    sizes = dict.fromkeys(BY_TIER[tier].names, 0)
    for entry in lake.shard(SHARD).head().of_tier(tier):
        metadata = pq.ParquetFile(lake.cache.path_of(lake.store_of(entry), entry)).metadata
        for group in range(metadata.num_row_groups):
            for number in range(metadata.num_columns):
                column = metadata.row_group(group).column(number)
                sizes[column.path_in_schema.split(".")[0]] += column.total_compressed_size
    return sizes


if __name__ == "__main__":
    main()
