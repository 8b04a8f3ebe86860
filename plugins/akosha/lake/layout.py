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
MEMO_PREFIX: Final = "uploads/"
QUARANTINE_PREFIX: Final = "quarantine/"
REFUSED_ROWS_MARK: Final = ".refused.json"
_MEMO = re.compile(r"^uploads/\d{3}/\d{4}-\d\d-\d\d/[0-9a-f]{64}\.json$")
_QUARANTINE = re.compile(r"^quarantine/(\d{3})/[0-9a-f]{16}/(\d{4}-\d\d-\d\d)/([0-9a-f]{64})\.json$")
_UNDONE = re.compile(r"^(uploads/\d{3}/\d{4}-\d\d-\d\d/[0-9a-f]{64})\.undone-(\d{8})\.json$")
_COMMIT = re.compile(r"^shards/(\d{3})/commits/(\d{8})-(\d{8})\.json$")

SUFFIX: Final = {
    "hot": "duckdb",
    "warm": "duckdb",
    "keys": "parquet",
    "archive": "parquet",
    "graph": "parquet",
    "cold": "parquet",
    "removals": "rows",
    "holds": "parquet",
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
    return f"{MEMO_PREFIX}{shard:03d}/{date}/{name}.json"


def is_memo_key(key: str) -> bool:
    """Whether a name is that of a memo outside of quarantine."""
    return _MEMO.match(key) is not None


def quarantine_prefix(shard: int, system_id: str = "") -> str:
    """The folder of the memos of a shard's uploads in quarantine, or of those of one system."""
    name = hashlib.sha256(system_id.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{QUARANTINE_PREFIX}{shard:03d}/" + (f"{name}/" if system_id else "")


def quarantine_key(memo: str, system_id: str) -> str:
    """The name a memo has while its upload is in quarantine.

    A place of its own, by system: counting and clearing quarantine cost what is in it, however many uploads there were.
    """
    _, shard, day, name = memo.split("/")
    return f"{quarantine_prefix(int(shard), system_id)}{day}/{name}"


def parse_quarantine_key(key: str) -> str | None:
    """The name that a memo in quarantine has once it is out, or None for any other name."""
    match = _QUARANTINE.match(key)
    return None if match is None else f"{MEMO_PREFIX}{match[1]}/{match[2]}/{match[3]}.json"


def refused_rows_key(memo: str) -> str:
    """Where the refused rows of an upload are written down: beside its memo."""
    return memo.removesuffix(".json") + REFUSED_ROWS_MARK


def undone_key(memo: str, version: int) -> str:
    """The mark beside a memo which says that the undo at `version` took its upload back: it counts as new again."""
    return f"{memo.removesuffix('.json')}.undone-{version:08d}.json"


def parse_undone_key(key: str) -> tuple[str, int] | None:
    """The memo that a mark stands beside and the version of the undo, or None for any other name."""
    match = _UNDONE.match(key)
    return None if match is None else (f"{match[1]}.json", int(match[2]))


def upload_of_manifest(manifest_key: str) -> tuple[str, str]:
    """System id and upload id in the key of a manifest that was accepted: ``systems/SYSTEM/uploads/UPLOAD/manifest.json``."""
    system_id, _, upload_id = (
        manifest_key.removeprefix("systems/").removesuffix("/manifest.json").rpartition("/uploads/")
    )
    return system_id, upload_id
