"""Cites I10: every JSON document carries the digest of its own canonical bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from akosha.errors import FormatVersionError, IntegrityError
from akosha.lake.documents import digest_of, render, seal, unseal

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(TEXT.filter(lambda name: name not in {"sha256", "format"}), VALUES, max_size=5)


def sealed(document: dict) -> bytes:
    return seal({**document, "format": "akosha-commit/1"})


@given(DOCUMENTS)
def test_a_sealed_document_comes_back_as_it_was(document: dict):
    data = sealed(document)
    found = unseal(data, kind="commit", key="k")
    assert found == {**document, "format": "akosha-commit/1", "sha256": digest_of(data)}


@given(DOCUMENTS, st.data())
@settings(max_examples=300)
def test_any_flipped_bit_is_found(document: dict, data: st.DataObject):
    """I3: a document that does not match its own SHA-256 is never read."""
    whole = sealed(document)
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    spoiled = bytearray(whole)
    spoiled[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(IntegrityError):
        unseal(bytes(spoiled), kind="commit", key="k")


def test_every_single_bit_of_one_document_counts():
    """I3, without luck: all bits of a typical document."""
    whole = sealed({"version": 3, "files": [{"path": "shards/017/hot/ä.duckdb", "rows": 10}], "ok": True, "x": None})
    for bit in range(len(whole) * 8):
        spoiled = bytearray(whole)
        spoiled[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(IntegrityError):
            unseal(bytes(spoiled), kind="commit", key="k")


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data + b"\n",
        lambda data: b" " + data,
        lambda data: b"",
        lambda data: b"null\n",
        lambda data: b"[]\n",
        lambda data: b"\xff\xfe",
        lambda data: json.dumps(json.loads(data)).encode(),
        lambda data: data.replace(b'"version": 3', b'"version": 3, "version": 3'),
    ],
)
def test_anything_but_the_bytes_written_is_damage(change):
    with pytest.raises(IntegrityError, match="damaged"):
        unseal(change(sealed({"version": 3})), kind="commit", key="k")


def test_another_kind_of_document_is_refused():
    with pytest.raises(IntegrityError, match="akosha-memo/1"):
        unseal(seal({"format": "akosha-commit/1"}), kind="memo", key="k")


@pytest.mark.parametrize("format_", ["akosha-commit/", "akosha-commit", "akosha-commit/x", "akosha-commit/-1", None, 7])
def test_a_format_without_a_version_is_refused(format_):
    with pytest.raises(IntegrityError):
        unseal(seal({"format": format_}), kind="commit", key="k")


def test_a_newer_format_says_so():
    with pytest.raises(FormatVersionError, match="newer Akosha"):
        unseal(seal({"format": "akosha-commit/3"}), kind="commit", key="k")


def test_sealing_replaces_an_old_seal():
    once = seal({"format": "akosha-commit/1", "a": 1})
    assert seal(json.loads(once)) == once


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_lacks_are_never_written(value):
    with pytest.raises(ValueError, match="JSON"):
        render({"value": value})
