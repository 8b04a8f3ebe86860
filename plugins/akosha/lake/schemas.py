"""The columns of every file in a lake, as Arrow schemas. docs/format.md is the contract; this is its code.

Key: (system_id, source_table, record_id). Times are UTC microseconds. Digests are raw SHA-256 bytes. Vectors have 384
dimensions. `embedding_model` names whose vector it is: ``client`` for one that came with the upload.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from akosha.lake.graph_schema import GRAPH

DIMENSION: Final = 384
FINGERPRINT_BYTES: Final = 512
SIGN_BYTES: Final = DIMENSION // 8
KEY: Final = ("system_id", "source_table", "record_id")
CLIENT_MODEL: Final = "client"

_KEY_FIELDS = [pa.field(name, pa.string(), nullable=False) for name in KEY]
_TIME_FIELDS = [
    pa.field("created_at", pa.timestamp("us", tz="UTC"), nullable=False),
    pa.field("time_evidence", pa.string(), nullable=False),
]
_DIGEST = pa.field("content_sha256", pa.binary(), nullable=False)
_CONTENT = pa.field("content", pa.string(), nullable=False)
_SUMMARY = pa.field("summary", pa.string(), nullable=False)
_SENTENCE = pa.field("sentence", pa.string(), nullable=False)
_FINGERPRINT = pa.field("fingerprint", pa.binary(), nullable=False)
_EMBEDDING = pa.field("embedding", pa.list_(pa.float32(), DIMENSION))
_CODES = pa.field("codes", pa.list_(pa.int8(), DIMENSION))
_PACKED_CODES = pa.field("codes", pa.binary(DIMENSION))
_SCALE = pa.field("scale", pa.float32())
_SIGNS = pa.field("signs", pa.binary(SIGN_BYTES))
_MODEL = pa.field("embedding_model", pa.string())
_TEXT_FIELDS = [
    pa.field("project", pa.string()),
    pa.field("metadata", pa.string()),
    pa.field("attributes", pa.string(), nullable=False),
    pa.field("provenance", pa.string(), nullable=False),
]

HOT: Final = pa.schema(
    [
        *_KEY_FIELDS,
        *_TIME_FIELDS,
        _DIGEST,
        _CONTENT,
        _SUMMARY,
        _SENTENCE,
        _FINGERPRINT,
        _EMBEDDING,
        _MODEL,
        *_TEXT_FIELDS,
    ]
)
WARM: Final = pa.schema(
    [*_KEY_FIELDS, *_TIME_FIELDS, _DIGEST, _SUMMARY, _SENTENCE, _FINGERPRINT, _CODES, _SCALE, _MODEL, *_TEXT_FIELDS]
)
COLD: Final = pa.schema(
    [*_KEY_FIELDS, *_TIME_FIELDS, _DIGEST, _SUMMARY, pa.field("fingerprint", pa.binary(FINGERPRINT_BYTES), nullable=False),
     _SIGNS, _MODEL, *_TEXT_FIELDS]
)  # fmt: skip
ARCHIVE: Final = pa.schema(
    [*_KEY_FIELDS, _TIME_FIELDS[0], _DIGEST, _CONTENT, _PACKED_CODES, _SCALE, _EMBEDDING, _MODEL]
)
KEYS: Final = pa.schema(
    [
        pa.field("source_table", pa.string(), nullable=False),
        pa.field("record_id", pa.string(), nullable=False),
        _DIGEST,
        pa.field("details_sha256", pa.binary(), nullable=False),
        pa.field("has_vector", pa.bool_(), nullable=False),
        *_TIME_FIELDS,
        pa.field("time_manifest", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("first_manifest", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("applied_manifest", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("in_newest", pa.bool_(), nullable=False),
        pa.field("bookkeeping", pa.string(), nullable=False),
    ]
)
HOLDS: Final = pa.schema([*_KEY_FIELDS, pa.field("hold_until", pa.timestamp("us", tz="UTC"), nullable=False)])
BY_TIER: Final = {
    "hot": HOT,
    "warm": WARM,
    "cold": COLD,
    "archive": ARCHIVE,
    "keys": KEYS,
    "graph": GRAPH,
    "holds": HOLDS,
}
