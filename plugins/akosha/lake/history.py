"""The life of one record: what the retained versions of its shard did with it. Reads only what changed between versions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from akosha.errors import ObjectMissingError
from akosha.lake.commits import TIERS, Commit, FileEntry, Tier
from akosha.lake.files import ROW
from akosha.lake.lake import Lake
from akosha.lake.policy import Key
from akosha.lake.schemas import KEY

_COLUMNS: Final = (*KEY, "content_sha256")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record is at one version: the row of a file, and which revision (digest) lies there."""

    entry: FileEntry
    row: int
    digest: str

    @property
    def tier(self) -> Tier:
        """Of its file."""
        return self.entry.tier


@dataclass(frozen=True, slots=True)
class Step:
    """A version that put a record, moved it, wrote it anew, or took it away (`after` None)."""

    commit: Commit
    before: Place | None
    after: Place | None


@dataclass(frozen=True, slots=True)
class Life:
    """Newest step first. `since` is the oldest version that could be read; 1 = the whole life of the shard."""

    steps: tuple[Step, ...]
    since: int


def find(lake: Lake, entries: Iterable[FileEntry], key: Key) -> Place | None:
    """The live row of a record in some files of one version.

    Raises:
        ObjectMissingError: a file is not there any more.
    """
    for entry in entries:
        rows = lake.rows(entry, list(_COLUMNS))
        found = rows.filter(_is(rows, key))
        if found.num_rows:
            row = found.slice(0, 1).to_pylist()[0]
            return Place(entry, int(row[ROW]), row["content_sha256"].hex())
    return None


def full_row(lake: Lake, place: Place) -> pa.Table:
    """The one row of a place, with every column of its tier."""
    rows = lake.rows(place.entry)
    return rows.filter(pa.array(rows.column(ROW).to_numpy() == np.uint32(place.row)))


def life(lake: Lake, head: Commit, key: Key) -> Life:
    """What each retained version did with a record, from the head backwards."""
    steps: list[Step] = []
    newer, place = head, find(lake, head.of_tier(*TIERS), key)
    while newer.version:
        try:
            older = lake.shard(head.shard).read(newer.version - 1)
            was = _before(lake, newer, older, place, key)
        except ObjectMissingError:
            break
        if was != place and not (was and place and was.entry.path == place.entry.path):
            steps.append(Step(newer, was, place))
        newer, place = older, was
    return Life(tuple(steps), newer.version + 1 if newer.version == 0 else newer.version)


def uploads_of(commit: Commit, system_id: str) -> Iterator[dict[str, Any]]:
    """The uploads of a system that a version applied."""
    for upload in commit.uploads:
        if str(upload.get("manifest", "")).startswith(f"systems/{system_id}/"):
            yield dict(upload)


def _before(lake: Lake, newer: Commit, older: Commit, place: Place | None, key: Key) -> Place | None:
    """Where the record was one version earlier."""
    if place is not None and _had_row(lake, older.files.get(place.entry.path), place):
        return Place(older.files[place.entry.path], place.row, place.digest)
    if place is None and older.keys.get(key[0]) == newer.keys.get(key[0]):
        return None  # a record comes and goes with its system's key file
    changed = [entry for entry in older.of_tier(*TIERS) if newer.files.get(entry.path) != entry]
    return find(lake, changed, key)


def _had_row(lake: Lake, entry: FileEntry | None, place: Place) -> bool:
    """Whether a file had the row of `place` already. Rows only ever leave a file, but an undo brings them back."""
    if entry is None or entry.removal == place.entry.removal:
        return entry is not None
    gone = lake.removed(entry)
    return gone is None or place.row not in gone


def _is(rows: pa.Table, key: Key) -> pa.ChunkedArray:
    first, *others = (pc.equal(rows.column(name), value) for name, value in zip(KEY, key, strict=True))
    for other in others:
        first = pc.and_(first, other)
    return first
