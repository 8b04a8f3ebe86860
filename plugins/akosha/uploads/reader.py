"""Reading a hostile DuckDB file: find the source tables and write their rows as Arrow IPC files.

Runs only inside the locked-down process of `akosha.uploads.sandbox_child`. Only base tables are read, by pattern and by
column name; views and macros of the file are never touched.

A snapshot mostly repeats what the lake has. So its keys and digests are read first (`extract_keys`); texts and vectors
follow at once when they are few, else only for the rows that turned out to be new (`extract_rows`).
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb
import pyarrow as pa

from akosha.declared import model
from akosha.lake.sql import statement
from akosha.transforms.digests import hashes_and_digests, utf8_digests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Digests = Callable[[pa.Array], tuple[pa.Array, pa.Array]]  # such as `akosha.transforms.digests.hashes_and_digests`

DIMENSION: Final = 384
RULES_ID: Final = "quality-rules-v1"
BATCH_ROWS: Final = 2_048  # DuckDB's own vector size: larger batches only cost memory
MAX_SOURCE_TABLES: Final = 256
KEY_ROWS: Final = pa.schema(
    [
        pa.field("source_row", pa.int64()),
        pa.field("record_id", pa.string()),
        pa.field("content_xxh128", pa.binary(16)),
        pa.field("content_sha256", pa.binary()),
        pa.field("details_sha256", pa.binary()),
        pa.field("has_vector", pa.bool_()),
        pa.field("local_time", pa.timestamp("us")),
        pa.field("extracted_at", pa.timestamp("us")),
        pa.field("checkpoint_at", pa.timestamp("us")),
        pa.field("bookkeeping", pa.string()),
        pa.field("refused", pa.string()),
    ]
)
TEXT_ROWS: Final = pa.schema(
    [
        pa.field("source_row", pa.int64()),
        pa.field("content", pa.string()),
        pa.field("embedding", pa.list_(pa.float32(), DIMENSION)),
        pa.field("project", pa.string()),
        pa.field("metadata", pa.string()),
        pa.field("attributes", pa.string()),
        pa.field("unusable_vector", pa.bool_()),
    ]
)
ALL_COLUMNS: Final = (*KEY_ROWS.names, *TEXT_ROWS.names[1:])
SOURCE_PATTERN: Final = re.compile(
    r"(?P<v2>conversations|reflections)_v2|(?:[A-Za-z0-9_]+_)?(?P<plain>conversations|reflections)"
)

_TYPES: Final[dict[str, str]] = {
    **dict.fromkeys(("id", "content", "metadata", "project"), "VARCHAR"),
    **dict.fromkeys(("created_at", "timestamp"), "TIMESTAMP"),
    "embedding": f"FLOAT[{DIMENSION}]",
}
_ARROW_TYPES: Final = {
    "VARCHAR": pa.string(),
    "TIMESTAMP": pa.timestamp("us"),
    f"FLOAT[{DIMENSION}]": pa.list_(pa.float32(), DIMENSION),
}
# Columns of two JSON objects, in the order of their keys.
_ATTRIBUTES: Final[dict[str, str]] = {
    "category": "VARCHAR",
    "causal_parent_id": "VARCHAR",
    "conversation_id": "VARCHAR",
    "insight_type": "VARCHAR",
    "namespace": "VARCHAR",
    "reasoning": "VARCHAR",
    "related_entities": "VARCHAR[]",
    "session_id": "VARCHAR",
    "source_artifact_uri": "VARCHAR",
    "source_session_id": "VARCHAR",
    "source_type": "VARCHAR",
    "tags": "VARCHAR[]",
    "turn_parent_id": "VARCHAR",
    "user_id": "VARCHAR",
}
_BOOKKEEPING: Final[dict[str, str]] = {
    "access_count": "BIGINT",
    "confidence_score": "DOUBLE",
    "importance_score": "DOUBLE",
    "last_accessed": "TIMESTAMP",
    "last_used_at": "TIMESTAMP",
    "memory_tier": "VARCHAR",
    "subcategory": "VARCHAR",
    "updated_at": "TIMESTAMP",
    "usage_count": "BIGINT",
}
DIGESTED: Final = {"content_xxh128": "content", "content_sha256": "content", "details_sha256": "details"}
_CONFIG: Final[dict[str, Any]] = {
    "threads": 1,
    "async_threads": 0,  # no thread at all: a connection made before a fork works after it
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "allow_persistent_secrets": False,
    "python_enable_replacements": False,
    "max_temp_directory_size": "0B",
}
_BOUNDS: Final = ("max_id_bytes", "max_content_bytes", "max_details_bytes", "earliest", "latest")
_NUMBERS = re.compile(r"(FLOAT|DOUBLE|TINYINT|SMALLINT|INTEGER|BIGINT)\[(384)?\]")


class UnknownTablesError(Exception):
    """The file has tables or views, but none that Akosha knows; the message lists them."""


class LimitError(Exception):
    """The rows exceed a limit; the message says which."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may cost: bytes of memory, bytes of output and rows over all tables."""

    memory_bytes: int
    output_bytes: int
    rows: int


