"""Undo: a shard goes back to a retained version by one more commit, is held, and is let go by another one."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from akosha.errors import CommitConflictError, ObjectMissingError, UsageError
from akosha.lake.commits import Change, Commit, Undo, Undone
from akosha.lake.lake import Lake
from akosha.lake.shard_log import ShardLog, Writer
from akosha.lake.undone import mark_undone, set_aside, take_back, undone_commits, undone_uploads

UNDO: Final = "undo"
RELEASE: Final = "release"
MAX_REPLANS: Final = 5


def undo_shard(lake: Lake, shard: int, *, to_version: int, writer: Writer, reason: str) -> Commit:
    """Publish what a shard held at a retained version as its next version, and hold the shard.

    Every other writer is refused until `release_shard`. Undoing an undo is the same: name the version before it. A shard that
    is held at that version already stays as it is.

    Args:
        lake: the lake.
        shard: which, 0-255.
        to_version: the version to go back to.
        writer: who commits; its run holds the shard.
        reason: a sentence for whoever finds the shard held.

    Raises:
        UsageError: there is nothing to undo, the version is not retained, lies below the floor, or lacks files.
        CommitConflictError: others committed meanwhile, again and again.
        CommitUnknownError: see `ShardLog.publish`.
    """
    for _ in range(MAX_REPLANS - 1):
        try:
            return undo_from(lake, lake.shard(shard).head(), to_version, writer, reason)
        except CommitConflictError:
            continue  # others committed meanwhile: what is taken back must be named anew
    return undo_from(lake, lake.shard(shard).head(), to_version, writer, reason)


def release_shard(lake: Lake, shard: int, writer: Writer, *, skip: bool = False) -> Commit:
    """Let a held shard go: the uploads of the undone commits count as new from then on.

    Killed anywhere before its commit, the shard is still held and a second release does the rest.

    Args:
        lake: the lake.
        shard: which.
        writer: who commits.
        skip: set those uploads aside in quarantine instead.

    Raises:
        UsageError: the shard is not held; or `skip` where a swept commit document does not tell any more what was undone.
        CommitConflictError: another undo came in between; look again.
        CommitUnknownError: see `ShardLog.publish`.
    """
    head = lake.shard(shard).head()
    if not head.held_by:
        message = f"shard {shard} is not held; `akosha status` names those that are"
        raise UsageError(message, shard=shard)
    if skip:
        require_told(lake, head)
    uploads = undone_uploads(lake, head)
    if skip:
        set_aside(lake, head, uploads, run_id=writer.run_id, now=writer.now)
    mark_undone(lake, head, uploads)
    if not skip:
        take_back(lake, head, uploads)
    counts = {"set_aside" if skip else "due_again": len(uploads)}
    return lake.shard(shard).publish(head, Change(RELEASE, counts=counts, release=head.commit_id), writer)


def plan_undo_of(lake: Lake, head: Commit, to_version: int, reason: str = "") -> tuple[Commit, Undo]:
    """The version to publish again, and what that takes back. Nothing is written.

    Raises:
        UsageError: as `undo_shard`.
    """
    target = _target(lake, head, to_version)
    pending = head.undo.undone if head.undo else ()
    undone = _undone(lake.shard(head.shard), head, target, pending)
    return target, Undo(target.version, target.commit_id, undone, reason)


def undo_from(lake: Lake, head: Commit, to_version: int, writer: Writer, reason: str) -> Commit:
    """`undo_shard` on top of a head that was looked at, and of no other.

    Raises:
        UsageError, CommitUnknownError: as `undo_shard`.
        CommitConflictError: somebody has committed since; nothing was undone.
    """
    if is_at(head, to_version):
        return head
    target, undo = plan_undo_of(lake, head, to_version, reason)
    log = lake.shard(head.shard)
    uploads = sum(len(commit.uploads) for commit in undone_commits(lake, head.shard, undo.undone))
    counts = {"undone_commits": len(undo.undone), "undone_uploads": uploads}
    return log.publish(head, Change(UNDO, counts=counts, restore=target, undo=undo, held_by=writer.run_id), writer)


def is_at(head: Commit, to_version: int) -> bool:
    """Whether a shard is held at a version by an undo to it."""
    return head.undo is not None and head.undo.to_version == to_version


def version_at(log: ShardLog, head: Commit, instant: datetime) -> int:
    """The newest retained version that was committed at or before an instant; 0 = the shard had none then.

    Raises:
        UsageError: the versions of that time are not retained any more.
    """
    version = head.version
    while version:
        try:
            commit = log.read(version)
        except ObjectMissingError:
            message = (
                f"shard {log.shard} has no retained version of {instant.isoformat()}, the oldest is {version + 1}; "
                "AKOSHA_RETAIN_DAYS says how long versions are kept"
            )
            raise UsageError(message, shard=log.shard) from None
        if datetime.fromisoformat(commit.committed_at) <= instant:
            return version
        version -= 1
    return 0


def undone_since(log: ShardLog, version: int) -> bool:
    """Whether an undo has come after a version, or may have: not all that came after it is retained."""
    head = log.head()
    try:
        later = [log.read(number).operation for number in range(head.version - 1, version, -1)]
    except ObjectMissingError:
        return True
    return head.version > version and UNDO in (head.operation, *later)


def _target(lake: Lake, head: Commit, to_version: int) -> Commit:
    if not 0 <= to_version < head.version:
        message = f"shard {head.shard} is at version {head.version}: an undo goes to an older one, not to {to_version}"
        raise UsageError(message, shard=head.shard)
    if to_version < head.floor:
        message = f"version {to_version} of shard {head.shard} cannot be gone back to: the floor is {head.floor}"
        raise UsageError(message, shard=head.shard)
    log = lake.shard(head.shard)
    try:
        target = log.read(to_version)
    except ObjectMissingError:
        oldest = min(log.versions())
        message = f"version {to_version} of shard {head.shard} is not retained any more; the oldest that is is {oldest}"
        raise UsageError(message, shard=head.shard) from None
    if to_version == 0:
        _require_whole_chain(log)
    _require_files(lake, head, target)
    return target


def require_told(lake: Lake, held: Commit) -> None:
    """Refuse to set uploads aside where a commit that names them is gone.

    Raises:
        UsageError: a sweep has deleted one at the moment of the undo.
    """
    undone = held.undo.undone if held.undo else ()
    lost = len(undone) - len(undone_commits(lake, held.shard, undone))
    if lost:
        message = (
            f"shard {held.shard}: {lost} of its undone commits went with a sweep at the moment of the undo, and only these list "
            "their uploads for certain; release without --skip reads again what the memos say they took in"
        )
        raise UsageError(message, shard=held.shard)


def _require_whole_chain(log: ShardLog) -> None:
    """Version 0 has no document to be missed: it is retained as long as version 1 is."""
    oldest = min(log.versions())
    if oldest != 1:
        message = f"version 0 of shard {log.shard} is not retained any more; the oldest that is is {oldest}"
        raise UsageError(message, shard=log.shard)


def _require_files(lake: Lake, head: Commit, target: Commit) -> None:
    """What a version names and the head does not must be there, and not be condemned."""
    cold = {path for path, entry in target.files.items() if entry.root == "cold"}
    for path in sorted(target.paths - head.paths):
        store = lake.cold if path in cold else lake.store
        condemned = path in head.condemned
        if condemned or store.stat(path) is None:
            why = "the sweep has condemned one of its files" if condemned else "one of its files is gone"
            message = (
                f"version {target.version} of shard {head.shard} cannot be gone back to: {why}; choose a newer one"
            )
            raise UsageError(message, shard=head.shard, path=path)


def _undone(log: ShardLog, head: Commit, target: Commit, pending: tuple[Undone, ...]) -> tuple[Undone, ...]:
    """Commits whose changes the head has, or waits to take in again, and the target does not have. Newest first."""
    kept, left = _lineages(log, target, head)
    found = {
        commit.version: Undone(commit.version, commit.commit_id, commit.operation, commit.run_id) for commit in left
    }
    found |= {one.version: one for one in pending if one.version not in kept}
    return tuple(found[version] for version in sorted(found, reverse=True))


def _lineages(log: ShardLog, target: Commit, head: Commit) -> tuple[set[int], list[Commit]]:
    """Versions that made up the target and not the head, and commits that made up the head and not the target.

    The line of a version goes through its parent; that of an undo through the version it went back to.
    """
    kept, left = set(), []
    one, other = target, head
    while one.version != other.version:
        if one.version > other.version:
            kept.add(one.version)
            one = _before(log, one)
        else:
            left.append(other)
            other = _before(log, other)
    return kept, left


def _before(log: ShardLog, commit: Commit) -> Commit:
    version = commit.undo.to_version if commit.operation == UNDO and commit.undo else commit.version - 1
    try:
        return log.read(version)
    except ObjectMissingError:
        return Commit(log.shard, 0)  # swept: older than anything that can be undone
