"""The columns of a graph file: the knowledge graph of one system, all of it, as one table.

Three kinds of rows share the table, so that a graph is one file, one digest and one requirement of a commit. What a
kind has no use for is NULL. Keys: (entity, id), (relation, id), (observation, id of its entity, digest of its text).
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

ENTITY: Final = "entity"
RELATION: Final = "relation"
OBSERVATION: Final = "observation"
KINDS: Final = (ENTITY, RELATION, OBSERVATION)
# Not of fixed size: most rows have none, and one of fixed size takes its 1,536 bytes in memory all the same.
VECTOR: Final = pa.list_(pa.float32())

_MOMENT = pa.timestamp("us", tz="UTC")

GRAPH: Final = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("client_id", pa.string(), nullable=False),
        pa.field("content_sha256", pa.binary(), nullable=False),
        pa.field("identity_sha256", pa.binary(), nullable=False),
        pa.field("name", pa.string()),
        pa.field("type", pa.string()),
        pa.field("from_entity", pa.string()),
        pa.field("to_entity", pa.string()),
        pa.field("text", pa.string()),
        pa.field("position", pa.int32()),
        pa.field("properties", pa.string()),
        pa.field("metadata", pa.string()),
        pa.field("embedding", VECTOR),
        pa.field("created_at", _MOMENT),
        pa.field("time_evidence", pa.string()),
        pa.field("time_manifest", _MOMENT),
        pa.field("updated_at", _MOMENT),
        pa.field("first_manifest", _MOMENT, nullable=False),
        pa.field("last_manifest", _MOMENT, nullable=False),
        pa.field("provenance", pa.string(), nullable=False),
    ]
)
ORDER: Final = [("kind", "ascending"), ("id", "ascending"), ("content_sha256", "ascending")]