def kind_of(table: str) -> str | None:
    """``conversation`` or ``reflection`` when `table` is a source table, else None."""
    found = SOURCE_PATTERN.fullmatch(table)
    if found is None:
        return None
    return (found["v2"] or found["plain"]).removesuffix("s")


def connect(memory_bytes: int) -> duckdb.DuckDBPyConnection:
    """A connection for one file, to be made before the fork: making it, or limiting it, costs as much as reading a small file."""
    con = duckdb.connect(":memory:", config={**_CONFIG, "memory_limit": f"{memory_bytes}B"})
    con.execute("SET TimeZone = 'UTC'")
    con.execute(f"PREPARE source_tables AS {statement('source_tables')}")
    return con


def extract_keys(
    con: duckdb.DuckDBPyConnection, database: Path, out_dir: Path, limits: Limits, inline_rows: int, known: str = ""
) -> dict[str, Any]:
    """Write ``out_dir/NNN.keys.arrow`` (`KEY_ROWS`) for every source table, in the order of ``tables``.

    Up to `inline_rows` rows in the file, texts and vectors are written along. `known` names a file of
    `akosha.uploads.known_texts`: the texts in it are not digested again.

    Returns:
        ``{"tables": [{"name", "rows"}], "ignored": [name, ...], "complete"}``, both lists sorted by name; when complete,
        ``NNN.rows.arrow`` (`TEXT_ROWS`) holds the texts of the same rows.

    Raises:
        UnknownTablesError: there are tables or views, but no source table.
        LimitError: too many tables, rows or bytes.
        duckdb.Error: whatever the file does to DuckDB.
    """
    attach(con, database)
    names, ignored, columns = _sources(con)
    counts = {name: _count(con, name) for name in names}
    complete = sum(counts.values()) <= inline_rows
    budget = Budget(limits)
    digests = _known(Path(known)) if known else hashes_and_digests
    tables = []
    for index, name in enumerate(names):
        files = {out_dir / f"{index:03d}.keys.arrow": KEY_ROWS}
        if complete:
            files[out_dir / f"{index:03d}.rows.arrow"] = TEXT_ROWS
        batches: Iterator[pa.RecordBatch] = iter(())
        if counts[name]:
            source = _projection(name, columns[name])
            batches = _at_once(con, source) if complete else _batches(con, source, KEY_ROWS.names)
        tables.append({"name": name, "rows": write_rows(batches, files, budget, digests)})
    return {"tables": tables, "ignored": ignored, "complete": complete}


