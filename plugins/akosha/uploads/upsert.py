"""Deciding what uploads change: their keys are joined with the key files of their systems.

Pure but for DuckDB, which reads both sides from local files and leaves its answers in others, so that a snapshot of a
million rows needs no more memory than one of a thousand. Small uploads of many systems are compared by one statement:
planning it costs 40 ms of CPU, running it for 200 rows one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import duckdb
import numpy as np
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
_UPLOAD: Final = pa.field("upload", pa.int16())  # number of an upload among those that are compared together
_UPLOADS: Final = pa.schema([_UPLOAD, pa.field("manifest", _INSTANT), pa.field("newest", _INSTANT)])
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
    "keys": ("changes",),
}
_IN_MEMORY_ROWS: Final = 1 << 20  # of two short texts each: 100 MB
LARGE_ROWS: Final = 100_000  # from here on giving memory back costs little beside the work
COUNTED: Final = ("new", "changed", "gone", "older", "retimed", "amended")
_EVIDENCE_SQL: Final = "[" + ", ".join(f"'{name}'" for name in EVIDENCE) + "]"
_BASE_ID: Final = "regexp_replace(record_id, '(?s)(.)~(' || left(lower(hex(content_sha256)), 8) || '|' || lower(hex(content_sha256)) || ')$', '\\1')"
_ONCE: Final = (
    "QUALIFY row_number() OVER (PARTITION BY upload, source_table, base_id, text_key ORDER BY position DESC) = 1"
)
_BATCH_ROWS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the lake knows of a system.

    Attributes:
        keys: its key file, None = no record yet.
        rows: of that file.
        newest: the time of its newest upload applied.
    """

    keys: Path | None = None
    rows: int = 0
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
class Arrival:
    """An upload that meets its system.

    Attributes:
        arrived: one row for each accepted row of the upload, schema ``ARRIVED``; position counts them, no key repeats.
        manifest_time: when the upload was made, UTC: the newest one wins, an older one never replaces.
        live: what the lake knows.
        rules: how this system's uploads are taken.
    """

    arrived: pa.Table
    manifest_time: datetime
    live: Snapshot = field(default_factory=Snapshot)
    rules: Rules = field(default_factory=Rules)

    @property
    def is_newest(self) -> bool:
        """Whether no newer upload of the system was applied before."""
        return self.live.newest is None or self.manifest_time >= self.live.newest

    @property
    def rows(self) -> int:
        """How many keys are compared."""
        arrived: int = self.arrived.num_rows
        return arrived + self.live.rows


