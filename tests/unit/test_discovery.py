"""Finding uploads: the listing is the truth, memos say what is done, a recent listing costs what is due."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from akosha.lake.layout import shard_of
from akosha.lake.local_store import LocalStore
from akosha.lake.objects import ObjectInfo
from akosha.uploads.discovery import Discovery, discover, find_systems, first_folders
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
from akosha.uploads.schedule import Scope, due_scopes, scope_of

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


NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


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


def everything(uploads: LocalStore, lake: LocalStore) -> Discovery:
    return discover(uploads, lake, first_folders(uploads))


def recent(uploads: LocalStore, lake: LocalStore, newest: dict[str, datetime], at: datetime = NOW) -> Discovery:
    return discover(uploads, lake, due_scopes(find_systems(uploads, newest), newest, at, frozenset(range(96))))


def named(listed: Discovery) -> list[tuple[str, str]]:
    return [(ref.system_id, ref.upload_id[:15]) for ref in listed.due]


def found(uploads: LocalStore, lake: LocalStore) -> list[tuple[str, str]]:
    return named(everything(uploads, lake))


def test_systems_are_found_whatever_their_names(uploads: LocalStore, lake: LocalStore):
    for system_id in SYSTEMS:
        put(uploads, system_id, "20261120_120000")
    assert find_systems(uploads, ()) == sorted(SYSTEMS)
    for listed in (everything(uploads, lake), recent(uploads, lake, {})):
        assert (listed.systems, listed.manifests) == (set(SYSTEMS), len(SYSTEMS))
        assert {ref.system_id: ref.upload_id for ref in listed.due} == {
            system_id: f"20261120_120000_{system_id}" for system_id in SYSTEMS
        }


def test_a_known_system_costs_no_request_to_find(uploads: LocalStore):
    """Of unknown folders, and those that hold nested systems, each costs one."""
    for system_id in SYSTEMS:
        put(uploads, system_id, "20261120_120000")
    assert find_systems(uploads, SYSTEMS) == sorted(SYSTEMS)
    before = uploads.requests.lists
    find_systems(uploads, SYSTEMS)
    assert uploads.requests.lists - before == 3, "systems/, systems/team/ and systems/team/sub/"
    put(uploads, "new", "20261120_120000")
    assert "new" in find_systems(uploads, SYSTEMS)
    put(uploads, "team/new", "20261120_120000")
    assert "team/new" in find_systems(uploads, SYSTEMS)


def test_a_new_system_below_a_known_one_is_found_by_the_next_full_listing(uploads: LocalStore, lake: LocalStore):
    put(uploads, "laptop", "20261120_120000")
    put(uploads, "laptop/vm", "20261120_120000")
    assert find_systems(uploads, ["laptop"]) == ["laptop"]
    assert ("laptop/vm", "20261120_120000") in found(uploads, lake)


def test_an_upload_without_a_manifest_is_not_one_yet(uploads: LocalStore, lake: LocalStore):
    put(uploads, "laptop-7", "20261120_120000", manifest=False)
    assert found(uploads, lake) == []
    uploads.put("stray/manifest.json", b"")
    uploads.put("systems/laptop-7/manifest.json", b"")
    assert found(uploads, lake) == []


def test_what_has_a_memo_is_not_due(uploads: LocalStore, lake: LocalStore):
    for second in ("20261118_120000", "20261119_120000", "20261120_120000"):
        put(uploads, "laptop-7", second)
    first, second, _ = everything(uploads, lake).due
    write_memo(lake, first, APPLIED, {})
    write_memo(lake, second, QUARANTINED, {"reason": "damaged"})
    assert found(uploads, lake) == [("laptop-7", "20261120_120000")]


def test_an_upload_that_was_replaced_is_due_again(uploads: LocalStore, lake: LocalStore):
    key = put(uploads, "laptop-7", "20261120_120000")
    write_memo(lake, everything(uploads, lake).due[0], APPLIED, {})
    assert found(uploads, lake) == []
    uploads.put(key, b"another manifest")
    assert found(uploads, lake) == [("laptop-7", "20261120_120000")]


def test_an_odd_upload_id_has_a_memo_as_well(uploads: LocalStore, lake: LocalStore):
    uploads.put("systems/laptop-7/uploads/by-hand/manifest.json", b"x")
    put(uploads, "laptop-7", "20261120_120000")
    for ref in everything(uploads, lake).due:
        write_memo(lake, ref, APPLIED, {})
    assert found(uploads, lake) == []
    uploads.put("systems/laptop-7/uploads/by-hand/manifest.json", b"another")
    assert [ref.upload_id for ref in everything(uploads, lake).due] == ["by-hand"]


def test_a_recent_listing_looks_back_48_hours(uploads: LocalStore, lake: LocalStore):
    for second in ("20261115_120000", "20261118_115959", "20261118_120000", "20261121_000000"):
        put(uploads, "laptop-7", second)
    newest = {"laptop-7": datetime(2026, 11, 20, 12, tzinfo=UTC)}
    listed = recent(uploads, lake, newest)
    assert [second for _, second in named(listed)] == ["20261118_120000", "20261121_000000"]
    assert len(found(uploads, lake)) == 4


def test_a_manifest_dated_in_the_future_does_not_make_discovery_blind(uploads: LocalStore, lake: LocalStore):
    put(uploads, "laptop-7", "20261121_110000")
    newest = {"laptop-7": datetime(2099, 1, 1, tzinfo=UTC)}
    assert named(recent(uploads, lake, newest)) == [("laptop-7", "20261121_110000")]


def test_a_system_never_seen_is_listed_whole_by_a_recent_listing(uploads: LocalStore, lake: LocalStore):
    put(uploads, "old-laptop", "20200101_000000")
    newest = {"laptop-7": datetime(2026, 11, 20, 12, tzinfo=UTC)}
    assert named(recent(uploads, lake, newest)) == [("old-laptop", "20200101_000000")]


class Counting(LocalStore):
    listed = 0

    def list(self, prefix: str, *, start_after: str = "", limit: int = 0) -> Iterator[ObjectInfo]:
        for one in super().list(prefix, start_after=start_after, limit=limit):
            self.listed += 1
            yield one


def test_a_recent_listing_does_not_read_what_is_old(uploads: LocalStore, lake: LocalStore):
    """Its cost is proportional to what is new."""
    for number in range(30):
        put(uploads, "laptop-7", f"2026{1 + number // 28:02d}{1 + number % 28:02d}_000000")
    for ref in everything(uploads, lake).due:
        write_memo(lake, ref, APPLIED, {})
    put(uploads, "laptop-7", "20261120_120000")
    counting, memos = (Counting(store.root, setting="X") for store in (uploads, lake))
    newest = {"laptop-7": datetime(2026, 11, 20, tzinfo=UTC)}
    assert len(recent(counting, memos, newest).due) == 1
    assert counting.listed == 2
    assert memos.listed == 0


def test_the_memos_of_an_idle_system_are_looked_up_by_day(uploads: LocalStore, lake: LocalStore):
    """Neither days nor uploads of others in its shard since then are read past."""
    put(uploads, "idle", "20260301_120000")
    (ref,) = everything(uploads, lake).due
    write_memo(lake, ref, APPLIED, {})
    for day in range(1, 29):
        write_memo(lake, replace(ref, manifest_key="other", upload_id=f"202604{day:02d}_000000"), APPLIED, {})
    memos = Counting(lake.root, setting="X")
    listed = recent(uploads, memos, {"idle": datetime(2026, 3, 1, 12, tzinfo=UTC)})
    assert (listed.due, listed.known) == ([], 1)
    assert (memos.listed, memos.requests.lists) == (2, 2), "one of them is that of the quarantine"


def test_the_newest_upload_with_a_memo_is_remembered(uploads: LocalStore, lake: LocalStore):
    for second in ("20261118_120000", "20261119_120000", "20261120_120000"):
        put(uploads, "laptop-7", second)
    for ref in everything(uploads, lake).due[:2]:
        write_memo(lake, ref, QUARANTINED, {"reason": "damaged"})
    assert everything(uploads, lake).newest == {"laptop-7": datetime(2026, 11, 19, 12, tzinfo=UTC)}


def test_a_listing_can_be_narrowed(uploads: LocalStore, lake: LocalStore):
    for system_id in SYSTEMS:
        put(uploads, system_id, "20261120_120000")
    assert named(discover(uploads, lake, [scope_of("team")])) == [("team", "20261120_120000")]
    shard = shard_of("dev box 3")
    listed = discover(uploads, lake, first_folders(uploads), wanted=lambda ref: ref.shard == shard)
    assert named(listed) == [("dev box 3", "20261120_120000")]
    assert named(discover(uploads, lake, [scope_of("nobody")])) == []


def test_a_scope_ends_before_its_end(uploads: LocalStore, lake: LocalStore):
    for second in ("20261118_120000", "20261119_120000", "20261120_120000"):
        put(uploads, "laptop-7", second)
    scope = scope_of("laptop-7", "20261119_120000", "20261120_120000")
    assert named(discover(uploads, lake, [scope])) == [("laptop-7", "20261119_120000")]


def test_a_budget_leaves_the_rest_over_and_always_lists_something(uploads: LocalStore, lake: LocalStore):
    for system_id in SYSTEMS:
        put(uploads, system_id, "20261120_120000")
    scopes, seen = [scope_of(system_id) for system_id in SYSTEMS], set[str]()
    for _ in range(len(SYSTEMS)):
        listed = discover(uploads, lake, scopes, budget=1)
        assert listed.scopes == 1
        assert listed.left == scopes[1:]
        seen |= listed.systems
        scopes = listed.left
    assert (seen, scopes) == (set(SYSTEMS), [])


class MeetingStore(LocalStore):
    """Answers the listing of a scope only when that of another one has been asked for as well."""

    meeting = threading.Barrier(2, timeout=20)

    def list(self, prefix: str, *, start_after: str = "", limit: int = 0) -> Iterator[ObjectInfo]:
        self.meeting.wait()
        return super().list(prefix, start_after=start_after, limit=limit)


def test_scopes_are_listed_together_and_come_in_order(uploads: LocalStore, lake: LocalStore):
    for system_id in SYSTEMS:
        put(uploads, system_id, "20261120_120000")
        uploads.put(f"systems/{system_id}/uploads/line\nbreak/manifest.json", b"x")
    scopes = [scope_of(system_id) for system_id in SYSTEMS]
    one_by_one = [discover(uploads, lake, [scope]) for scope in scopes]
    together = discover(MeetingStore(uploads.root, setting="AKOSHA_UPLOADS_URL"), lake, scopes)
    assert together.due == [ref for found in one_by_one for ref in found.due]
    assert together.unusable == [key for found in one_by_one for key in found.unusable]
    assert (together.scopes, len(together.unusable)) == (len(SYSTEMS), len(SYSTEMS))


def test_manifests_under_keys_that_cannot_be_one_are_named(uploads: LocalStore, lake: LocalStore):
    uploads.put("systems/laptop-7/uploads/line\nbreak/manifest.json", b"x")
    put(uploads, "laptop-7", "20261120_120000")
    for listed in (everything(uploads, lake), recent(uploads, lake, {})):
        assert listed.unusable == ["systems/laptop-7/uploads/line\nbreak/manifest.json"]
        assert len(listed.due) == 1


def test_an_upload_reached_through_two_parts_is_due_once(uploads: LocalStore, lake: LocalStore):
    put(uploads, "a/uploads/b", "20261120_120000")
    scopes = [scope_of("a"), scope_of("a/uploads/b"), Scope("a/")]
    assert named(discover(uploads, lake, scopes)) == [("a/uploads/b", "20261120_120000")]


def test_what_has_a_memo_is_found_again_when_asked_for(uploads: LocalStore, lake: LocalStore):
    put(uploads, "laptop-7", "20261120_120000")
    write_memo(lake, everything(uploads, lake).due[0], APPLIED, {})
    listed = discover(uploads, lake, first_folders(uploads), again=True)
    assert (len(listed.due), listed.known) == (1, 1)


def test_memos_move_out_of_quarantine_when_an_upload_is_applied(uploads: LocalStore, lake: LocalStore):
    put(uploads, "laptop-7", "20261120_120000")
    (ref,) = everything(uploads, lake).due
    write_memo(lake, ref, QUARANTINED, {"reason": "damaged", "message": "why", "at": "2026-11-20T12:00:00+00:00"})
    (key,) = quarantined(lake)
    memo = read_memo(lake, key)
    assert memo["reason"] == "damaged"
    assert upload_of(memo) == replace(ref, packed_bytes=0, beside="")
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
    (ref,) = everything(uploads, lake).due
    write_memo(lake, ref, QUARANTINED, {"reason": "damaged", "message": "why", "at": "2026-11-20T12:00:00+00:00"})
    write_memo(lake, ref, REPLACED, {"reason": "damaged", "message": "why"})
    assert list(quarantined(lake)) == []
    assert read_memo(lake, ref.memo_key)["reason"] == "damaged"
