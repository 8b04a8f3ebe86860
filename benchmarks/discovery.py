"""Discovery over many systems on an S3 endpoint, with nothing new: requests and client CPU, against bare boto3 listings.

    python benchmarks/discovery.py [--systems 10000] [--json]

The lake holds a head for every system and a memo for each of its uploads, one upload each. Three plans are measured, by
how many systems are active: one in a hundred, one in ten, all. The reference is `list_objects_v2` of a bare boto3 client,
one call for each due system (1,000 at most), in the same process and over the same bucket.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
from botocore.config import Config

from akosha import jobs
from akosha.lake.commits import Change, KeyFile
from akosha.lake.documents import seal
from akosha.lake.lake import Lake
from akosha.lake.layout import shard_of
from akosha.lake.shard_log import Writer
from akosha.settings import Settings
from akosha.uploads.memos import APPLIED, UploadRef, write_memo
from akosha.uploads.schedule import upload_second
from support import BUCKET, Lap, lake_folder, lap, s3_endpoint

NOW = datetime.now(UTC).replace(microsecond=0)
ACTIVE, IDLE = NOW - timedelta(hours=3), NOW - timedelta(days=30)
LIMIT_MS = 5
REFERENCE = 1_000  # bare calls: enough for a mean


def main() -> None:
    """Fill a bucket, plan three times, print every figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with s3_endpoint() as endpoint, lake_folder() as folder:
        os.environ.update(
            AKOSHA_LAKE_URL=f"s3://{BUCKET}/lake",
            AKOSHA_CACHE_DIR=f"{folder}/cache",
            AKOSHA_UPLOADS_URL=f"s3://{BUCKET}",
            AKOSHA_S3_ENDPOINT_URL=endpoint,
        )
        names = [f"machine-{number:05d}.example" for number in range(options.systems)]
        lake = Lake.create(Settings.from_environment(), now=NOW)
        refs = put_uploads(endpoint, lake, names)
        figures = {}
        for share in (100, 10, 1):
            measured = measure(endpoint, lake, names, set(names[::share]), refs)
            figures |= measured
            if not options.json:  # as they come: the last one takes minutes
                sys.stdout.writelines(f"{name:70} {value:12,.2f}\n" for name, value in measured.items())
                sys.stdout.flush()
    if options.json:
        sys.stdout.write(json.dumps(figures, indent=1) + "\n")


def put_uploads(endpoint: str, lake: Lake, names: list[str]) -> dict[str, UploadRef]:
    """One upload with its memo for each system; all are active."""
    store = _bare(endpoint)

    def put(name: str) -> UploadRef:
        upload_id = f"{upload_second(ACTIVE)}_{name}"
        key = f"systems/{name}/uploads/{upload_id}/manifest.json"
        etag = store.put_object(Bucket=BUCKET, Key=key, Body=b"{}")["ETag"].strip('"')
        ref = UploadRef(key, etag, name, upload_id)
        write_memo(lake.store, ref, APPLIED, {})
        return ref

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(names, pool.map(put, names), strict=True))


def measure(
    endpoint: str, lake: Lake, names: list[str], active: set[str], refs: dict[str, UploadRef]
) -> dict[str, float]:
    """Figures of one plan in which the systems of `active` are due; the others' turn is not now."""
    publish_heads(lake, names, active)
    # As a run of the same quarter of an hour would have left it: no slot is due, none waits, the full listing was made.
    state = {"format": "akosha-discovery/1", "at": NOW.isoformat(), "full_at": NOW.isoformat(), "newest": {}, "queue": [],
             "backlog": {}}  # fmt: skip
    lake.store.put("runs/discovery.json", seal(state))
    laps: list[Lap] = []
    with lap(laps):
        plan = jobs.plan_ingest(f"due-{len(active)}", at=NOW.isoformat())
    store = _bare(endpoint)
    with lap(laps):
        for name in sorted(active)[:REFERENCE]:
            store.list_objects_v2(
                Bucket=BUCKET, Prefix=f"systems/{name}/uploads/", StartAfter=refs[name].manifest_key[:-40]
            )
    planned, bare = laps
    counts = plan["counts"]
    if (counts["due"], counts["parts_listed"]) != (0, len(active)):
        message = f"expected nothing new of {len(active)} systems, found {counts}"
        raise SystemExit(message)
    requests, per_request = counts["requests"], planned.cpu * 1_000 / counts["requests"]
    per_bare = bare.cpu * 1_000 / min(REFERENCE, len(active))
    if per_request > LIMIT_MS:
        sys.stderr.write(f"{per_request:.2f} ms of CPU per request, expected at most {LIMIT_MS}\n")
    label = f"{len(active):,} due of {len(names):,}"
    return {
        f"{label}: requests": requests,
        f"{label}: requests, heads left out, per due system": (requests - counts["requests_for_heads"]) / len(active),
        f"{label}: CPU seconds": planned.cpu,
        f"{label}: CPU ms per request": per_request,
        f"{label}: CPU ms per request of bare boto3": per_bare,
        f"{label}: CPU per request to bare boto3": per_request / per_bare,
        f"{label}: wall seconds": planned.wall,
    }


def publish_heads(lake: Lake, names: list[str], active: set[str]) -> None:
    """A version of every shard whose key files say when each system was applied; their rows are never read here."""
    by_shard: dict[int, list[str]] = defaultdict(list)
    for name in names:
        by_shard[shard_of(name)].append(name)
    for shard, members in by_shard.items():
        head = lake.shard(shard).head()
        keys = tuple((head.keys.get(name), _key_file(name, ACTIVE if name in active else IDLE)) for name in members)
        lake.shard(shard).publish(head, Change("benchmark", keys=keys), Writer("benchmark", 1, NOW))


def _key_file(name: str, newest: datetime) -> KeyFile:
    return KeyFile(name, f"shards/{shard_of(name):03d}/keys/{name}.parquet", 1, 1, "0" * 64, newest.isoformat())


def _bare(endpoint: str) -> Any:  # noqa: ANN401 - boto3 clients are untyped
    return boto3.client("s3", endpoint_url=endpoint, config=Config(s3={"addressing_style": "path"}))


if __name__ == "__main__":
    main()
