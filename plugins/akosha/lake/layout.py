"""Where everything lies: the names of a lake's objects, and which shard a system belongs to."""

from __future__ import annotations

import hashlib
import re
import uuid
from typing import Final

SHARDS: Final = 256
LAKE: Final = "lake.json"
POLICY_PREFIX: Final = "policy/"
LAST_VERSION: Final = 99_999_999
REFUSED_ROWS_MARK: Final = ".refused.json"
QUARANTINE_MARK: Final = ".quarantined.json"
_COMMIT = re.compile(r"^shards/(\d{3})/commits/(\d{8})-(\d{8})\.json$")

SUFFIX: Final = {
    "hot": "duckdb",
    "warm": "duckdb",
    "keys": "parquet",
    "archive": "parquet",
    "graph": "parquet",
    "cold": "parquet",
    "removals": "rows",
}


def shard_of(system_id: str) -> int:
    """The shard of a system: the last byte of SHA-256 over its UTF-8 name, 0-255. ``laptop-7`` -> 77."""
    return hashlib.sha256(system_id.encode("utf-8", "surrogatepass")).digest()[-1]


def shard_prefix(shard: int) -> str:
    """The folder of a shard, with a trailing slash."""
    return f"shards/{shard:03d}/"


def commits_prefix(shard: int) -> str:
    """The folder of a shard's commits."""
    return f"{shard_prefix(shard)}commits/"


def commit_key(shard: int, version: int) -> str:
    """The name of a commit. Names descend as versions grow, so the newest is the first of a listing."""
    return f"{commits_prefix(shard)}{LAST_VERSION - version:08d}-{version:08d}.json"


def parse_commit_key(key: str) -> tuple[int, int] | None:
    """Shard and version of a commit's name, or None for any other name."""
    match = _COMMIT.match(key)
    if match is None or int(match[2]) + int(match[3]) != LAST_VERSION:
        return None
    return int(match[1]), int(match[3])


def new_file_key(shard: int, kind: str) -> str:
    """A name never used before for a file of `kind` (a key of `SUFFIX`). Paths are never reused."""
    folder = "" if kind == "cold" else f"{kind}/"
    return f"{shard_prefix(shard)}{folder}{uuid.uuid4().hex}.{SUFFIX[kind]}"


def policy_key(number: int) -> str:
    """The name of policy document `number`."""
    return f"{POLICY_PREFIX}{number:08d}.json"


def memo_key(shard: int, date: str, manifest_key: str, etag: str) -> str:
    """Where it is written what was done with one upload.

    Args:
        shard: the system's shard.
        date: the manifest's day as ``YYYY-MM-DD``, UTC.
        manifest_key: key of the manifest in the uploads bucket.
        etag: the manifest's ETag; the pair identifies an upload.
    """
    name = hashlib.sha256(f"{manifest_key}\n{etag}".encode("utf-8", "surrogatepass")).hexdigest()
    return f"uploads/{shard:03d}/{date}/{name}.json"


def refused_rows_key(memo: str) -> str:
    """Where the rows of an upload are listed that the quality rules refused, beside its memo."""
    return memo.removesuffix(".json") + REFUSED_ROWS_MARK


def quarantine_key(memo: str) -> str:
    """The name a memo has while its upload is in quarantine: a listing can count and skip it without reading."""
    return memo.removesuffix(".json") + QUARANTINE_MARK
