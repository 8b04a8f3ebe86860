"""Sound uploads to be damaged, and what a plain reader finds in them.

The real samples, and small files of both storage versions. Built databases come out equal but for a few bytes of padding, so that a
seed names the same damage everywhere.
"""

from __future__ import annotations

import gzip
import json
import tempfile
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np

from akosha.demo.database import normalised

SAMPLES: Final = Path(__file__).parents[1] / "data" / "session_buddy" / "systems"
SECOND: Final = "20261120_235053"  # in the keys of uploads made here
WRITTEN: Final = "2026-11-20T23:50:54.568861+00:00"
MAX_ID_BYTES: Final = 1_024
MAX_TEXT_BYTES: Final = 16 << 20
DIMENSION: Final = 384
_CONFIG: Final[dict[str, Any]] = {
    "threads": 1,
    "block_allocator_memory": "512MB",  # zeroed pages: unused bytes of a block are part of the file
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}


@dataclass(frozen=True)
class Record:
    """A memory as a plain reader sees it; `vector` as the bytes of 384 float32, None when it has none that is fit."""

    text: str
    vector: bytes | None = None


Records = dict[tuple[str, str], Record]  # by source table and id


@dataclass(frozen=True)
class Sound:
    """An undamaged upload: its unpacked databases, and every record in the first."""

    name: str
    database: bytes
    records: Records
    graph: bytes | None = None
    written: str = WRITTEN

    @property
    def packed(self) -> bytes:
        """The database as one gzip member."""
        return pack(self.database)


@cache
def pack(data: bytes) -> bytes:
    """One gzip member, the same bytes each time."""
    return gzip.compress(data, 1, mtime=0)


@cache
def sound(name: str) -> Sound:
    """One of `NAMES`."""
    return _SOUND[name]()


def is_fit(vector: Any) -> bytes | None:
    """The bytes of a vector that the rules keep: 384 finite numbers, length 1 within a hundredth."""
    if isinstance(vector, str):
        try:
            vector = json.loads(vector)
        except ValueError:
            return None
    if not isinstance(vector, list | tuple) or len(vector) != DIMENSION:
        return None
    if any(value is None or not isinstance(value, int | float) for value in vector):
        return None
    with np.errstate(over="ignore"):
        floats = np.array(vector, dtype=np.float64).astype("<f4")
    length = float(np.sqrt(np.sum(floats.astype(np.float64) ** 2)))
    return floats.tobytes() if np.isfinite(floats).all() and abs(length - 1) <= 0.01 else None


def records_of(rows: list[tuple[Any, Any, Any]]) -> Records:
    """What becomes of the (id, text, vector) rows of one table, in the order of the file: by id alone, the last one wins."""
    kept: Records = {}
    for record_id, text, vector in rows:
        if (
            not record_id
            or len(record_id.encode()) > MAX_ID_BYTES
            or text is None
            or len(text.encode()) > MAX_TEXT_BYTES
        ):
            continue
        if any(letter not in "\t\n\f\r " and unicodedata.category(letter)[0] != "Z" for letter in text):
            kept["", record_id] = Record(text, is_fit(vector))
    return kept


def plain_reading(con: duckdb.DuckDBPyConnection, catalogue: str) -> Records:
    """Every record of an attached, trusted database, by SQL as anybody would write it."""
    found: Records = {}
    listed = con.execute(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE database_name = ? AND schema_name = 'main' AND NOT internal"
        " AND regexp_full_match(table_name, '(.+_)?(conversations|reflections)|(conversations|reflections)_v2')"
        " AND table_name NOT IN (SELECT view_name FROM duckdb_views() WHERE database_name = ?)",
        [catalogue, catalogue],
    ).fetchall()
    columns: dict[str, dict[str, str]] = {}
    for table, column in listed:
        columns.setdefault(table, {})[column.lower()] = '"' + column.replace('"', '""') + '"'
    for table, named in columns.items():
        if not {"id", "content"} <= named.keys():
            continue
        query = (
            f"SELECT TRY_CAST({named['id']} AS VARCHAR), TRY_CAST({named['content']} AS VARCHAR),"
            f' {named.get("embedding", "NULL")} FROM {catalogue}.main."{table}" ORDER BY rowid'
        )
        for (_, record_id), record in records_of(con.execute(query).fetchall()).items():
            found[table, record_id] = record
    return found


