"""Ingest, hot to warm and warm to cold, end to end against an S3 endpoint, as ratios to what the machine can do at least.

    python benchmarks/pipeline.py [--records 5000] [--systems 8] [--json]

- ingest: uploads in S3 -> committed in hot, all steps on, two processes; against reading the same rows out of the same
  database files and writing them to new ones with DuckDB, nothing else.
- moves: bytes of the source files per core-second; against a plain copy of the same bytes to a fsynced file.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from datetime import timedelta
from pathlib import Path

import duckdb

from akosha import jobs
from akosha.jobs.plans import open_lake
from akosha.lake.lake import Lake
from akosha.settings import Settings
from support import ANCHOR, BUCKET, TABLE, Lap, lake_folder, lap, s3_endpoint, write_uploads

MEGABYTE = 1e6


def main() -> None:
    """Run once and print every figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=5_000, help="records per system")
    parser.add_argument("--systems", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with s3_endpoint() as endpoint, lake_folder() as folder:
        databases = write_uploads(endpoint, systems=options.systems, records=options.records)
        os.environ.update(
            AKOSHA_LAKE_URL=f"file://{folder}/lake",
            AKOSHA_CACHE_DIR=f"{folder}/cache",
            AKOSHA_UPLOADS_URL=f"s3://{BUCKET}",
            AKOSHA_S3_ENDPOINT_URL=endpoint,
        )
        figures = measure(databases, folder, options.systems * options.records)
        shutil.rmtree(databases[0].parent)
    if options.json:
        sys.stdout.write(json.dumps(figures, indent=1) + "\n")
        return
    for name, value in figures.items():
        sys.stdout.write(f"{name:58} {value:12,.2f}\n")


def measure(databases: list[Path], folder: Path, records: int) -> dict[str, float]:
    """Every figure by name; the unit is in the name."""
    lake = Lake.create(Settings.from_environment(), now=ANCHOR)
    laps: list[Lap] = []
    with lap(laps):
        summary = jobs.run_all(jobs.plan_ingest("ingest"), progress=_silent)
    with lap(laps):
        for path in databases:
            _rewrite(path, folder / f"rewritten-{path.name}")
    if summary["counts"]["new"] != records:
        message = f"expected {records} new records, found {summary['counts']['new']}"
        raise SystemExit(message)
    ingest, rewrite = laps
    figures = {
        "ingest records/s, wall, two processes": records / ingest.wall,
        "ingest records per core-second": records / ingest.cpu,
        "rewrite with DuckDB, records/s, wall, one process": records / rewrite.wall,
        "rewrite with DuckDB, records per core-second": records / rewrite.cpu,
        "ingest to rewrite, per core": rewrite.cpu / ingest.cpu,
    }
    later = ANCHOR + timedelta(days=400)
    for kind, tier in (("hot-to-warm", "hot"), ("warm-to-cold", "warm")):
        figures |= _move(lake, kind, tier, later.isoformat(), folder)
    return figures


def _move(lake: Lake, kind: str, tier: str, as_of: str, folder: Path) -> dict[str, float]:
    entries = [entry for head in lake.heads() for entry in head.of_tier(tier)]  # type: ignore[arg-type]
    paths = [lake.cache.path_of(lake.store, entry.path, entry.sha256) for entry in entries]
    total = sum(path.stat().st_size for path in paths) / MEGABYTE
    laps: list[Lap] = []
    os.environ["AKOSHA_WORKERS"] = "1"
    with lap(laps):
        for path in paths:
            _copy(path, folder / f"copy-{path.name}")
    with lap(laps):
        summary = jobs.run_all(jobs.plan_move(kind, kind, as_of=as_of, force=True), progress=_silent)
    copy, move = laps
    rows = summary["counts"]["rows"]
    after = open_lake()
    made = sum(e.bytes for head in after.heads() for e in head.of_tier("warm" if tier == "hot" else "cold"))
    return {
        f"{kind} MB/s per core, of {total:.0f} MB": total / move.cpu,
        f"{kind} records per core-second": rows / move.cpu,
        f"{kind}: plain copy MB/s per core": total / copy.cpu,
        f"{kind} to plain copy, per core": copy.cpu / move.cpu,
        f"{kind}: bytes per record before": total * MEGABYTE / rows,
        f"{kind}: bytes per record after (tier only)": made / rows,
    }


def _rewrite(source: Path, target: Path) -> None:
    with duckdb.connect(config={"threads": 1}) as con:
        con.execute(f"ATTACH '{source}' AS old (READ_ONLY)")
        con.execute(f"ATTACH '{target}' AS new (STORAGE_VERSION 'v1.5.0')")
        con.execute(f"CREATE TABLE new.{TABLE} AS SELECT * FROM old.{TABLE}")  # noqa: S608 - the names are ours
        con.execute("CHECKPOINT new")


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fsync(writer.fileno())


def _silent(line: str) -> None:
    del line


if __name__ == "__main__":
    main()
