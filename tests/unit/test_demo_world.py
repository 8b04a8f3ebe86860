"""The demo world keeps to the upload format, byte for byte, and says what a correct ingester finds in it."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from akosha.demo import ids
from akosha.demo.broken import Upload
from akosha.demo.cast import MACHINES, Machine
from akosha.demo.client_fingerprints import client_fingerprints
from akosha.demo.container import MANIFEST, gzip_member
from akosha.demo.database import BLOCKS_START, build_database, checksum
from akosha.demo.expected import expected_records
from akosha.demo.memories import LONGEST, TRUNCATED, remember
from akosha.demo.texts import harvest, prose
from akosha.demo.vectors import Corpus, carried_texts, load_vectors, make_vectors, unit_vectors
from akosha.demo.world import World, build_world, publish_world, report
from akosha.errors import ConfigurationError, UsageError

ANCHOR = datetime(2026, 11, 21, 1, 30, 12, 345_678, tzinfo=UTC)
DAY = timedelta(days=1)
SCALE = 0.05
SAMPLES = Path(__file__).parent.parent / "data" / "session_buddy" / "systems"
COLUMNS = "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal ORDER BY ALL"


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus(tuple(harvest(("flask", "werkzeug", "alembic"))), unit_vectors)


@pytest.fixture(scope="module")
def world(corpus: Corpus) -> World:
    return build_world(ANCHOR, corpus, scale=SCALE)


def _unpacked(upload: Upload, name: str = "reflection.duckdb") -> bytes:
    data = dict(upload.objects)[upload.name.key(name)]
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def _opened(data: bytes, folder: Path) -> duckdb.DuckDBPyConnection:
    path = folder / f"{hashlib.sha256(data).hexdigest()}.duckdb"
    path.write_bytes(data)
    return duckdb.connect(str(path), read_only=True)


def _applied(world: World) -> list[Upload]:
    return [upload for upload in world.uploads if upload.expected.outcome == "applied"]


def _with_reason(world: World, reason: str) -> list[Upload]:
    return [upload for upload in world.uploads if upload.expected.reasons == (reason,)]


def _machine_of(world: World, upload: Upload) -> Machine:
    return next(
        machine
        for machine in MACHINES
        if machine.system_id == upload.name.system_id and world.anchor - upload.name.moment in machine.uploads
    )


def test_two_builds_are_equal_byte_for_byte(world: World, corpus: Corpus) -> None:
    again = build_world(ANCHOR, corpus, scale=SCALE)
    assert [key for key, data in again.objects.items() if world.objects.get(key) != data] == []
    assert list(again.objects) == list(world.objects)
    assert again.expected == world.expected


def test_another_anchor_moves_every_time_and_no_content_id(corpus: Corpus) -> None:
    worlds, _ = remember(MACHINES, corpus.texts, SCALE)
    before, after = (
        {record.key: record for record in expected_records(worlds, anchor)} for anchor in (ANCHOR, ANCHOR + DAY)
    )
    kept = [key for key in before if key[1] in ("default_conversations", "conversations")]
    assert kept
    assert all(after[key].created_at - before[key].created_at == DAY for key in kept)


def test_every_machine_uploads_in_the_storage_and_packing_it_is_cast_with(world: World) -> None:
    seen: Counter[tuple[bool, int]] = Counter()
    for upload in _applied(world):
        machine = _machine_of(world, upload)
        packed = upload.objects[0][1][:2] == b"\x1f\x8b"
        assert packed == (machine.compression == "gzip")
        version = int.from_bytes(_unpacked(upload)[12:20], "little")
        assert version == {"1.x": 64, "2.0": 999}[machine.storage]
        seen[packed, version] += 1
    assert len(seen) == 4


def test_gzip_is_one_member_of_level_nine_without_a_name(world: World) -> None:
    upload = next(upload for upload in _applied(world) if upload.objects[0][1][:2] == b"\x1f\x8b")
    data = upload.objects[0][1]
    assert data[:4] == b"\x1f\x8b\x08\x00"
    assert int.from_bytes(data[4:8], "little") == int(upload.name.moment.timestamp())
    assert data[8:10] == b"\x02\xff"
    member = zlib.decompressobj(31)
    plain = member.decompress(data)
    assert member.eof
    assert member.unused_data == b""
    assert data == gzip_member(plain, upload.name.moment)
    assert len(data) <= len(gzip.compress(plain, 9))


def test_gzip_header_equals_that_of_a_real_upload() -> None:
    real = next(SAMPLES.rglob("reflection.duckdb")).read_bytes()
    moment = datetime.fromtimestamp(int.from_bytes(real[4:8], "little"), UTC)
    assert gzip_member(gzip.decompress(real), moment)[:10] == real[:10]


@pytest.mark.parametrize(
    ("sample", "schema"),
    [
        ("unknown-system", ("demo_layer_v2",)),
        ("les-mbp.local", ("demo_layer_legacy", "demo_layer_v2")),
        ("legacy-feb", ("demo_layer_prefixed", "demo_layer_legacy")),
    ],
)
def test_tables_and_columns_equal_those_of_a_real_upload(sample: str, schema: tuple[str, ...], tmp_path: Path) -> None:
    real = next((SAMPLES / sample).rglob("reflection.duckdb")).read_bytes()
    with _opened(gzip.decompress(real), tmp_path) as con:
        expected = con.execute(COLUMNS).fetchall()
    with _opened(build_database(schema, {}, "1.x"), tmp_path) as con:
        assert con.execute(COLUMNS).fetchall() == expected


def test_graph_columns_equal_those_of_a_real_upload(tmp_path: Path) -> None:
    with _opened(gzip.decompress(next(SAMPLES.rglob("knowledge_graph.duckdb")).read_bytes()), tmp_path) as con:
        expected = con.execute(COLUMNS).fetchall()
    with _opened(build_database(("demo_graph",), {}, "2.0"), tmp_path) as con:
        assert con.execute(COLUMNS).fetchall() == expected


def test_manifest_has_the_form_of_a_real_one(world: World) -> None:
    real = json.loads(next(SAMPLES.rglob(MANIFEST)).read_bytes())
    for upload in _applied(world):
        key, data = upload.objects[-1]
        document = json.loads(data)
        assert key.endswith("/manifest.json")
        assert data == json.dumps(document, indent=2).encode()
        assert list(document) == list(real)
        assert document["metadata"] == real["metadata"]
        assert [file["path"] for file in document["files"]] == [key for key, _ in upload.objects[:-1]]
        assert datetime.fromisoformat(document["timestamp"]) > upload.name.moment


def test_client_fingerprints_equal_those_of_real_uploads(tmp_path: Path) -> None:
    checked = 0
    for path in SAMPLES.rglob("reflection.duckdb"):
        with _opened(gzip.decompress(path.read_bytes()), tmp_path) as con:
            names = [name for (name,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
            for name in {"conversations_v2", "reflections_v2", "default_conversations"} & set(names):
                query = f"SELECT content, fingerprint FROM {name} WHERE fingerprint IS NOT NULL"
                rows = con.execute(query).fetchall()
                assert client_fingerprints([text for text, _ in rows]) == [found for _, found in rows]
                checked += len(rows)
    assert checked > 20


def test_ulids_agree_with_local_times_and_the_zone_of_the_machine(world: World, tmp_path: Path) -> None:
    checked = 0
    for upload in _applied(world):
        machine = _machine_of(world, upload)
        if "demo_layer_v2" not in machine.schema:
            continue
        with _opened(_unpacked(upload), tmp_path) as con:
            query = "SELECT id, epoch_us(created_at) // 1000 FROM reflections_v2"
            query += ' UNION ALL SELECT id, epoch_us("timestamp") // 1000 FROM conversations_v2 WHERE length(id) = 26'
            rows = con.execute(query).fetchall()
        offsets = {local - ids.ulid_milliseconds(found) for found, local in rows}
        assert offsets <= {machine.offset_minutes * 60_000}
        checked += len(rows)
    assert checked > 50


def test_expected_records_are_what_the_files_hold(world: World, tmp_path: Path) -> None:
    found: dict[tuple[str, str, str], tuple[str, datetime]] = {}
    for upload in _applied(world):
        offset = timedelta(minutes=_machine_of(world, upload).offset_minutes)
        with _opened(_unpacked(upload), tmp_path) as con:
            for name, content, moment in _sources(con):
                rows = con.execute(f'SELECT id, {content}, {moment} FROM "{name}"').fetchall()
                for record_id, text, local in rows:
                    key = (upload.name.system_id, name, record_id)
                    first = found.get(key, ("", (local - offset).replace(tzinfo=UTC)))
                    found[key] = (text, first[1])
    expected = {key: (record.content, record.created_at) for key, record in world.expected.by_key.items()}
    shared = {key for key, record in world.expected.by_key.items() if record.shared}
    assert found.keys() == expected.keys()
    assert {key: value for key, value in found.items() if key not in shared} == {
        key: value for key, value in expected.items() if key not in shared
    }


def _sources(con: duckdb.DuckDBPyConnection) -> list[tuple[str, str, str]]:
    columns = con.execute(COLUMNS).fetchall()
    names = {table for table, _, _ in columns if table.removesuffix("_v2").endswith(("conversations", "reflections"))}
    dated = {table for table, column, _ in columns if column == "created_at"}
    return [(name, "content", "created_at" if name in dated else '"timestamp"') for name in sorted(names)]


def test_later_uploads_add_rows_drop_some_and_bump_counters(world: World, tmp_path: Path) -> None:
    uploads = [upload for upload in _applied(world) if upload.name.system_id == "les-mbp.local"]
    states = []
    for upload in uploads:
        with _opened(_unpacked(upload), tmp_path) as con:
            rows = con.execute("SELECT id, access_count, memory_tier FROM conversations_v2").fetchall()
            states.append({key: rest for key, *rest in rows})
    dropped = [set(before) - set(after) for before, after in pairwise(states)]
    added = [set(after) - set(before) for before, after in pairwise(states)]
    assert sum(map(len, dropped)) in (1, 2)
    assert all(added)
    assert any(states[0][key] != states[-1][key] for key in states[0].keys() & states[-1].keys())


def test_rewritten_text_keeps_its_id_and_its_time(world: World, corpus: Corpus) -> None:
    worlds, _ = remember(MACHINES, corpus.texts, SCALE)
    rewritten = [memory for found in worlds for memory in found if memory.rewritten]
    assert len(rewritten) == 3
    for memory in rewritten:
        key = (memory.machine.system_id, memory.table, ids.content_id(memory.content))
        assert world.expected.by_key[key].content == memory.rewritten != memory.content


def test_damaged_block_opens_but_does_not_scan(world: World, tmp_path: Path) -> None:
    (upload,) = _with_reason(world, "damaged")
    con = _opened(_unpacked(upload), tmp_path)
    assert con.execute("SELECT count(*) FROM duckdb_tables()").fetchone() == (20,)
    with pytest.raises(duckdb.Error, match="Corrupt"):
        con.execute("SELECT sum(length(content)) FROM conversations_v2").fetchall()


def test_every_kind_of_fault_is_there_once_or_twice(world: World) -> None:
    reasons = Counter(reason for upload in world.expected.quarantined for reason in upload.reasons)
    assert reasons == {
        "truncated": 1, "missing-object": 1, "invalid-manifest": 1, "unknown-tables": 1, "damaged": 1, "wrong-label": 2,
        "path-outside-prefix": 1, "other-system": 1,
    }  # fmt: skip


def test_faults_are_real(world: World) -> None:
    (truncated,), (missing,), (invalid,) = (
        _with_reason(world, reason) for reason in ("truncated", "missing-object", "invalid-manifest")
    )
    with pytest.raises(EOFError):
        gzip.decompress(truncated.objects[0][1])
    assert [key for key, _ in missing.objects] == [missing.expected.manifest_key]
    with pytest.raises(json.JSONDecodeError):
        json.loads(invalid.objects[-1][1])
    for upload in _with_reason(world, "wrong-label"):
        label = json.loads(upload.objects[-1][1])["files"][0]["compression"]
        assert (label == "gzip") != (upload.objects[0][1][:2] == b"\x1f\x8b")


def test_stale_upload_is_a_valid_file_without_tables(world: World, tmp_path: Path) -> None:
    sizes = {}
    for upload in world.uploads:
        if upload.expected.outcome == "empty" and upload.objects[0][0].endswith("reflection.duckdb"):
            data = _unpacked(upload)
            with _opened(data, tmp_path) as con:
                sizes[upload.name.system_id] = len(data), len(con.execute("SHOW TABLES").fetchall())
    assert sizes["東京-ws.example"] == (12_288, 0)
    assert sizes["fresh-laptop"][1] == 20


def test_headers_carry_the_checksums_that_duckdb_computes() -> None:
    data = build_database(("demo_graph",), {}, "2.0")
    assert checksum(data[8:4096]) == data[:8]
    assert checksum(data[BLOCKS_START + 8 : BLOCKS_START + 262_144]) == data[BLOCKS_START : BLOCKS_START + 8]


def test_full_cast_keeps_the_promised_numbers() -> None:
    """At full scale, without building files: records, ages, missing vectors, texts to encode."""
    texts = tuple(f"Sentence number {number} of a test speaks of the value {number * 7}." for number in range(2_200))
    worlds, pairs = remember(MACHINES, texts)
    memories = [memory for found in worlds for memory in found]
    ages = [memory.age / timedelta(days=1) for memory in memories]
    carried = {memory.content for memory in memories if memory.vector}
    assert 2_500 <= len(memories) <= 3_500
    assert sum(not memory.vector for memory in memories) <= 400
    assert 1_600 <= len(carried) <= 2_050
    assert max(ages) <= 200
    assert 0.25 < sum(age < 7 for age in ages) / len(ages) < 0.35
    assert 0.2 < sum(age > 90 for age in ages) / len(ages) < 0.3
    assert {pair.kind for pair in pairs} == {"typo", "edit", "swapped"}
    assert all(pair.original != pair.variant for pair in pairs)
    assert max(len(memory.content) for memory in memories) == LONGEST + len(TRUNCATED)


def test_report_counts_what_is_put_and_manifests_come_last(world: World) -> None:
    class Recorder:
        def __init__(self) -> None:
            self.put_keys: list[str] = []

        def put(self, key: str, data: bytes) -> None:
            assert data
            self.put_keys.append(key)

    store = Recorder()
    counted = publish_world(world, store, "inbox/")
    assert counted == report(world)
    assert counted.objects == len(store.put_keys) == len(set(store.put_keys))
    assert counted.records == len(world.expected.records)
    assert store.put_keys[0].startswith("inbox/systems/")
    for upload in _applied(world):
        places = [store.put_keys.index(f"inbox/{key}") for key, _ in upload.objects]
        assert places == sorted(places)


def test_prose_drops_sections_markup_and_what_is_not_prose() -> None:
    lead = "The pool keeps its connections open until :meth:`~pool.Pool.close` is called, which is why ``timeout`` exists. "
    text = prose(f"{lead * 2}\n\nParameters\n----------\nx : int\n    A number.\n")
    assert text == (lead * 2).strip().replace(":meth:`~pool.Pool.close`", "`pool.Pool.close`").replace("``", "`")
    assert prose("") is None
    assert prose(">>> " + lead * 2) is None


def test_harvest_is_the_same_every_time_and_names_a_missing_package(corpus: Corpus) -> None:
    again = harvest(("alembic", "werkzeug", "flask"))
    assert tuple(again) == corpus.texts
    assert all(150 <= len(text) <= 700 for text in again)
    with pytest.raises(ConfigurationError, match="no_such_package"):
        harvest(("no_such_package",))


def test_anchor_without_a_zone_and_scale_out_of_range_are_refused(corpus: Corpus) -> None:
    with pytest.raises(UsageError, match="time zone"):
        build_world(ANCHOR.replace(tzinfo=None), corpus)
    with pytest.raises(UsageError, match="scale"):
        build_world(ANCHOR, corpus, scale=0)


class _Stand:
    """An encoder of unit vectors that counts what it was asked."""

    model_id = "all-minilm-l6-v2"
    dimension = 384

    def __init__(self) -> None:
        self.asked = 0

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += len(texts)
        return unit_vectors(texts)


def test_missing_and_damaged_vectors_name_the_command(tmp_path: Path) -> None:
    path = tmp_path / "vectors.parquet"
    with pytest.raises(ConfigurationError, match="akosha demo-vectors"):
        load_vectors(path)
    path.write_bytes(b"PAR1 but not really")
    with pytest.raises(ConfigurationError, match="akosha demo-vectors"):
        load_vectors(path)


def test_vectors_are_encoded_once(tmp_path: Path, corpus: Corpus) -> None:
    path, encoder = tmp_path / "share" / "vectors.parquet", _Stand()
    first = make_vectors(path, encoder, corpus.texts)
    second = make_vectors(path, encoder, corpus.texts)
    assert first.encoded == encoder.asked > 300
    assert (second.encoded, second.kept) == (0, first.encoded)
    loaded = load_vectors(path)
    assert loaded.texts == corpus.texts
    carried = carried_texts(corpus.texts)
    assert np.array_equal(loaded.encode(carried), unit_vectors(carried))


def test_vectors_of_other_packages_are_stale(tmp_path: Path, corpus: Corpus) -> None:
    path = tmp_path / "vectors.parquet"
    make_vectors(path, _Stand(), corpus.texts)
    table = pq.read_table(path)
    found = dict(table.schema.metadata)
    found[b"akosha.sources"] = b'{"pandas": ["0.1"]}'
    pq.write_table(table.replace_schema_metadata(found), path)
    with pytest.raises(ConfigurationError, match="stale"):
        load_vectors(path)
