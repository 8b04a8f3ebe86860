"""Reading a hostile knowledge_graph.duckdb: entities and relations as two Arrow IPC files.

Runs only inside the locked-down process of `akosha.uploads.sandbox_child`, as `akosha.uploads.reader` does, and shares
its way of opening a file. Only the two base tables are read, by column name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from akosha.lake.sql import statement
from akosha.uploads import reader
from akosha.uploads.reader import LimitError, Limits, UnknownTablesError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FIELDS = [
    pa.field("properties", pa.string()),
    pa.field("metadata", pa.string()),
    pa.field("created_local", pa.timestamp("us")),
    pa.field("updated_local", pa.timestamp("us")),
    pa.field("refused", pa.string()),
]
ENTITIES: Final = pa.schema(
    [
        pa.field("client_id", pa.string()),
        pa.field("name", pa.string()),
        pa.field("type", pa.string()),
        pa.field("observations", pa.list_(pa.string())),
        pa.field("embedding", pa.list_(pa.float32(), reader.DIMENSION)),
        pa.field("unusable_vector", pa.bool_()),
        *_FIELDS,
    ]
)
RELATIONS: Final = pa.schema(
    [*[pa.field(name, pa.string()) for name in ("client_id", "from_entity", "to_entity", "type")], *_FIELDS]
)
FILES: Final = {"entities": ENTITIES, "relations": RELATIONS}
TABLES: Final = {"kg_entities": "entities", "kg_relationships": "relations"}
# Besides the caps of any upload: a graph is merged as a whole, so it must fit in the memory of a task.
MAX_ROWS: Final = 200_000
MAX_OUTPUT_BYTES: Final = 128 << 20

_TIMES = {"created_at": "TIMESTAMP", "updated_at": "TIMESTAMP"}
_TEXTS = ("id", "properties", "metadata")
_COLUMNS: Final[dict[str, dict[str, str]]] = {
    "kg_entities": {
        **dict.fromkeys((*_TEXTS, "name", "entity_type"), "VARCHAR"),
        "observations": "VARCHAR[]",
        "embedding": f"FLOAT[{reader.DIMENSION}]",
        **_TIMES,
    },
    "kg_relationships": {
        **dict.fromkeys((*_TEXTS, "from_entity", "to_entity", "relation_type"), "VARCHAR"),
        **_TIMES,
    },
}


def extract_graph(con: duckdb.DuckDBPyConnection, database: Path, out_dir: Path, limits: Limits) -> dict[str, Any]:
    """Write ``out_dir/entities.arrow`` (`ENTITIES`) and ``out_dir/relations.arrow`` (`RELATIONS`).

    A table that is not there gives a file without rows, so does a database without any table.

    Returns:
        ``{"entities": rows, "relations": rows, "ignored": [name, ...]}``.

    Raises:
        UnknownTablesError: there are tables or views, but neither of the two.
        LimitError: too many rows or bytes.
        duckdb.Error: whatever the file does to DuckDB.
    """
    reader.attach(con, database)
    tables = reader.base_tables(con)
    columns = {name: reader.columns_of(con, name) for name in TABLES if ("main", name) in tables}
    others = reader.names_of_others(con, tables)
    if others and not columns:
        raise UnknownTablesError(", ".join(name[:60] for name in others[:8]))
    found: dict[str, Any] = {"ignored": [name[:200] for name in others if name not in columns][:1_000]}
    rows, output = min(limits.rows, MAX_ROWS), min(limits.output_bytes, MAX_OUTPUT_BYTES)
    for table, name in TABLES.items():
        path = out_dir / f"{name}.arrow"
        batches = _batches(con, table, name, columns[table]) if table in columns else iter(())
        found[name], size = _write(batches, path, FILES[name], Limits(limits.memory_bytes, output, rows))
        rows, output = rows - size, output - path.stat().st_size
    return found


def warm_up() -> None:
    """Load the statements, which a locked-down child cannot do any more."""
    for name in FILES:
        statement(f"graph_{name}")


def _batches(
    con: duckdb.DuckDBPyConnection, table: str, name: str, columns: dict[str, tuple[str, str]]
) -> Iterator[pa.RecordBatch]:
    parts = [f'{_cast(column, wanted, columns)} AS "{column}"' for column, wanted in _COLUMNS[table].items()]
    if "embedding" in _COLUMNS[table]:
        present = f"{_quoted(columns['embedding'][0])} IS NOT NULL" if "embedding" in columns else "false"
        parts.append(f"{present} AS has_embedding")
    source = f"SELECT {', '.join(parts)} FROM upload.main.{_quoted(table)}"  # noqa: S608 - every identifier is quoted
    yield from con.sql(statement(f"graph_{name}").replace("{source}", source)).to_arrow_reader(reader.BATCH_ROWS)


def _cast(name: str, wanted: str, columns: dict[str, tuple[str, str]]) -> str:
    """SQL for column `name` as type `wanted`; a value that does not fit becomes NULL."""
    if name not in columns:
        return f"NULL::{wanted}"
    column, found = _quoted(columns[name][0]), columns[name][1]
    if found == wanted:
        return column
    if wanted == "VARCHAR" or found.endswith("]"):
        return f"TRY_CAST({column} AS {wanted})"
    # Every type casts to text, whereas a direct cast between unrelated types is an error of the whole statement.
    return f"TRY_CAST(CAST({column} AS VARCHAR) AS {wanted})"


def _write(batches: Iterator[pa.RecordBatch], path: Path, schema: pa.Schema, limits: Limits) -> tuple[int, int]:
    """Rows written, and how many rows of a graph they become."""
    rows = size = 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for batch in batches:
            rows, size = rows + batch.num_rows, size + size_of(batch)
            if size > limits.rows:
                message = f"more entities, relations and observations than one graph may have ({MAX_ROWS:,})"
                raise LimitError(message)
            if sink.tell() + batch.nbytes > limits.output_bytes:
                message = f"entities and relations take more than {limits.output_bytes:,} bytes"
                raise LimitError(message)
            writer.write_batch(batch.select(schema.names).cast(schema))
    return rows, size


def size_of(rows: pa.RecordBatch | pa.Table) -> int:
    """How many rows of a graph these become: one each, and one for each observation."""
    if "observations" not in rows.schema.names:
        return int(rows.num_rows)
    return int(rows.num_rows + (pc.sum(pc.list_value_length(rows.column("observations"))).as_py() or 0))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
