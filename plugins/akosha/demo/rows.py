"""Memories as rows of the client's tables: one Arrow table per database table, as one upload of one machine holds them.

Naive local times, bookkeeping that moves from upload to upload, and every timestamp column filled: a default would be
the clock, and the file would differ from one build to the next.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from akosha.demo import ids
from akosha.demo.variants import pick, seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from akosha.demo.cast import Kind, Machine
    from akosha.demo.memories import Memory

DIMENSION: Final = 384
_TAGS: Final = ("http", "timeouts", "db", "deploy", "pandas", "sql", "retries", "ci", "säule", "dag")
_INSIGHTS: Final = ("pattern", "gotcha", "architecture", "general")
_SOURCES: Final = (None, None, None, None, "manual", "crackerjack", "mahavishnu_workflow", "migration")
_TOOLS: Final = ("Read", "Edit", "Bash", "Grep")
_TURN_TIERS: Final = ("working", "short_term", "long_term", "long_term", "long_term")
_TURNS_PER_SESSION: Final = 4
_MOMENT: Final = pa.timestamp("us")
_TYPES: Final[Mapping[str, pa.DataType]] = {
    "embedding": pa.list_(pa.float32(), DIMENSION), "fingerprint": pa.binary(), "tags": pa.list_(pa.string()),
    "importance_score": pa.float32(), "confidence_score": pa.float32(), "access_count": pa.int32(),
    "usage_count": pa.int32(), "timestamp": _MOMENT, "created_at": _MOMENT, "updated_at": _MOMENT,
    "last_accessed": _MOMENT, "last_used_at": _MOMENT, "extracted_at": _MOMENT,
}  # fmt: skip
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Derived:
    """What is computed from texts beforehand: vectors float32 ``(384,)`` and the client's fingerprints, by text."""

    vectors: Mapping[str, NDArray[np.float32]]
    fingerprints: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One upload of one machine, of the world that ends at `anchor`."""

    machine: Machine
    upload: int
    anchor: datetime
    derived: Derived

    @property
    def moment(self) -> datetime:
        """When it was uploaded, UTC."""
        return self.anchor - self.machine.uploads[self.upload]

    def local(self, moment: datetime) -> datetime:
        """The naive wall-clock time of the machine at `moment`."""
        return moment.replace(tzinfo=None) + timedelta(minutes=self.machine.offset_minutes)

    def uses(self, memory: Memory) -> int:
        """How often a memory had been used by now: grows from upload to upload for a third of the memories."""
        seen = sum(memory.age > age for age in self.machine.uploads[: self.upload + 1])
        return (seen - 1) * (memory.number % 3 == 0)

    def used_at(self, memory: Memory) -> datetime | None:
        """Local time of the last use, shortly before the upload, or None."""
        ago = timedelta(seconds=95 + memory.number, microseconds=memory.number * 977)
        return self.local(self.moment - ago) if self.uses(memory) else None


def tables(snapshot: Snapshot, memories: Sequence[Memory]) -> dict[str, pa.Table]:
    """Arrow tables by table name, rows in the order in which they were stored; tables without rows are left out."""
    rows: dict[str, list[Row]] = {}
    turns: list[Memory] = []
    for memory in memories:
        if memory.kind == "turn":
            turns.append(memory)  # counted whether or not this upload still holds it: parents must not move
        if memory.lies_in(snapshot.upload):
            row = _ROWS[memory.kind](snapshot, memory, _common(snapshot, memory))
            if memory.kind == "turn":
                row |= _turn(snapshot, memory, turns)
            rows.setdefault(memory.table, []).append(row)
    if any(memory.lies_in(snapshot.upload) for memory in turns):
        rows["memory_provenance"] = [
            _provenance(snapshot, memory) for memory in turns if memory.lies_in(snapshot.upload)
        ]
    return {name: _arrow(found) for name, found in rows.items()}


def _arrow(rows: list[Row]) -> pa.Table:
    names = list(rows[0])
    columns = [pa.array([row[name] for row in rows], type=_TYPES.get(name, pa.string())) for name in names]
    return pa.table(dict(zip(names, columns, strict=True)))


def _common(snapshot: Snapshot, memory: Memory) -> Row:
    content = memory.text_in(snapshot.upload, snapshot.anchor)
    return {
        "id": memory.record_id(snapshot.anchor),
        "content": content,
        "embedding": snapshot.derived.vectors[content] if memory.vector else None,
    }


def _conversation(snapshot: Snapshot, memory: Memory, common: Row) -> Row:
    random = seeded(memory.seed)
    metadata: Row = {"project": memory.project}
    if random.random() < 0.5:
        metadata["_redacted"] = {"quality_score": 50 + int(random.random() * 50)}
    return common | {
        "category": "context",
        "importance_score": 0.5,
        "memory_tier": "long_term",
        "access_count": snapshot.uses(memory),
        "last_accessed": snapshot.used_at(memory),
        "project": memory.project,
        "namespace": "default",
        "timestamp": snapshot.local(memory.created(snapshot.anchor)),
        "user_id": "default",
        "searchable_content": common["content"],
        "metadata": json.dumps(metadata),
        "source_type": pick(random, _SOURCES),
        "turn_parent_id": None,
        "fingerprint": snapshot.derived.fingerprints[common["content"]],
    }


def _turn(snapshot: Snapshot, memory: Memory, turns: Sequence[Memory]) -> Row:
    """What a transcript turn has and other conversations have not. `turns` ends with `memory`, oldest first."""
    random = seeded(memory.seed)
    place = len(turns) - 1
    parent = turns[place - 1] if place % _TURNS_PER_SESSION else None
    metadata: Row = {"source_session": f"sess-{place // _TURNS_PER_SESSION + 1}"}
    if parent is not None:
        tools = {pick(random, _TOOLS): 1 + int(random.random() * 4) for _ in range(2)}
        metadata |= {
            "parent_uuid_chain": [ids.uuid4(parent.seed)],
            "tool_names": list(tools),
            "tool_counts": tools,
            "model": "claude-x",
            "token_usage": {"input_tokens": 10 + place, "output_tokens": 20 + place},
        }
    extracted = memory.created(snapshot.anchor) - timedelta(milliseconds=204)
    metadata["extracted_at"] = extracted.isoformat()
    if "[REDACTED]" in memory.content:
        metadata["_redacted"] = {"redaction_applied": True}
    tier = _TURN_TIERS[sum(memory.age > age for age in snapshot.machine.uploads[: snapshot.upload + 1]) - 1]
    return {
        "category": "claude_turn",
        "memory_tier": tier,
        "metadata": json.dumps(metadata),
        "source_type": "claude_code",
        "turn_parent_id": parent and parent.record_id(snapshot.anchor),
    }


def _provenance(snapshot: Snapshot, memory: Memory) -> Row:
    moment = memory.created(snapshot.anchor) + timedelta(milliseconds=360)
    return {
        "id": ids.ulid(moment, f"provenance/{memory.seed}"),
        "memory_id": memory.record_id(snapshot.anchor),
        "source_type": "claude_code",
        "source_ref": "sess-1",
        "extracted_at": snapshot.local(moment),
        "model": "claude-x",
    }


def _tags(memory: Memory) -> list[str]:
    random = seeded(f"tags/{memory.seed}")
    return sorted({pick(random, _TAGS) for _ in range(int(random.random() * 4))})


def _used_reflection(snapshot: Snapshot, memory: Memory, common: Row) -> Row:
    """The columns that reflections of both newer layouts share."""
    created = snapshot.local(memory.created(snapshot.anchor))
    used = snapshot.used_at(memory)
    insight = memory.kind in ("insight", "old_insight")
    origin = {"quality_score": 0.5, "source_conversation_id": None, "source_reflection_id": None}
    return common | {
        "tags": _tags(memory),
        "metadata": json.dumps(origin) if insight else None,
        "created_at": created,
        "updated_at": used or created,
        "insight_type": pick(seeded(memory.seed), _INSIGHTS) if insight else None,
        "usage_count": snapshot.uses(memory),
        "last_used_at": used,
        "confidence_score": 0.5,
        "fingerprint": None if insight else snapshot.derived.fingerprints[common["content"]],
    }


def _reflection(snapshot: Snapshot, memory: Memory, common: Row) -> Row:
    row = _used_reflection(snapshot, memory, common)
    stored = timedelta(milliseconds=419 if memory.kind == "insight" else 0)  # an insight is stored, then stamped again
    return row | {
        "category": "context",
        "importance_score": 0.5,
        "memory_tier": "long_term",
        "namespace": "default",
        "project": memory.project,
        "access_count": 0,
        "timestamp": row["created_at"] + stored,
    }


def _old_conversation(snapshot: Snapshot, memory: Memory, common: Row) -> Row:
    created = snapshot.local(memory.created(snapshot.anchor))
    again = memory.rewritten is not None and common["content"] == memory.rewritten
    return common | {
        "metadata": json.dumps({"project": memory.project, "nested": {"a": [1, 2]}}),
        "created_at": created,
        "updated_at": snapshot.local(snapshot.moment - timedelta(seconds=48)) if again else created,
        "fingerprint": snapshot.derived.fingerprints[common["content"]],
    }


def _checkpoint(snapshot: Snapshot, memory: Memory, common: Row) -> Row:
    created = memory.created(snapshot.anchor)
    score = int(common["content"].split("Quality Score: ")[1].split("/")[0])
    metadata = {
        "project": memory.project,
        "checkpoint_type": "checkpoint",
        "is_manual": False,
        "quality_score": score,
        "timestamp": (created - timedelta(milliseconds=11)).isoformat(),
    }
    local = snapshot.local(created)
    return common | {"project": memory.project, "timestamp": local, "metadata": json.dumps(metadata)}


def _legacy_reflection(snapshot: Snapshot, memory: Memory, common: Row) -> Row:
    return common | {"tags": _tags(memory), "timestamp": snapshot.local(memory.created(snapshot.anchor))}


_ROWS: Final[Mapping[Kind, Callable[[Snapshot, Memory, Row], Row]]] = {
    "context": _conversation, "turn": _conversation, "repeat": _conversation,
    "reflection": _reflection, "insight": _reflection,
    "checkpoint": _checkpoint, "legacy_reflection": _legacy_reflection,
    "old_conversation": _old_conversation, "old_reflection": _used_reflection, "old_insight": _used_reflection,
}  # fmt: skip
