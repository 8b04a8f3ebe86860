"""Uploads of undone commits: which they are, and how they come to count as new again, or are set aside.

A memo hides its upload from discovery. A mark beside it, named after the undo, takes that back: an upload with a mark is due
whatever its memo says, so that a writer frozen since before the undo cannot hide it by writing its memo late. Marks are put
while the shard is held, before the commit that lets it go; whoever takes the upload in again removes the mark that it knew of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import datetime
from typing import Any, Final

from akosha.errors import IntegrityError, ObjectMissingError
from akosha.lake import layout
from akosha.lake.commits import Commit, Undo, Undone
from akosha.lake.documents import Document, seal, unseal
from akosha.lake.lake import Lake

SET_ASIDE: Final = "undone"
TAKEN_IN: Final = frozenset({"applied", "unchanged"})
_NAMES: Final = ("manifest_key", "etag", "system_id", "upload_id", "shard")
_MESSAGE: Final = (
    "an operator undid the commit that held this upload and let the shard go without it; replay takes it in"
)


def undone_uploads(lake: Lake, held: Commit) -> dict[str, Document]:
    """Uploads that a held shard has lost by its undo, by memo key: what names each of them, as in a memo.

    These are the uploads of the undone commits; and those that were found to hold nothing new meanwhile, of systems whose
    keys or graph are not the same any more: what they held nothing new against is gone. Where a sweep has deleted an undone
    commit at the moment of the undo, the memos say what it had taken in.
    """
    undo = held.undo
    if undo is None or not undo.undone:
        return {}
    undone = undone_commits(lake, held.shard, undo.undone)
    found = {upload["memo"]: _named(held.shard, upload) for commit in undone for upload in commit.uploads}
    versions = {one.version for one in undo.undone}
    newest_is_there = bool(undone) and undone[0].version == undo.undone[0].version
    changed = _systems_changed(undone[0], held) if newest_is_there else None
    if changed or len(undone) < len(versions):
        for key, memo in _memos_since(lake, held, undo):
            if memo["outcome"] in TAKEN_IN and _is_undone(memo, versions, changed):
                found.setdefault(key, named(memo))
    return found


def _is_undone(memo: Mapping[str, Any], versions: Set[int], changed: Set[str] | None) -> bool:
    """By the version that took an upload in; one that brought nothing new has none and goes by its system, None = any."""
    if memo.get("version") is not None:
        return memo["version"] in versions
    return changed is None or memo["system_id"] in changed


def undone_commits(lake: Lake, shard: int, undone: Sequence[Undone]) -> list[Commit]:
    """The commits that an undo takes or took back, newest first, without those whose documents a sweep has deleted."""
    found = []
    for one in undone:
        try:
            found.append(lake.shard(shard).read(one.version))
        except ObjectMissingError:
            continue
    return found


def named(memo: Mapping[str, Any]) -> Document:
    """What names the upload of a memo."""
    return {name: memo[name] for name in _NAMES}


def mark_undone(lake: Lake, held: Commit, uploads: Mapping[str, Document]) -> None:
    """Make uploads count as new again, whatever their memos say: once the shard is let go, or repaired. Safe to repeat."""
    for memo, upload in sorted(uploads.items()):
        document = {"format": "akosha-memo/1", "outcome": "undone", "undo_version": held.version, **upload}
        lake.store.put(layout.undone_key(memo, held.version), seal(document))


def set_aside(lake: Lake, held: Commit, uploads: Mapping[str, Document], *, run_id: str, now: datetime) -> None:
    """Put marked uploads into quarantine, where a person may replay them. Safe to repeat."""
    at = now.isoformat()
    facts: dict[str, Any] = {
        "reason": SET_ASIDE,
        "message": _MESSAGE,
        "evidence": {
            "undo_version": str(held.version),
            "undone_by": held.held_by,
            "why": held.undo.reason if held.undo else "",
        },
        "run_id": run_id,
        "at": at,
        "first_seen": at,
        "last_seen": at,
        "attempts": 1,
        "undone": held.version,
    }
    for memo, upload in sorted(uploads.items()):
        key = layout.quarantine_key(memo, upload["system_id"])
        if lake.store.stat(key) is None:
            document = {"format": "akosha-memo/1", "outcome": "quarantined", **upload, **facts}
            lake.store.put(key, seal(document))


def take_back(lake: Lake, held: Commit, uploads: Mapping[str, Document]) -> None:
    """Put uploads that a release with `skip` had set aside, before it was cut off, out of quarantine again."""
    for memo, upload in sorted(uploads.items()):
        key = layout.quarantine_key(memo, upload["system_id"])
        try:
            aside = unseal(lake.store.get(key), kind="memo", key=key)
        except ObjectMissingError:
            continue
        if aside.get("reason") == SET_ASIDE and aside.get("undone") == held.version:
            lake.store.delete(key)


def _named(shard: int, upload: Mapping[str, Any]) -> Document:
    system_id, upload_id = layout.upload_of_manifest(str(upload["manifest"]))
    return dict(zip(_NAMES, (upload["manifest"], upload["etag"], system_id, upload_id, shard), strict=True))


def _systems_changed(before: Commit, after: Commit) -> set[str]:
    """Systems whose key or graph file is not the same in two versions."""
    return {
        system_id
        for one, other in ((before.keys, after.keys), (before.graphs, after.graphs))
        for system_id in {*one, *other}
        if _path(one, system_id) != _path(other, system_id)
    }


def _path(entries: Mapping[str, Any], system_id: str) -> str:
    return str(entries[system_id].path) if system_id in entries else ""


def _memos_since(lake: Lake, held: Commit, undo: Undo) -> Iterator[tuple[str, Document]]:
    """Memos of a shard written after its oldest undone commit, by the store's own clock: a memo follows its commit."""
    first = lake.store.stat(layout.commit_key(held.shard, undo.undone[-1].version))
    for found in lake.store.list(f"{layout.MEMO_PREFIX}{held.shard:03d}/"):
        if layout.is_memo_key(found.key) and (first is None or found.modified >= first.modified):
            try:
                yield found.key, unseal(lake.store.get(found.key), kind="memo", key=found.key)
            except (ObjectMissingError, IntegrityError):
                continue  # gone, so its upload is due; a damaged one is for `akosha fsck`, which has it deleted
