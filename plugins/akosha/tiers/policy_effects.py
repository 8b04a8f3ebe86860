"""What another policy would change on the next night: the same rows judged under both. Reads, and writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from akosha.lake.commits import Commit, FileEntry
from akosha.lake.lake import Lake
from akosha.lake.policy import Policy, Source
from akosha.lake.schemas import KEY
from akosha.tiers.due import NEEDED, Due
from akosha.tiers.moves import concerned
from akosha.tiers.stay import DUE

EXAMPLES: Final = 10
SOURCES: Final[tuple[Source, ...]] = ("hot", "warm")


@dataclass(slots=True)
class MoveEffects:
    """Records that one move would take: under the policy in force, under the other one, and what makes the difference.

    Attributes:
        before, after: records that leave the tier.
        more, fewer: records that leave only under the other policy; that stay only under it.
        without_text: records that leave under the other one and get no row in the archive.
        files, bytes: of the files that `more` are in.
        first_records: keys of the first records of which the fate changes.
    """

    before: int = 0
    after: int = 0
    more: int = 0
    fewer: int = 0
    without_text: int = 0
    files: int = 0
    bytes: int = 0
    first_records: list[list[str]] = field(default_factory=list)


def policy_effects(lake: Lake, one: Policy, other: Policy, as_of: datetime) -> dict[Source, MoveEffects]:
    """What the moves of the next night would do under two policies, by the tier that records leave.

    A record that is past both lines goes through both moves in one night, and counts in both. Reads the columns a decision
    needs of every file that one of the two concerns.
    """
    effects: dict[Source, MoveEffects] = {"hot": MoveEffects(), "warm": MoveEffects()}
    for head in lake.heads():
        hot, warm = ((Due(lake, head, one, tier, as_of), Due(lake, head, other, tier, as_of)) for tier in SOURCES)
        for entry, rows in _rows(lake, head, hot):
            leaving = _due(hot, rows)
            _count(effects["hot"], entry, rows, leaving)
            effects["hot"].without_text += int((leaving[1] & ~hot[1].archiving(rows).kept).sum())
            onward = _due(warm, rows)
            _count(effects["warm"], entry, rows, (leaving[0] & onward[0], leaving[1] & onward[1]))
        for entry, rows in _rows(lake, head, warm):
            _count(effects["warm"], entry, rows, _due(warm, rows))
    return effects


def absent_records(lake: Lake, systems: frozenset[str]) -> int:
    """Live records of some systems that their newest upload lacks: what deletion by absence would take with the next one."""
    absent = 0
    for head in lake.heads():
        for system in systems & head.keys.keys():
            held = lake.keys(head.keys[system]).column("in_newest")
            absent += len(held) - pc.sum(held, min_count=0).as_py()
    return absent


def _due(dues: tuple[Due, Due], rows: pa.Table) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows leave a tier under either policy."""
    one, other = (due.judge(rows).reason == DUE for due in dues)
    return one, other


def _count(
    found: MoveEffects, entry: FileEntry, rows: pa.Table, leaving: tuple[NDArray[np.bool_], NDArray[np.bool_]]
) -> None:
    before, after = leaving
    more = after & ~before
    found.before += int(before.sum())
    found.after += int(after.sum())
    found.more += int(more.sum())
    found.fewer += int((before & ~after).sum())
    if more.any():
        found.files += 1
        found.bytes += entry.bytes
    room = EXAMPLES - len(found.first_records)
    at = pa.array(np.flatnonzero(before != after)[:room])
    found.first_records += [[row[name] for name in KEY] for row in rows.select(KEY).take(at).to_pylist()]


def _rows(lake: Lake, head: Commit, dues: tuple[Due, Due]) -> Iterator[tuple[FileEntry, pa.Table]]:
    cutoff = max(due.cutoff for due in dues)
    for entry in concerned(head, dues[0].tier, cutoff):
        rows = lake.rows(entry, NEEDED, before=cutoff)
        if rows.num_rows:
            yield entry, rows
