"""Commits: what a shard is at one version, and how a change turns one version into the next.

Everything here is a value or a pure function; `shard_log` reads and publishes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Literal

from akosha.errors import CommitConflictError, IntegrityError
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
    have none.
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

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return self.entities + self.relations + self.observations


@dataclass(frozen=True, slots=True)
class Commit:
    """Version `version` of a shard. Version 0 has no document and no files.

    `files` is keyed by path, `keys` and `graphs` by system. `sha256` is the digest the document carries.
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
    """

    operation: str
    add: tuple[FileEntry, ...] = ()
    remove: tuple[FileEntry, ...] = ()
    mask: tuple[tuple[FileEntry, FileEntry], ...] = ()
    keys: tuple[tuple[KeyFile | None, KeyFile], ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    uploads: tuple[Mapping[str, Any], ...] = ()
    graphs: tuple[tuple[GraphFile | None, GraphFile], ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to publish."""
        return not (self.add or self.remove or self.mask or self.keys or self.graphs)


def apply(head: Commit, change: Change) -> Commit:
    """The next version: `change` on top of `head`.

    Raises:
        CommitConflictError: what the change was planned against no longer stands on this head, or the shard is held.
    """
    _require(not head.held_by, head, "the shard is held after an undo")
    files = dict(head.files)
    for seen in change.remove:
        _require(files.get(seen.path) == seen, head, "a file to be removed has changed", path=seen.path)
        del files[seen.path]
    for seen, new in change.mask:
        _require(files.get(seen.path) == seen, head, "a file's removal list has changed", path=seen.path)
        files[seen.path] = new
    for entry in change.add:
        _require(entry.path not in head.condemned, head, "the sweep has condemned a staged file", path=entry.path)
        files[entry.path] = entry
    keys = dict(head.keys)
    for before, after in change.keys:
        _require(keys.get(after.system_id) == before, head, "a key file has changed", system_id=after.system_id)
        keys[after.system_id] = after
    graphs = _graphs_after(head, change)
    return replace(
        head,
        version=head.version + 1,
        sha256="",
        parent_sha256=head.sha256,
        operation=change.operation,
        counts=dict(change.counts),
        uploads=change.uploads,
        files=files,
        keys=keys,
        graphs=graphs,
    )


def _graphs_after(head: Commit, change: Change) -> dict[str, GraphFile]:
    graphs = dict(head.graphs)
    for before, after in change.graphs:
        _require(graphs.get(after.system_id) == before, head, "a graph file has changed", system_id=after.system_id)
        _require(after.path not in head.condemned, head, "the sweep has condemned a staged file", path=after.path)
        graphs[after.system_id] = after
    return graphs


def _require(holds: bool, head: Commit, message: str, **context: object) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        sentence = f"{message}; plan again"
        raise CommitConflictError(sentence, shard=head.shard, found_version=head.version, **context)


def commit_document(commit: Commit) -> Document:
    """The JSON form of a commit, without its seal."""
    return {
        "format": "akosha-commit/1",
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
    }


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


def _plain(entry: KeyFile | GraphFile | Removal) -> Document:
    return {name: getattr(entry, name) for name in entry.__slots__}


def _file_document(entry: FileEntry) -> Document:
    document = {name: getattr(entry, name) for name in entry.__slots__}
    document["removal"] = _plain(entry.removal) if entry.removal else None
    return document


def _parse_file(document: Document) -> FileEntry:
    removal = document["removal"]
    return FileEntry(**{**document, "removal": Removal(**removal) if removal else None})
