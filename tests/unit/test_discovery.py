"""Finding uploads: the listing is the truth, memos say what is done, a recent listing costs what is new."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from akosha.lake.layout import shard_of
from akosha.lake.local_store import LocalStore
from akosha.lake.objects import ObjectInfo
from akosha.uploads.discovery import discover, list_systems
from akosha.uploads.memos import (
    APPLIED,
    QUARANTINED,
    REPLACED,
    UploadRef,
    quarantined,
    read_memo,
    upload_of,
    write_memo,
)

SYSTEMS = [
    "les-mbp.local",
    "dev box 3",
    "東京-ws.example",
    "team/ci-runner",
    "team/sub/deep",
    "team",
    "uploads",
    "4f1d",
]


@pytest.fixture
def uploads(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "uploads", setting="AKOSHA_UPLOADS_URL")


@pytest.fixture
def lake(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "lake", setting="AKOSHA_LAKE_URL")


def put(store: LocalStore, system_id: str, second: str, *, manifest: bool = True) -> str:
    folder = f"systems/{system_id}/uploads/{second}_{system_id}"
    store.put(f"{folder}/reflection.duckdb", b"data")
    if manifest:
        store.put(f"{folder}/manifest.json", second.encode())
    return f"{folder}/manifest.json"


def found(uploads: LocalStore, lake: LocalStore, **given) -> list[tuple[str, str]]:
    given.setdefault("newest", {})
    return [(ref.system_id, ref.upload_id[:15]) for ref in discover(uploads, lake, **given).due]


def test_systems_are_found_whatever_their_names(uploads: LocalStore, lake: LocalStore):
    for system_id in SYSTEMS:
        put(uploads, system_id, "20261120_120000")
    assert sorted(list_systems(uploads)) == sorted(SYSTEMS)
    listed = discover(uploads, lake, newest={})
    assert (listed.systems, listed.manifests) == (len(SYSTEMS), len(SYSTEMS))
    assert {ref.system_id: ref.upload_id for ref in listed.due} == {
        system_id: f"20261120_120000_{system_id}" for system_id in SYSTEMS
    }


def test_an_upload_without_a_manifest_is_not_one_yet(uploads: LocalStore, lake: LocalStore):
    put(uploads, "laptop-7", "20261120_120000", manifest=False)
    assert found(uploads, lake) == []
    uploads.put("stray/manifest.json", b"")
    uploads.put("systems/laptop-7/manifest.json", b"")
    assert found(uploads, lake) == []


def test_what_has_a_memo_is_not_due(uploads: LocalStore, lake: LocalStore):
    for second in ("20261118_120000", "20261119_120000", "20261120_120000"):
        put(uploads, "laptop-7", second)
    first, second, _ = discover(uploads, lake, newest={}).due
    write_memo(lake, first, APPLIED, {})
    write_memo(lake, second, QUARANTINED, {"reason": "damaged"})
    assert found(uploads, lake) == [("laptop-7", "20261120_120000")]


def test_an_upload_that_was_replaced_is_due_again(uploads: LocalStore, lake: LocalStore):
    key = put(uploads, "laptop-7", "20261120_120000")
    write_memo(lake, discover(uploads, lake, newest={}).due[0], APPLIED, {})
    assert found(uploads, lake) == []
    uploads.put(key, b"another manifest")
    assert found(uploads, lake) == [("laptop-7", "20261120_120000")]


def test_an_odd_upload_id_has_a_memo_as_well(uploads: LocalStore, lake: LocalStore):
    uploads.put("systems/laptop-7/uploads/by-hand/manifest.json", b"x")
    put(uploads, "laptop-7", "20261120_120000")
    for ref in discover(uploads, lake, newest={}).due:
        write_memo(lake, ref, APPLIED, {})
    assert found(uploads, lake) == []
    uploads.put("systems/laptop-7/uploads/by-hand/manifest.json", b"another")
    assert [ref.upload_id for ref in discover(uploads, lake, newest={}).due] == ["by-hand"]


def test_a_recent_listing_looks_back_48_hours(uploads: LocalStore, lake: LocalStore):
    for second in ("20261115_120000", "20261118_115959", "20261118_120001", "20261121_000000"):
        put(uploads, "laptop-7", second)
    newest = {"laptop-7": datetime(2026, 11, 20, 12, tzinfo=UTC)}
    assert [second for _, second in found(uploads, lake, newest=newest)] == ["20261118_120001", "20261121_000000"]
    assert len(found(uploads, lake)) == 4


def test_a_system_never_seen_is_listed_whole_by_a_recent_listing(uploads: LocalStore, lake: LocalStore):
    put(uploads, "old-laptop", "20200101_000000")
    newest = {"laptop-7": datetime(2026, 11, 20, 12, tzinfo=UTC)}
    assert found(uploads, lake, newest=newest) == [("old-laptop", "20200101_000000")]


def test_a_recent_listing_does_not_read_what_is_old(uploads: LocalStore, lake: LocalStore):
    """Its cost is proportional to what is new."""

    class Counting(LocalStore):
        listed = 0

        def list(self, prefix: str, *, start_after: str = "", limit: int = 0) -> Iterator[ObjectInfo]:
            for one in super().list(prefix, start_after=start_after, limit=limit):
                self.listed += 1
                yield one

    for number in range(30):
        put(uploads, "laptop-7", f"2026{1 + number // 28:02d}{1 + number % 28:02d}_000000")
    for ref in discover(uploads, lake, newest={}).due:
        write_memo(lake, ref, APPLIED, {})
    put(uploads, "laptop-7", "20261120_120000")
    counting, memos = (Counting(store.root, setting="X") for store in (uploads, lake))
    newest = {"laptop-7": datetime(2026, 11, 20, tzinfo=UTC)}
    assert len(discover(counting, memos, newest=newest).due) == 1
    assert counting.listed == 2
    assert memos.listed == 0


def test_a_listing_can_be_narrowed(uploads: LocalStore, lake: LocalStore):
    for system_id in SYSTEMS:
        put(uploads, system_id, "20261120_120000")
    assert found(uploads, lake, system="team") == [("team", "20261120_120000")]
    shard = shard_of("dev box 3")
    assert found(uploads, lake, shard=shard) == [("dev box 3", "20261120_120000")]
    assert found(uploads, lake, system="nobody") == []


def test_memos_move_out_of_quarantine_when_an_upload_is_applied(uploads: LocalStore, lake: LocalStore):
    put(uploads, "laptop-7", "20261120_120000")
    (ref,) = discover(uploads, lake, newest={}).due
    write_memo(lake, ref, QUARANTINED, {"reason": "damaged", "message": "why", "at": "2026-11-20T12:00:00+00:00"})
    (key,) = quarantined(lake)
    memo = read_memo(lake, key)
    assert memo["reason"] == "damaged"
    assert upload_of(memo) == replace(ref, packed_bytes=0)
    write_memo(lake, ref, APPLIED, {"new": 3})
    assert list(quarantined(lake)) == []
    assert read_memo(lake, ref.memo_key)["new"] == 3


@pytest.mark.parametrize(
    ("upload_id", "day"),
    [("20261120_120000_x", "2026-11-20"), ("20261320_120000_x", "0000-00-00"), ("by-hand", "0000-00-00")],
)
def test_a_memo_lies_under_the_day_of_its_upload(upload_id: str, day: str):
    ref = UploadRef("systems/x/uploads/1/manifest.json", "e", "x", upload_id)
    assert ref.memo_key.startswith(f"uploads/{shard_of('x'):03d}/{day}/")


def test_a_replaced_upload_leaves_quarantine_with_its_evidence(uploads: LocalStore, lake: LocalStore):
    put(uploads, "laptop-7", "20261120_120000")
    (ref,) = discover(uploads, lake, newest={}).due
    write_memo(lake, ref, QUARANTINED, {"reason": "damaged", "message": "why", "at": "2026-11-20T12:00:00+00:00"})
    write_memo(lake, ref, REPLACED, {"reason": "damaged", "message": "why"})
    assert list(quarantined(lake)) == []
    assert read_memo(lake, ref.memo_key)["reason"] == "damaged"
