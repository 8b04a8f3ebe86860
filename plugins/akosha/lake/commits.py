"""Commits: what a shard is at one version, and how a change turns one version into the next.

Everything here is a value or a pure function; `shard_log` reads and publishes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Literal

from akosha.errors import CommitConflictError, IntegrityError, ShardHeldError
from akosha.lake.documents import Document

Tier = Literal["hot", "warm", "cold", "archive"]
Root = Literal["lake", "cold"]
TIERS: Final[tuple[Tier, ...]] = ("hot", "warm", "cold")


@dataclass(frozen=True, slots=True)
class Removal:
    """The rows that left a file: a sorted list of row numbers in an object of its own."""

    path: str
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One immutable file of a tier, or of the archive.

    `first` and `last` bound `created_at` of its rows, as ISO text in UTC; `without_vector` counts its live rows that
    have none. `xxh128` is XXH3 of the bytes, hex, which readers check; "" in files of commits made before there was one.
    """

    tier: Tier
    root: Root
    path: str
    rows: int
    bytes: int
    sha256: str
    first: str
    last: str
    without_vector: int = 0
    removal: Removal | None = None
    xxh128: str = ""

    @property
    def live_rows(self) -> int:
        """Rows that readers see."""
        return self.rows - (self.removal.rows if self.removal else 0)

    def older_than(self, cutoff: datetime) -> bool:
        """Whether some row may have been created before `cutoff`."""
        return datetime.fromisoformat(self.first) < cutoff


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The key file of one system.

    Attributes:
        newest_manifest: the time of its newest upload applied, as ISO text in UTC.
        newest_file_xxh128: XXH3 of the unpacked database file of that upload, hex; "" when it had none.
    """

    system_id: str
    path: str
    rows: int
    bytes: int
    sha256: str
    newest_manifest: str
    newest_file_xxh128: str = ""
    xxh128: str = ""


@dataclass(frozen=True, slots=True)
class GraphFile:
    """The knowledge graph of one system: one file, and how many rows of each kind it has.

    `newest_manifest` is the time of the newest upload whose graph was applied, as ISO text in UTC.
    """

    system_id: str
    path: str
    entities: int
    relations: int
    observations: int
    bytes: int
    sha256: str
    newest_manifest: str
    xxh128: str = ""

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return self.entities + self.relations + self.observations


@dataclass(frozen=True, slots=True)
class HoldFile:
    """The records of a shard that a move leaves where they are until some instant."""

    path: str
    rows: int
    bytes: int
    sha256: str
    xxh128: str = ""


@dataclass(frozen=True, slots=True)
class Undone:
    """A commit whose changes are not in a shard any more."""

    version: int
    commit_id: str
    operation: str
    run_id: str


@dataclass(frozen=True, slots=True)
class Undo:
    """What an undo did: the version whose files it published again, and the commits that it took back, newest first.

    While a held shard is undone again, `undone` is everything that the shard had before the hold, or had pending, and that
    this version lacks.
    """

    to_version: int
    to_commit_id: str
    undone: tuple[Undone, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Commit:
    """Version `version` of a shard. Version 0 has no document and no files.

    `files` is keyed by path, `keys` and `graphs` by system. `sha256` is the digest the document carries. `floor` is the
    oldest version that an undo may reach, `sweeps` how many sweeps the shard has seen, `undo` what holds it.
    """

    shard: int
    version: int
    commit_id: str = ""
    sha256: str = ""
    parent_sha256: str = ""
    committed_at: str = ""
    run_id: str = ""
    policy: int = 0
    operation: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    uploads: tuple[Mapping[str, Any], ...] = ()
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    keys: Mapping[str, KeyFile] = field(default_factory=dict)
    graphs: Mapping[str, GraphFile] = field(default_factory=dict)
    condemned: tuple[str, ...] = ()
    held_by: str = ""
    undo: Undo | None = None
    holds: HoldFile | None = None
    floor: int = 0
    sweeps: int = 0

    @property
    def paths(self) -> frozenset[str]:
        """Every path that this version names, in both roots."""
        removals = (entry.removal.path for entry in self.files.values() if entry.removal)
        keys = (entry.path for entry in self.keys.values())
        graphs = (entry.path for entry in self.graphs.values())
        return frozenset((*self.files, *removals, *keys, *graphs, *((self.holds.path,) if self.holds else ())))

    def of_tier(self, *tiers: Tier) -> list[FileEntry]:
        """Files of some tiers in order of their paths."""
        return [entry for _, entry in sorted(self.files.items()) if entry.tier in tiers]


@dataclass(frozen=True, slots=True)
class Change:
    """A commit to be: what leaves, what comes, and what must still hold when it is put.

    Attributes:
        operation: the job that made it.
        add: staged and verified files.
        remove: files that leave, exactly as the plan saw them: a file whose removal list has changed since is another.
        mask: files that stay with another removal list, as (seen, new).
        keys: key files, as (seen or None, new).
        graphs: graph files, as (seen or None, new).
        counts: named numbers for the operator.
        uploads: one mapping for each upload this commit holds.
        holds: the hold file, as (seen or None, new or None); the same twice = it must not change meanwhile.
        condemn: paths that the sweep will delete, in the place of those that were condemned.
        restore: a retained version whose files become those of the shard.
        undo: goes with `restore`: what is taken back, and why.
        held_by: goes with `restore`: the run that holds the shard from then on.
        release: the commit id of the undo that holds the shard and lets it go now.
    """

    operation: str
    add: tuple[FileEntry, ...] = ()
    remove: tuple[FileEntry, ...] = ()
    mask: tuple[tuple[FileEntry, FileEntry], ...] = ()
    keys: tuple[tuple[KeyFile | None, KeyFile], ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    uploads: tuple[Mapping[str, Any], ...] = ()
    graphs: tuple[tuple[GraphFile | None, GraphFile], ...] = ()
    holds: tuple[HoldFile | None, HoldFile | None] | None = None
    condemn: tuple[str, ...] | None = None
    restore: Commit | None = None
    undo: Undo | None = None
    held_by: str = ""
    release: str = ""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to publish."""
        changed = self.add or self.remove or self.mask or self.keys or self.graphs
        held = self.holds is not None and self.holds[0] != self.holds[1]
        return not (changed or held or self.condemn is not None or self.restore or self.release)


