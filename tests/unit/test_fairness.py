"""Sharing a run out: bounded, oldest first in each system, nobody behind another's flood, nothing lost over the runs."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from akosha.uploads.fairness import Share, backlog_of, share_out
from akosha.uploads.memos import UploadRef
from akosha.uploads.schedule import upload_second

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
MEGABYTE = 1_000_000


def upload(system: str, minute: int, size: int = MEGABYTE) -> UploadRef:
    upload_id = f"{upload_second(NOW + timedelta(minutes=minute))}_{system}"
    return UploadRef(f"systems/{system}/uploads/{upload_id}/manifest.json", "e", system, upload_id, size)


uploads = st.builds(upload, st.sampled_from("abcde"), st.integers(-5_000, 0), st.integers(0, 5 * MEGABYTE))
some = st.lists(uploads, unique=True, max_size=60)
shares = st.builds(Share, *[st.integers(0, 8), st.integers(0, 9 * MEGABYTE)] * 2)


@given(some, shares)
def test_everything_is_either_taken_or_waits(due: list[UploadRef], share: Share):
    taken, rest = share_out(due, share)
    assert sorted([*taken, *rest], key=repr) == sorted(due, key=repr)
    assert bool(taken) == bool(due)


@given(some, shares)
def test_what_waits_of_a_system_is_newer_than_what_was_taken_of_it(due: list[UploadRef], share: Share):
    """So that a listing from the newest memo on finds it again."""
    taken, rest = share_out(due, share)
    for system in "abcde":
        last = max((ref.upload_id for ref in taken if ref.system_id == system), default="")
        assert all(ref.upload_id >= last for ref in rest if ref.system_id == system)


@given(some, shares)
def test_no_limit_is_passed_but_by_a_first_upload(due: list[UploadRef], share: Share):
    taken, _ = share_out(due, share)
    by_system = defaultdict(list)
    for ref in taken:
        by_system[ref.system_id].append(ref)
    for refs, most, most_bytes in [
        (taken, share.run_uploads, share.run_bytes),
        *((refs, share.system_uploads, share.system_bytes) for refs in by_system.values()),
    ]:
        assert not most or len(refs) <= most
        assert not most_bytes or len(refs) <= 1 or sum(ref.packed_bytes for ref in refs) <= most_bytes


@given(some, shares)
def test_runs_after_each_other_drain_the_backlog(due: list[UploadRef], share: Share):
    done, rest = [], due
    for _ in range(len(due)):
        taken, rest = share_out(rest, share)
        done += taken
    assert rest == []
    assert len(set(done)) == len(done) == len(due)


def test_one_huge_system_does_not_starve_the_others():
    flood = [upload("huge", -5_000 + minute, 100 * MEGABYTE) for minute in range(1_000)]
    others = [upload(f"small-{number}", -number) for number in range(50)]
    taken, rest = share_out([*flood, *others], Share(run_bytes=2_000 * MEGABYTE))
    assert {ref.system_id for ref in rest} == {"huge"}
    assert set(others) <= set(taken)
    assert [ref for ref in taken if ref.system_id == "huge"] == flood[:19]


def test_without_a_flood_nothing_is_limited():
    due = [upload("a", minute) for minute in range(-9, 0)]
    assert share_out(due, Share(500, 10**9, 20_000, 4 * 10**9)) == (due, [])
    assert share_out(due, Share()) == (due, [])


def test_a_large_old_upload_is_not_passed_over_for_ever():
    """New small ones arrive before every run; the large one is the oldest, so the next run begins with it."""
    large = upload("large", -100, 50 * MEGABYTE)
    taken, _ = share_out([large, *(upload(f"s{number}", 0) for number in range(20))], Share(run_bytes=10 * MEGABYTE))
    assert taken[0] == large


def test_a_backlog_says_how_much_and_how_old():
    refs = [upload("a", -120), upload("a", -60), upload("b", -5)]
    found = backlog_of(refs, NOW)
    assert (found.uploads, found.bytes, found.systems, found.oldest_seconds) == (3, 3 * MEGABYTE, 2, 7_200)
    assert backlog_of([], NOW).oldest_seconds == 0
    assert backlog_of([upload("a", 60)], NOW).oldest_seconds == 0
    assert backlog_of([UploadRef("systems/a/uploads/by-hand/manifest.json", "e", "a", "by-hand")], NOW).uploads == 1
