"""The sweep of one shard: what no retained version names goes, in two passes that a crash may cut anywhere.

Pass 1 is a commit that condemns files; a writer whose staged file is among them is refused. A later pass, a grace after that
commit, deletes what the head condemns, once the commit documents that still named it are gone. Files are listed before
the head is read, so that whatever was committed meanwhile is seen to be named. All ages are the store's own.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from akosha.errors import CommitConflictError, ObjectMissingError, ShardHeldError
from akosha.lake import layout
from akosha.lake.commits import Change, Commit, held_sentence
from akosha.lake.lake import Lake
from akosha.lake.objects import ObjectInfo, ObjectStore
from akosha.lake.shard_log import ShardLog, Writer
from akosha.lake.stores import PROBE

SWEEP: Final = "sweep"
READERS: Final = 16  # documents are read one request each
CHUNK: Final = 64  # of them asked for at once: so many more requests than needed at the most

Place = tuple[str, str]


@dataclass(slots=True)
class SweepOutcome:
    """What a sweep did, or would do, in one shard.

    Attributes:
        condemned: files that no retained version names and that this sweep condemned; with their bytes.
        deleted: files deleted that an earlier sweep had condemned; with their bytes.
        versions: commit documents deleted.
        strays: documents of void commits deleted: below a gap, no part of the chain.
        left: condemned files that wait for their grace.
        waits_for: why nothing was condemned: the shard is held after an undo.
    """

    shard: int
    version: int = 0
    condemned: int = 0
    condemned_bytes: int = 0
    deleted: int = 0
    deleted_bytes: int = 0
    versions: int = 0
    strays: int = 0
    left: int = 0
    waits_for: str = ""


@dataclass(frozen=True, slots=True)
class Objects:
    """What the stores hold of one shard: files by path, commit documents by version."""

    files: Mapping[str, tuple[str, ObjectInfo]]
    documents: Mapping[int, ObjectInfo]


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """What a sweep will do, decided from listings and documents alone.

    Attributes:
        versions: documents to delete, oldest first.
        strays: versions of documents that hang on nothing.
        delete: condemned paths to delete after them.
        condemn: everything to be condemned now, None = nothing new.
        fresh: those of `condemn` that were not condemned before.
    """

    versions: tuple[int, ...] = ()
    strays: tuple[int, ...] = ()
    delete: tuple[str, ...] = ()
    condemn: tuple[str, ...] | None = None
    fresh: frozenset[str] = frozenset()


def sweep_shard(lake: Lake, shard: int, writer: Writer, *, now: datetime, dry_run: bool = False) -> SweepOutcome:
    """Delete what may go and condemn what will. Safe to repeat and to kill at any point; a held shard is left alone.

    Args:
        lake: the lake; its settings say how long versions and unnamed files are kept.
        shard: which.
        writer: who commits.
        now: by the clock of the store, see `store_clock`.
        dry_run: only say what would be done.

    Raises:
        IntegrityError: a commit document is damaged; nothing was done.
        CommitUnknownError: see `ShardLog.publish`.
    """
    objects = list_shard(lake, shard)
    log = lake.shard(shard)
    head = log.head()
    outcome = SweepOutcome(shard, head.version)
    if head.held_by:
        outcome.waits_for = held_sentence(head)
        return outcome
    retained = _chain(log, head)
    plan = plan_sweep(lake, head, retained, objects, now)
    _count(outcome, plan, objects, head)
    if not dry_run:
        _carry_out(lake, head, plan, objects, outcome, writer)
    return outcome


def plan_sweep(lake: Lake, head: Commit, retained: Mapping[int, Commit], objects: Objects, now: datetime) -> SweepPlan:
    """Decide what goes.

    Args:
        lake: for its settings.
        head: read after `objects` were listed.
        retained: the chain down from the head, by version.
        objects: as listed.
        now: by the store's clock.
    """
    grace = now - timedelta(hours=lake.settings.sweep_grace_hours)
    kept = _kept(objects.documents, retained, now - timedelta(days=lake.settings.retain_days))
    named = frozenset().union(head.paths, *(retained[version].paths for version in kept if version in retained))
    condemned = frozenset(head.condemned)
    versions = tuple(_expired(retained, kept, named | condemned))
    left = [commit for version, commit in retained.items() if version not in versions]
    still_named = frozenset().union(head.paths, *(commit.paths for commit in left))
    since = _condemned_since(retained, objects.documents, condemned)
    ripe = {path for path, moment in since.items() if moment <= grace}
    delete = tuple(sorted(path for path in ripe & objects.files.keys() if path not in still_named))
    old = {path for path, (_, listed) in objects.files.items() if listed.modified <= grace}
    fresh = frozenset(old - named - condemned)
    waiting = condemned & objects.files.keys() - set(delete)
    strays = tuple(
        sorted(
            version
            for version, listed in objects.documents.items()
            if version < min(retained, default=0) and listed.modified <= grace
        )
    )
    return SweepPlan(versions, strays, delete, tuple(sorted(fresh | waiting)) if fresh else None, fresh)


def list_shard(lake: Lake, shard: int) -> Objects:
    """Everything below a shard's folder in both roots."""
    files: dict[str, tuple[str, ObjectInfo]] = {}
    documents: dict[int, ObjectInfo] = {}
    prefix = layout.shard_prefix(shard)
    for found in lake.store.list(prefix):
        parsed = layout.parse_commit_key(found.key)
        if parsed is not None:
            documents[parsed[1]] = found
        elif not found.key.startswith(layout.commits_prefix(shard)):
            files[found.key] = ("lake", found)
    files.update({found.key: ("cold", found) for found in lake.cold.list(prefix)})
    return Objects(files, documents)


