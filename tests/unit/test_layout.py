"""Cites I9 and I16: paths are never used twice, a system lives in one shard for ever."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from akosha.lake import layout

VERSIONS = st.integers(1, layout.LAST_VERSION)
SHARDS = st.integers(0, layout.SHARDS - 1)


def test_the_shard_of_laptop_7_is_77():
    assert layout.shard_of("laptop-7") == 77


@given(st.text())
def test_a_shard_is_the_digest_of_the_name_modulo_256(system_id: str):
    digest = hashlib.sha256(system_id.encode("utf-8", "surrogatepass")).hexdigest()
    assert layout.shard_of(system_id) == int(digest, 16) % 256


@given(SHARDS, VERSIONS)
def test_a_commit_key_says_its_shard_and_version(shard: int, version: int):
    assert layout.parse_commit_key(layout.commit_key(shard, version)) == (shard, version)


@given(VERSIONS, VERSIONS)
def test_a_newer_commit_is_listed_first(one: int, other: int):
    keys = sorted(layout.commit_key(17, version) for version in (one, other))
    assert keys[0] == layout.commit_key(17, max(one, other))


def test_a_commit_key_reads_as_published():
    assert layout.commit_key(17, 42) == "shards/017/commits/99999957-00000042.json"


@pytest.mark.parametrize(
    "key",
    [
        "shards/017/commits/99999957-00000043.json",
        "shards/17/commits/99999957-00000042.json",
        "shards/017/commits/99999957-00000042.json.part",
        "shards/017/commits/.99999957-00000042.json",
        "shards/017/hot/99999957-00000042.json",
        "x/shards/017/commits/99999957-00000042.json",
        "",
    ],
)
def test_any_other_name_is_no_commit(key: str):
    assert layout.parse_commit_key(key) is None


@pytest.mark.parametrize(("kind", "start"), [("hot", "shards/003/hot/"), ("cold", "shards/003/")])
def test_file_names_are_never_used_twice(kind: str, start: str):
    made = {layout.new_file_key(3, kind) for _ in range(100)}
    assert len(made) == 100
    assert all(key.startswith(start) and key.endswith(layout.SUFFIX[kind]) for key in made)


def test_a_memo_is_named_after_manifest_and_etag():
    key = layout.memo_key(77, "2026-11-20", "systems/laptop-7/uploads/x/manifest.json", "etag")
    name = hashlib.sha256(b"systems/laptop-7/uploads/x/manifest.json\netag").hexdigest()
    assert key == f"uploads/077/2026-11-20/{name}.json"
    assert layout.memo_key(77, "2026-11-20", "systems/laptop-7/uploads/x/manifest.json", "other") != key
