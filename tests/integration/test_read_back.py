"""Cites I2: what was written is read back and compared before anything is committed, so a lying disk loses nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.integration.small_lake import NOW, SCHEMAS, Shelf, memories, new_lake, publish, table_of

from akosha.errors import IntegrityError
from akosha.lake import files
from akosha.lake.edit import edit_shard
from akosha.lake.layout import shard_of
from akosha.lake.provenance import about
from akosha.lake.schemas import KEY
from akosha.lake.shard_log import Writer
from akosha.tiers import hot_to_warm

pytestmark = pytest.mark.integration

SAME_SHARD = next(
    name for name in (f"box-{number}" for number in range(9_999)) if shard_of(name) == shard_of("laptop-7")
)


@pytest.mark.parametrize("fault", ["a row is lost", "a summary changes", "a code changes"])
def test_a_file_that_is_not_what_was_meant_is_refused_and_the_source_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    lake = new_lake(tmp_path)
    publish(lake, Shelf({"hot": memories("laptop-7", "warm", 40)}))
    (before,) = lake.heads()
    honest = files.write

    def faulty(table: pa.Table, path: Path, *, kind: str, about: dict[str, str]) -> None:
        honest(spoiled(table, fault) if kind == "warm" else table, path, kind=kind, about=about)

    monkeypatch.setattr(files, "write", faulty)
    writer = Writer("run", lake.policy().number, NOW)
    with pytest.raises(IntegrityError, match="nothing was committed"):
        hot_to_warm.move_batch(lake, [before.shard], lake.policy(), writer, as_of=NOW)
    (after,) = lake.heads()
    assert after == before
    assert sum(lake.rows(entry).num_rows for entry in after.of_tier("hot")) == 40
    assert list(lake.store.list(f"shards/{before.shard:03d}/warm/")) == []

    monkeypatch.setattr(files, "write", honest)
    (outcome,), _ = hot_to_warm.move_batch(lake, [before.shard], lake.policy(), writer, as_of=NOW)
    assert outcome.rows == 40


@pytest.mark.parametrize("dry_run", [False, True], ids=["run", "dry run"])
@pytest.mark.parametrize(
    "systems",
    [{}, {"laptop-7": {"archive": False}}, {SAME_SHARD: {"archive": False}}],
    ids=["archived", "not archived", "others are not archived"],
)
def test_a_source_text_that_is_not_its_digest_does_not_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, systems: dict[str, dict[str, bool]], dry_run: bool
) -> None:
    lake = new_lake(tmp_path)
    table = table_of("hot", [*memories(SAME_SHARD, "warm", 3), *memories("laptop-7", "warm", 40)])
    texts = [*table.column("content").to_pylist()[:-1], "another text"]
    at = table.schema.get_field_index("content")
    with (
        monkeypatch.context() as unchecked,
        edit_shard(lake, lake.shard(shard_of("laptop-7")).head(), about()) as edit,
    ):
        unchecked.setattr(files, "verify_content", lambda *_, **__: None)
        edit.put("hot", table.set_column(at, table.schema.field(at), pa.array(texts)))
        before = edit.publish("ingest", Writer("run", 1, NOW), counts={})
    policy = replace(lake.policy(), systems=systems)
    with pytest.raises(IntegrityError, match="a text does not match its digest") as caught:
        hot_to_warm.move_batch(lake, [before.shard], policy, Writer("run", 1, NOW), as_of=NOW, dry_run=dry_run)
    assert caught.value.context["record_id"] == table.column("record_id")[-1].as_py()
    assert lake.heads() == [before]


def spoiled(table: pa.Table, fault: str) -> pa.Table:
    if fault == "a row is lost":
        return table.slice(1)
    if fault == "a summary changes":
        changed = [*table.column("summary").to_pylist()[:-1], "something else"]
        return table.set_column(
            table.schema.get_field_index("summary"), table.schema.field("summary"), pa.array(changed)
        )
    codes = np.array(table.column("codes").to_pylist(), dtype=np.int8)
    codes[0, 0] ^= 1
    column = pa.array(list(codes), table.schema.field("codes").type)
    return table.set_column(table.schema.get_field_index("codes"), table.schema.field("codes"), column)


COLUMNS = [(kind, name) for kind in ("hot", "warm", "cold", "archive") for name in SCHEMAS[kind].names]


@pytest.mark.parametrize(("kind", "name"), COLUMNS)
def test_one_changed_value_in_any_column_of_a_staged_file_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    rows = table_of(kind, memories("laptop-7", "warm", 30))
    files.write(with_one_change(rows, name), tmp_path / "staged", kind=kind, about={})
    with pytest.raises(IntegrityError, match="differs from what was written"):
        files.verify_written(rows, tmp_path / "staged", kind=kind)


@pytest.mark.parametrize(("kind", "name"), [pair for pair in COLUMNS if SCHEMAS[pair[0]].field(pair[1]).nullable])
def test_a_value_that_is_missing_in_a_staged_file_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    rows = table_of(kind, memories("laptop-7", "warm", 30))
    place = rows.schema.get_field_index(name)
    gone = pa.array([*rows.column(name).to_pylist()[:-1], None], rows.schema.field(name).type)
    rows = rows.set_column(
        place, rows.schema.field(name), pa.array(["x"] * 30) if name == "project" else rows.column(name)
    )
    files.write(rows.set_column(place, rows.schema.field(name), gone), tmp_path / "staged", kind=kind, about={})
    with pytest.raises(IntegrityError, match="differs from what was written"):
        files.verify_written(rows, tmp_path / "staged", kind=kind)


def test_rows_read_back_in_another_order_are_refused(tmp_path: Path) -> None:
    rows = table_of("warm", memories("laptop-7", "warm", 30))
    files.write(rows.take([1, 0, *range(2, 30)]), tmp_path / "staged", kind="warm", about={})
    with pytest.raises(IntegrityError, match="differs from what was written"):
        files.verify_written(rows, tmp_path / "staged", kind="warm")


def test_a_text_that_is_not_its_digest_is_named_by_its_record() -> None:
    rows = table_of("archive", [*memories("laptop-7", "warm", 3_000), *memories("laptop-7", "cold", 3_000)])
    whole = rows.column("content").combine_chunks()
    at, digest_at = (rows.schema.get_field_index(name) for name in ("content", "content_sha256"))
    rows = rows.set_column(at, rows.schema.field(at), pa.chunked_array([whole[:2_500], whole[2_500:]]))
    files.verify_content(rows, where="archive")
    digests = rows.column("content_sha256").to_pylist()
    digests[5_001] = bytes(32)
    wrong = rows.set_column(digest_at, rows.schema.field(digest_at), pa.array(digests, pa.binary()))
    for some in (wrong, wrong.slice(2_000), wrong.slice(5_001, 1)):
        with pytest.raises(IntegrityError) as caught:
            files.verify_content(some, where="archive")
        record = {name: wrong.column(name)[5_001].as_py() for name in KEY}
        assert caught.value.context == {"where": "archive", **record, "expected": bytes(32).hex()}


def test_rows_that_are_in_order_already_are_not_copied_and_others_are_sorted() -> None:
    rows = table_of("warm", memories("laptop-7", "warm", 50))
    order = [("system_id", "ascending"), ("created_at", "ascending")]
    same = files.in_order(rows, order)
    assert (
        same.column("codes").chunk(0).values.buffers()[1].address
        == rows.column("codes").chunk(0).values.buffers()[1].address
    )
    assert files.in_order(rows.take(list(range(49, -1, -1))), order).equals(rows)
    assert files.in_order(rows.slice(0, 0), order).num_rows == 0


def with_one_change(rows: pa.Table, name: str) -> pa.Table:
    kind = rows.schema.field(name).type
    values = rows.column(name).to_pylist()
    values[17] = other_than(values[17])
    return rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), pa.array(values, kind))


def other_than(value: object) -> object:
    """The least that can change: one character, the last bit of one byte, one microsecond, one unit of one number."""
    match value:
        case str():
            return value[:-1] + chr(ord(value[-1]) ^ 1)
        case bytes():
            return value[:-1] + bytes([value[-1] ^ 1])
        case list():
            first = value[0]
            least = np.nextafter(np.float32(first), np.float32(9)) if isinstance(first, float) else first ^ 1
            return [least, *value[1:]]
        case float():
            return float(np.nextafter(np.float32(value), np.float32(9)))
        case datetime():
            return value + timedelta(microseconds=1)
    return "another"
