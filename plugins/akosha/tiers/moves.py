"""What both moves share: which files are concerned, and what is reported."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import pyarrow as pa

from akosha.lake.commits import Commit, FileEntry, Tier
from akosha.lake.edit import ShardEdit
from akosha.lake.schemas import KEY

MAX_REPLANS: Final = 5
EXAMPLES: Final = 3


@dataclass(slots=True)
class ShardMove:
    """What a move did, or would do, in one shard. Bytes are those of the files written for the moved rows."""

    shard: int
    version: int = 0
    rows: int = 0
    waiting: int = 0
    without_vector: int = 0
    bytes_read: int = 0
    files: int = 0
    first_records: list[list[str]] = field(default_factory=list)

    def add(self, entry: FileEntry, due: pa.Table, *, without_vector: int) -> None:
        """Count the rows due in one file."""
        self.rows += due.num_rows
        self.files += 1
        self.bytes_read += entry.bytes
        self.without_vector += without_vector
        room = EXAMPLES - len(self.first_records)
        self.first_records += [[row[name] for name in KEY] for row in due.select(KEY).slice(0, room).to_pylist()]

    def counts(self) -> dict[str, int]:
        """The numbers a commit holds."""
        return {"moved": self.rows, "waiting": self.waiting, "without_vector": self.without_vector}


@dataclass(slots=True)
class StagedMove:
    """A staged move of one shard, not visible yet."""

    edit: ShardEdit
    outcome: ShardMove


def concerned(head: Commit, tier: Tier, cutoff: datetime) -> list[FileEntry]:
    """Files of `tier` that may hold rows created before `cutoff`."""
    return [entry for entry in head.of_tier(tier) if entry.live_rows and entry.older_than(cutoff)]