class Builder:
    """Makes database files with one connection: opening one costs more than writing a small file."""

    def __init__(self) -> None:
        self._con = duckdb.connect(config=_CONFIG)
        self._con.execute("SET disabled_compression_methods = 'fsst'")  # it draws a random sample
        self._con.execute("SET force_mbedtls_unsafe = 'true'")  # encrypts without an extension
        self._folder = tempfile.TemporaryDirectory(prefix="akosha-mutations-")
        self._count = 0

    def build(
        self,
        fill: Callable[[duckdb.DuckDBPyConnection], bool],
        *,
        storage: str = "v1.0.0",
        options: str = "BLOCK_SIZE 16384",
    ) -> tuple[bytes, Records]:
        """The bytes of a database that `fill` fills; and, where it says that one can be read plainly, what a plain reader finds."""
        self._count += 1
        path = Path(self._folder.name) / f"{self._count}.duckdb"
        con = self._con
        con.execute(f"ATTACH '{path}' AS made (STORAGE_VERSION '{storage}', {options})")
        try:
            con.execute("USE made")
            con.execute("BEGIN")  # the log is synced once, not after each statement
            plain = fill(con)
            con.execute("COMMIT")
            con.execute("CHECKPOINT made")
            con.execute("USE memory.main")
            records = plain_reading(con, "made") if plain else {}
        except duckdb.Error:
            con.execute("ROLLBACK")
            raise
        finally:
            con.execute("USE memory.main")
            con.execute("DETACH made")
        data = path.read_bytes()
        path.unlink()
        return (normalised(data) if options.startswith("BLOCK_SIZE") else data), records


@cache
def builder() -> Builder:
    """The one of this process."""
    return Builder()


def vector(number: int) -> list[float]:
    """A unit vector of its own for each number."""
    drawn = np.random.default_rng(number).normal(size=DIMENSION).astype(np.float32)
    return [float(value) for value in drawn / np.linalg.norm(drawn)]


def table(name: str, columns: str = "") -> str:
    """A source table of the common columns, and more."""
    return (
        f'CREATE TABLE "{name}" (id VARCHAR, content VARCHAR, embedding FLOAT[384], project VARCHAR, timestamp TIMESTAMP,'
        f" metadata VARCHAR, access_count INTEGER{', ' + columns if columns else ''})"
    )


def fill_plainly(con: duckdb.DuckDBPyConnection, name: str, count: int, first: int = 0) -> None:
    """Rows of every kind of evidence: with and without vector, ULIDs, UTC times in the metadata, local times alone."""
    for number in range(first, first + count):
        ulid = f"01K{number:03d}0000ABCDEFGHJKMNPQRS"[:26].ljust(26, "0")
        record_id = ulid if number % 3 == 0 else f"{name[:4]}-{number:04d}"
        text = f"Note {number} of {name}: the retry of stage {number % 7} needs a deadline. " * (1 + number % 5)
        metadata = json.dumps({"extracted_at": f"2026-11-{10 + number % 9:02d}T08:15:0{number % 10}+00:00"})
        con.execute(
            f'INSERT INTO "{name}" (id, content, embedding, project, timestamp, metadata, access_count)'
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            [record_id, text, vector(number) if number % 2 else None, "web", f"2026-11-{10 + number % 9:02d} 00:15:0{number % 10}",
             metadata if number % 3 == 1 else None, number],
        )  # fmt: skip


def _small(name: str, storage: str, tables: dict[str, int], options: str = "BLOCK_SIZE 16384") -> Sound:
    def fill(con: duckdb.DuckDBPyConnection) -> bool:
        for source, count in tables.items():
            con.execute(table(source))
            fill_plainly(con, source, count)
        return True

    data, records = builder().build(fill, storage=storage, options=options)
    return Sound(name, data, records)


def _sample(name: str, system: str, which: int = 0) -> Sound:
    folder = sorted((SAMPLES / system / "uploads").iterdir())[which]
    data = gzip.decompress((folder / "reflection.duckdb").read_bytes())
    graph = folder / "knowledge_graph.duckdb"
    with tempfile.TemporaryDirectory() as scratch, duckdb.connect(config={"threads": 1}) as con:
        path = Path(scratch) / "sample.duckdb"
        path.write_bytes(data)
        con.execute(f"ATTACH '{path}' AS sample (READ_ONLY)")
        records = plain_reading(con, "sample")
    written = json.loads((folder / "manifest.json").read_bytes())["timestamp"]
    return Sound(name, data, records, gzip.decompress(graph.read_bytes()) if graph.exists() else None, written)


_SOUND: Final[dict[str, Callable[[], Sound]]] = {
    "small-64": lambda: _small("small-64", "v1.0.0", {"conversations_v2": 6, "default_reflections": 2}),
    "small-999": lambda: _small("small-999", "latest", {"conversations_v2": 5, "conversations": 3}),
    "several-blocks": lambda: _small("several-blocks", "v1.0.0", {"conversations_v2": 20, "reflections_v2": 12}),
    "legacy": lambda: _sample("legacy", "legacy-feb"),
    "unknown": lambda: _sample("unknown", "unknown-system"),
    "first": lambda: _sample("first", "les-mbp.local"),
    "second": lambda: _sample("second", "les-mbp.local", 1),
}
NAMES: Final = tuple(_SOUND)
SMALL: Final = ("small-64", "small-999", "several-blocks")
REAL: Final = ("legacy", "unknown", "first", "second")
