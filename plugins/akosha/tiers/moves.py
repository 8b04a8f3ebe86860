"""What both moves share: which files are concerned, and what is reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from akosha.lake.commits import Commit, FileEntry, Tier, held_sentence
from akosha.lake.edit import ShardEdit
from akosha.lake.lake import Lake
from akosha.lake.schemas import KEY

MAX_REPLANS: Final = 5
EXAMPLES: Final = 3
GUESS_EXAMPLES: Final = 5
GUESSED: Final = ("manifest", "none")  # evidence of a time that no row of the upload has shown; `offset` is measured
NEAR: Final = timedelta(hours=14)  # no UTC offset is larger: what a wrongly guessed zone can shift across a line


@dataclass(slots=True)
class ShardMove:
    """What a move did, or would do, in one shard. Bytes are those of the files written for the moved rows.

    `placed_by_guess` and `kept_by_guess` count records with a guessed time within `NEAR` of the line: moved, and not
    moved; `guess_examples` are keys of some that moved. `waits_for` says why nothing was done in a held shard.
    """

    shard: int
    version: int = 0
    rows: int = 0
    waiting: int = 0
    without_vector: int = 0
    bytes_read: int = 0
    files: int = 0
    placed_by_guess: int = 0
    kept_by_guess: int = 0
    first_records: list[list[str]] = field(default_factory=list)
    guess_examples: list[list[str]] = field(default_factory=list)
    waits_for: str = ""

    def add(self, entry: FileEntry, due: pa.Table, *, without_vector: int, cutoff: datetime) -> None:
        """Count the rows due in one file."""
        self.rows += due.num_rows
        self.files += 1
        self.bytes_read += entry.bytes
        self.without_vector += without_vector
        room = EXAMPLES - len(self.first_records)
        self.first_records += _keys(due, room)
        guessed = due.filter(
            pc.and_(_guessed(due), pc.greater_equal(due.column("created_at"), _instant(cutoff - NEAR)))
        )
        self.placed_by_guess += guessed.num_rows
        self.guess_examples += _keys(guessed, GUESS_EXAMPLES - len(self.guess_examples))

    def count_kept(self, lake: Lake, head: Commit, tier: Tier, cutoff: datetime) -> None:
        """Count what stays behind the line only by a guess. Reads two columns of the files that reach so near to it."""
        for entry in concerned(head, tier, cutoff + NEAR):
            if datetime.fromisoformat(entry.last) >= cutoff:
                rows = lake.rows(entry, ["created_at", "time_evidence"], before=cutoff + NEAR)
                kept = pc.and_(_guessed(rows), pc.greater_equal(rows.column("created_at"), _instant(cutoff)))
                self.kept_by_guess += int(pc.sum(kept, min_count=0).as_py())

    def counts(self) -> dict[str, int]:
        """The numbers a commit holds."""
        return {
            "moved": self.rows,
            "waiting": self.waiting,
            "without_vector": self.without_vector,
            "placed_by_guess": self.placed_by_guess,
        }


@dataclass(slots=True)
class StagedMove:
    """A staged move of one shard, not visible yet."""

    edit: ShardEdit
    outcome: ShardMove


def held_shards(lake: Lake, shards: Sequence[int]) -> tuple[list[ShardMove], list[int]]:
    """Outcomes for the shards that are held after an undo, and the other shards: nothing is staged for what must wait."""
    heads = [lake.shard(shard).head() for shard in shards]
    held = [ShardMove(head.shard, head.version, waits_for=held_sentence(head)) for head in heads if head.held_by]
    return held, [head.shard for head in heads if not head.held_by]


def concerned(head: Commit, tier: Tier, cutoff: datetime) -> list[FileEntry]:
    """Files of `tier` that may hold rows created before `cutoff`."""
    return [entry for entry in head.of_tier(tier) if entry.live_rows and entry.older_than(cutoff)]


def _guessed(rows: pa.Table) -> pa.ChunkedArray:
    return pc.is_in(rows.column("time_evidence"), pa.array(GUESSED))


def _instant(moment: datetime) -> pa.Scalar:
    return pa.scalar(moment, pa.timestamp("us", tz="UTC"))


def _keys(rows: pa.Table, most: int) -> list[list[str]]:
    return [[row[name] for name in KEY] for row in rows.select(KEY).slice(0, most).to_pylist()]
