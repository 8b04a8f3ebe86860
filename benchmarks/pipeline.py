"""Ingest, end to end against an S3 endpoint, as a ratio to what the machine can do at least; moves are in moves.py.

    python benchmarks/pipeline.py [--records 5000] [--systems 8] [--json]

- ingest: uploads in S3 -> committed in hot, all steps on, two processes; against reading the same rows out of the same
  database files and writing them to new ones with DuckDB, nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

import duckdb

from akosha import jobs
from akosha.lake.lake import Lake
from akosha.settings import Settings
from support import ANCHOR, BUCKET, TABLE, Lap, lake_folder, lap, s3_endpoint, write_uploads


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
    Lake.create(Settings.from_environment(), now=ANCHOR)
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
    return {
        "ingest records/s, wall, two processes": records / ingest.wall,
        "ingest records per core-second": records / ingest.cpu,
        "rewrite with DuckDB, records/s, wall, one process": records / rewrite.wall,
        "rewrite with DuckDB, records per core-second": records / rewrite.cpu,
        "ingest to rewrite, per core": rewrite.cpu / ingest.cpu,
    }


def _rewrite(source: Path, target: Path) -> None:
    with duckdb.connect(config={"threads": 1}) as con:
        con.execute(f"ATTACH '{source}' AS old (READ_ONLY)")
        con.execute(f"ATTACH '{target}' AS new (STORAGE_VERSION 'v1.5.0')")
        con.execute(f"CREATE TABLE new.{TABLE} AS SELECT * FROM old.{TABLE}")  # noqa: S608 - the names are ours
        con.execute("CHECKPOINT new")


def _silent(line: str) -> None:
    del line


if __name__ == "__main__":
    main()
