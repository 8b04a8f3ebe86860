"""Uploads as a client leaves them, small and quick to make: a DuckDB file, gzip around it, the manifest last."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from akosha.lake.objects import ObjectStore

Row = dict[str, Any]
ROWS = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("content", pa.string()),
        pa.field("embedding", pa.list_(pa.float32(), 384)),
        pa.field("project", pa.string()),
        pa.field("timestamp", pa.timestamp("us")),
        pa.field("metadata", pa.string()),
        pa.field("category", pa.string()),
        pa.field("access_count", pa.int32()),
    ]
)


def vectors(count: int, *, seed: int = 1) -> np.ndarray:
    """Random unit vectors, float32 ``(count, 384)``."""
    random = np.random.default_rng(seed).normal(size=(count, 384)).astype(np.float32)
    return random / np.linalg.norm(random, axis=1, keepdims=True)


def memory(record_id: str, content: str, created_at: datetime, vector: np.ndarray | None = None, **fields: Any) -> Row:
    """A row whose UTC time is told by ``metadata.extracted_at``; the client's clock runs on UTC."""
    return {
        "id": record_id,
        "content": content,
        "embedding": None if vector is None else vector.tolist(),
        "project": "web",
        "timestamp": created_at.astimezone(UTC).replace(tzinfo=None),
        "metadata": json.dumps({"extracted_at": created_at.astimezone(UTC).isoformat()}),
        "category": "note",
        "access_count": 0,
        **fields,
    }


def database(tables: Mapping[str, Sequence[Row] | str], *, version: str = "v1.0.0") -> bytes:
    """A DuckDB file. A table is given by its rows, or by the SELECT that makes it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reflection.duckdb"
        with duckdb.connect(config={"threads": 1}) as con:
            con.execute(f"ATTACH '{path}' AS made (STORAGE_VERSION '{version}', BLOCK_SIZE 16384)")
            for name, rows in tables.items():
                if not isinstance(rows, str):
                    con.register("incoming", pa.Table.from_pylist(list(rows), schema=ROWS))
                con.execute(f'CREATE TABLE made."{name}" AS {rows if isinstance(rows, str) else "FROM incoming"}')
        return path.read_bytes()


def put_upload(
    store: ObjectStore,
    system_id: str,
    moment: datetime,
    data: bytes | None,
    *,
    compression: str = "gzip",
    change: Callable[[dict[str, Any]], object] | None = None,
    packed: Callable[[bytes], bytes] | None = None,
) -> str:
    """Write an upload made at `moment`; the key of its manifest.

    Args:
        store: the uploads root.
        system_id: whose.
        moment: UTC; the manifest is dated a second later.
        data: the unpacked database, None = leave the object out.
        compression: ``gzip`` or ``none``, done and declared.
        change: spoils the manifest document in place.
        packed: spoils the packed bytes.
    """
    folder = f"systems/{system_id}/uploads/{moment:%Y%m%d_%H%M%S}_{system_id}"
    if data is not None:
        stored = gzip.compress(data, 1, mtime=0) if compression == "gzip" else data
        store.put(f"{folder}/reflection.duckdb", packed(stored) if packed else stored)
    document: dict[str, Any] = {
        "upload_id": f"{moment:%Y%m%d_%H%M%S}_{system_id}",
        "system_id": system_id,
        "timestamp": (moment + timedelta(seconds=1)).isoformat(),
        "files": [
            {"name": "reflection.duckdb", "path": f"{folder}/reflection.duckdb", "size_bytes": 0,
             "compression": compression, "checksum": ""},
        ],
        "metadata": {"uploader": "session-buddy", "version": "1.0.0"},
    }  # fmt: skip
    if change is not None:
        change(document)
    key = f"{folder}/manifest.json"
    store.put(key, json.dumps(document, indent=2).encode())
    return key


ENTITY_COLUMNS = "id VARCHAR, name VARCHAR, entity_type VARCHAR, observations VARCHAR[], properties JSON, created_at TIMESTAMP, updated_at TIMESTAMP, metadata JSON, embedding FLOAT[384]"
RELATION_COLUMNS = "id VARCHAR, from_entity VARCHAR, to_entity VARCHAR, relation_type VARCHAR, properties JSON, created_at TIMESTAMP, updated_at TIMESTAMP, metadata JSON"


def graph_database(entities: Sequence[Row] = (), relations: Sequence[Row] = ()) -> bytes:
    """A knowledge_graph.duckdb as a client writes it; columns that a row does not name are NULL."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "knowledge_graph.duckdb"
        with duckdb.connect(config={"threads": 1}) as con:
            con.execute(f"ATTACH '{path}' AS made (STORAGE_VERSION 'v1.0.0', BLOCK_SIZE 16384)")
            for table, columns, rows in (
                ("kg_entities", ENTITY_COLUMNS, entities),
                ("kg_relationships", RELATION_COLUMNS, relations),
            ):
                con.execute(f"CREATE TABLE made.{table} ({columns})")
                for row in rows:
                    marks = ", ".join("?" for _ in row)
                    con.execute(f"INSERT INTO made.{table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))
        return path.read_bytes()


def put_graph_upload(
    store: ObjectStore, system_id: str, moment: datetime, graph: bytes | None, data: bytes | None = None
) -> str:
    """Write an upload that names a knowledge graph, and records when `data` is given; the key of its manifest."""
    folder = f"systems/{system_id}/uploads/{moment:%Y%m%d_%H%M%S}_{system_id}"
    if graph is not None:
        store.put(f"{folder}/knowledge_graph.duckdb", gzip.compress(graph, 1, mtime=0))

    def change(document: dict[str, Any]) -> None:
        (file,) = document["files"]
        path = f"{folder}/knowledge_graph.duckdb"
        document["files"] = [
            *([file] if data is not None else []),
            {**file, "name": "knowledge_graph.duckdb", "path": path},
        ]

    return put_upload(store, system_id, moment, data, change=change)


def put_older_upload(
    store: ObjectStore,
    system_id: str,
    moment: datetime,
    payload: bytes | None,
    /,
    **fields: Any,
) -> str:
    """Write an upload in the older Akosha's dialect, packed as `fields` of the manifest say; the key of its manifest."""
    folder = f"systems/{system_id}/uploads/{moment:%Y%m%d_%H%M%S}_{system_id}"
    document = {
        "system_id": system_id,
        "uploaded_at": (moment + timedelta(seconds=1)).isoformat(),
        "conversation_count": None,
        "version": "1.0.0",
        "checksum": "",
        "compressed": True,
        "compression_format": "gzip",
        "files": ["memories.json"],
        **fields,
    }
    if payload is not None:
        stored = gzip.compress(payload, 1, mtime=0) if document["compressed"] else payload
        store.put(f"{folder}/memories.json", stored)
    key = f"{folder}/manifest.json"
    store.put(key, json.dumps(document, indent=2).encode())
    return key
