"""Reading databases of strangers: the real ones in full, the hostile ones without harm. Cites I21: a client's database is opened only in a locked-down process."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from akosha.errors import DiskFullError, InvalidUploadError
from akosha.jobs.run import _start_worker
from akosha.transforms.times import EVIDENCE
from akosha.uploads.manifest import Manifest, parse_manifest
from akosha.uploads.reader import KEY_ROWS, TEXT_ROWS, attach, connect, kind_of
from akosha.uploads.sandbox import Reading, Sandbox, TableReading, reading_process
from akosha.uploads.sources import RowFaults, checked_vectors, key_batches, text_batches, upload_times

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "tests" / "data" / "session_buddy"
MANIFESTS = sorted(SAMPLES.rglob("manifest.json"))
HOUR = 3_600_000_000
LONG_TABLE = "CREATE TABLE conversations AS SELECT 'a' AS id, 'x' AS content FROM range(5_000_000)"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(timeout_seconds=60) as prepared:
        yield prepared


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """A function that runs SQL in a new database file, attached as the default, and returns its path."""

    def build(*statements: str, version: str = "v1.0.0") -> Path:
        path = tmp_path / "made.duckdb"
        with duckdb.connect() as con:
            con.execute(f"ATTACH '{path}' AS made (STORAGE_VERSION '{version}')")
            con.execute("USE made")
            for statement in statements:
                con.execute(statement)
        return path

    return build


def unpacked_sample(manifest_path: Path, folder: Path) -> tuple[Manifest, Path]:
    manifest = parse_manifest(manifest_path.relative_to(SAMPLES).as_posix(), manifest_path.read_bytes())
    database = folder / "sample.duckdb"
    database.write_bytes(gzip.decompress((manifest_path.parent / "reflection.duckdb").read_bytes()))
    return manifest, database


def rows_of(reading: Reading, faults: RowFaults | None = None) -> dict[str, pa.Table]:
    """Keys and texts of the accepted rows side by side, vectors checked; of a file that was read whole."""
    return {table.name: accepted(table, RowFaults() if faults is None else faults) for table in reading.tables}


def accepted(table: TableReading, faults: RowFaults) -> pa.Table:
    assert table.texts is not None
    keys = pa.Table.from_batches(key_batches(table, faults), schema=KEY_ROWS).combine_chunks()
    texts = pa.Table.from_batches(text_batches(table.name, table.texts), schema=TEXT_ROWS)
    texts = texts.filter(pc.is_in(texts.column("source_row"), value_set=keys.column("source_row").combine_chunks()))
    assert texts.column("source_row").equals(keys.column("source_row"))
    for batch in texts.combine_chunks().to_batches():
        vectors = checked_vectors(batch, keys.column("record_id").combine_chunks(), faults)
        texts = texts.set_column(texts.schema.get_field_index("embedding"), "embedding", vectors)
    for name in texts.column_names[1:]:
        keys = keys.append_column(name, texts.column(name))
    return keys


def micros(time: datetime) -> int:
    return round(time.timestamp() * 1e6)


def reason_of(sandbox: Sandbox, database: Path, out: Path) -> str:
    with pytest.raises(InvalidUploadError) as caught:
        sandbox.read(database, out)
    assert not out.exists()
    assert len(caught.value.message) > 40
    return caught.value.reason


# ---- real uploads


@pytest.mark.parametrize("manifest_path", MANIFESTS, ids=lambda path: path.parent.name)
def test_every_row_of_every_layer_of_a_real_upload_is_read(manifest_path: Path, sandbox: Sandbox, tmp_path: Path):
    _, database = unpacked_sample(manifest_path, tmp_path)
    faults = RowFaults()
    found = rows_of(sandbox.read(database, tmp_path / "out"), faults)
    assert faults == RowFaults()
    with duckdb.connect(str(database), read_only=True) as con:
        tables = [name for (name,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall() if kind_of(name)]
        assert sorted(found) == sorted(tables)
        for name in tables:
            expected = con.execute(f'SELECT id, content, metadata::VARCHAR, embedding FROM "{name}"').fetchall()
            columns = found[name].select(["record_id", "content", "metadata", "embedding"]).to_pydict()
            assert list(zip(*columns.values(), strict=True)) == [
                (*row[:3], None if row[3] is None else list(row[3])) for row in expected
            ]


def batches_of(reading: Reading) -> list[pa.RecordBatch]:
    return [batch for table in reading.tables for batch in key_batches(table)]


@pytest.mark.parametrize(
    ("system_id", "offset_us", "evidence"),
    [("les-mbp.local", -8 * HOUR, "offset"), ("unknown-system", 330 * HOUR // 60, "manifest"), ("legacy-feb", HOUR, "manifest")],
)  # fmt: skip
def test_the_zone_of_a_real_upload_is_found(
    system_id: str, offset_us: int, evidence: str, sandbox: Sandbox, tmp_path: Path
):
    manifest_path = next(path for path in MANIFESTS if f"/{system_id}/" in path.as_posix())
    manifest, database = unpacked_sample(manifest_path, tmp_path)
    reading = sandbox.read(database, tmp_path / "out")
    times = upload_times(batches_of(reading), micros(manifest.timestamp))
    assert [(used.offset_us, used.evidence) for used in times.offsets] == [(offset_us, evidence)]
    tables = rows_of(reading).values()
    local = np.concatenate([np.array(table["local_time"].cast(pa.int64()).to_pylist(), np.int64) for table in tables])
    assert len(local) == len(times.created_us) > 0
    assert np.abs(local - offset_us - times.created_us).max() < 2_000_000
    assert {EVIDENCE[rank] for rank in times.evidence} <= {"id", "extracted_at", evidence}


def test_attributes_and_bookkeeping_are_sorted_json_without_nulls(sandbox: Sandbox, tmp_path: Path):
    _, database = unpacked_sample(MANIFESTS[1], tmp_path)
    tables = rows_of(sandbox.read(database, tmp_path / "out")).values()
    for column in ("attributes", "bookkeeping"):
        values = [json.loads(text) for table in tables for text in table[column].to_pylist()]
        assert max(map(len, values)) > 1, "there is something to sort"
        for value in values:
            assert list(value) == sorted(value)
            assert None not in value.values()


def test_project_comes_from_the_metadata_where_the_column_is_missing(sandbox: Sandbox, tmp_path: Path):
    legacy = next(path for path in MANIFESTS if "legacy-feb" in path.as_posix())
    _, database = unpacked_sample(legacy, tmp_path)
    assert rows_of(sandbox.read(database, tmp_path / "out"))["default_conversations"]["project"].to_pylist() == ["ops"]


# ---- files that are poor but honest


def test_a_file_whose_rows_are_all_in_the_lost_wal_is_a_success_without_rows(sandbox: Sandbox, tmp_path: Path):
    path = tmp_path / "live.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute("CREATE TABLE conversations_v2 (id VARCHAR, content VARCHAR)")
        con.execute("INSERT INTO conversations_v2 VALUES ('a', 'text')")
        (tmp_path / "taken.duckdb").write_bytes(path.read_bytes())
    assert (tmp_path / "taken.duckdb").stat().st_size == 12_288
    assert sandbox.read(tmp_path / "taken.duckdb", tmp_path / "out") == Reading((), ())


def test_a_wal_beside_the_file_is_never_replayed(sandbox: Sandbox, tmp_path: Path, make):
    database = make("CREATE TABLE conversations (id VARCHAR, content VARCHAR)")
    Path(f"{database}.wal").write_bytes(b"x")
    assert reason_of(sandbox, database, tmp_path / "out") == "unreadable"


def test_empty_tables_are_a_success_without_rows(sandbox: Sandbox, tmp_path: Path, make):
    database = make("CREATE TABLE reflections (id VARCHAR, content VARCHAR)", "CREATE TABLE reflection_tags (x INT)")
    reading = sandbox.read(database, tmp_path / "out")
    assert [(table.name, table.kind, table.rows) for table in reading.tables] == [("reflections", "reflection", 0)]
    assert reading.ignored == ("reflection_tags",)
    assert rows_of(reading)["reflections"].num_rows == 0


def test_tables_that_are_all_unknown_are_refused_with_their_names(sandbox: Sandbox, tmp_path: Path, make):
    database = make("CREATE TABLE conversations_v9 (id VARCHAR)", "CREATE TABLE notes (id VARCHAR)")
    with pytest.raises(InvalidUploadError, match="conversations_v9, notes") as caught:
        sandbox.read(database, tmp_path / "out")
    assert caught.value.reason == "unknown-tables"


def test_columns_of_other_types_are_cast_and_missing_ones_are_null(sandbox: Sandbox, tmp_path: Path, make):
    database = make(
        'CREATE TABLE team_conversations ("ID" BIGINT, content VARCHAR, "timestamp" TIMESTAMPTZ, embedding DOUBLE[],'
        " tags JSON, importance_score VARCHAR, access_count VARCHAR, category STRUCT(a INT))",
        "INSERT INTO team_conversations VALUES (7, 'text', '2026-11-20 12:00:00+02', list_transform(range(384), lambda x: 0.05103103630798287),"
        " '[\"a\"]', '0.25', 'many', {'a': 1})",
    )
    row = rows_of(sandbox.read(database, tmp_path / "out"))["team_conversations"].to_pylist()[0]
    assert row["record_id"] == "7"
    assert row["embedding"] == pytest.approx([1 / np.sqrt(384)] * 384)
    assert row["local_time"] == datetime(2026, 11, 20, 10, 0)  # noqa: DTZ001 - naive by nature
    assert row["project"] is None
    assert json.loads(row["bookkeeping"]) == {"importance_score": 0.25}
    assert json.loads(row["attributes"])["tags"] == '["a"]'


NASTY = [
    'quote " \\ /',
    "\0\1\x12\x7f\n\r\t\b\f",
    "é 漢 \U0001f600 \u202e\u2028",
    "",
    "null",
    '{"a": [1]}',
    "x" * 5_000,
]
NUMBERS = [0, -1, 2**63 - 1, -(2**63), 7, 8, None]
SCORES = [0.25, -0.0, math.nan, math.inf, -math.inf, None, 100_000.0]
TEXTS = (
    "category", "causal_parent_id", "conversation_id", "insight_type", "namespace", "reasoning", "session_id",
    "source_artifact_uri", "source_session_id", "source_type", "turn_parent_id", "user_id",
)  # fmt: skip
TIMES = ("last_accessed", "last_used_at", "updated_at")


def compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def test_all_columns_of_all_values_are_told_to_the_letter(sandbox: Sandbox, tmp_path: Path):
    moment = datetime(2026, 11, 20, 12, 34, 56, 789_012)  # noqa: DTZ001 - naive by nature
    rows, expected = [], []
    for text, number, score in zip(NASTY, NUMBERS, SCORES, strict=True):
        attributes = {**dict.fromkeys(TEXTS, text), "tags": [text, None], "related_entities": []}
        told = {**dict.fromkeys(TIMES, moment), **dict.fromkeys(("memory_tier", "subcategory"), text)}
        told |= {
            **dict.fromkeys(("access_count", "usage_count"), number),
            "confidence_score": score,
            "importance_score": 1.5,
        }
        rows.append({"id": "a", "content": "x" + text, "project": text, "metadata": text, **attributes, **told})
        kept = {
            name: value
            for name, value in told.items()
            if value is not None and str(value) not in ("nan", "inf", "-inf")
        }
        expected.append(
            {
                "content": "x" + text,
                "content_sha256": hashlib.sha256(b"x" + text.encode()).digest(),
                "project": text or None,
                "metadata": text,
                "attributes": compact(attributes),
                "bookkeeping": compact({**kept, **dict.fromkeys(TIMES, str(moment))}),
                "details_sha256": hashlib.sha256(compact([text or None, text, compact(attributes)]).encode()).digest(),
            }
        )
    rows.append({**dict.fromkeys(rows[0]), "id": "a", "content": "y"})
    nothing = {"project": None, "metadata": None, "attributes": "{}", "bookkeeping": "{}"}
    known = {"content": "y", "content_sha256": hashlib.sha256(b"y").digest()}
    expected.append({**known, **nothing, "details_sha256": hashlib.sha256(b'[null,null,"{}"]').digest()})
    with duckdb.connect(str(tmp_path / "all.duckdb")) as con:
        kinds = {**dict.fromkeys(rows[0], "VARCHAR"), "tags": "VARCHAR[]", "related_entities": "VARCHAR[]"}
        kinds |= {**dict.fromkeys(TIMES, "TIMESTAMP"), "access_count": "BIGINT", "usage_count": "BIGINT"}
        kinds |= dict.fromkeys(("confidence_score", "importance_score"), "DOUBLE")
        con.execute(f"CREATE TABLE conversations ({', '.join(f'{name} {kind}' for name, kind in kinds.items())})")
        for row in rows:
            con.execute(f"INSERT INTO conversations VALUES ({', '.join('?' * len(row))})", list(row.values()))

    (whole,) = sandbox.read(tmp_path / "all.duckdb", tmp_path / "whole").tables
    (first,) = sandbox.read(tmp_path / "all.duckdb", tmp_path / "keys", inline_rows=0).tables
    second = sandbox.read_rows(tmp_path / "all.duckdb", tmp_path / "rows", {"conversations": [(0, len(rows) - 1)]})
    for keys, texts in ((whole.keys, whole.texts), (first.keys, second["conversations"])):
        found = {**pa.ipc.open_file(keys).read_all().to_pydict(), **pa.ipc.open_file(texts).read_all().to_pydict()}
        told = [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]
        assert [{name: row[name] for name in expected[0]} for row in told] == expected


@pytest.mark.parametrize(
    ("kind", "value"),
    [("FLOAT[3]", "[1,2,3]"), ("FLOAT[]", "[1,2,3]"), ("VARCHAR", "'no'"), ("BLOB", "'x'::BLOB"), ("STRUCT(a INT)", "{'a':1}"),
     ("DOUBLE[385]", "list_transform(range(385), lambda x: 1.0)"), ("INTEGER", "5"), ("JSON", "'[1]'")],
)  # fmt: skip
def test_a_vector_of_another_length_or_type_is_dropped_and_counted(
    kind: str, value: str, sandbox: Sandbox, tmp_path: Path, make
):
    database = make(
        f"CREATE TABLE conversations (id VARCHAR, content VARCHAR, embedding {kind})",
        f"INSERT INTO conversations VALUES ('a', 'text', {value}), ('b', 'text', NULL)",
    )
    faults = RowFaults()
    table = rows_of(sandbox.read(database, tmp_path / "out"), faults)["conversations"]
    assert table["embedding"].null_count == 2
    assert faults.dropped_vectors == {"vector-wrong-length": 1}
    assert faults.examples == {"vector-wrong-length": ["a"]}


def test_vectors_that_break_a_rule_are_dropped_and_counted(sandbox: Sandbox, tmp_path: Path, make):
    fill = "list_transform(range(384), lambda x: {})::FLOAT[384]"
    values = {
        "good": "0.05103103630798287",
        "long": "0.1",
        "nan": "if(x = 5, 'nan'::FLOAT, 1)",
        "inf": "if(x = 5, '-inf'::FLOAT, 1)",
        "zero": "0",
    }
    values["null"] = "if(x = 5, NULL, 1)"
    database = make(
        "CREATE TABLE conversations (id VARCHAR, content VARCHAR, embedding FLOAT[384])",
        *(f"INSERT INTO conversations SELECT '{name}', 'text', {fill.format(v)}" for name, v in values.items()),
    )
    faults = RowFaults()
    table = rows_of(sandbox.read(database, tmp_path / "out"), faults)["conversations"]
    kept = {row["record_id"]: row["embedding"] for row in table.to_pylist()}
    assert [name for name, vector in kept.items() if vector is not None] == ["good"]
    assert kept["good"] == pytest.approx([1 / np.sqrt(384)] * 384)
    assert faults.dropped_vectors == {"vector-not-finite": 3, "vector-zero": 1, "vector-not-unit": 1}


def test_rows_that_cannot_be_records_are_counted_with_examples(sandbox: Sandbox, tmp_path: Path, make):
    database = make(
        "CREATE TABLE conversations (id VARCHAR, content VARCHAR, metadata VARCHAR)",
        "INSERT INTO conversations SELECT 'blank' || i, chr(160) || e'\\n\\t ', NULL FROM range(9) r(i)",
        "INSERT INTO conversations VALUES (NULL, 'x', NULL), ('', 'x', NULL), ('none', NULL, NULL), ('good', ' x ', '{bad'),"
        " ('long', repeat('x', 17000000), NULL), ('meta', 'x', repeat('x', 5000000)), (repeat('i', 2000), 'x', NULL)",
    )
    faults = RowFaults()
    table = rows_of(sandbox.read(database, tmp_path / "out"), faults)["conversations"]
    assert table.select(["record_id", "content", "metadata"]).to_pylist() == [
        {"record_id": "good", "content": " x ", "metadata": "{bad"}
    ]
    assert faults.refused == {"no-id": 2, "no-content": 1, "blank-content": 9, "too-long": 2, "long-id": 1}
    assert faults.examples["blank-content"] == [f"blank{i}" for i in range(5)]
    assert faults.examples["too-long"] == ["long", "meta"]
    listed = {(row["row"], row["record_id"], row["reason"]) for row in faults.rows}
    assert len(listed) == 15
    assert {
        (0, "blank0", "blank-content"),
        (9, None, "no-id"),
        (13, "long", "too-long"),
        (15, "i" * 64, "long-id"),
    } <= listed


def test_impossible_times_are_unknown_times(sandbox: Sandbox, tmp_path: Path, make):
    database = make(
        "CREATE TABLE conversations (id VARCHAR, content VARCHAR, timestamp TIMESTAMP)",
        "INSERT INTO conversations VALUES ('a', 'x', 'infinity'), ('b', 'x', '-infinity'), ('c', 'x', '0001-01-01'),"
        " ('d', 'x', '290000-01-01'), ('e', 'x', NULL)",
    )
    reading = sandbox.read(database, tmp_path / "out")
    assert rows_of(reading)["conversations"]["local_time"].null_count == 5
    now = micros(datetime(2026, 11, 20, tzinfo=UTC))
    times = upload_times(batches_of(reading), now)
    assert set(times.created_us.tolist()) == {now}
    assert {EVIDENCE[rank] for rank in times.evidence} == {"none"}


def test_bookkeeping_stays_valid_json_when_numbers_are_not_finite(sandbox: Sandbox, tmp_path: Path, make):
    database = make(
        "CREATE TABLE conversations (id VARCHAR, content VARCHAR, importance_score FLOAT, category VARCHAR)",
        "INSERT INTO conversations VALUES ('a', 'x', 'nan', e'quote\" \\\\ \\n' || chr(0) || chr(8238))",
    )
    row = rows_of(sandbox.read(database, tmp_path / "out"))["conversations"].to_pylist()[0]
    assert json.loads(row["bookkeeping"]) == {}
    assert json.loads(row["attributes"]) == {"category": 'quote" \\ \n\0\u202e'}


def test_many_rows_come_in_order_and_in_bounded_batches(sandbox: Sandbox, tmp_path: Path, make):
    database = make(
        "CREATE TABLE conversations AS SELECT 'r' || i AS id, 'text ' || i AS content FROM range(10000) r(i)",
        version="v1.5.0",
    )
    reading = sandbox.read(database, tmp_path / "out")
    batches = list(key_batches(reading.tables[0]))
    assert max(batch.num_rows for batch in batches) <= 2_048
    assert [name for batch in batches for name in batch["record_id"].to_pylist()] == [f"r{i}" for i in range(10_000)]


# ---- files that mean harm


def test_views_and_macros_with_known_names_are_never_touched(sandbox: Sandbox, tmp_path: Path, make):
    secret = tmp_path / "secret.csv"
    secret.write_text("id,content\nstolen,secret\n")
    database = make(
        "CREATE TABLE conversations (id VARCHAR, content VARCHAR)",
        "INSERT INTO conversations VALUES ('a', 'honest')",
        f"CREATE VIEW conversations_v2 AS SELECT * FROM read_csv('{secret}')",
        f"CREATE MACRO stolen_conversations() AS TABLE SELECT * FROM read_csv('{secret}')",
        "CREATE MACRO json_valid(x) AS error('macro was called')",
        "CREATE MACRO strlen(x) AS 0",
        "CREATE SCHEMA other",
        "CREATE TABLE other.conversations_v2 (id VARCHAR, content VARCHAR)",
    )
    reading = sandbox.read(database, tmp_path / "out")
    assert reading.ignored == ("other.conversations_v2",)
    assert {name: table["content"].to_pylist() for name, table in rows_of(reading).items()} == {
        "conversations": ["honest"]
    }


def test_a_file_of_views_alone_is_refused(sandbox: Sandbox, tmp_path: Path, make):
    database = make("CREATE VIEW conversations_v2 AS SELECT 'a' AS id, 'text' AS content")
    assert reason_of(sandbox, database, tmp_path / "out") == "unknown-tables"


def test_a_generated_column_cannot_reach_a_file(sandbox: Sandbox, tmp_path: Path, make):
    secret = tmp_path / "secret.txt"
    secret.write_text("top secret")
    database = make(
        "CREATE MACRO look() AS (SELECT content FROM read_text('" + str(secret) + "'))",
        "CREATE TABLE conversations (id VARCHAR, content VARCHAR GENERATED ALWAYS AS ('text of ' || id))",
        "INSERT INTO conversations (id) VALUES ('a')",
    )
    assert rows_of(sandbox.read(database, tmp_path / "out"))["conversations"]["content"].to_pylist() == ["text of a"]


def test_a_reader_reaches_nothing_but_its_file_and_can_change_no_limit(tmp_path: Path, make):
    other = tmp_path / "other.csv"
    other.write_text("secret\n1\n")
    con = connect(96 << 20)
    attach(con, make("CREATE TABLE conversations (id VARCHAR)"))
    assert con.execute("SELECT current_setting('memory_limit')").fetchall() == [("96.0 MiB",)]
    assert con.execute("FROM upload.main.conversations").fetchall() == []
    for statement in (f"FROM read_csv('{other}')", f"ATTACH '{tmp_path}/new.duckdb'", f"COPY (SELECT 1) TO '{other}'"):
        with pytest.raises(duckdb.PermissionException):
            con.execute(statement)
    for setting in ("memory_limit = '1TB'", "enable_external_access = true", "lock_configuration = false"):
        with pytest.raises(duckdb.InvalidInputException):
            con.execute(f"SET {setting}")


def test_a_small_file_that_grows_without_end_is_stopped(tmp_path: Path, make):
    database = make(
        "CREATE TABLE conversations (id VARCHAR, content VARCHAR GENERATED ALWAYS AS (repeat(id, 10000000)))",
        *["INSERT INTO conversations (id) VALUES ('abcdefgh')"] * 45,
    )
    with Sandbox(timeout_seconds=60, memory_bytes=256 << 20) as small:
        assert reason_of(small, database, tmp_path / "out") == "too-large"


def test_texts_too_long_to_be_held_together_are_refused_one_by_one(sandbox: Sandbox, tmp_path: Path, make):
    database = make(
        "CREATE TABLE conversations (id VARCHAR, content VARCHAR GENERATED ALWAYS AS (repeat(' ', 20000000)))",
        *["INSERT INTO conversations (id) VALUES ('a')"] * 40,
    )
    (table,) = sandbox.read(database, tmp_path / "out").tables
    assert pa.ipc.open_file(table.keys).read_all()["refused"].to_pylist() == ["blank-content"] * 40


def test_rows_that_fit_until_their_details_are_made_are_read(sandbox: Sandbox, tmp_path: Path, make):
    """The raw rows fit into the memory of a child; with their JSON, which is escaped twice, they do not at once."""
    tags = "VARCHAR[] GENERATED ALWAYS AS (string_split(repeat('x,', 1000000), ','))"
    database = make(
        f"CREATE TABLE conversations (id VARCHAR, content VARCHAR, tags {tags})",
        "INSERT INTO conversations (id, content) SELECT i, 'x' FROM range(40) r(i)",
    )
    (table,) = sandbox.read(database, tmp_path / "out").tables
    assert pa.ipc.open_file(table.keys).read_all()["record_id"].to_pylist() == [str(number) for number in range(40)]


def test_rows_that_never_fit_are_called_too_large(sandbox: Sandbox, tmp_path: Path, make):
    database = make(
        "CREATE TABLE conversations (id VARCHAR, content VARCHAR GENERATED ALWAYS AS (repeat('x', 4000000)))",
        "INSERT INTO conversations (id) SELECT i FROM range(4000) r(i)",
    )
    assert reason_of(sandbox, database, tmp_path / "out") == "too-large"


def test_a_column_named_like_the_row_number_is_taken_for_it_or_refused(sandbox: Sandbox, tmp_path: Path, make):
    for kind, value in {"INTEGER": "7", "VARCHAR": "'no'"}.items():
        database = make(
            f"CREATE OR REPLACE TABLE conversations (id VARCHAR, content VARCHAR, rowid {kind})",
            f"INSERT INTO conversations VALUES ('a', 'text', {value})",
        )
        if kind == "VARCHAR":
            assert reason_of(sandbox, database, tmp_path / kind) == "unreadable"
        else:
            (table,) = sandbox.read(database, tmp_path / kind).tables
            assert pa.ipc.open_file(table.keys).read_all()["source_row"].to_pylist() == [7]


def test_more_rows_or_bytes_than_allowed_are_refused(tmp_path: Path, make):
    database = make("CREATE TABLE conversations AS SELECT 'r' || i AS id, 'text' AS content FROM range(9000) r(i)")
    with Sandbox(max_rows=5_000) as few, Sandbox(max_output_bytes=100_000) as small:
        assert reason_of(few, database, tmp_path / "rows") == "too-large"
        assert reason_of(small, database, tmp_path / "bytes") == "too-large"


def test_a_file_that_takes_too_long_is_given_up_and_the_next_one_is_read(tmp_path: Path, make):
    database = make(LONG_TABLE)
    _, honest = unpacked_sample(MANIFESTS[0], tmp_path)
    with Sandbox(timeout_seconds=2) as impatient:
        start = time.monotonic()
        assert reason_of(impatient, database, tmp_path / "out") == "timeout"
        assert time.monotonic() - start < 10
        assert len(impatient.read(honest, tmp_path / "next").tables) > 0


def test_a_killed_reader_costs_one_upload_and_not_the_job(tmp_path: Path, make):
    database = make(LONG_TABLE)
    _, honest = unpacked_sample(MANIFESTS[0], tmp_path)
    with Sandbox(timeout_seconds=30) as victim:
        server = victim.start()
        killer = threading.Thread(target=kill_first_child, args=(server,))
        killer.start()
        assert reason_of(victim, database, tmp_path / "out") == "too-large"
        killer.join()
        assert victim.start() == server
        assert len(victim.read(honest, tmp_path / "next").tables) > 0


def test_a_killed_reading_process_is_replaced(tmp_path: Path):
    _, honest = unpacked_sample(MANIFESTS[0], tmp_path)
    with Sandbox() as prepared:
        os.kill(prepared.start(), signal.SIGKILL)
        assert len(prepared.read(honest, tmp_path / "out").tables) > 0


def test_leaving_the_sandbox_leaves_no_process(tmp_path: Path):
    with Sandbox() as prepared:
        pid = prepared.start()
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()


def test_a_kept_reading_process_serves_batch_after_batch_but_none_after_a_failed_one():
    script = """
