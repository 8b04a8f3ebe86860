"""What happens when a commit loses its race again and again: the job plans again, and in the end says so. Cites I17 and I18."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.integration.small_lake import NOW, full_lake

from akosha.errors import CommitConflictError, CommitUnknownError, IntegrityError, ObjectMissingError, UsageError
from akosha.lake import failpoints, shard_log
from akosha.lake.commits import Change, FileEntry
from akosha.lake.lake import Lake
from akosha.lake.layout import commit_key, commits_prefix, shard_of
from akosha.lake.schemas import KEY
from akosha.lake.shard_log import Writer
from akosha.lake.sweep import SweepOutcome, store_clock, sweep_shard
from akosha.lake.undo import undo_shard, version_at
from akosha.quality.fsck import fsck
from akosha.tiers import hot_to_warm, warm_to_cold
from akosha.tiers.promote import promote_shard

pytestmark = pytest.mark.integration

SHARD = shard_of("laptop-7")
WRITER = Writer("run-9", 1, NOW)
KEYS = pa.Table.from_pylist([dict(zip(KEY, ("laptop-7", "conversations", "warm-0003"), strict=True))])


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.hooks.clear()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return full_lake(tmp_path)[0]


def lose(times: int) -> list[str]:
    """Let the next commits lose their race; the points they lost it at."""
    lost: list[str] = []

    def hook(name: str) -> None:
        if name == "before commit" and len(lost) < times:
            lost.append(name)
            message = "somebody else was faster; plan again"
            raise CommitConflictError(message)

    failpoints.hooks.append(hook)
    return lost


def move(tier: str, lake: Lake) -> object:
    batch = hot_to_warm.move_batch if tier == "hot" else warm_to_cold.move_batch
    return batch(lake, [SHARD], lake.policy(), WRITER, as_of=NOW + timedelta(days={"hot": 40, "warm": 75}[tier]))


def undo(lake: Lake) -> object:
    return undo_shard(lake, SHARD, to_version=1, writer=WRITER, reason="a test")


ACTS: dict[str, Callable[[Lake], object]] = {
    "hot to warm": lambda lake: move("hot", lake),
    "warm to cold": lambda lake: move("warm", lake),
    "promote": lambda lake: promote_shard(lake, SHARD, KEYS, WRITER, hold_until=NOW + timedelta(days=30)),
    "undo": undo,
}


@pytest.mark.parametrize("name", ACTS)
def test_a_lost_race_is_planned_again(lake: Lake, name: str):
    before = lake.shard(SHARD).head()
    lost = lose(1)
    ACTS[name](lake)
    assert lost == ["before commit"]
    assert lake.shard(SHARD).head().version == before.version + 1


@pytest.mark.parametrize("name", ACTS)
def test_races_lost_without_end_are_said_to_be(lake: Lake, name: str):
    before = lake.shard(SHARD).head()
    lost = lose(99)
    with pytest.raises(CommitConflictError):
        ACTS[name](lake)
    assert 2 <= len(lost) < 99
    assert lake.shard(SHARD).head() == before


def test_a_sweep_that_lost_its_race_leaves_the_decision_to_the_next(lake: Lake):
    before = lake.shard(SHARD).head()
    later = datetime.now(UTC) + timedelta(days=90)
    lake.store.put("shards/077/hot/left-behind.duckdb", b"a staged file")
    lost = lose(1)
    outcome = sweep_shard(lake, SHARD, WRITER, now=later)
    assert lost
    assert (outcome.condemned, lake.shard(SHARD).head()) == (0, before)
    assert sweep_shard(lake, SHARD, WRITER, now=later).condemned


def sweep(lake: Lake) -> SweepOutcome:
    lake.store.put("shards/077/hot/left-behind.duckdb", b"a staged file")
    return sweep_shard(lake, SHARD, WRITER, now=datetime.now(UTC) + timedelta(days=90))


def overtaken_by_undo(lake: Lake) -> None:
    """Let an undo come right before the next commit."""

    def overtake(point: str) -> None:
        if point == "before commit":
            failpoints.hooks.clear()
            undo(lake)

    failpoints.hooks.append(overtake)


@pytest.mark.parametrize("name", ["hot to warm", "warm to cold", "promote", "sweep"])
def test_a_commit_that_an_undo_overtakes_changes_nothing(lake: Lake, name: str):
    """I28: the shard is held from the undo on, also for what was planned and staged before it."""
    version = lake.shard(SHARD).head().version
    overtaken_by_undo(lake)
    (ACTS | {"sweep": sweep})[name](lake)
    head = lake.shard(SHARD).head()
    assert (head.version, head.operation, head.condemned) == (version + 1, "undo", ())
    assert fsck(lake, read_data=True).ok


def test_a_move_that_lost_its_race_to_an_undo_waits(lake: Lake):
    """I28: what it would plan again is held by then."""

    def overtake(point: str) -> None:
        if point == "before commit":
            failpoints.hooks.clear()
            undo(lake)
            message = "the undo was faster; plan again"
            raise CommitConflictError(message)

    failpoints.hooks.append(overtake)
    (outcome,), _ = hot_to_warm.move_batch(lake, [SHARD], lake.policy(), WRITER, as_of=NOW + timedelta(days=40))
    assert (outcome.rows, "held after an undo" in outcome.waits_for) == (0, True)
    assert lake.shard(SHARD).head().operation == "undo"
    assert fsck(lake, read_data=True).ok


def test_a_sweep_that_an_undo_overtakes_says_that_it_condemned_nothing(lake: Lake):
    overtaken_by_undo(lake)
    outcome = sweep(lake)
    assert "held after an undo" in outcome.waits_for
    assert (outcome.condemned, outcome.condemned_bytes) == (0, 0)


def test_a_store_in_which_things_vanish_has_no_clock(lake: Lake):
    def vanish(name: str) -> None:
        if name == "before stat":
            for path in Path(str(lake.store.local_path("probe"))).iterdir():
                path.unlink()

    failpoints.hooks.append(vanish)
    with pytest.raises(ObjectMissingError, match="just written"):
        store_clock(lake.store)


def test_the_version_of_an_instant_is_the_newest_before_it(lake: Lake):
    log = lake.shard(SHARD)
    head = log.head()
    assert version_at(log, head, NOW) == 1
    assert version_at(log, head, NOW - timedelta(days=1)) == 0
    lake.store.delete(commit_key(SHARD, 1))
    with pytest.raises(UsageError, match="the oldest is 2"):
        version_at(log, head, NOW)


def file(name: str) -> FileEntry:
    return FileEntry("hot", "lake", f"shards/077/hot/{name}.duckdb", 10, 1, "aa", NOW.isoformat(), NOW.isoformat())


def test_a_writer_that_every_other_overtakes_gives_up(lake: Lake, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shard_log, "REBASE_ATTEMPTS", 3)
    log = lake.shard(SHARD)
    made: list[str] = []

    def overtake(name: str) -> None:
        if name == "before commit":
            failpoints.hooks.clear()
            made.append(f"other-{len(made)}")
            log.publish(log.head(), Change("ingest", add=(file(made[-1]),)), WRITER)
            failpoints.hooks.append(overtake)

    failpoints.hooks.append(overtake)
    with pytest.raises(CommitConflictError, match="won every version"):
        log.publish(log.head(), Change("ingest", add=(file("mine"),)), WRITER)
    assert len(made) == 3


def test_a_refusal_by_a_document_that_cannot_be_read_is_of_unknown_outcome(lake: Lake, monkeypatch: pytest.MonkeyPatch):
    """I18."""
    monkeypatch.setattr(shard_log, "FIRST_WAIT_SECONDS", 0)
    log = lake.shard(SHARD)
    head = log.head()
    key = commit_key(SHARD, head.version + 1)

    def vanish(name: str) -> None:
        if name == "before link":
            failpoints.hooks.clear()
            lake.store.put(key, b"{}")
            failpoints.hooks.append(vanish)
        if name == "before read":
            path = lake.store.local_path(key)
            assert path is not None
            path.unlink(missing_ok=True)

    failpoints.hooks.append(vanish)
    with pytest.raises(CommitUnknownError):
        log.publish(head, Change("ingest", add=(file("mine"),)), WRITER)


def test_what_is_no_commit_is_no_version(lake: Lake):
    log = lake.shard(SHARD)
    before = list(log.versions())
    lake.store.put(f"{commits_prefix(SHARD)}zzz.txt", b"left by somebody")
    assert list(log.versions()) == before


def test_a_code_too_far_from_its_vector_is_refused():
    """I2: more than half a step."""
    vectors = np.ones((1, 384), np.float32)
    with pytest.raises(IntegrityError, match="half a step"):
        hot_to_warm._check_bound(vectors, vectors + 1, np.full(1, 0.01, np.float32))


def test_a_move_of_a_held_shard_waits(lake: Lake):
    undo(lake)
    before = lake.shard(SHARD).head()
    for tier in ("hot", "warm"):
        move(tier, lake)
    ACTS["promote"](lake)
    assert lake.shard(SHARD).head() == replace(before)