def store_clock(store: ObjectStore) -> datetime:
    """What time the store says it is, UTC: that of an object written for it and deleted at once.

    Raises:
        ObjectMissingError: the object that was just written is not there.
    """
    key = f"{PROBE}{uuid.uuid4().hex}"
    store.put(key, b"what time is it")
    try:
        found = store.stat(key)
    finally:
        store.delete(key)
    if found is None:
        message = "an object that was just written is not there; is something else deleting from the lake?"
        raise ObjectMissingError(message, key=key)
    return found.modified


def _kept(documents: Mapping[int, ObjectInfo], retained: Mapping[int, Commit], line: datetime) -> list[int]:
    """Versions that were the head at some moment after `line`: each ends when its successor was put."""
    return [version for version in retained if version + 1 not in documents or documents[version + 1].modified > line]


def _expired(retained: Mapping[int, Commit], kept: Sequence[int], accounted: frozenset[str]) -> Iterator[int]:
    """Versions whose documents may go, from the old end: all that they name is named by kept ones, or condemned."""
    for version in sorted(retained):
        if version in kept or not retained[version].paths <= accounted:
            return
        yield version


def _condemned_since(
    retained: Mapping[int, Commit], documents: Mapping[int, ObjectInfo], condemned: frozenset[str]
) -> dict[str, datetime]:
    """When each path was condemned: by the oldest retained sweep that did, or before the oldest retained version."""
    since: dict[str, datetime] = {}
    oldest = min(retained, default=0)
    for version in sorted(retained):
        if version in documents and (version == oldest or retained[version].operation == SWEEP):
            for path in condemned.intersection(retained[version].condemned):
                since.setdefault(path, documents[version].modified)
    return since


def _chain(log: ShardLog, head: Commit) -> dict[int, Commit]:
    """Versions from the head down to the first that is not there, each asked for by name: a listing may be stale."""
    chain = {head.version: head} if head.version else {}
    with ThreadPoolExecutor(READERS) as readers:
        for newest in range(head.version - 1, 0, -CHUNK):
            for commit in readers.map(partial(_or_none, log), range(newest, max(newest - CHUNK, 0), -1)):
                if commit is None:
                    return chain
                chain[commit.version] = commit
    return chain


def _or_none(log: ShardLog, version: int) -> Commit | None:
    try:
        return log.read(version)
    except ObjectMissingError:
        return None


def _count(outcome: SweepOutcome, plan: SweepPlan, objects: Objects, head: Commit) -> None:
    outcome.condemned, outcome.condemned_bytes = len(plan.fresh), _bytes(plan.fresh, objects)
    outcome.deleted, outcome.deleted_bytes = len(plan.delete), _bytes(plan.delete, objects)
    outcome.versions, outcome.strays = len(plan.versions), len(plan.strays)
    outcome.left = len(objects.files.keys() & set(head.condemned) - set(plan.delete))


def _bytes(paths: Sequence[str] | frozenset[str], objects: Objects) -> int:
    return sum(objects.files[path][1].size_bytes for path in paths)


def _carry_out(
    lake: Lake, head: Commit, plan: SweepPlan, objects: Objects, outcome: SweepOutcome, writer: Writer
) -> None:
    """Documents first, then what only they named, then the commit that condemns: each step stands by itself."""
    for version in (*plan.strays, *plan.versions):
        lake.store.delete(layout.commit_key(head.shard, version))
    for path in plan.delete:
        (lake.cold if objects.files[path][0] == "cold" else lake.store).delete(path)
    if plan.condemn is None:
        return
    counts = {"condemned": outcome.condemned, "deleted": outcome.deleted, "versions": outcome.versions}
    try:
        change = Change(SWEEP, counts=counts, condemn=plan.condemn)
        outcome.version = lake.shard(head.shard).publish(head, change, writer).version
    except CommitConflictError as lost:
        # Somebody has just named one of them, swept or undone: the next sweep decides anew.
        outcome.condemned = outcome.condemned_bytes = 0
        outcome.waits_for = lost.message if isinstance(lost, ShardHeldError) else ""