def extract_rows(
    con: duckdb.DuckDBPyConnection, database: Path, out_dir: Path, limits: Limits, ranges: dict[str, list[list[int]]]
) -> dict[str, Any]:
    """Write ``out_dir/NNN.rows.arrow`` (`TEXT_ROWS`) with the rows of the given tables in the given ranges.

    Args:
        con: from `connect`.
        database: the file.
        out_dir: where to write.
        limits: what it may cost.
        ranges: for each table first and last row number of its ranges, ascending, apart.

    Returns:
        ``{"tables": [{"name", "rows"}]}`` in the order of `ranges`.

    Raises:
        as `extract_keys`.
    """
    attach(con, database)
    _, _, columns = _sources(con)
    budget = Budget(limits)
    tables = []
    for index, (name, wanted) in enumerate(ranges.items()):
        source = _projection(name, columns[name])
        found = (
            batch
            for first, last in wanted
            for batch in _batches(con, f"{source} WHERE rowid BETWEEN {int(first)} AND {int(last)}", TEXT_ROWS.names)
        )
        tables.append(
            {"name": name, "rows": write_rows(found, {out_dir / f"{index:03d}.rows.arrow": TEXT_ROWS}, budget)}
        )
    return {"tables": tables}


def _known(path: Path) -> Digests:
    from akosha.uploads.known_texts import KnownTexts  # not above: needs numpy, see `akosha.uploads.sandbox_child`

    return KnownTexts.open(path).digests


def warm_up(con: duckdb.DuckDBPyConnection) -> None:
    """Do once, on the connection that will be used, what every later read repeats: load statements, rules, kernels, catalogs."""
    _prepare(con)
    con.execute("ATTACH ':memory:' AS upload")
    con.execute("CREATE TABLE upload.main.conversations (id VARCHAR, content VARCHAR)")
    con.execute("INSERT INTO upload.main.conversations VALUES ('x', 'y')")
    con.execute(statement("source_views")).fetchall()
    names, _, columns = _sources(con)
    source = _projection(names[0], columns[names[0]])
    for batch in chain(_batches(con, source, ALL_COLUMNS), _at_once(con, source)):
        _selected(batch, KEY_ROWS, hashes_and_digests)
        _selected(batch, TEXT_ROWS, hashes_and_digests)
    con.execute("DETACH upload")


def limits_from(document: dict[str, int]) -> Limits:
    """The limits that `limits_document` wrote."""
    return Limits(**document)


def limits_document(limits: Limits) -> dict[str, int]:
    """`limits` as JSON."""
    return asdict(limits)


