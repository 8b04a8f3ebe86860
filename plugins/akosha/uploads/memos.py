"""What was done with each upload: one sealed document per (manifest key, ETag).

A memo is written after the commit it names. A crash between the two makes the upload come again, which changes
nothing: ingestion is an upsert.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from akosha.lake import layout
from akosha.lake.documents import Document, seal, unseal
from akosha.lake.objects import ObjectStore

APPLIED: Final = "applied"
UNCHANGED: Final = "unchanged"
QUARANTINED: Final = "quarantined"
REPLACED: Final = "replaced"  # was in quarantine; its manifest has been written anew and is an upload of its own
FORMAT: Final = "akosha-memo/1"
UNDATED: Final = "0000-00-00"


@dataclass(frozen=True, slots=True)
class UploadRef:
    """One upload as discovered: the manifest's key below the uploads root, its ETag, and the system its key names.

    `packed_bytes` is the listed size of everything beside the manifest, 0 when not listed: a hint, never checked.

    `day` is the day in the upload id (``YYYY-MM-DD``, UTC), or `UNDATED`.
    """

    manifest_key: str
    etag: str
    system_id: str
    upload_id: str
    packed_bytes: int = 0

    @property
    def shard(self) -> int:
        """The shard of its system."""
        return layout.shard_of(self.system_id)

    @property
    def day(self) -> str:
        """The folder its memo lies in."""
        try:
            return datetime.strptime(self.upload_id[:8], "%Y%m%d").replace(tzinfo=UTC).date().isoformat()
        except ValueError:
            return UNDATED

    @property
    def memo_key(self) -> str:
        """Where its memo lies."""
        return layout.memo_key(self.shard, self.day, self.manifest_key, self.etag)

    @property
    def quarantine_key(self) -> str:
        """Where its memo lies while it is in quarantine: the same name with a mark, so that a listing can count them."""
        return layout.quarantine_key(self.memo_key)


def write_memo(store: ObjectStore, upload: UploadRef, outcome: str, facts: Document) -> None:
    """Record what was done with an upload, in place of an earlier memo of the same upload."""
    document: Document = {
        "format": FORMAT,
        "manifest_key": upload.manifest_key,
        "etag": upload.etag,
        "system_id": upload.system_id,
        "upload_id": upload.upload_id,
        "shard": upload.shard,
        "outcome": outcome,
        **facts,
    }
    if outcome == QUARANTINED:
        store.put(upload.quarantine_key, seal(document))
    else:
        store.put(upload.memo_key, seal(document))
        store.delete(upload.quarantine_key)


def quarantined(store: ObjectStore) -> Iterator[str]:
    """Keys of the memos of uploads in quarantine, by shard and upload day."""
    return (found.key for found in store.list("uploads/") if found.key.endswith(layout.QUARANTINE_MARK))


def read_memo(store: ObjectStore, key: str) -> Document:
    """One memo, verified."""
    return unseal(store.get(key), kind="memo", key=key)


def upload_of(memo: Document) -> UploadRef:
    """The upload a memo speaks of."""
    return UploadRef(memo["manifest_key"], memo["etag"], memo["system_id"], memo["upload_id"])


def memo_names(store: ObjectStore, shard: int, first: str, last: str) -> set[str]:
    """Memo keys of a shard's uploads of the days `first` to `last`, both included, quarantined or not.

    Listed page by page up to `last`; no document is read. `UNDATED` is a day of its own.
    """
    prefix = f"uploads/{shard:03d}/"
    names: set[str] = set()
    for found in store.list(prefix, start_after=f"{prefix}{first}"):
        if found.key[len(prefix) : len(prefix) + len(last)] > last:
            break
        names.add(found.key.replace(layout.QUARANTINE_MARK, ".json"))
    return names