from akosha.uploads.sandbox import keep_reading_process, reading_process
def batch(fails=False):
    with reading_process() as sandbox:
        print(sandbox.start(), flush=True)
        if fails:
            raise TimeoutError
keep_reading_process()
batch()
try:
    batch(fails=True)
except TimeoutError:
    batch()
"""
    environment = {"PYTHONPATH": str(ROOT / "plugins")}
    done = subprocess.run([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, check=True)
    first, second, third = map(int, done.stdout.split())
    assert first == second != third
    assert not any(map(running, (first, third)))


def reader_of_a_batch() -> int:
    with reading_process() as sandbox:
        return sandbox.start()


def test_batches_of_a_pool_worker_share_one_reading_process_that_ends_with_it():
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=_start_worker, initargs=(False,)) as pool:
        first, second = (pool.submit(reader_of_a_batch).result() for _ in range(2))
    assert first == second
    assert not running(first)


def test_a_pool_ends_with_a_starter_that_is_killed():
    script = """
from concurrent.futures import ProcessPoolExecutor; from multiprocessing import get_context; import os, time
from akosha.jobs.run import _start_worker
if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=_start_worker, initargs=(False,))
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(600)
"""
    environment = {"PYTHONPATH": str(ROOT / "plugins")}
    starter = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE)
    with starter:
        worker = int(starter.stdout.readline())
        assert running(worker)
        starter.kill()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and running(worker):
        time.sleep(0.02)
    assert not running(worker)


def test_batches_of_a_process_that_keeps_none_have_their_own():
    with reading_process() as one:
        pid = one.start()
    assert not running(pid)


def test_a_job_killed_while_reading_leaves_no_process(tmp_path: Path, make):
    database = make(LONG_TABLE)
    script = (
        "import sys; from pathlib import Path; from akosha.uploads.sandbox import Sandbox\n"
        "with Sandbox() as s:\n    print(s.start(), flush=True); s.read(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    job = subprocess.Popen(
        [sys.executable, "-c", script, str(database), str(tmp_path / "out")],
        env={"PYTHONPATH": str(ROOT / "plugins")},
        stdout=subprocess.PIPE,
    )
    with job:
        server = int(job.stdout.readline())
        reader = first_child(server)
        job.kill()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and (running(server) or running(reader)):
        time.sleep(0.02)
    assert not running(server)
    assert not running(reader)


def test_the_reader_sees_nothing_of_the_jobs_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    with Sandbox() as prepared:
        environment = Path(f"/proc/{prepared.start()}/environ").read_bytes()
    assert b"hidden" not in environment
    assert b"AWS" not in environment


@pytest.mark.parametrize("garbage", [b"", b"x" * 100, bytes(8) + b"DUCK" + bytes(20_000)])
def test_garbage_is_refused(garbage: bytes, sandbox: Sandbox, tmp_path: Path):
    (tmp_path / "g.duckdb").write_bytes(garbage)
    assert reason_of(sandbox, tmp_path / "g.duckdb", tmp_path / "out") in {"damaged", "unreadable"}


def test_a_file_cut_in_the_middle_is_called_damaged(sandbox: Sandbox, tmp_path: Path):
    _, database = unpacked_sample(MANIFESTS[1], tmp_path)
    database.write_bytes(database.read_bytes()[:800_000])
    assert reason_of(sandbox, database, tmp_path / "out") == "damaged"


@pytest.mark.slow
@pytest.mark.parametrize("manifest_path", [MANIFESTS[0], MANIFESTS[-1]], ids=lambda path: path.parent.name)
def test_a_flipped_bit_changes_no_row_unnoticed(manifest_path: Path, sandbox: Sandbox, tmp_path: Path):
    _, database = unpacked_sample(manifest_path, tmp_path)
    data = database.read_bytes()
    expected = rows_of(sandbox.read(database, tmp_path / "whole"))
    chance = random.Random(20261120)  # noqa: S311 - a repeatable choice of places
    used = [at for at in range(0, len(data), 64) if any(data[at : at + 64])]
    places = [*range(0, 12_288, 900), *(chance.choice(used) + chance.randrange(64) for _ in range(24))]
    outcomes = set()
    for count, at in enumerate(places):
        flipped = bytearray(data)
        flipped[at] ^= 1 << chance.randrange(8)
        (tmp_path / "flipped.duckdb").write_bytes(flipped)
        try:
            found = rows_of(sandbox.read(tmp_path / "flipped.duckdb", tmp_path / f"out{count}"))
        except InvalidUploadError as error:
            outcomes.add(error.reason)
        else:
            assert found == expected, f"bit at byte {at}"
            outcomes.add("same")
    assert "damaged" in outcomes
    assert outcomes <= {"same", "damaged", "unreadable"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the kernel has no /dev/full")
def test_a_full_disk_is_not_blamed_on_the_upload(tmp_path: Path):
    _, honest = unpacked_sample(MANIFESTS[0], tmp_path)
    out = tmp_path / "out"

    class FullDisk(Sandbox):
        def _ask(self, request):
            (out / "000.keys.arrow").symlink_to("/dev/full")
            return super()._ask(request)

    with FullDisk() as prepared, pytest.raises(DiskFullError) as caught:
        prepared.read(honest, out)
    assert "AKOSHA_CACHE_DIR" in caught.value.message


def first_child(server: int) -> int:
    """The first child that process `server` forks."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        if children:
            return int(children[0])
        time.sleep(0.01)
    pytest.fail("no reader was forked")


def kill_first_child(server: int) -> None:
    """SIGKILL the first child that process `server` forks, while it reads."""
    child = first_child(server)
    time.sleep(0.3)
    os.kill(child, signal.SIGKILL)


def running(pid: int) -> bool:
    """Whether process `pid` is there and not only waiting to be buried."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"