def apply(head: Commit, change: Change) -> Commit:
    """The next version: `change` on top of `head`.

    Raises:
        CommitConflictError: what the change was planned against no longer stands on this head.
        ShardHeldError: the shard is held, and the change is neither an undo nor the release of it.
    """
    if change.restore is not None:
        return _restored(head, change, change.restore)
    if change.release:
        _require(head.commit_id == change.release, head, "the shard is not held by the undo that was to be released")
        return replace(_following(head, change), held_by="", undo=None)
    if head.held_by:
        raise ShardHeldError(held_sentence(head), shard=head.shard, found_version=head.version)
    if change.condemn is not None:
        _require(not head.paths.intersection(change.condemn), head, "a file to be condemned is named again")
        return replace(_following(head, change), condemned=change.condemn, sweeps=head.sweeps + 1)
    files = _files_after(head, change)
    keys = dict(head.keys)
    for before, after in change.keys:
        _require(keys.get(after.system_id) == before, head, "a key file has changed", system_id=after.system_id)
        keys[after.system_id] = after
    graphs = dict(head.graphs)
    for seen, new in change.graphs:
        _require(graphs.get(new.system_id) == seen, head, "a graph file has changed", system_id=new.system_id)
        graphs[new.system_id] = new
    after_holds = head.holds
    if change.holds is not None:
        _require(head.holds == change.holds[0], head, "the records on hold have changed")
        after_holds = change.holds[1]
    made = replace(_following(head, change), files=files, keys=keys, graphs=graphs, holds=after_holds)
    return _without_condemned(head, made)


def held_sentence(head: Commit) -> str:
    """Why nothing is written to a held shard, and what lets it go."""
    return (
        f"shard {head.shard} is held after an undo by run {head.held_by}; "
        f"`akosha release --shard {head.shard}` lets it go"
    )


def _following(head: Commit, change: Change) -> Commit:
    """The next version, as yet with everything that the head has."""
    return replace(
        head,
        version=head.version + 1,
        sha256="",
        parent_sha256=head.sha256,
        operation=change.operation,
        counts=dict(change.counts),
        uploads=change.uploads,
    )


def _files_after(head: Commit, change: Change) -> dict[str, FileEntry]:
    files = dict(head.files)
    for seen in change.remove:
        _require(files.get(seen.path) == seen, head, "a file to be removed has changed", path=seen.path)
        del files[seen.path]
    for seen, new in change.mask:
        _require(files.get(seen.path) == seen, head, "a file's removal list has changed", path=seen.path)
        files[seen.path] = new
    return files | {entry.path: entry for entry in change.add}


