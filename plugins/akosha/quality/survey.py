"""What is left of a shard in which something is damaged: every record that can still be found, and where.

Reads only. `akosha.quality.recovery` decides from it what to recover from where, `akosha.quality.repair` does it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Final, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from akosha.errors import IntegrityError, ObjectMissingError
from akosha.lake import removals
from akosha.lake.commits import TIERS, Commit, FileEntry, GraphFile, KeyFile, Removal
from akosha.lake.files import ROW
from akosha.lake.lake import Lake
from akosha.lake.provenance import is_unarchived
from akosha.lake.schemas import KEY

Key = tuple[str, str, str]
Place = tuple[str, str]
T = TypeVar("T")
_LOOKED_AT: Final = (*KEY, "content_sha256", "created_at")


class Spot(NamedTuple):
    """A row in a file that can be read; `unarchived` = its policy gave it no row in the archive (I11)."""

    entry: FileEntry
    row: int
    digest: bytes
    created_at: datetime
    unarchived: bool = False


class Listed(NamedTuple):
    """What a key file says of a record; `held_at` is the manifest time of the newest upload that held it."""

    digest: bytes
    created_at: datetime
    time_evidence: str
    held_at: datetime


@dataclass(slots=True)
class Survey:
    """What is left of one shard.

    Attributes:
        head: the newest version that can be read.
        bad: files, as (root, path), that are missing or not what they should be.
        listed: live keys, by the key files that can be read; by an older one where the live one cannot.
        placed: rows of the head's tiers.
        archived: rows of the head's archive.
        older: rows of hot in files that only older versions name.
        peers: rows of warm and cold in files that only older versions name.
        removals: bytes of damaged removal lists, found again and proved by their SHA-256, by path.
        old_keys: the newest key file that can be read of each system whose live one cannot.
        old_graphs: likewise for knowledge graphs; systems without one are missing.
        uploads: manifest times of the uploads of each system that were taken in and still exist.
    """

    head: Commit
    bad: set[Place]
    listed: dict[Key, Listed] = field(default_factory=dict)
    placed: dict[Key, Spot] = field(default_factory=dict)
    archived: dict[Key, Spot] = field(default_factory=dict)
    older: dict[Key, Spot] = field(default_factory=dict)
    peers: dict[Key, Spot] = field(default_factory=dict)
    removals: dict[str, bytes] = field(default_factory=dict)
    old_keys: dict[str, KeyFile] = field(default_factory=dict)
    old_graphs: dict[str, GraphFile] = field(default_factory=dict)
    uploads: Mapping[str, frozenset[datetime]] = field(default_factory=dict)

    def entries(self) -> list[FileEntry]:
        """Files of the head that cannot be used: damaged, or with a damaged removal list that could not be found again."""
        return [entry for entry in self.head.of_tier(*TIERS, "archive") if not self.usable(entry)]

    def usable(self, entry: FileEntry) -> bool:
        """Whether a file and what is live in it can be read."""
        if (entry.root, entry.path) in self.bad:
            return False
        removal = entry.removal
        return removal is None or ("lake", removal.path) not in self.bad or removal.path in self.removals

    def key_files(self) -> list[KeyFile]:
        """Key files of the head that cannot be read."""
        return [entry for _, entry in sorted(self.head.keys.items()) if ("lake", entry.path) in self.bad]

    def graphs(self) -> list[GraphFile]:
        """Graph files of the head that cannot be read."""
        return [entry for _, entry in sorted(self.head.graphs.items()) if ("lake", entry.path) in self.bad]


def survey(
    lake: Lake,
    commits: Sequence[Commit],
    bad: frozenset[Place],
    uploads: Mapping[str, frozenset[datetime]],
) -> Survey:
    """Look at everything that is left of a shard.

    Args:
        lake: which.
        commits: its versions that can be read, newest first; at least one.
        bad: files that cannot be used.
        uploads: manifest times of the uploads of each of its systems that still exist.
    """
    found = Survey(commits[0], set(bad), uploads=uploads)
    _list_keys(lake, commits, found)
    _find_removals(lake, found, "hot", "warm", "cold")
    for entry in found.head.of_tier(*TIERS):
        found.placed.update(_live(lake, entry, found))
    _find_removals(lake, found, "archive")
    for entry in found.head.of_tier("archive"):
        found.archived.update(_live(lake, entry, found))
    _look_back(lake, commits, found)
    return found


def read_rows(lake: Lake, spots: Sequence[Spot]) -> Iterator[tuple[FileEntry, pa.Table]]:
    """The rows of some spots, file by file, all columns and ``row``, removed ones included."""
    by_file: dict[str, list[Spot]] = {}
    for spot in spots:
        by_file.setdefault(spot.entry.path, []).append(spot)
    for _, mine in sorted(by_file.items()):
        entry = mine[0].entry
        table = lake.rows(replace(entry, removal=None))
        numbers = np.array([spot.row for spot in mine], np.int64)
        yield entry, table.filter(pa.array(np.isin(table.column(ROW).to_numpy(), numbers)))


def _list_keys(lake: Lake, commits: Sequence[Commit], found: Survey) -> None:
    for system, entry in found.head.keys.items():
        if ("lake", entry.path) not in found.bad:
            found.listed.update(_tried(found, ("lake", entry.path), partial(_listed, lake, entry)) or {})
        if ("lake", entry.path) in found.bad:
            older = (commit.keys.get(system) for commit in commits[1:])
            sound = next((keys for keys in older if keys is not None and ("lake", keys.path) not in found.bad), None)
            found.old_keys |= {system: sound} if sound is not None else {}


def _listed(lake: Lake, entry: KeyFile) -> dict[Key, Listed]:
    columns = (
        "source_table",
        "record_id",
        "content_sha256",
        "created_at",
        "time_evidence",
        "in_newest",
        "applied_manifest",
    )
    newest = datetime.fromisoformat(entry.newest_manifest)
    values = [lake.keys(entry).column(name).to_pylist() for name in columns]
    return {
        (entry.system_id, table, own): Listed(digest, created, evidence, newest if in_newest else applied)
        for table, own, digest, created, evidence, in_newest, applied in zip(*values, strict=True)
    }


def _spots(lake: Lake, entry: FileEntry) -> dict[int, tuple[Key, Spot]]:
    """Every row of a file by its number, removed ones included."""
    aged = entry.tier in {"warm", "cold"}
    table = lake.rows(replace(entry, removal=None), (*_LOOKED_AT, "provenance") if aged else _LOOKED_AT)
    values = [table.column(name).to_pylist() for name in (*_LOOKED_AT, ROW)]
    left_out = is_unarchived(table.column("provenance")).to_pylist() if aged else [False] * table.num_rows
    return {
        row: ((system, source, own), Spot(entry, row, digest, created, out))
        for system, source, own, digest, created, row, out in zip(*values, left_out, strict=True)
    }


def _live(lake: Lake, entry: FileEntry, found: Survey) -> list[tuple[Key, Spot]]:
    """Live rows of a file; none where it cannot be read."""
    gone: set[int] = set()
    if entry.removal is not None and found.usable(entry):
        removal = entry.removal
        gone = _tried(found, ("lake", removal.path), partial(_removed, lake, entry, removal, found)) or set()
    if not found.usable(entry):
        return []
    spots = _tried(found, (entry.root, entry.path), partial(_spots, lake, entry)) or {}
    return [spot for row, spot in spots.items() if row not in gone]


def _removed(lake: Lake, entry: FileEntry, removal: Removal, found: Survey) -> set[int]:
    again = found.removals.get(removal.path)
    numbers = lake.removed(entry) if again is None else removals.decode(again, removal)
    return set() if numbers is None else set(numbers.tolist())


def _tried(found: Survey, place: Place, read: Callable[[], T]) -> T | None:
    """What is read of a file, or None; one that turns out to be damaged, as a check without the data does not see, is a bad one."""
    try:
        return read()
    except (IntegrityError, ObjectMissingError):
        found.bad.add(place)
        return None


def _find_removals(lake: Lake, found: Survey, *tiers: str) -> None:
    """Find damaged removal lists again: the rows that are not live there by all the rest. The SHA-256 proves each."""
    damaged = [
        entry
        for entry in found.head.files.values()
        if entry.tier in tiers
        and entry.removal is not None
        and ("lake", entry.removal.path) in found.bad
        and (entry.root, entry.path) not in found.bad
    ]
    if not damaged:
        return
    ours = [entry for entry in found.head.files.values() if entry.tier in tiers and entry not in damaged]
    elsewhere = {key for entry in ours for key, _ in _live(lake, entry, found)}
    wanted = (
        {key: spot.digest for key, spot in found.placed.items() if spot.entry.tier != "hot"}
        if tiers == ("archive",)
        else {key: listed.digest for key, listed in found.listed.items()}
    )
    for entry in damaged:
        gone = [
            row
            for row, (key, spot) in _spots(lake, entry).items()
            if wanted.get(key) != spot.digest or key in elsewhere
        ]
        data = removals.encode(np.array(gone, dtype=np.uint32))
        removal = entry.removal
        if removal is not None and hashlib.sha256(data).hexdigest() == removal.sha256:
            found.removals[removal.path] = data
            elsewhere |= {key for key, _ in _live(lake, entry, found)}


def _look_back(lake: Lake, commits: Sequence[Commit], found: Survey) -> None:
    """Rows and graphs of files that only older versions name; of two rows of a record the newer version's."""
    seen = set(found.head.files)
    for commit in commits[1:]:
        for entry in commit.of_tier(*TIERS):
            if entry.path in seen or (entry.root, entry.path) in found.bad:
                continue
            seen.add(entry.path)
            into = found.older if entry.tier == "hot" else found.peers
            try:
                rows = _spots(lake, entry)
            except (IntegrityError, ObjectMissingError):
                continue  # an older file that a fast check has not read, or that is swept by now: not a source
            for key, spot in rows.values():
                into.setdefault(key, spot)
        for system, graph in commit.graphs.items():
            live = found.head.graphs.get(system)
            if live is not None and live.path != graph.path and ("lake", graph.path) not in found.bad:
                found.old_graphs.setdefault(system, graph)
