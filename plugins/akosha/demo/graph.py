"""The knowledge graph that lies beside some uploads: projects, libraries, and what uses what."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import pyarrow as pa

from akosha.demo import ids
from akosha.demo.memories import PROJECTS
from akosha.demo.rows import DIMENSION, Snapshot

LIBRARIES: Final = (
    ("DuckDB", "One process writes a database file at a time; readers open it read-only."),
    ("SQLAlchemy", "The session holds the connection until the transaction ends."),
    ("pandas", "A chained assignment writes to a copy and changes nothing."),
    ("Airflow", "A task may run twice, so every task must be safe to repeat."),
    ("Redis", ""),
    ("Kafka", "The consumer group rebalances when a poll takes too long."),
)
OBSERVATIONS: Final = tuple(text for _, text in LIBRARIES if text)
_PROJECTS_SHOWN: Final = 5
_MOMENT: Final = pa.timestamp("us")


def graph_tables(snapshot: Snapshot) -> dict[str, pa.Table]:
    """Rows of ``kg_entities`` and ``kg_relationships``; the last library is observed only from the second upload on.

    One relation dangles: its target was never stored, as the client allows.
    """
    machine = snapshot.machine
    start = snapshot.anchor - machine.uploads[0] - timedelta(hours=3)
    names = [(name, "project", "") for name in PROJECTS[:_PROJECTS_SHOWN]]
    names += [(name, "library", text if name != "Kafka" or snapshot.upload else "") for name, text in LIBRARIES]
    texts = [text for _, _, text in names]
    created = [snapshot.local(start + timedelta(seconds=7 * row, microseconds=219_971)) for row in range(len(names))]
    entities = pa.table(
        {
            "id": [ids.uuid4(f"{machine.seed}/{name}") for name, _, _ in names],
            "name": [name for name, _, _ in names],
            "entity_type": [kind for _, kind, _ in names],
            "observations": pa.array([[text] if text else [] for text in texts], type=pa.list_(pa.string())),
            "properties": ["{}"] * len(names),
            "created_at": pa.array(created, type=_MOMENT),
            "updated_at": pa.array(created, type=_MOMENT),
            "metadata": ["{}"] * len(names),
            "embedding": pa.array(
                [snapshot.derived.vectors[text] if text else None for text in texts],
                type=pa.list_(pa.float32(), DIMENSION),
            ),
        }
    )
    return {"kg_entities": entities, "kg_relationships": _relations(snapshot, created[-1])}


def _relations(snapshot: Snapshot, moment: object) -> pa.Table:
    seed = snapshot.machine.seed
    ends = [(PROJECTS[n % _PROJECTS_SHOWN], LIBRARIES[n % len(LIBRARIES)][0]) for n in range(7)]
    ends.append((PROJECTS[0], "never stored"))
    return pa.table(
        {
            "id": [ids.uuid4(f"{seed}/{number}/{a}/{b}") for number, (a, b) in enumerate(ends)],
            "from_entity": [ids.uuid4(f"{seed}/{a}") for a, _ in ends],
            "to_entity": [ids.uuid4(f"{seed}/{b}") for _, b in ends],
            "relation_type": ["uses"] * len(ends),
            "properties": ["{}"] * len(ends),
            "created_at": pa.array([moment] * len(ends), type=_MOMENT),
            "updated_at": pa.array([moment] * len(ends), type=_MOMENT),
            "metadata": ["{}"] * len(ends),
        }
    )
