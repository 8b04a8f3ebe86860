"""Quarantine as a workplace: what was set aside, what to do about it, and when a later upload has settled it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

from akosha.errors import IntegrityError, InvalidUploadError, ObjectMissingError, UsageError
from akosha.lake import layout
from akosha.lake.documents import Document
from akosha.lake.objects import ObjectStore
from akosha.lake.undone import SET_ASIDE
from akosha.uploads.memos import (
    QUARANTINED,
    REPLACED,
    SUPERSEDED,
    UploadRef,
    quarantined,
    read_memo,
    upload_of,
    write_memo,
)

READERS: Final = 16  # memos are read one request each; so many at once keep a long list within seconds
_AGAIN: Final = "have the system upload again"
WHAT_TO_DO: Final[Mapping[str, str]] = {
    "invalid-key": "check AKOSHA_UPLOADS_URL and what else writes into the bucket",
    "invalid-manifest": f"{_AGAIN}; if it repeats, its client is broken or newer",
    "other-system": "find out who copied or wrote it; have the system upload again under its own key",
    "other-upload": _AGAIN,
    "path-outside-prefix": f"{_AGAIN}; if it repeats, treat the system as compromised",
    "missing-object": f"{_AGAIN}; look for a lifecycle rule that deletes uploads",
    "truncated": _AGAIN,
    "damaged": f"{_AGAIN}; an upload made during a checkpoint can be torn",
    "wrong-label": _AGAIN,
    "too-large": "if the system is trusted, raise AKOSHA_SANDBOX_MAX_BYTES or use a machine with free memory, and replay",
    "not-a-database": _AGAIN,
    "size-mismatch": _AGAIN,
    "checksum-mismatch": _AGAIN,
    "count-mismatch": _AGAIN,
    "invalid-payload": _AGAIN,
    "unknown-tables": "if the client is newer, update Akosha and replay",
    "timeout": "replay when the machine is idle; if it repeats, the file is hostile or broken",
    "undone": "replay it when what spoke against it is settled; a newer upload of its system does not clear it",
    "unreadable": f"{_AGAIN}; if it repeats, keep the file as evidence",
}


def clear_superseded(
    store: ObjectStore,
    shard: int,
    applied: Sequence[tuple[UploadRef, datetime]],
    who: Mapping[str, str],
    *,
    ambiguous: Collection[str],
) -> list[str]:
    """Take out of quarantine what newer good uploads of the same systems have settled; evidence moves into the memo.

    Every upload is a whole snapshot, so a newer one that was read brings all that the broken one could have brought.
    One listing, and one request for each memo of these systems that is in quarantine.

    Args:
        store: the lake's.
        shard: of all these uploads.
        applied: uploads that were taken in, with the time of their manifests.
        who: ``run_id`` and ``at`` of the run. What was found broken after `at` is left alone: this run cannot know of it.
        ambiguous: systems that unrelated machines share: one machine's upload says nothing of another's.

    Returns:
        keys of the memos as they are named now.
    """
    by_folder: dict[str, list[tuple[UploadRef, datetime]]] = defaultdict(list)
    for ref, manifest_time in applied:
        if ref.system_id not in ambiguous:
            by_folder[layout.quarantine_prefix(shard, ref.system_id)].append((ref, manifest_time))
    if not by_folder:
        return []
    cleared = []
    for found in list(store.list(layout.quarantine_prefix(shard))):
        candidates = by_folder.get("/".join(found.key.split("/")[:3]) + "/", [])
        if candidates and (key := _clear(store, found.key, candidates, who)):
            cleared.append(key)
    return cleared


def _clear(store: ObjectStore, key: str, good: Sequence[tuple[UploadRef, datetime]], who: Mapping[str, str]) -> str:
    """Settle one memo if one of `good` is newer than its upload. Returns its new key, or nothing."""
    try:
        memo = read_memo(store, key)
    except (ObjectMissingError, IntegrityError):
        return (
            ""  # taken out meanwhile; or damaged, which `akosha fsck` reports and which says nothing about its upload
        )
    if memo["reason"] == SET_ASIDE:  # reason="undone": a person set it aside, and a person takes it in again
        return ""
    if datetime.fromisoformat(memo["last_seen"]) > datetime.fromisoformat(who["at"]):
        return ""
    newer = [ref for ref, manifest_time in good if is_newer(ref, manifest_time, memo)]
    if not newer:
        return ""
    by = max(newer, key=lambda ref: ref.upload_id)
    broken = upload_of(memo)
    evidence = {name: value for name, value in memo.items() if name != "outcome"}
    facts = {**evidence, "quarantined_by": memo["run_id"], **who}
    if by.manifest_key == broken.manifest_key:
        write_memo(store, broken, REPLACED, {**facts, "replaced_by": by.etag})
    else:
        write_memo(store, broken, SUPERSEDED, {**facts, "superseded_by": by.manifest_key, "superseding_etag": by.etag})
    return broken.memo_key


def is_newer(good: UploadRef, manifest_time: datetime, memo: Document) -> bool:
    """Whether a good upload is newer than one in quarantine.

    The same manifest written anew is. Else the seconds in the upload ids decide; where one has none, or both have the
    same, the good one's manifest must be younger than the last time the other one was found broken.
    """
    broken = upload_of(memo)
    if good.system_id != broken.system_id:
        return False
    if good.manifest_key == broken.manifest_key:
        return good.etag != broken.etag
    mine, other = good.moment, broken.moment
    if mine is not None and other is not None and mine != other:
        return mine > other
    return manifest_time > datetime.fromisoformat(memo["last_seen"])


@contextmanager
def about_object(key: str, etag: str, size_bytes: int) -> Iterator[None]:
    """Complete the evidence of a refusal inside: which object of the upload it was, with ETag and size as listed."""
    try:
        yield
    except InvalidUploadError as error:
        error.context = {"key": key, "etag": etag, "size_bytes": size_bytes, **error.context}
        raise


def entries(store: ObjectStore, *, system: str = "", reason: str = "") -> list[dict[str, Any]]:
    """What is in quarantine: memo key and memo, by shard, system and upload day.

    Args:
        store: the lake's.
        system: only of this system.
        reason: only with this reason code.
    """
    prefix = layout.quarantine_prefix(layout.shard_of(system), system) if system else layout.QUARANTINE_PREFIX
    keys = [key for key in quarantined(store) if key.startswith(prefix)]
    with ThreadPoolExecutor(READERS) as readers:
        memos = list(readers.map(lambda key: _still_there(store, key), keys))
    found = [{"memo": key, **memo} for key, memo in zip(keys, memos, strict=True) if memo is not None]
    return [memo for memo in found if not reason or memo["reason"] == reason]


def chosen(store: ObjectStore, memos: Sequence[str], *, system: str = "", reason: str = "") -> list[str]:
    """Memo keys to be replayed: the given ones, or all that the filters leave.

    Raises:
        UsageError: keys and filters are both given, or there is nothing of that system and reason.
    """
    if not (system or reason):
        return list(memos)
    if memos:
        message = "give memo keys, or --system and --reason, not both"
        raise UsageError(message)
    keys = [memo["memo"] for memo in entries(store, system=system, reason=reason)]
    if not keys:
        message = "nothing in quarantine has that system and reason; `akosha quarantine list` shows what there is"
        raise UsageError(message, system=system, reason=reason)
    return keys


def find(store: ObjectStore, key: str) -> dict[str, Any]:
    """The memo of an upload that is or was in quarantine, by either of its two names.

    Raises:
        UsageError: there is none under that key.
    """
    outside = layout.parse_quarantine_key(key)
    names = (key, outside) if outside else (key,) if layout.is_memo_key(key) else ()
    for name in names:
        memo = _still_there(store, name)
        if memo is not None and "first_seen" in memo:
            return {"memo": name, **memo}
    message = f"not in quarantine: {key}; `akosha quarantine list` shows what is"
    raise UsageError(message)


def groups(found: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, list[Mapping[str, Any]]]]:
    """Entries by system and reason, in that order, each group by first seen."""
    grouped: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for memo in sorted(found, key=lambda memo: str(memo["first_seen"])):
        grouped[memo["system_id"], memo["reason"]].append(memo)
    for (system, reason), memos in sorted(grouped.items()):
        yield system, reason, memos


def count_by_reason(store: ObjectStore) -> dict[str, int]:
    """How many uploads are in quarantine for each reason, by reason."""
    with ThreadPoolExecutor(READERS) as readers:
        reasons = Counter(readers.map(lambda key: _reason(store, key), quarantined(store)))
    return dict(sorted((reason, count) for reason, count in reasons.items() if reason))


def _reason(store: ObjectStore, key: str) -> str:
    """The reason in a memo; nothing for one that is gone, and its own word for one that only `akosha fsck` can judge."""
    try:
        memo = _still_there(store, key)
    except IntegrityError:
        return "damaged-memo"
    return "" if memo is None else str(memo["reason"])


def _still_there(store: ObjectStore, key: str) -> Document | None:
    try:
        memo = read_memo(store, key)
    except ObjectMissingError:
        return None
    return memo if memo["outcome"] in {QUARANTINED, SUPERSEDED, REPLACED} else None
