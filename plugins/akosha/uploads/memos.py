"""What was done with each upload: one sealed document per (manifest key, ETag).

A memo is written after the commit it names. A crash between the two makes the upload come again, which changes
nothing: ingestion is an upsert.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from akosha.errors import IntegrityError, ObjectMissingError
from akosha.lake import layout
from akosha.lake.documents import Document, seal, unseal
from akosha.lake.objects import ObjectStore

APPLIED: Final = "applied"
UNCHANGED: Final = "unchanged"
QUARANTINED: Final = "quarantined"
REPLACED: Final = "replaced"  # was in quarantine; its manifest has been written anew and is an upload of its own
SUPERSEDED: Final = "superseded"  # was in quarantine; a newer upload of the same system has been taken in since
FORMAT: Final = "akosha-memo/1"
UNDATED: Final = "0000-00-00"


@dataclass(frozen=True, slots=True)
class UploadRef:
    """One upload as discovered: the manifest's key below the uploads root, its ETag, and the system its key names.

    `packed_bytes` is the listed size of everything beside the manifest, 0 when not listed; `beside` is the name of the only
    object there, "" when not listed or not alone: hints, never checked.

    `day` is the day in the upload id (``YYYY-MM-DD``, UTC), or `UNDATED`. `undone` is the version of the newest undo that
    took the upload back and by whose mark it came up again, 0 for none.
    """

    manifest_key: str
    etag: str
    system_id: str
    upload_id: str
    packed_bytes: int = 0
    undone: int = 0
    beside: str = ""

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
        """Where its memo lies while it is in quarantine."""
        return layout.quarantine_key(self.memo_key, self.system_id)

    @property
    def moment(self) -> datetime | None:
        """The second in the upload id, UTC, or None when it has none."""
        try:
            return datetime.strptime(self.upload_id[:15], "%Y%m%d_%H%M%S").replace(tzinfo=UTC)
        except ValueError:
            return None


def write_memo(store: ObjectStore, upload: UploadRef, outcome: str, facts: Document) -> None:
    """Record what was done with an upload, in place of an earlier memo of the same upload.

    A quarantined one also says when it was first and last found broken, and how often it was tried; `facts["at"]` is now.
    """
    document: Document = {
        "format": FORMAT,
        "manifest_key": upload.manifest_key,
        "etag": upload.etag,
        "system_id": upload.system_id,
        "upload_id": upload.upload_id,
        "shard": upload.shard,
        "outcome": outcome,
        **({"undone": upload.undone} if upload.undone else {}),
        **facts,
    }
    if outcome == QUARANTINED:
        store.put(upload.quarantine_key, seal({**document, **_history(store, upload, str(facts.get("at", "")))}))
    else:
        store.put(upload.memo_key, seal(document))
        store.delete(upload.quarantine_key)
        if upload.undone:  # no other mark: that of a later undo takes back what was done here, too
            store.delete(layout.undone_key(upload.memo_key, upload.undone))


def _history(store: ObjectStore, upload: UploadRef, now: str) -> Document:
    """First and last seen and attempts, continued from the memo of an earlier attempt."""
    for key in (upload.quarantine_key, upload.memo_key):
        try:
            earlier = read_memo(store, key)
        except (ObjectMissingError, IntegrityError):
            continue  # a damaged memo may be deleted at any time: what replaces it begins anew
        if "first_seen" in earlier:
            return {"first_seen": earlier["first_seen"], "last_seen": now, "attempts": int(earlier["attempts"]) + 1}
    return {"first_seen": now, "last_seen": now, "attempts": 1}


def quarantined(store: ObjectStore) -> Iterator[str]:
    """Keys of the memos of uploads in quarantine, by shard, system and upload day. Costs what is in quarantine."""
    return (found.key for found in store.list(layout.QUARANTINE_PREFIX))


def read_memo(store: ObjectStore, key: str) -> Document:
    """One memo, verified."""
    return unseal(store.get(key), kind="memo", key=key)


def upload_of(memo: Document) -> UploadRef:
    """The upload a memo speaks of."""
    return UploadRef(
        memo["manifest_key"], memo["etag"], memo["system_id"], memo["upload_id"], undone=int(memo.get("undone", 0))
    )


@dataclass(slots=True)
class KnownMemos:
    """Keys of memos that hide their uploads; and of those which an undo has taken back, with the newest undo's version."""

    names: set[str] = field(default_factory=set)
    undone: dict[str, int] = field(default_factory=dict)


def memo_names(store: ObjectStore, shard: int, first: str, last: str) -> set[str]:
    """Memo keys of a shard's uploads of the days `first` to `last`, both included, but for those in quarantine or undone."""
    return known_memos(store, shard, first, last).names


def known_memos(store: ObjectStore, shard: int, first: str, last: str) -> KnownMemos:
    """Memos of a shard's uploads of the days `first` to `last`, both included, but for those in quarantine.

    Listed page by page up to `last`; no document is read. `UNDATED` is a day of its own.
    """
    prefix = f"{layout.MEMO_PREFIX}{shard:03d}/"
    known = KnownMemos()
    for found in store.list(prefix, start_after=f"{prefix}{first}"):
        if found.key[len(prefix) : len(prefix) + len(last)] > last:
            break
        mark = layout.parse_undone_key(found.key)
        if mark is not None:
            known.undone[mark[0]] = max(mark[1], known.undone.get(mark[0], 0))
        elif not found.key.endswith(layout.REFUSED_ROWS_MARK):
            known.names.add(found.key)
    known.names -= known.undone.keys()
    return known


def quarantined_names(store: ObjectStore) -> set[str]:
    """What the memos of all uploads in quarantine are called outside of it. One listing; no document is read."""
    names = (layout.parse_quarantine_key(key) for key in quarantined(store))
    return {name for name in names if name is not None}
