"""What both moves share: which files are concerned, and what is reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from akosha.lake.commits import Commit, FileEntry, Tier, held_sentence
from akosha.lake.edit import ShardEdit
from akosha.lake.lake import Lake
from akosha.lake.schemas import KEY
from akosha.tiers.due import Due, DueRows

MAX_REPLANS: Final = 5
EXAMPLES: Final = 3
GUESS_EXAMPLES: Final = 5
GUESSED: Final = ("manifest", "none")  # evidence of a time that no row of the upload has shown; `offset` is measured
NEAR: Final = timedelta(hours=14)  # no UTC offset is larger: what a wrongly guessed zone can shift across a line


def due_rows(lake: Lake, entry: FileEntry, due: Due) -> DueRows:
    """Rows of one file that are to move, with every column; and how many past their line stay, by reason."""
    return due.select(lake.rows(entry, before=due.cutoff))


@dataclass(slots=True)
class ShardMove:
    """What a move did, or would do, in one shard. Bytes are those of the files written for the moved rows.

    `placed_by_guess` and `kept_by_guess` count records with a guessed time within `NEAR` of the line: moved, and not
    moved; `guess_examples` are keys of some that moved. `staying` counts records past their line by why they stay; those
    that wait for a vector are `waiting` as well. `unarchived` moved without a row in the archive, as the policy says.
    `waits_for` says why nothing was done in a held shard.
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
    unarchived: int = 0
    staying: dict[str, int] = field(default_factory=dict)
    first_records: list[list[str]] = field(default_factory=list)
    guess_examples: list[list[str]] = field(default_factory=list)
    waits_for: str = ""

    def stay(self, staying: Mapping[str, int]) -> None:
        """Count the rows of one file that stay although they are past their line."""
        for reason, rows in staying.items():
            self.staying[reason] = self.staying.get(reason, 0) + rows
        self.waiting = self.staying.get("vector", 0)

    def add(self, entry: FileEntry, rows: pa.Table, due: Due, *, without_vector: int) -> None:
        """Count the rows due in one file."""
        self.rows += rows.num_rows
        self.files += 1
        self.bytes_read += entry.bytes
        self.without_vector += without_vector
        room = EXAMPLES - len(self.first_records)
        self.first_records += _keys(rows, room)
        near = pc.greater_equal(rows.column("created_at"), pc.subtract(due.lines(rows), pa.scalar(NEAR)))
        guessed = rows.filter(pc.and_(_guessed(rows), near))
        self.placed_by_guess += guessed.num_rows
        self.guess_examples += _keys(guessed, GUESS_EXAMPLES - len(self.guess_examples))

    def count_kept(self, lake: Lake, head: Commit, due: Due) -> None:
        """Count what stays behind the line only by a guess. Reads three columns of the files that reach so near to it."""
        for entry in concerned(head, due.tier, due.cutoff + NEAR):
            if datetime.fromisoformat(entry.last) >= due.cutoff or due.policy.systems:
                rows = lake.rows(entry, ["system_id", "created_at", "time_evidence"], before=due.cutoff + NEAR)
                lines, created = due.lines(rows), rows.column("created_at")
                after = pc.and_(pc.greater_equal(created, lines), pc.less(created, pc.add(lines, pa.scalar(NEAR))))
                self.kept_by_guess += int(pc.sum(pc.and_(_guessed(rows), after), min_count=0).as_py())

    def counts(self) -> dict[str, int]:
        """The numbers a commit holds."""
        return {
            "moved": self.rows,
            "waiting": self.waiting,
            "without_vector": self.without_vector,
            "placed_by_guess": self.placed_by_guess,
            "unarchived": self.unarchived,
            **{f"stay_{reason}": rows for reason, rows in sorted(self.staying.items()) if reason != "vector"},
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


def _keys(rows: pa.Table, most: int) -> list[list[str]]:
    return [[row[name] for name in KEY] for row in rows.select(KEY).slice(0, most).to_pylist()]
