"""What a correct ingester makes of a demo world, so that tests and the demo's own report can compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from akosha.demo.memories import Memory

Outcome = Literal["applied", "empty", "quarantined", "unfinished"]
Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class ExpectedRecord:
    """One record after all good uploads are applied.

    Attributes:
        content: of the newest upload that holds it.
        created_at: UTC. An ingester that measures time from a ULID or from ``extracted_at`` may differ by less than a
            second; nothing may differ by more.
        has_vector: whether the client sent an embedding.
        project: what the client says, also inside metadata. Of a `shared` record either machine's.
        shared: two machines of one system id hold it.
    """

    system_id: str
    source_table: str
    record_id: str
    content: str
    created_at: datetime
    has_vector: bool
    project: str | None
    shared: bool = False

    @property
    def key(self) -> Key:
        """System, table and id."""
        return self.system_id, self.source_table, self.record_id


@dataclass(frozen=True, slots=True)
class ExpectedUpload:
    """What becomes of one upload.

    Attributes:
        manifest_key: its manifest's key, present unless the upload is ``unfinished``.
        outcome: ``applied`` (rows to read, new or not), ``empty`` (a success without rows), ``quarantined``, or
            ``unfinished`` (no manifest: not an upload yet).
        reasons: reason codes that fit, any one of them; empty unless quarantined.
        graph_rows: entities and relationships of the knowledge graph beside it.
    """

    system_id: str
    manifest_key: str
    outcome: Outcome
    reasons: tuple[str, ...] = ()
    graph_rows: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Expected:
    """All records (each key once) and all uploads, both in a fixed order."""

    records: tuple[ExpectedRecord, ...]
    uploads: tuple[ExpectedUpload, ...]

    @property
    def by_key(self) -> dict[Key, ExpectedRecord]:
        """Records by key."""
        return {record.key: record for record in self.records}

    @property
    def quarantined(self) -> tuple[ExpectedUpload, ...]:
        """Uploads that must be set aside."""
        return tuple(upload for upload in self.uploads if upload.outcome == "quarantined")


@dataclass(frozen=True, slots=True)
class _Seen:
    """A memory in the first and in the last upload of its machine that holds it, by upload time."""

    memory: Memory
    first: datetime
    content: str


def expected_records(worlds: Sequence[Sequence[Memory]], anchor: datetime) -> tuple[ExpectedRecord, ...]:
    """Every key that some upload holds: absence from a later upload deletes nothing.

    Where two machines of one system id hold the same text, the better evidence of its time decides (an id, then
    ``extracted_at``, then the upload's offset), at equal rank the earliest upload.
    """
    seen: dict[Key, list[_Seen]] = {}
    for memory in (memory for world in worlds for memory in world):
        holding = [at for at in range(len(memory.machine.uploads)) if memory.lies_in(at)]
        if holding:
            key = (memory.machine.system_id, memory.table, memory.record_id(anchor))
            first = anchor - memory.machine.uploads[holding[0]]
            seen.setdefault(key, []).append(_Seen(memory, first, memory.text_in(holding[-1], anchor)))
    return tuple(_record(key, found, anchor) for key, found in sorted(seen.items()))


def _record(key: Key, found: list[_Seen], anchor: datetime) -> ExpectedRecord:
    best = min(found, key=lambda one: (_evidence(one.memory), one.first))
    return ExpectedRecord(
        *key,
        content=best.content,
        created_at=best.memory.created(anchor),
        has_vector=best.memory.vector,
        project=best.memory.project,
        shared=len(found) > 1,
    )


def _evidence(memory: Memory) -> int:
    return {"repeat": 0, "reflection": 0, "insight": 0, "turn": 1}.get(memory.kind, 2)
