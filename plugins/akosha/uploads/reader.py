"""Reading a hostile DuckDB file: find the source tables and write their rows as Arrow IPC files.

Runs only inside the locked-down process of `akosha.uploads.sandbox_child`. Only base tables are read, by pattern and by
column name; views and macros of the file are never touched.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import duckdb
import pyarrow as pa

from akosha.lake.sql import statement

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DIMENSION: Final = 384
BATCH_ROWS: Final = 2_048  # DuckDB's own vector size: larger batches only cost memory
MAX_SOURCE_TABLES: Final = 256
SOURCE_SCHEMA: Final = pa.schema(
    [
        pa.field("record_id", pa.string()),
        pa.field("content", pa.string()),
        pa.field("embedding", pa.list_(pa.float32(), DIMENSION)),
        pa.field("local_time", pa.timestamp("us")),
        pa.field("project", pa.string()),
        pa.field("metadata", pa.string()),
        pa.field("attributes", pa.string()),
        pa.field("bookkeeping", pa.string()),
        pa.field("extracted_at", pa.timestamp("us")),
        pa.field("checkpoint_at", pa.timestamp("us")),
    ]
)
ROWS_SCHEMA: Final = pa.schema(
    [*SOURCE_SCHEMA, pa.field("refused", pa.string()), pa.field("unusable_vector", pa.bool_())]
)
SOURCE_PATTERN: Final = re.compile(
    r"(?P<v2>conversations|reflections)_v2|(?:[A-Za-z0-9_]+_)?(?P<plain>conversations|reflections)"
)

_TEXT = (
    "id",
    "content",
    "metadata",
    "project",
    "category",
    "causal_parent_id",
    "conversation_id",
    "insight_type",
    "namespace",
    "reasoning",
    "session_id",
    "source_artifact_uri",
    "source_session_id",
    "source_type",
    "turn_parent_id",
    "user_id",
    "memory_tier",
    "subcategory",
)
_LISTS = ("tags", "related_entities")
_TYPES: Final[dict[str, str]] = {
    **dict.fromkeys(_TEXT, "VARCHAR"),
    **dict.fromkeys(_LISTS, "VARCHAR[]"),
    **dict.fromkeys(("created_at", "timestamp", "updated_at", "last_accessed", "last_used_at"), "TIMESTAMP"),
    **dict.fromkeys(("access_count", "usage_count"), "BIGINT"),
    **dict.fromkeys(("confidence_score", "importance_score"), "DOUBLE"),
    "embedding": f"FLOAT[{DIMENSION}]",
}
_CONFIG: Final[dict[str, Any]] = {
    "threads": 1,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "allow_persistent_secrets": False,
    "python_enable_replacements": False,
    "max_temp_directory_size": "0B",
}
_NUMBERS = re.compile(r"(FLOAT|DOUBLE|TINYINT|SMALLINT|INTEGER|BIGINT)\[(384)?\]")


class UnknownTablesError(Exception):
    """The file has tables or views, but none that Akosha knows; the message lists them."""


class LimitError(Exception):
    """The rows exceed a limit; the message says which."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may cost. Bytes of memory, bytes of output over all tables, rows over all tables."""

    memory_bytes: int
    output_bytes: int
    rows: int


def kind_of(table: str) -> str | None:
    """``conversation`` or ``reflection`` when `table` is a source table, else None."""
    found = SOURCE_PATTERN.fullmatch(table)
    if found is None:
        return None
    return (found["v2"] or found["plain"]).removesuffix("s")


def extract(database: Path, out_dir: Path, limits: Limits) -> dict[str, Any]:
    """Write every source table of `database` to ``out_dir/NNN.arrow`` (`ROWS_SCHEMA`, in the order of ``tables``).

    Returns:
        ``{"tables": [{"name", "rows"}], "ignored": [name, ...]}``, both sorted by name.

    Raises:
        UnknownTablesError: there are tables or views, but no source table.
        LimitError: too many tables, rows or bytes.
        duckdb.Error: whatever the file does to DuckDB.
    """
    with duckdb.connect(":memory:", config={**_CONFIG, "memory_limit": f"{limits.memory_bytes}B"}) as con:
        _attach(con, database)
        names, ignored = _sources(con)
        tables = []
        rows = output = 0
        for index, name in enumerate(names):
            budget = Limits(limits.memory_bytes, limits.output_bytes - output, limits.rows - rows)
            path = out_dir / f"{index:03d}.arrow"
            written = _write(_batches(con, name), path, budget)
            rows, output = rows + written, output + path.stat().st_size
            tables.append({"name": name, "rows": written})
        return {"tables": tables, "ignored": ignored}


