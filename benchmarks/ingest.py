"""Ingestion at scale, each figure as a ratio to a reference measured in the same run.

    python benchmarks/ingest.py [sustained] [backlog] [small] [growth] [repeat] [memory] [--long] [--json]

- sustained: records with vectors, S3 object to committed hot, all steps on, one process per core; against reading and
  rewriting the same database files with DuckDB. Long form: a million records.
- backlog: everything arrives before the first run, more than a run takes; runs follow one another until nothing is due, and
  what is in the lake then is counted. Long form: three million records.
- small: uploads of 200 rows with texts as long as those of real uploads, all new: first 4 to a shard, then 59, which is what a
  run every quarter of an hour finds when 1,000 arrive a minute; uploads a minute, against 1,000. The S3 server works on the
  same cores: its share is printed, and what the CPU time of ingestion alone would allow. Long form: 1,000 uploads, so that
  what a run costs once (5 to 10 CPU-s) weighs less.
- growth: an upload of 1,000 new rows by another system of a shard that holds few records, and of one that holds many:
  the ratio of the two. Long form: 10,000 and 1,000,000.
- repeat: a snapshot that repeats every row, one that adds 100, and the same file once more, which ends after one hash; per
  core, against SHA-256 of the same texts, which are as long as those of real uploads. Long form: 500,000 rows.
- memory: the most that one task and its reading child hold while they take in one large upload. Long form: a million rows, a
  database file of more than 2 GB.

No scenario named = all of them. Texts are real docstrings of 1 to 2 KB, each made different.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import psutil

from akosha import jobs
from akosha.jobs.plans import open_lake
from akosha.lake.lake import Lake
from akosha.lake.layout import shard_of
from akosha.settings import Settings
from support import ANCHOR, BUCKET, TABLE, Lap, lake_folder, lap, put_upload, s3_endpoint, write_database

Figures = dict[str, float]
SMALL_ROWS = 200
SMALL_CROWD = 59  # uploads of a shard: 15,000 of a quarter of an hour over 256 shards
SMALL_FEW = 4
SHORT_RUN_BYTES = 50 << 20  # of the short backlog's 110 MB; the long one is more than a run takes by its default
REAL_CHARACTERS = 580  # texts of real uploads have 590 bytes on average, over conversations and reflections


@dataclass(frozen=True, slots=True)
class Size:
    """How large the scenarios are."""

    sustained: int
    backlog: int
    small: int
    growth: tuple[int, int]
    repeat: int
    memory: int


SHORT = Size(sustained=40_000, backlog=60_000, small=200, growth=(10_000, 100_000), repeat=100_000, memory=100_000)
LONG = Size(
    sustained=1_000_000, backlog=3_000_000, small=1_000, growth=(10_000, 1_000_000), repeat=500_000, memory=1_000_000
)


def main() -> None:
    """Run the scenarios and print every figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", choices=[[], *SCENARIOS])
    parser.add_argument("--long", action="store_true", help="the sizes that the claims are made for (about an hour)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures: Figures = {}
    for name in options.scenarios or SCENARIOS:
        with s3_endpoint() as endpoint, lake_folder() as folder:
            os.environ.update(
                AKOSHA_LAKE_URL=f"file://{folder}/lake",
                AKOSHA_CACHE_DIR=f"{folder}/cache",
                AKOSHA_UPLOADS_URL=f"s3://{BUCKET}",
                AKOSHA_S3_ENDPOINT_URL=endpoint,
                AKOSHA_WORKERS="0",
            )
            os.environ.pop("AKOSHA_RUN_BYTES", None)
            Lake.create(Settings.from_environment(), now=ANCHOR)
            found = SCENARIOS[name](endpoint, folder, LONG if options.long else SHORT)
        figures |= {f"{name}: {what}": value for what, value in found.items()}
        if not options.json:
            for what, value in found.items():
                sys.stdout.write(f"{name + ': ' + what:72} {value:14,.2f}\n")
                sys.stdout.flush()
    if options.json:
        sys.stdout.write(json.dumps(figures, indent=1) + "\n")


def sustained(endpoint: str, folder: Path, size: Size) -> Figures:
    """Many systems, all rows new, two processes."""
    systems, records, kept = _arrive(endpoint, folder, size.sustained)
    laps: list[Lap] = []
    with lap(laps):
        summary = _ingest("sustained")
    _expect(summary, new=systems * records)
    with lap(laps):
        _rewrite(kept, folder / "rewritten.duckdb")
    taken, rewrite = laps
    rate = systems * records / taken.wall
    return {
        f"records/s, wall, {os.cpu_count()} processes, of {systems * records:,}": rate,
        "records per core-second": systems * records / taken.cpu,
        "rewrite with DuckDB, records per core-second": records / rewrite.cpu,
        "to rewrite, per core": (systems * records / taken.cpu) / (records / rewrite.cpu),
        "hours to drain 3 million records that arrive at once": 3e6 / rate / 3600,
    }


def backlog(endpoint: str, folder: Path, size: Size) -> Figures:
    """Many more records than a run takes, there before the first run."""
    systems, records, _ = _arrive(endpoint, folder, size.backlog)
    if size is SHORT:
        os.environ["AKOSHA_RUN_BYTES"] = str(SHORT_RUN_BYTES)
    summaries: list[jobs.Summary] = []
    laps: list[Lap] = []
    with lap(laps):
        while not summaries or (summaries[-1]["counts"]["backlog_uploads"] and summaries[-1]["counts"]["new"]):
            summaries.append(_ingest(f"drain-{len(summaries)}"))
    held = sum(entry.rows for head in open_lake().heads() for entry in head.keys.values())
    new = sum(summary["counts"]["new"] for summary in summaries)
    if (held, new) != (systems * records, systems * records):
        message = f"{systems * records:,} records arrived, {new:,} were taken in, {held:,} are in the lake"
        raise SystemExit(message)
    return {
        "records that arrived at once": systems * records,
        "uploads in the backlog after the first run": summaries[0]["counts"]["backlog_uploads"],
        "runs until nothing was due": len(summaries),
        "minutes to drain": laps[0].wall / 60,
        f"records/s, wall, {os.cpu_count()} processes": held / laps[0].wall,
        "records per core-second": held / laps[0].cpu,
        "records lost": systems * records - held,
    }


def small(endpoint: str, folder: Path, size: Size) -> Figures:
    """Uploads of 200 rows, all new: few to a shard, then as many as a run finds that comes every quarter of an hour."""
    source = folder / "source.duckdb"
    first = itertools.count(step=SMALL_ROWS)
    servers = psutil.Process().children()
    figures: Figures = {}
    for crowd, count in ((SMALL_FEW, size.small // 10), (SMALL_CROWD, size.small)):
        systems = _systems_of(range(-(-count // crowd)), count, prefix=f"crowd-{crowd}")
        for system_id in systems:
            write_database(source, SMALL_ROWS, first=next(first), most=REAL_CHARACTERS)
            put_upload(endpoint, system_id, source, compress=True)
            source.unlink()
        laps: list[Lap] = []
        before = _cpu_of(servers)
        with lap(laps):
            summary = _ingest(f"small-{crowd}")
        served = _cpu_of(servers) - before
        _expect(summary, new=count * SMALL_ROWS)
        taken, cores = laps[0], os.cpu_count() or 1
        what = f"of {count} uploads, {count / summary['counts']['commits']:.0f} to a commit"
        figures |= {
            f"uploads of {SMALL_ROWS} rows a minute, wall, {what}": count / taken.wall * 60,
            f"CPU-ms per upload, {what}": taken.cpu / count * 1e3,
            f"CPU-ms of the S3 server per upload, {what}": served / count * 1e3,
            f"to 1,000 uploads a minute, {what}": count / taken.wall * 60 / 1_000,
            f"to 1,000 a minute by its own CPU time alone, {what}": count * cores / taken.cpu * 60 / 1_000,
        }
    return figures


def growth(endpoint: str, folder: Path, size: Size) -> Figures:
    """The same small upload into a small and into a large shard."""
    small_shard, large_shard = (_systems_of(range(shard, shard + 1), 12) for shard in (3, 7))
    source = folder / "source.duckdb"
    for systems, records in ((small_shard, size.growth[0]), (large_shard, size.growth[1])):
        for number, system_id in enumerate(systems[:5]):
            write_database(source, records // 5, first=number * records, short=True)
            put_upload(endpoint, system_id, source, compress=False)
            source.unlink()
    _ingest("fill")
    laps: dict[int, list[Lap]] = {0: [], 1: []}
    for attempt in range(5, 10):
        for which, systems in enumerate((small_shard, large_shard)):
            write_database(source, 1_000, first=(attempt + 1) * 10_000_000)
            put_upload(endpoint, systems[attempt], source, compress=True)
            source.unlink()
            plan = jobs.plan_ingest(f"grow-{attempt}-{which}", system=systems[attempt])
            with lap(laps[which]):
                summary = _run(plan)
            _expect(summary, new=1_000)
    few, many = (sorted(one.cpu for one in laps[which])[2] for which in (0, 1))
    return {
        f"CPU-s of 1,000 new rows beside {size.growth[0]:,} records": few,
        f"CPU-s of 1,000 new rows beside {size.growth[1]:,} records": many,
        "ratio": many / few,
    }


def repeat(endpoint: str, folder: Path, size: Size) -> Figures:
    """A snapshot that repeats everything, one that adds 100 rows, and the identical file; one process each time."""
    os.environ["AKOSHA_WORKERS"] = "1"
    source = folder / "source.duckdb"
    write_database(source, size.repeat, first=0, most=REAL_CHARACTERS)
    put_upload(endpoint, "repeater", source, compress=False)
    _expect(_ingest("first"), new=size.repeat)
    with duckdb.connect(str(source)) as con:
        texts = [row[0].encode() for row in con.table(TABLE).project("content").fetchall()]
        con.execute("CREATE TABLE unrelated AS SELECT 1 AS number")  # another file with the same rows
    laps: list[Lap] = []
    for number, wanted in enumerate(({"unchanged_rows": size.repeat}, {"new": 100}, {"repeated": 1})):
        if "new" in wanted:
            write_database(source, 100, first=90_000_000, most=REAL_CHARACTERS)
        put_upload(endpoint, "repeater", source, compress=False, later=number + 1)
        plan = jobs.plan_ingest(f"repeat-{number}")
        with lap(laps):  # the task; what a run costs besides does not grow with its rows
            result = jobs.run_batch(plan["plan_key"], 0)
        _expect(jobs.finish(plan["plan_key"], [result]), **wanted)
    with lap(laps):
        for text in texts:
            hashlib.sha256(text).digest()
    nothing, few, same, hashing = (size.repeat / one.cpu for one in laps)
    return {
        f"rows/s per core, of {size.repeat:,} repeated": nothing,
        "rows/s per core, of as many and 100 new": few,
        "rows/s per core, of the same file again": same,
        "SHA-256 of the texts alone, rows/s per core": hashing,
        "repeated, to SHA-256 of the texts alone": nothing / hashing,
        "repeated, to 80,000 rows/s": nothing / 80_000,
    }


def memory(endpoint: str, folder: Path, size: Size) -> Figures:
    """One large upload in a process of its own, watched from outside."""
    source = folder / "source.duckdb"
    write_database(source, size.memory, first=0)
    file_bytes = source.stat().st_size
    put_upload(endpoint, "giant", source, compress=False)
    source.unlink()
    plan = jobs.plan_ingest("giant")
    task = multiprocessing.get_context("spawn").Process(target=jobs.run_batch, args=(plan["plan_key"], 0))
    task.start()
    with _watched(task) as peaks:
        task.join()
    new = sum(entry.rows for head in open_lake().heads() for entry in head.keys.values())
    if new != size.memory:
        message = f"expected {size.memory} records, found {new}"
        raise SystemExit(message)
    return {
        f"MB of the database file, {size.memory:,} rows": file_bytes / 1e6,
        "MiB at most, task and child, private": peaks["private"] / 2**20,
        "MiB at most, with mapped files that the system may drop": peaks["resident"] / 2**20,
        "to 1 GiB": peaks["private"] / 2**30,
    }


SCENARIOS: dict[str, Callable[[str, Path, Size], Figures]] = {
    "sustained": sustained,
    "backlog": backlog,
    "small": small,
    "growth": growth,
    "repeat": repeat,
    "memory": memory,
}


@contextmanager
def _watched(task: multiprocessing.process.BaseProcess) -> Iterator[dict[str, int]]:
    """Peaks over time of the summed private and proportional memory of a process and its descendants, in bytes."""
    peaks = {"private": 0, "resident": 0}

    def watch() -> None:
        while task.is_alive():
            found = [_memory_of(pid) for pid in _tree(int(task.pid or 0))]
            for index, name in enumerate(peaks):
                peaks[name] = max(peaks[name], sum(one[index] for one in found))
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield peaks
    watcher.join()


def _tree(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(below for child in children for below in _tree(int(child)))]


def _memory_of(pid: int) -> tuple[int, int]:
    """Anonymous memory and all memory of a process, shared pages in proportion."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0, 0
    found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines[1:]}
    return found["Pss_Anon"] + found["Pss_Shmem"], found["Pss"]


def _cpu_of(processes: list[psutil.Process]) -> float:
    """CPU seconds of processes so far."""
    return sum(times.user + times.system for times in (process.cpu_times() for process in processes))


def _ingest(run_id: str) -> jobs.Summary:
    return _run(jobs.plan_ingest(run_id))


def _run(plan: jobs.Plan) -> jobs.Summary:
    return jobs.run_all(plan, progress=_silent)


def _silent(line: str) -> None:
    del line


def _expect(summary: jobs.Summary, **wanted: int) -> None:
    found = {name: summary["counts"].get(name, 0) for name in wanted}
    if found != wanted:
        message = f"expected {wanted}, found {found}: {summary['message']}"
        raise SystemExit(message)


def _arrive(endpoint: str, folder: Path, wanted: int) -> tuple[int, int, Path]:
    """Uploads of new records by many systems: how many systems, records of each, and the database of the last."""
    systems = max(8, wanted // 20_000)
    records = wanted // systems
    kept = folder / "kept.duckdb"
    for number in range(systems):
        source = folder / f"source-{number}.duckdb"
        write_database(source, records, first=number * records)
        put_upload(endpoint, f"bench-{number:03d}", source, compress=True)
        source.replace(kept)
    return systems, records, kept


def _systems_of(shards: range, count: int, *, prefix: str = "machine") -> list[str]:
    """System ids that lie in some shards."""
    names = (f"{prefix}-{number}" for number in itertools.count())
    return list(itertools.islice((name for name in names if shard_of(name) in shards), count))


def _rewrite(source: Path, target: Path) -> None:
    with duckdb.connect(config={"threads": 1}) as con:
        con.execute(f"ATTACH '{source}' AS old (READ_ONLY)")
        con.execute(f"ATTACH '{target}' AS new (STORAGE_VERSION 'v1.5.0')")
        con.execute(f"CREATE TABLE new.{TABLE} AS SELECT * FROM old.{TABLE}")  # noqa: S608 - the names are ours
        con.execute("CHECKPOINT new")


if __name__ == "__main__":
    main()
