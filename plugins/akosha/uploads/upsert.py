"""Deciding what an upload changes: its keys are joined with the key file of its system.

Pure but for DuckDB, which reads both sides from local files and leaves its answers in others, so that a snapshot of a
million rows needs no more memory than one of a thousand.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa

from akosha.lake import duck
from akosha.lake.schemas import KEYS
from akosha.lake.sql import statement
from akosha.transforms.times import EVIDENCE

ARRIVED: Final = pa.schema(
    [
        pa.field("position", pa.int64()),
        *[KEYS.field(name) for name in ("source_table", "record_id", "content_xxh128", "content_sha256")],
        *[KEYS.field(name) for name in ("details_sha256", "has_vector")],
        KEYS.field("created_at"),
        pa.field("rank", pa.int8()),
        KEYS.field("bookkeeping"),
    ]
)
_TEXT: Final = [pa.field(name, pa.string()) for name in ("source_table", "record_id")]
_INSTANT: Final = pa.timestamp("us", tz="UTC")
_ANSWERS: Final = {
    "rows": pa.schema(
        [
            pa.field("position", pa.int64()),
            *_TEXT,
            pa.field("created_at", _INSTANT),
            pa.field("time_evidence", pa.string()),
            pa.field("is_revision", pa.bool_()),
        ]
    ),
    "retired": pa.schema([*_TEXT, pa.field("created_live", _INSTANT)]),
    "amended": pa.schema(
        [
            _TEXT[0],
            pa.field("record_id_live", pa.string()),
            pa.field("created_live", _INSTANT),
            _TEXT[1],
            pa.field("created_at", _INSTANT),
            pa.field("time_evidence", pa.string()),
            *[pa.field(name, pa.bool_()) for name in ("takes_time", "takes_details", "takes_vector")],
            pa.field("position", pa.int64()),
        ]
    ),
}
_COUNTED_IN: Final = {
    "rows": ("new", "changed", "amended", "retimed"),
    "retired": ("changed", "gone"),
    "amended": ("amended", "retimed"),
}
_IN_MEMORY_ROWS: Final = 1 << 20  # of two short texts each: 100 MB
LARGE_ROWS: Final = 100_000  # from here on giving memory back costs little beside the work
COUNTED: Final = ("new", "changed", "gone", "older", "retimed", "amended")
_EVIDENCE_SQL: Final = "[" + ", ".join(f"'{name}'" for name in EVIDENCE) + "]"
_BASE_ID: Final = "regexp_replace(record_id, '(?s)(.)~(' || left(lower(hex(content_sha256)), 8) || '|' || lower(hex(content_sha256)) || ')$', '\\1')"
_ONCE: Final = "QUALIFY row_number() OVER (PARTITION BY source_table, base_id, text_key ORDER BY position DESC) = 1"
_BATCH_ROWS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the lake knows of a system: its key file (None = no record yet), and the time of its newest upload applied."""

    keys: Path | None = None
    newest: datetime | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """How uploads of a system are taken.

    Attributes:
        ambiguous: unrelated machines share this system id: another text under a live key is a record of its own.
        delete_absent: what the newest upload lacks goes away, by policy; never for an ambiguous system.
    """

    ambiguous: bool = False
    delete_absent: bool = False


@dataclass(frozen=True, slots=True)
class UpsertPlan:
    """What one upload does to its system. Tables are memory-mapped files of the folder that `plan_upsert` was given.

    Attributes:
        keys: the key file afterwards (schema ``KEYS``, sorted), or None when it stays as it is.
        is_newest: whether no newer upload of the system was applied before.
        rows: rows of the upload whose texts are needed, see ``upsert_rows.sql``.
        retired: live records whose rows leave, see ``upsert_retired.sql``.
        amended: live records written anew in their place, see ``upsert_amended.sql``.
        counts: numbers of records: new, changed, unchanged, gone, older, retimed, amended. older = an upload applied before
            had a newer text; retimed and amended are unchanged as texts.
    """

    keys: pa.Table | None
    is_newest: bool
    rows: pa.Table
    retired: pa.Table
    amended: pa.Table
    counts: dict[str, int]


