"""The payload of the older Akosha: JSON of a stranger, row by row as a database's, or refused as a whole by a sentence."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from akosha.uploads import payload
from akosha.uploads.payload import PayloadError, extract_memories
from akosha.uploads.reader import KEY_ROWS, TEXT_ROWS, LimitError, Limits

LIMITS = Limits(1 << 30, 64 << 20, 10_000)
VECTOR = [0.5] * 384


def extract(folder: Path, data: bytes | str, limits: Limits = LIMITS) -> list[dict[str, Any]]:
    source = folder / "memories.json"
    source.write_bytes(data.encode() if isinstance(data, str) else data)
    reply = extract_memories(None, source, folder, limits)
    assert reply["complete"]
    keys, texts = (read(folder / f"000.{name}.arrow", of) for name, of in (("keys", KEY_ROWS), ("rows", TEXT_ROWS)))
    assert reply["tables"] == [{"name": "conversations", "rows": keys.num_rows}]
    assert keys.column("source_row").to_pylist() == list(range(keys.num_rows)) == texts.column("source_row").to_pylist()
    rows = [key | text for key, text in zip(keys.to_pylist(), texts.to_pylist(), strict=True)]
    for row in rows:
        content = row["content"]
        assert row.pop("content_sha256") == (hashlib.sha256(content.encode()).digest() if content is not None else None)
        assert row.pop("content_xxh128") == (xxhash.xxh3_128_digest(content.encode()) if content is not None else None)
        assert len(row.pop("details_sha256")) == 32
        assert row.pop("has_vector") == (row["embedding"] is not None)
        del row["source_row"]
    return rows


def read(path: Path, of: pa.Schema) -> pa.Table:
    with pa.OSFile(str(path)) as opened, pa.ipc.open_file(opened) as file:
        assert file.schema == of
        rows = file.read_all()
    rows.validate(full=True)
    return rows


def rows_of(folder: Path, *items: Any) -> list[dict[str, Any]]:
    return extract(folder, json.dumps({"conversations": list(items)}))


def naive(text: str) -> datetime:
    return datetime.fromisoformat(text)


def memory(**changes: Any) -> dict[str, Any]:
    return {"id": "m1", "content": "Retry with a deadline.", "timestamp": "2026-11-20T10:00:00"} | changes


def test_a_conversation_becomes_a_row_of_a_source_table(tmp_path: Path):
    metadata = {"project": "web", "extracted_at": "2026-11-20T09:00:00Z", "ä": [1, None]}
    (row,) = rows_of(tmp_path, memory(embedding=VECTOR, source="cli", metadata=metadata, unknown=1))
    assert row == {
        "record_id": "m1", "content": "Retry with a deadline.", "embedding": VECTOR, "project": "web",
        "metadata": json.dumps(metadata, ensure_ascii=False), "attributes": '{"source": "cli"}', "bookkeeping": "{}",
        "local_time": naive("2026-11-20T10:00"), "extracted_at": naive("2026-11-20T09:00"), "checkpoint_at": None,
        "refused": None, "unusable_vector": False,
    }  # fmt: skip


def test_rows_keep_their_order_over_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(payload, "BATCH_ROWS", 3)
    rows = rows_of(tmp_path, *[memory(id=number) for number in range(8)])
    assert [row["record_id"] for row in rows] == [str(number) for number in range(8)]


@pytest.mark.parametrize(
    ("timestamp", "local", "exact"),
    [
        ("2026-11-20T10:00:00", naive("2026-11-20T10:00"), None),
        ("2026-11-20 10:00:00.5", naive("2026-11-20T10:00:00.500000"), None),
        ("2026-11-20T10:00:00Z", None, naive("2026-11-20T10:00")),
        ("2026-11-20T10:00:00-08:00", naive("2026-11-20T10:00"), naive("2026-11-20T18:00")),
        ("0001-01-01T00:00:00+14:00", None, None),
        ("9999-12-31T23:59:59-14:00", None, None),
        ("yesterday", None, None),
        (None, None, None),
        (1_700_000_000, None, None),
        ("2026-11-20" + " " * 100, None, None),
    ],
)
def test_a_zone_makes_a_time_exact_and_its_absence_leaves_it_local(
    timestamp: Any, local: Any, exact: Any, tmp_path: Path
):
    (row,) = rows_of(tmp_path, memory(timestamp=timestamp))
    assert (row["local_time"], row["extracted_at"]) == (local, exact)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("7", "not-an-object"),
        ("null", "not-an-object"),
        ('{"content": "x"}', "no-id"),
        ('{"id": "", "content": "x"}', "no-id"),
        ('{"id": true, "content": "x"}', "no-id"),
        ('{"id": "a"}', "no-content"),
        ('{"id": "a", "content": ["x"]}', "no-content"),
        ('{"id": "a", "content": " \\n\\u2003"}', "blank-content"),
        ('{"id": "a", "content": "half a pair \\ud800"}', "lone-surrogate"),
        ('{"id": "a\\udfff", "content": "x"}', "lone-surrogate"),
        ('{"id": "a", "id": "b", "content": "x"}', "doubled-key"),
        ('{"id": "a", "content": "x", "metadata": {"k": [{"z": 1, "z": 2}]}}', "doubled-key"),
        (json.dumps({"id": "é" * 600, "content": "x"}), "long-id"),
        (json.dumps({"id": "a", "content": "x" * ((16 << 20) + 1)}), "too-long"),
        (json.dumps({"id": "a", "content": "x", "metadata": "x" * (4 << 20)}), "too-long"),
        (json.dumps({"id": "a", "content": "x", "source": "x" * (4 << 20)}), "too-long"),
    ],
    ids=lambda value: value[:40],
)
def test_a_row_that_cannot_be_a_record_says_why_and_its_neighbours_stay(text: str, reason: str, tmp_path: Path):
    sound = json.dumps(memory())
    first, refused, last = extract(tmp_path, f'{{"conversations": [{sound}, {text}, {sound}]}}')
    assert refused["refused"] == reason
    assert (first["refused"], last["refused"]) == (None, None)
    assert refused["content"] is None
    assert len((refused["record_id"] or "").encode()) <= 64


def test_surrogates_in_metadata_stay_as_they_were_escaped(tmp_path: Path):
    text = '{"conversations": [{"id": "a", "content": "x", "metadata": {"k": "\\ud800"}, "source": "\\udc00"}]}'
    (row,) = extract(tmp_path, text)
    assert json.loads(row["metadata"]) == {"k": "\ud800"}
    assert json.loads(row["attributes"]) == {"source": "\udc00"}


def test_a_pair_of_surrogates_is_a_letter_and_a_nul_is_one_too(tmp_path: Path):
    (row,) = extract(tmp_path, '{"conversations": [{"id": "a", "content": "\\ud83d\\ude00 \\u0000 \\u202e"}]}')
    assert row["content"] == "\U0001f600 \0 \u202e"


@pytest.mark.parametrize(
    "vector",
    [[0.5] * 383, [], "x", {"0": 1}, [None] * 384, [True] * 384, ["1"] * 384, [[1]] * 384, [10**400] + [0] * 383],
    ids=lambda value: str(value)[:20],
)
def test_a_vector_of_another_form_is_dropped_and_said_to_be(vector: Any, tmp_path: Path):
    (row,) = rows_of(tmp_path, memory(embedding=vector))
    assert (row["embedding"], row["unusable_vector"], row["refused"]) == (None, True, None)


def test_numbers_that_are_none_reach_the_judge_of_vectors(tmp_path: Path):
    """NaN and infinities, also those that only a float32 cannot hold, are counted behind the sandbox as a database's are."""
    text = json.dumps(memory(embedding=[0.5] * 384)).replace("0.5", "NaN", 1).replace("0.5", "-Infinity", 1)
    (row,) = extract(tmp_path, f'{{"conversations": [{text.replace("0.5", "1e300", 1)}]}}')
    assert [str(number) for number in row["embedding"][:4]] == ["nan", "-inf", "inf", "0.5"]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"conversations": {}}', '{"conversations": null}', '{"conversations": [', "\ufeff[",
     '{"conversations": [1,]}', '{"conversations": [1 2]}', '{"conversations": [], "conversations": []}',
     '{"conversations": []} {}', '{"conversations": [],}', '{1: []}', '{"conversations" []}', "'", '{"a": 01}',
     '{"conversations": [' + "9" * 5_000 + "]}"],
    ids=lambda text: text[:30],
)  # fmt: skip
def test_a_document_of_another_form_is_refused_with_its_place(text: str, tmp_path: Path):
    with pytest.raises(PayloadError, match="at character"):
        extract(tmp_path, text)


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"conversations": [' + '{"a":' * 200_000, '{"conversations": [[' + "[" * 990]
)
def test_a_document_nested_without_end_is_refused(text: str, tmp_path: Path):
    with pytest.raises(PayloadError):
        extract(tmp_path, text)


@pytest.mark.parametrize("depth", [900, 960, 990, 1_000, 2_000])
def test_metadata_nested_deeply_is_kept_or_refused_but_nothing_else(depth: int, tmp_path: Path):
    text = '{"conversations": [{"id": "a", "content": "x", "metadata": ' + "[" * depth + "]" * depth + "}]}"
    try:
        (row,) = extract(tmp_path, text)
    except PayloadError as error:
        refusal = str(error)
    else:
        assert json.loads(row["metadata"]) is not None
        return
    assert "nested too deeply" in refusal


def test_bytes_that_are_no_utf_8_are_refused_with_their_place(tmp_path: Path):
    with pytest.raises(PayloadError, match="at byte 22"):
        extract(tmp_path, b'{"conversations": [{"\xff": 1}]}'[:21] + b'"\xed\xa0\x80"]}')


def test_limits_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    many = json.dumps({"conversations": [memory(id=number, embedding=VECTOR) for number in range(50)]})
    with pytest.raises(LimitError, match="more than 49"):
        extract(tmp_path, many, Limits(1 << 30, 64 << 20, 49))
    with pytest.raises(LimitError, match="bytes"):
        extract(tmp_path, many, Limits(1 << 30, 10_000, 50))
    monkeypatch.setattr(payload, "MAX_BYTES", 100)
    with pytest.raises(LimitError, match="at most 100"):
        extract(tmp_path, many)


def test_what_else_the_document_has_is_named(tmp_path: Path):
    source = tmp_path / "memories.json"
    source.write_text('\ufeff{"a": [1], "conversations": [], "\\ud800": 2}', encoding="utf-8")
    assert extract_memories(None, source, tmp_path, LIMITS)["ignored"] == ["'a'", "'\\ud800'"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(st.characters(), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
ITEM = JSON | st.dictionaries(st.sampled_from(["id", "content", "embedding", "timestamp", "source", "metadata"]), JSON)


@given(items=st.lists(ITEM, max_size=4), data=st.data())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_gives_rows_and_any_cut_of_it_a_sentence(items: list[Any], data: st.DataObject, tmp_path: Path):
    """I15: nothing but the two errors that lead to quarantine."""
    whole = json.dumps({"conversations": items}).encode()
    assert len(extract(tmp_path, whole)) == len(items)
    spoiled = bytearray(whole)
    at = data.draw(st.integers(0, len(whole) - 1))
    spoiled[at] ^= 1 << data.draw(st.integers(0, 7))
    for broken in (whole[:at], bytes(spoiled)):
        try:
            extract(tmp_path, broken)
        except (PayloadError, LimitError) as error:
            assert str(error)  # noqa: PT017 - one of the two, and it says something
