"""Slices: how much of a large move one run takes. Pure.

A run takes whole shards, those with the oldest records first, until the declared number of bytes is reached. The shard that
does not fit any more is cut by age: a move with an earlier `as_of` is a smaller move, and its rest is the next run's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from akosha.lake.commits import FileEntry

WHOLE: Final = ""


@dataclass(frozen=True, slots=True)
class Part:
    """The files of one shard that a move concerns, oldest first, none of them empty."""

    shard: int
    entries: tuple[FileEntry, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of the files."""
        return sum(entry.bytes for entry in self.entries)

    @property
    def rows(self) -> int:
        """Live rows of the files."""
        return sum(entry.live_rows for entry in self.entries)


@dataclass(frozen=True, slots=True)
class Taken:
    """One part as a run takes it: `until` is the instant that cuts it, records created before it move; None = all."""

    part: Part
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Slice:
    """What a run takes and what it leaves."""

    taken: tuple[Taken, ...]
    left: tuple[Part, ...]


def part_of(shard: int, entries: Sequence[FileEntry], done: Mapping[str, str]) -> Part | None:
    """What a shard still has to move in a run that continues others.

    Args:
        shard: 0-255.
        entries: files that the move concerns.
        done: what earlier slices took, by shard number as text: `WHOLE`, or up to which instant.

    Returns:
        None when nothing is left.
    """
    until = done.get(str(shard))
    if until == WHOLE:
        return None
    left = [entry for entry in entries if until is None or _last(entry) >= datetime.fromisoformat(until)]
    return Part(shard, tuple(sorted(left, key=lambda entry: (entry.first, entry.path)))) if left else None


def take(parts: Sequence[Part], limit_bytes: int, done: Mapping[str, str]) -> Slice:
    """The next slice of a move. At least one file is taken, however small the limit.

    Args:
        parts: by `part_of`.
        limit_bytes: bytes of files that one run may take; 0 = all.
        done: as for `part_of`.
    """
    queue = sorted(parts, key=lambda part: (part.entries[0].first, part.shard))
    taken: list[Taken] = []
    room = limit_bytes
    for number, part in enumerate(queue):
        if limit_bytes and part.size_bytes > room:
            cut, rest = _cut(part, room, done.get(str(part.shard)), force=not taken)
            left = [*([rest] if rest else []), *queue[number + 1 :]]
            return Slice((*taken, *([cut] if cut else [])), tuple(left))
        taken.append(Taken(part))
        room -= part.size_bytes
    return Slice(tuple(taken), ())


def done_after(done: Mapping[str, str], taken: Sequence[Taken]) -> dict[str, str]:
    """What has been taken after one more slice; see `part_of`."""
    new = {str(one.part.shard): one.until.isoformat() if one.until else WHOLE for one in taken}
    return {**done, **new}


def _cut(part: Part, room: int, begin: str | None, *, force: bool) -> tuple[Taken | None, Part | None]:
    """The oldest files of a part that fit into `room`, at least one with `force`, and the rest of the part.

    Files are told apart by their first record: those that begin at one instant go together, and a shard that was cut at
    `begin` goes on behind it.
    """
    size = 0
    for number, entry in enumerate(part.entries):
        size += entry.bytes
        behind = begin is None or datetime.fromisoformat(entry.first) > datetime.fromisoformat(begin)
        later = number > 0 and behind and entry.first > part.entries[0].first
        if size > room and later:
            until = datetime.fromisoformat(entry.first)
            chosen = part.entries[:number]
            if not force and sum(one.bytes for one in chosen) > room:
                return None, part
            left = [one for one in part.entries if one.first >= entry.first or _last(one) >= until]
            return Taken(Part(part.shard, chosen), until), Part(part.shard, tuple(left))
    return (Taken(part), None) if force else (None, part)


def _last(entry: FileEntry) -> datetime:
    return datetime.fromisoformat(entry.last)