class Budget:
    """What is left of the limits while tables are written."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._rows = limits.rows
        self._bytes = limits.output_bytes

    def spend(self, rows: int, size: int) -> None:
        """Take `rows` and `size` bytes off.

        Raises:
            LimitError: that was more than is left.
        """
        self._rows -= rows
        self._bytes -= size
        if self._rows < 0:
            message = f"more than {self._limits.rows:,} rows"
            raise LimitError(message)
        if self._bytes < 0:
            message = f"the rows take more than {self._limits.output_bytes:,} bytes"
            raise LimitError(message)


def attach(con: duckdb.DuckDBPyConnection, database: Path) -> None:
    """Open the file, then shut every door: after the last statement nothing but this file can be reached."""
    con.execute(f"ATTACH {_literal(str(database))} AS upload (TYPE duckdb, READ_ONLY)")
    con.execute("SET enable_external_access = false; SET lock_configuration = true")


Columns = dict[str, tuple[str, str]]


def base_tables(con: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    """Base tables of the attached file as (schema, name), sorted."""
    return con.execute("EXECUTE source_tables").fetchall()


def columns_of(con: duckdb.DuckDBPyConnection, table: str) -> Columns:
    """Columns of a base table of the schema ``main`` by lower-case name: name and type, as DuckDB writes it."""
    listed = con.execute(f"DESCRIBE upload.main.{_identifier(table)}").fetchall()
    return {name.lower(): (name, kind) for name, kind, *_ in listed}


def names_of_others(con: duckdb.DuckDBPyConnection, found: list[tuple[str, str]]) -> list[str]:
    """All tables of the file, or its views when it has none, for people."""
    others = found or con.execute(statement("source_views")).fetchall()
    return [name if schema == "main" else f"{schema}.{name}" for schema, name in others]


def _sources(con: duckdb.DuckDBPyConnection) -> tuple[list[str], list[str], dict[str, Columns]]:
    """Source tables, what else there is, and for each source table its columns."""
    found = base_tables(con)
    names = [name for schema, name in found if schema == "main" and kind_of(name)]
    ignored = names_of_others(con, found)
    if ignored and not names:
        raise UnknownTablesError(", ".join(name[:60] for name in ignored[:8]))
    if len(names) > MAX_SOURCE_TABLES:
        message = f"{len(names)} source tables, expected at most {MAX_SOURCE_TABLES}"
        raise LimitError(message)
    known = set(names)
    columns = {name: columns_of(con, name) for name in names}
    return names, [name[:200] for name in ignored if name not in known][:1_000], columns


def _count(con: duckdb.DuckDBPyConnection, table: str) -> int:
    # All rows of the result, also of one row: until then the connection does nothing else.
    ((count,),) = con.execute(f"SELECT count(*) FROM upload.main.{_identifier(table)}").fetchall()  # noqa: S608 - quoted
    return int(count)


def _query(source: str, wanted: Sequence[str]) -> str:
    columns = ", ".join(dict.fromkeys(f'"{DIGESTED.get(name, name)}"' for name in wanted))
    return statement("source_rows").replace("{source}", source).replace("{columns}", columns)


def _bounds() -> dict[str, Any]:
    rules = model(RULES_ID)
    return {name: rules[name] for name in _BOUNDS}


def _batches(con: duckdb.DuckDBPyConnection, source: str, wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
    # A relation streams; the DB-API's execute() holds the whole result.
    yield from con.sql(_query(source, wanted), params=_bounds()).to_arrow_reader(BATCH_ROWS)


class _Handed:
    """A table of Arrow that a statement planned before the fork reads: to plan it costs more than to run it over few rows.

    DuckDB plans a statement over its own tables anew each time, one over a stream only once.
    """

    types: Final = pa.schema(
        [
            pa.field("source_row", pa.int64()),
            *(pa.field(name, _ARROW_TYPES[kind]) for name, kind in _TYPES.items()),
            *(pa.field(name, pa.string()) for name in ("attributes", "bookkeeping")),
            pa.field("has_embedding", pa.bool_()),
        ]
    )

    def __init__(self) -> None:
        self.table = self.types.empty_table()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


_HANDED: Final = _Handed()


def _prepare(con: duckdb.DuckDBPyConnection) -> None:
    """Plan the whole of `source_rows` over what is handed to it."""
    con.register("handed", _HANDED)
    query = _query("FROM handed", ALL_COLUMNS)
    for name, value in _bounds().items():
        query = query.replace(f"${name}", _literal(str(value)))
    con.execute(f"PREPARE source_rows AS {query}")


def _at_once(con: duckdb.DuckDBPyConnection, source: str) -> Iterator[pa.RecordBatch]:
    """All columns of few rows: as `_batches`, for half of the time and twice the memory, unless that is too much."""
    try:
        table: pa.Table = con.execute(source).to_arrow_table()
        _HANDED.table = table if table.schema.types == _HANDED.types.types else table.cast(_HANDED.types)
        rows: pa.Table = con.execute("EXECUTE source_rows").to_arrow_table()
    except duckdb.OutOfMemoryException:
        _HANDED.table = _HANDED.types.empty_table()
        yield from _batches(con, source, ALL_COLUMNS)
    else:
        yield from rows.to_batches(BATCH_ROWS)


def _projection(table: str, columns: Columns) -> str:
    parts = ["rowid AS source_row"]
    parts += [f'{_expression(name, wanted, columns)} AS "{name}"' for name, wanted in _TYPES.items()]
    parts += [f"{_object(_ATTRIBUTES, columns)} AS attributes", f"{_object(_BOOKKEEPING, columns)} AS bookkeeping"]
    embedding = f"{_identifier(columns['embedding'][0])} IS NOT NULL" if "embedding" in columns else "false"
    selected = ", ".join([*parts, f"{embedding} AS has_embedding"])
    return f"SELECT {selected} FROM upload.main.{_identifier(table)}"  # noqa: S608 - every identifier is quoted


def _object(types: dict[str, str], columns: Columns) -> str:
    """SQL for a JSON object of those columns that the table has and that are not NULL, nor a number that JSON has not."""
    members = []
    for name, wanted in types.items():
        if name in columns:  # to plan an expression for nothing costs more than to compute it for a small table
            value = _expression(name, wanted, columns)
            member = f"""'"{name}":' || to_json({value})"""
            members.append(f"CASE WHEN isfinite({value}) THEN {member} END" if wanted == "DOUBLE" else member)
    return f"'{{' || concat_ws(',', {', '.join(members)}) || '}}'" if members else "'{}'"


def _expression(name: str, wanted: str, columns: Columns) -> str:
    """SQL for column `name` as type `wanted`; a value that does not fit becomes NULL."""
    if name not in columns:
        return f"NULL::{wanted}"
    column, found = _identifier(columns[name][0]), columns[name][1]
    if found == wanted:
        return column
    if wanted == "VARCHAR[]" and not found.endswith("]"):
        return f"CAST({column} AS VARCHAR)"
    if wanted == "VARCHAR" or (name == "embedding" and _NUMBERS.fullmatch(found)):
        return f"TRY_CAST({column} AS {wanted})"
    # Every type casts to text, whereas a direct cast between unrelated types is an error of the whole statement.
    return f"TRY_CAST(CAST({column} AS VARCHAR) AS {wanted})"


def write_rows(
    batches: Iterator[pa.RecordBatch],
    files: dict[Path, pa.Schema],
    budget: Budget,
    digests: Digests = hashes_and_digests,
) -> int:
    """Write batches to Arrow IPC files, to each the columns of its schema; returns the number of rows.

    Raises:
        LimitError: more than the budget.
    """
    rows = 0
    with ExitStack() as stack:
        writers = [
            (stack.enter_context(pa.ipc.new_file(stack.enter_context(pa.OSFile(str(path), "wb")), schema)), schema)
            for path, schema in files.items()
        ]
        for batch in batches:
            rows += batch.num_rows
            parts = [(writer, _selected(batch, schema, digests)) for writer, schema in writers]
            budget.spend(batch.num_rows, sum(part.nbytes for _, part in parts))
            for writer, part in parts:
                writer.write_batch(part)
    return rows


def _selected(batch: pa.RecordBatch, schema: pa.Schema, digests: Digests) -> pa.RecordBatch:
    """The columns of `schema`, digests made of what they are digests of."""
    made: dict[str, pa.Array] = {}
    if "content_sha256" in schema.names:
        hashes, contents = digests(batch.column("content"))
        details = batch.column("details")
        made = {"content_xxh128": hashes, "content_sha256": contents, "details_sha256": _digests_of_few(details)}
    columns = [made[name] if name in made else batch.column(name) for name in schema.names]
    return pa.RecordBatch.from_arrays(
        [column.cast(f.type) for column, f in zip(columns, schema, strict=True)], schema=schema
    )


def _digests_of_few(texts: pa.Array) -> pa.Array:
    """SHA-256 of each text, which often are alike; NULL for NULL."""
    encoded = texts.dictionary_encode()
    return utf8_digests(encoded.dictionary).take(encoded.indices)


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
