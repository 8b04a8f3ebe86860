"""Knowledge graphs as plain tables: one row for each entity, relation and observation, whosever they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from akosha.lake.commits import Commit
from akosha.lake.graph_schema import ENTITY, GRAPH, OBSERVATION, RELATION
from akosha.lake.lake import Lake

FOLDER: Final = "graph"
_SYSTEM = pa.field("system_id", pa.string(), nullable=False)
_TIMES = ("created_at", "time_evidence", "updated_at")
_SEEN = ("first_manifest", "last_manifest", "provenance")
# File name, then for each exported column the column of the graph file it is taken from.
_TABLES: Final[dict[str, tuple[str, dict[str, str]]]] = {
    ENTITY: (
        "entities",
        {
            "entity_id": "id",
            "client_id": "client_id",
            "name": "name",
            "entity_type": "type",
            **{name: name for name in ("properties", "metadata", "embedding", *_TIMES)},
            "content_sha256": "content_sha256",
            **{name: name for name in _SEEN},
        },
    ),
    RELATION: (
        "relations",
        {
            "relation_id": "id",
            "client_id": "client_id",
            "from_entity": "from_entity",
            "to_entity": "to_entity",
            "relation_type": "type",
            **{name: name for name in ("properties", "metadata", *_TIMES)},
            "content_sha256": "content_sha256",
            **{name: name for name in _SEEN},
        },
    ),
    OBSERVATION: (
        "observations",
        {
            "entity_id": "id",
            "text": "text",
            "position": "position",
            "content_sha256": "content_sha256",
            **{name: name for name in _SEEN},
        },
    ),
}


def export_graphs(lake: Lake, heads: Sequence[Commit], folder: Path) -> tuple[dict[str, int], list[str]]:
    """Write ``graph/entities-NNN.parquet``, ``relations-NNN.parquet`` and ``observations-NNN.parquet`` below `folder`.

    One row each with its system, sorted by system and id; digests are hex. A shard without rows of a kind has no file.

    Returns:
        Rows per kind, and the names of the files, relative to `folder`.
    """
    counts = {name: 0 for name, _ in _TABLES.values()}
    written = []
    for head in heads:
        for kind, (name, _) in _TABLES.items():
            parts = list(_parts(lake, head, kind))
            if parts:
                table = pa.concat_tables(parts)
                (folder / FOLDER).mkdir(exist_ok=True)
                written.append(f"{FOLDER}/{name}-{head.shard:03d}.parquet")
                pq.write_table(table, folder / written[-1], compression="zstd", write_page_checksum=True)
                counts[name] += table.num_rows
    return counts, written


def _parts(lake: Lake, head: Commit, kind: str) -> Iterator[pa.Table]:
    for system_id, entry in sorted(head.graphs.items()):
        rows = lake.graph(entry)
        rows = rows.filter(pc.equal(rows.column("kind"), kind))
        if rows.num_rows:
            yield _exported(rows, system_id, kind)


def _exported(rows: pa.Table, system_id: str, kind: str) -> pa.Table:
    columns = [pa.repeat(pa.scalar(system_id, pa.string()), rows.num_rows)]
    fields = [_SYSTEM]
    for name, source in _TABLES[kind][1].items():
        column = rows.column(source)
        if source == "content_sha256":
            column = pa.array([digest.hex() for digest in column.to_pylist()], pa.string())
        columns.append(column)
        fields.append(pa.field(name, column.type, GRAPH.field(source).nullable))
    return pa.table(columns, schema=pa.schema(fields))