@dataclass(frozen=True, slots=True)
class UpsertPlan:
    """What one upload does to its system. Tables are memory-mapped files of the folder that `plan_upserts` was given.

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


def plan_upserts(arrivals: Sequence[Arrival], folder: Path) -> list[UpsertPlan]:
    """Compare uploads with the live keys of their systems.

    Args:
        arrivals: one of each system at most, and no more than a round has.
        folder: an empty folder for the answers.

    Returns:
        a plan for each, in the same order.
    """
    plans: dict[int, UpsertPlan] = {}
    for group in _groups(arrivals):
        compared = _compare([arrivals[place] for place in group], Path(mkdtemp(dir=folder)))
        plans.update(zip(group, compared, strict=True))
    return [plans[place] for place in range(len(arrivals))]


def _groups(arrivals: Sequence[Arrival]) -> Iterator[list[int]]:
    """Places of uploads that one statement compares: of equal rules, those with a key file first; a large one alone."""
    order = sorted(
        range(len(arrivals)), key=lambda place: (astuple(arrivals[place].rules), arrivals[place].live.keys is None)
    )
    group: list[int] = []
    rows = 0
    for place in order:
        arrival = arrivals[place]
        if group and (arrivals[group[0]].rules != arrival.rules or rows + arrival.rows > LARGE_ROWS):
            yield group
            group, rows = [], 0
        group.append(place)
        rows += arrival.rows
    if group:
        yield group


def _compare(arrivals: Sequence[Arrival], folder: Path) -> list[UpsertPlan]:
    """Plans of uploads under equal rules, those with a key file first."""
    rules = arrivals[0].rules
    deletes = rules.delete_absent and not rules.ambiguous
    with duck.connection(folder, large=sum(arrival.rows for arrival in arrivals) >= LARGE_ROWS) as con:
        _register(con, arrivals)
        matched = _filled("upsert_matched", base_id=_BASE_ID, once=_ONCE if rules.ambiguous else "")
        named = _filled("upsert_named", matched=matched) if rules.ambiguous else _unnamed(matched)
        deletable = f"(upload, source_table) IN ({_filled('upsert_fresh')})" if deletes else "false"
        plan = _filled("upsert_plan", named=named, deletable=deletable)
        params = {"ambiguous": rules.ambiguous, "deletes": deletes}
        con.execute(f"CREATE OR REPLACE TEMP TABLE plan AS {plan}", params)
        counted = con.sql(statement("upsert_counts")).to_arrow_table().to_pylist()
        counts = {row.pop("upload"): row for row in counted}
        wanted = [name for name, kinds in _COUNTED_IN.items() if any(row[kind] for row in counted for kind in kinds)]
        answers = {
            name: _stored(con, _filled(f"upsert_{name}", evidence=_EVIDENCE_SQL), folder / f"{name}.arrow")
            for name in wanted
        }
        con.execute("DROP TABLE plan")
    return [
        _plan_of(arrival, counts.get(number), {name: _part(answer, number) for name, answer in answers.items()})
        for number, arrival in enumerate(arrivals)
    ]


def _plan_of(arrival: Arrival, counted: dict[str, int] | None, answers: dict[str, pa.Table]) -> UpsertPlan:
    counts = dict(counted or dict.fromkeys((*COUNTED, "changes"), 0))
    keys = answers.get("keys") if counts.pop("changes") else None
    counts["unchanged"] = arrival.arrived.num_rows - counts["new"] - counts["changed"] - counts["older"]
    told = {name: answers.get(name, schema.empty_table()) for name, schema in _ANSWERS.items()}
    return UpsertPlan(keys=keys, is_newest=arrival.is_newest, counts=counts, **told)


def duplicates(arrived: pa.Table, folder: Path) -> pa.Table:
    """Rows whose key stands again further down: position, source_table, record_id, by position."""
    if arrived.num_rows <= _IN_MEMORY_ROWS:
        keys = arrived.group_by(["source_table", "record_id"], use_threads=False).aggregate([])
        if keys.num_rows == arrived.num_rows:
            return arrived.select(["position", "source_table", "record_id"]).slice(0, 0)
    with duck.connection(folder, large=arrived.num_rows >= LARGE_ROWS) as con:
        con.register("arrived", arrived)
        return con.sql(statement("upsert_duplicates")).to_arrow_table()


def _register(con: duckdb.DuckDBPyConnection, arrivals: Sequence[Arrival]) -> None:
    """Show DuckDB the tables ``uploads``, ``arrived`` and ``live``, in which an upload is its place in `arrivals`."""
    times = [(arrival.manifest_time, arrival.live.newest) for arrival in arrivals]
    uploads = [range(len(arrivals)), *zip(*times, strict=True)]
    con.register("uploads", pa.table([list(column) for column in uploads], schema=_UPLOADS))
    arrived = [
        arrival.arrived.add_column(0, _UPLOAD, pa.repeat(pa.scalar(number, _UPLOAD.type), arrival.arrived.num_rows))
        for number, arrival in enumerate(arrivals)
    ]
    con.register("arrived", pa.concat_tables(arrived))
    paths = [_pattern(arrival.live.keys) for arrival in arrivals if arrival.live.keys is not None]
    if paths:
        source = "read_parquet(['" + "', '".join(paths) + "'], hive_partitioning = false)"
    else:
        con.register("live_keys", KEYS.empty_table().append_column("file_index", pa.array([], pa.uint64())))
        source = "live_keys"
    rank = f"(list_position({_EVIDENCE_SQL}, time_evidence) - 1)::TINYINT AS rank"
    columns = f"file_index::SMALLINT AS upload, * EXCLUDE (time_evidence), {rank}"
    con.execute(f"CREATE OR REPLACE TEMP VIEW live AS SELECT {columns} FROM {source}")  # noqa: S608 - our own paths


def _pattern(path: Path) -> str:
    """`path` as DuckDB reads it, which expands a pattern: it stands for itself alone."""
    return re.sub(r"([*?\[])", r"[\1]", str(path)).replace("'", "''")


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


def _part(answer: pa.Table, number: int) -> pa.Table:
    """What an answer, ordered by upload, says of one."""
    first, end = np.searchsorted(answer.column("upload").to_numpy(), (number, number + 1)).tolist()
    return answer.slice(first, end - first).drop_columns("upload")