def warm_up() -> None:
    """Do once what every later read repeats: load statements, Arrow kernels, DuckDB's code. Leaves no thread behind."""
    with duckdb.connect(":memory:", config=_CONFIG) as con:
        con.execute("SET TimeZone = 'UTC'")
        con.execute("ATTACH ':memory:' AS upload")
        con.execute("CREATE TABLE upload.main.conversations (id VARCHAR)")
        con.execute("INSERT INTO upload.main.conversations VALUES ('x')")
        statement("source_views")
        names, _ = _sources(con)
        for batch in _batches(con, names[0]):
            batch.cast(ROWS_SCHEMA)


def limits_from(document: dict[str, int]) -> Limits:
    """The limits that `limits_document` wrote."""
    return Limits(**document)


def limits_document(limits: Limits) -> dict[str, int]:
    """`limits` as JSON."""
    return asdict(limits)


def _attach(con: duckdb.DuckDBPyConnection, database: Path) -> None:
    """Open the file, then shut every door: after the last statement nothing but this file can be reached."""
    con.execute("SET TimeZone = 'UTC'")
    con.execute(f"ATTACH {_literal(str(database))} AS upload (TYPE duckdb, READ_ONLY)")
    con.execute("SET enable_external_access = false")
    con.execute("SET lock_configuration = true")


def _sources(con: duckdb.DuckDBPyConnection) -> tuple[list[str], list[str]]:
    tables = con.execute(statement("source_tables")).fetchall()
    names = [name for schema, name in tables if schema == "main" and kind_of(name)]
    others = tables or con.execute(statement("source_views")).fetchall()
    ignored = [name if schema == "main" else f"{schema}.{name}" for schema, name in others]
    if ignored and not names:
        raise UnknownTablesError(", ".join(name[:60] for name in ignored[:8]))
    if len(names) > MAX_SOURCE_TABLES:
        message = f"{len(names)} source tables, expected at most {MAX_SOURCE_TABLES}"
        raise LimitError(message)
    known = set(names)
    return names, [name[:200] for name in ignored if name not in known][:1_000]


def _batches(con: duckdb.DuckDBPyConnection, table: str) -> Iterator[pa.RecordBatch]:
    columns = con.execute(statement("source_columns"), {"table": table}).fetchall()
    source = _projection(table, {name.lower(): (name, found) for name, found in columns})
    # A relation streams; the DB-API's execute() would hold the whole result.
    yield from con.sql(statement("source_rows").replace("{source}", source)).to_arrow_reader(BATCH_ROWS)


def _projection(table: str, columns: dict[str, tuple[str, str]]) -> str:
    parts = [f'{_expression(name, wanted, columns)} AS "{name}"' for name, wanted in _TYPES.items()]
    embedding = f"{_identifier(columns['embedding'][0])} IS NOT NULL" if "embedding" in columns else "false"
    selected = ", ".join([*parts, f"{embedding} AS has_embedding"])
    return f"SELECT {selected} FROM upload.main.{_identifier(table)}"  # noqa: S608 - every identifier is quoted


def _expression(name: str, wanted: str, columns: dict[str, tuple[str, str]]) -> str:
    """SQL for column `name` as type `wanted`; a value that does not fit becomes NULL."""
    if name not in columns:
        return f"NULL::{wanted}"
    column, found = _identifier(columns[name][0]), columns[name][1]
    if found == wanted:
        return column
    if name in _LISTS and not found.endswith("]"):
        return f"CAST({column} AS VARCHAR)"
    if wanted == "VARCHAR" or (name == "embedding" and _NUMBERS.fullmatch(found)):
        return f"TRY_CAST({column} AS {wanted})"
    # Every type casts to text, whereas a direct cast between unrelated types is an error of the whole statement.
    return f"TRY_CAST(CAST({column} AS VARCHAR) AS {wanted})"


def _write(batches: Iterator[pa.RecordBatch], path: Path, limits: Limits) -> int:
    rows = 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, ROWS_SCHEMA) as writer:
        for batch in batches:
            rows += batch.num_rows
            if rows > limits.rows:
                message = "more rows than one upload may have"
                raise LimitError(message)
            if sink.tell() + batch.nbytes > limits.output_bytes:
                message = f"the rows take more than {limits.output_bytes:,} bytes"
                raise LimitError(message)
            writer.write_batch(batch.cast(ROWS_SCHEMA))
    return rows


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
