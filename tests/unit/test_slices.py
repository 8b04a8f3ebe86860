from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from akosha.jobs.slices import WHOLE, Part, Slice, done_after, part_of, take
from akosha.lake.commits import FileEntry

START = datetime(2026, 11, 1, tzinfo=UTC)
CUTOFF = START + timedelta(days=1_000)


def entry(name: str, first: int, last: int, size: int = 10) -> FileEntry:
    """A file of records created from day `first` to day `last`."""
    begin, end = ((START + timedelta(days=day)).isoformat() for day in (first, last))
    return FileEntry("hot", "lake", name, 5, size, "0" * 64, begin, end)


def part(shard: int, *entries: FileEntry) -> Part:
    made = part_of(shard, entries, {})
    assert made is not None
    return made


def shards(piece: Slice) -> list[int]:
    return [one.part.shard for one in piece.taken]


def test_without_a_limit_everything_is_taken_and_nothing_left():
    piece = take([part(1, entry("a", 5, 6)), part(2, entry("b", 1, 2))], 0, {})
    assert (shards(piece), piece.left) == ([2, 1], ())
    assert all(one.until is None for one in piece.taken)


def test_the_shard_with_the_oldest_records_goes_first_and_the_rest_is_left():
    parts = [part(1, entry("a", 5, 6)), part(2, entry("b", 1, 2)), part(3, entry("c", 9, 9))]
    piece = take(parts, 20, {})
    assert (shards(piece), [one.shard for one in piece.left]) == ([2, 1], [3])


def test_a_shard_that_does_not_fit_is_cut_by_age():
    heavy = part(7, *(entry(f"f{day}", day, day) for day in range(6)))
    piece = take([heavy], 25, {})
    [cut] = piece.taken
    assert cut.until == START + timedelta(days=2)
    assert [one.path for one in cut.part.entries] == ["f0", "f1"]
    assert [one.path for one in piece.left[0].entries] == ["f2", "f3", "f4", "f5"]


def test_a_file_larger_than_the_limit_is_taken_alone():
    piece = take([part(7, entry("huge", 0, 3, size=1_000), entry("next", 4, 5))], 25, {})
    [cut] = piece.taken
    assert [one.path for one in cut.part.entries] == ["huge"]
    assert [one.path for one in piece.left[0].entries] == ["next"]


def test_what_is_done_is_not_taken_again_and_a_cut_shard_goes_on_behind_its_cut():
    done = {"3": WHOLE, "7": (START + timedelta(days=2)).isoformat()}
    assert part_of(3, [entry("a", 0, 1)], done) is None
    rest = part_of(7, [entry("moved", 0, 1), entry("across", 1, 3), entry("later", 5, 6)], done)
    assert rest is not None
    assert [one.path for one in rest.entries] == ["across", "later"]
    assert part_of(7, [entry("waits", 0, 1)], done) is None


files = st.tuples(st.integers(0, 30), st.integers(0, 10), st.integers(1, 60))


@given(
    lake=st.dictionaries(st.integers(0, 255), st.lists(files, min_size=1, max_size=6), max_size=6),
    limit=st.integers(1, 100),
)
def test_slices_end_and_reach_every_record_even_when_nothing_moves(lake, limit):
    """Records may wait (for a vector, pinned): a chain of slices must pass them, or they would starve the others."""
    heads = {
        shard: [entry(f"{shard}-{n}", first, first + more, size) for n, (first, more, size) in enumerate(rows)]
        for shard, rows in lake.items()
    }
    reached: dict[int, datetime] = {}
    done: dict[str, str] = {}
    total = sum(len(rows) for rows in heads.values())
    for _ in range(total + 1):
        parts = [part_of(shard, rows, done) for shard, rows in heads.items()]
        piece = take([one for one in parts if one], limit, done)
        for one in piece.taken:
            assert one.until is None or one.until > reached.get(one.part.shard, START - timedelta(days=1))
            reached[one.part.shard] = one.until or CUTOFF
        done = done_after(done, piece.taken)
        if not piece.left:
            break
        assert piece.taken
    else:
        pytest.fail("the slices do not end")
    assert reached == dict.fromkeys(heads, CUTOFF)


@given(rows=st.lists(files, min_size=2, max_size=12), limit=st.integers(1, 200))
def test_a_slice_takes_no_more_than_the_limit_unless_files_cannot_be_told_apart(rows, limit):
    one = part(5, *(entry(f"f{n}", first, first + more, size) for n, (first, more, size) in enumerate(rows)))
    piece = take([one], limit, {})
    [taken] = piece.taken
    begin = {file.first for file in taken.part.entries}
    assert taken.part.size_bytes <= limit or len(begin) == 1 or not piece.left