def _restored(head: Commit, change: Change, target: Commit) -> Commit:
    """An undo: exactly on the head it was planned on, since it names what it takes back, the head first."""
    newest = change.undo.undone[0].commit_id if change.undo else ""
    _require(newest == head.commit_id, head, "the shard has moved on since the undo was planned")
    _require(target.version >= head.floor, head, "the version lies below the floor", floor=head.floor)
    made = replace(
        _following(head, change),
        files=target.files,
        keys=target.keys,
        graphs=target.graphs,
        holds=target.holds,
        undo=change.undo,
        held_by=change.held_by,
    )
    return _without_condemned(head, made)


def _without_condemned(head: Commit, made: Commit) -> Commit:
    """`made`, checked to name none of the paths that the head condemns."""
    condemned = made.paths.intersection(head.condemned)
    _require(not condemned, head, "the sweep has condemned a staged file", path=min(condemned, default=""))
    return made


def _require(holds: bool, head: Commit, message: str, **context: object) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        sentence = f"{message}; plan again"
        raise CommitConflictError(sentence, shard=head.shard, found_version=head.version, **context)


def commit_document(commit: Commit) -> Document:
    """The JSON form of a commit, without its seal."""
    return {
        "format": "akosha-commit/2",
        "shard": commit.shard,
        "version": commit.version,
        "commit_id": commit.commit_id,
        "parent_sha256": commit.parent_sha256,
        "committed_at": commit.committed_at,
        "run_id": commit.run_id,
        "policy": commit.policy,
        "operation": commit.operation,
        "counts": dict(commit.counts),
        "uploads": [dict(upload) for upload in commit.uploads],
        "files": [_file_document(entry) for _, entry in sorted(commit.files.items())],
        "keys": [_plain(entry) for _, entry in sorted(commit.keys.items())],
        "graphs": [_plain(entry) for _, entry in sorted(commit.graphs.items())],
        "condemned": list(commit.condemned),
        "held_by": commit.held_by,
        **_seldom(commit),
    }


def _seldom(commit: Commit) -> Document:
    """Fields that most commits do not have: missing means none."""
    fields = {
        "undo": _undo_document(commit.undo),
        "holds": _plain(commit.holds) if commit.holds else None,
        "floor": commit.floor,
        "sweeps": commit.sweeps,
    }
    return {name: value for name, value in fields.items() if value}


def parse_commit(document: Document, *, key: str) -> Commit:
    """Read a verified commit document.

    Raises:
        IntegrityError: a field is missing or of another type.
    """
    try:
        files = [_parse_file(entry) for entry in document["files"]]
        keys = [KeyFile(**entry) for entry in document["keys"]]
        graphs = [GraphFile(**entry) for entry in document.get("graphs", [])]  # documents before graphs have none
        plain = {name: document[name] for name in _PLAIN_FIELDS}
        return Commit(
            **plain,
            uploads=tuple(document["uploads"]),
            files={entry.path: entry for entry in files},
            keys={entry.system_id: entry for entry in keys},
            graphs={entry.system_id: entry for entry in graphs},
            condemned=tuple(document["condemned"]),
            undo=_parse_undo(document.get("undo")),
            holds=HoldFile(**document["holds"]) if document.get("holds") else None,
            floor=document.get("floor", 0),
            sweeps=document.get("sweeps", 0),
        )
    except (KeyError, TypeError) as error:
        message = f"the commit document lacks what a commit needs ({error}); run `akosha fsck`"
        raise IntegrityError(message, key=key) from error


_PLAIN_FIELDS: Final = (
    "shard",
    "version",
    "commit_id",
    "sha256",
    "parent_sha256",
    "committed_at",
    "run_id",
    "policy",
    "operation",
    "counts",
    "held_by",
)


def _plain(entry: FileEntry | KeyFile | GraphFile | HoldFile | Removal) -> Document:
    """Its fields. A file that is known by SHA-256 alone keeps the form it had."""
    fields = {name: getattr(entry, name) for name in entry.__slots__}
    return fields if fields.get("xxh128") else {name: value for name, value in fields.items() if name != "xxh128"}


def _file_document(entry: FileEntry) -> Document:
    return {**_plain(entry), "removal": _plain(entry.removal) if entry.removal else None}


def _undo_document(undo: Undo | None) -> Document | None:
    return None if undo is None else {**asdict(undo), "undone": [asdict(one) for one in undo.undone]}


def _parse_undo(document: Document | None) -> Undo | None:
    if document is None:
        return None
    return Undo(**{**document, "undone": tuple(Undone(**one) for one in document["undone"])})


def _parse_file(document: Document) -> FileEntry:
    removal = document["removal"]
    return FileEntry(**{**document, "removal": Removal(**removal) if removal else None})