def plan_upsert(
    live: Snapshot,
    arrived: pa.Table,
    folder: Path,
    *,
    manifest_time: datetime,
    rules: Rules = Rules(),
) -> UpsertPlan:
    """Compare an upload with the live keys of its system.

    Args:
        live: what the lake knows.
        arrived: one row for each accepted row of the upload, schema ``ARRIVED``; position counts them, no key repeats.
        folder: an empty folder for the answers.
        manifest_time: when the upload was made, UTC: the newest one wins, an older one never replaces.
        rules: how this system's uploads are taken.
    """
    is_newest = live.newest is None or manifest_time >= live.newest
    deletes = rules.delete_absent and not rules.ambiguous
    with duck.connection(folder, large=arrived.num_rows >= LARGE_ROWS) as con:
        _register(con, live, arrived)
        params = {"manifest": manifest_time, "newest": live.newest, "ambiguous": rules.ambiguous}
        matched = _filled("upsert_matched", base_id=_BASE_ID, once=_ONCE if rules.ambiguous else "")
        named = _filled("upsert_named", matched=matched) if rules.ambiguous else _unnamed(matched)
        deletable = f"source_table IN ({_filled('upsert_fresh')})" if deletes else "false"
        plan = _filled("upsert_plan", named=named, deletable=deletable)
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE plan AS {plan}",
            params | {"adds": is_newest or not deletes, "deletes": deletes and is_newest},
        )
        counts = con.sql(statement("upsert_counts")).to_arrow_table().to_pylist()[0]
        changes = counts.pop("changes")
        answers = {name: schema.empty_table() for name, schema in _ANSWERS.items()}
        wanted = [name for name, kinds in _COUNTED_IN.items() if any(counts[kind] for kind in kinds)]
        for name in [*wanted, *(["keys"] if changes else [])]:
            query = _filled(f"upsert_{name}", evidence=_EVIDENCE_SQL)
            answers[name] = _stored(con, query, folder / f"{name}.arrow")
        con.execute("DROP TABLE plan")
    counts["unchanged"] = counts.pop("arrived") - counts["new"] - counts["changed"] - counts["older"]
    keys = answers.pop("keys", None)
    return UpsertPlan(keys=keys, is_newest=is_newest, counts=counts, **answers)


def duplicates(arrived: pa.Table, folder: Path) -> pa.Table:
    """Rows whose key stands again further down: position, source_table, record_id, by position."""
    if arrived.num_rows <= _IN_MEMORY_ROWS:
        keys = arrived.group_by(["source_table", "record_id"], use_threads=False).aggregate([])
        if keys.num_rows == arrived.num_rows:
            return arrived.select(["position", "source_table", "record_id"]).slice(0, 0)
    with duck.connection(folder, large=arrived.num_rows >= LARGE_ROWS) as con:
        con.register("arrived", arrived)
        return con.sql(statement("upsert_duplicates")).to_arrow_table()


def _register(con: duckdb.DuckDBPyConnection, live: Snapshot, arrived: pa.Table) -> None:
    con.register("arrived", arrived)
    if live.keys is None:
        con.register("live_keys", KEYS.empty_table())
        source = "live_keys"
    else:
        source = "read_parquet('" + str(live.keys).replace("'", "''") + "')"
    rank = f"(list_position({_EVIDENCE_SQL}, time_evidence) - 1)::TINYINT AS rank"
    con.execute(f"CREATE OR REPLACE TEMP VIEW live AS SELECT * EXCLUDE (time_evidence), {rank} FROM {source}")  # noqa: S608


def _unnamed(matched: str) -> str:
    return f"SELECT *, base_id AS record_id FROM ({matched})"  # noqa: S608 - our own statement


def _filled(name: str, **parts: str) -> str:
    """A statement with other statements in its places: ``{name}`` in braces, or a table called like the part."""
    lines = statement(name).strip().removesuffix(";").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("--"))  # a contract names the places as well
    for part, value in parts.items():
        text = text.replace("{" + part + "}", value)
        text = text.replace(f"FROM {part}\n", f"FROM (\n{value}\n)\n")
    return text


def _stored(con: duckdb.DuckDBPyConnection, query: str, path: Path) -> pa.Table:
    """Write a result to an Arrow IPC file batch by batch, and map it."""
    reader = con.sql(query).to_arrow_reader(_BATCH_ROWS)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
