"""The sweep deletes what no retained version names, in two passes, and nothing else, wherever it is cut off. Cites I31, I17, I18."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.integration.small_lake import NOW, Shelf, memories, new_lake, publish, table_of
from tests.support.dying_store import DiedError, DyingStore, Fuse
from tests.support.installation import Installation

from akosha.errors import CommitConflictError, UsageError
from akosha.lake.commits import Commit, commit_document
from akosha.lake.documents import seal
from akosha.lake.edit import edit_shard
from akosha.lake.lake import Lake
from akosha.lake.layout import commit_key, commits_prefix, new_file_key, shard_of, shard_prefix
from akosha.lake.provenance import about
from akosha.lake.shard_log import Writer
from akosha.lake.sweep import SweepOutcome, store_clock, sweep_shard
from akosha.lake.undo import release_shard, undo_shard
from akosha.quality.fsck import fsck

pytestmark = pytest.mark.integration

SHARD = shard_of("laptop-7")
WRITER = Writer("sweeper", 1, NOW)
DAY = timedelta(days=1)


def put_hot(lake: Lake, count: int, *, first: int = 0) -> Commit:
    with edit_shard(lake, lake.shard(SHARD).head(), about()) as edit:
        edit.put("hot", table_of("hot", memories("laptop-7", "hot", first + count)[first:]))
        return edit.publish("ingest", WRITER, counts={})


def replace_all(lake: Lake, count: int) -> Commit:
    """Every hot file leaves, and one comes."""
    head = lake.shard(SHARD).head()
    with edit_shard(lake, head, about()) as edit:
        for entry in head.of_tier("hot"):
            edit.drop(entry, lake.rows(entry, ["record_id"]).column("row").to_numpy())
        edit.put("hot", table_of("hot", memories("laptop-7", "hot", count)))
        return edit.publish("embed", WRITER, counts={})


def aged(lake: Lake, age: timedelta) -> None:
    """Everything in the lake was written so much earlier."""
    root = Path(lake.settings.lake_url.removeprefix("file://"))
    for path in root.rglob("*"):
        if path.is_file():
            moment = path.stat().st_mtime - age.total_seconds()
            os.utime(path, (moment, moment))


def sweep(lake: Lake, *, dry_run: bool = False) -> SweepOutcome:
    return sweep_shard(lake, SHARD, WRITER, now=store_clock(lake.store), dry_run=dry_run)


def objects(lake: Lake) -> set[str]:
    return {found.key for found in lake.store.list("")}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = new_lake(tmp_path)
    publish(made, Shelf({"hot": memories("laptop-7", "hot", 20), "warm": memories("laptop-7", "warm", 6),
                         "cold": memories("laptop-7", "cold", 6)}))  # fmt: skip
    return made


def test_what_is_replaced_goes_after_retention_in_two_passes(lake: Lake):
    """I31."""
    old = lake.shard(SHARD).head()
    replace_all(lake, 20)
    before = objects(lake)
    assert sweep(lake).condemned == 0
    aged(lake, 8 * DAY)
    dry = sweep(lake, dry_run=True)
    assert (dry.condemned, objects(lake)) == (1, before)
    first = sweep(lake)
    head = lake.shard(SHARD).head()
    assert (first.condemned, first.deleted, first.versions) == (1, 0, 0)
    assert (head.operation, head.sweeps, head.version) == ("sweep", 1, 3)
    assert head.condemned == tuple(sorted(old.paths - head.paths))
    assert before <= objects(lake)
    again = sweep(lake)
    assert (again.condemned, again.deleted, again.versions) == (0, 0, 1)
    assert lake.shard(SHARD).head() == head
    aged(lake, 2 * DAY)
    second = sweep(lake)
    assert (second.deleted, second.versions) == (1, 0)
    assert objects(lake) == before - set(head.condemned) - {commit_key(SHARD, 1)} | {commit_key(SHARD, 3)}
    assert fsck(lake, read_data=True).ok
    assert not fsck(lake, read_data=True).findings
    aged(lake, 30 * DAY)
    sweep(lake)
    settled = objects(lake)
    assert list(lake.shard(SHARD).versions()) == [3]
    sweep(lake)
    assert objects(lake) == settled


def test_a_nightly_sweep_of_a_busy_shard_keeps_up(lake: Lake):
    """I31: what is condemned tonight goes the night after the next at the latest, however often there is something new."""
    sizes = []
    for _ in range(20):
        replace_all(lake, 20)
        aged(lake, timedelta(hours=23))
        sweep(lake)
        sizes.append(len(objects(lake)))
    head = lake.shard(SHARD).head()
    kept = list(lake.shard(SHARD).versions())
    assert len(kept) <= 2 * 9
    assert max(sizes) < 40
    assert len(head.condemned) <= 3
    assert fsck(lake, read_data=True).ok


def test_staged_files_younger_than_the_grace_are_left_alone(lake: Lake):
    """I18."""
    key = new_file_key(SHARD, "hot")
    lake.store.put(key, b"staged by somebody whose commit is not decided yet")
    aged(lake, timedelta(hours=23))
    assert sweep(lake).condemned == 0
    aged(lake, timedelta(hours=2))
    assert sweep(lake).condemned == 1
    assert lake.shard(SHARD).head().condemned == (key,)


def test_a_writer_whose_files_were_condemned_is_refused(lake: Lake):
    """I31."""
    head = lake.shard(SHARD).head()
    with edit_shard(lake, head, about()) as edit:
        edit.put("hot", table_of("hot", memories("laptop-7", "hot", 30)[25:]))
        edit.stage()
        aged(lake, 2 * DAY)
        assert sweep(lake).condemned == 1
        with pytest.raises(CommitConflictError, match="condemned a staged file"):
            edit.publish("ingest", WRITER, counts={})


def test_a_writer_frozen_through_two_sweeps_plans_again(lake: Lake):
    """I31: the list of the condemned is that of the last sweep only."""
    planned_on = lake.shard(SHARD).head()
    with edit_shard(lake, planned_on, about()) as edit:
        edit.put("hot", table_of("hot", memories("laptop-7", "hot", 30)[25:]))
        edit.stage()
        for _ in range(2):
            aged(lake, 2 * DAY)
            lake.store.put(new_file_key(SHARD, "hot"), b"left by a killed writer")
            aged(lake, 2 * DAY)
            sweep(lake)
        head = lake.shard(SHARD).head()
        assert head.sweeps == 2
        with pytest.raises(CommitConflictError, match="swept twice"):
            edit.publish("ingest", WRITER, counts={})
    assert lake.shard(SHARD).head() == head
    assert fsck(lake, read_data=True).ok


def test_a_held_shard_is_not_swept(lake: Lake):
    replace_all(lake, 20)
    undo_shard(lake, SHARD, to_version=1, writer=WRITER, reason="")
    aged(lake, 30 * DAY)
    before = objects(lake)
    assert "is held after an undo" in sweep(lake).waits_for
    assert objects(lake) == before
    release_shard(lake, SHARD, WRITER)
    aged(lake, 30 * DAY)
    assert sweep(lake).condemned == 1


def test_a_condemned_version_cannot_be_gone_back_to(lake: Lake):
    replace_all(lake, 20)
    aged(lake, 8 * DAY)
    sweep(lake)
    with pytest.raises(UsageError, match="the sweep has condemned one of its files"):
        undo_shard(lake, SHARD, to_version=1, writer=WRITER, reason="")
    undo_shard(lake, SHARD, to_version=2, writer=WRITER, reason="")
    assert fsck(lake, read_data=True).ok


def test_what_a_killed_first_writer_left_in_a_shard_without_versions_goes(lake: Lake):
    """I31."""
    shard = shard_of("somebody else")
    lake.store.put(new_file_key(shard, "hot"), b"left by a killed writer")
    for condemned, deleted in ((1, 0), (0, 1)):
        aged(lake, 2 * DAY)
        done = sweep_shard(lake, shard, WRITER, now=store_clock(lake.store))
        assert (done.condemned, done.deleted) == (condemned, deleted)
    assert list(lake.store.list(shard_prefix(shard) + "hot/")) == []
    assert fsck(lake, read_data=True).ok


def test_what_is_no_commit_among_the_commits_is_left_alone(lake: Lake):
    """I31: nobody knows what it is, so nothing deletes it."""
    note = f"{commits_prefix(SHARD)}note.txt"
    lake.store.put(note, b"left by a person")
    for _ in range(3):
        aged(lake, 30 * DAY)
        sweep(lake)
    assert note in objects(lake)
    assert lake.shard(SHARD).head().version == 1


def test_a_void_document_below_the_chain_is_taken_away(lake: Lake):
    """I17: a writer that froze for weeks and was killed before it could look at the chain."""
    for _ in range(3):
        replace_all(lake, 20)
    void = replace(lake.shard(SHARD).read(1), commit_id="f" * 32)
    for version in (1, 2):
        lake.store.delete(commit_key(SHARD, version))
    lake.store.put(commit_key(SHARD, 1), seal(commit_document(void)))
    aged(lake, 2 * DAY)
    assert sweep(lake).strays == 1
    assert list(lake.shard(SHARD).versions()) == [5, 4, 3]


def test_cold_files_are_swept_in_their_own_root(lake: Lake):
    lake.cold.put(new_file_key(SHARD, "cold"), b"left by a killed writer")
    aged(lake, 2 * DAY)
    cold = {found.key for found in lake.cold.list("")}
    assert sweep(lake).condemned == 1
    aged(lake, 2 * DAY)
    assert sweep(lake).deleted == 1
    left = {found.key for found in lake.cold.list("")}
    assert len(cold - left) == 1
    assert fsck(lake, read_data=True).ok


@pytest.mark.parametrize("done", [False, True])
def test_a_sweep_killed_at_any_call_harms_nothing_and_is_finished_by_the_next(tmp_path: Path, done: bool):
    """I31, I3."""
    lake = new_lake(tmp_path)
    publish(lake, Shelf({"hot": memories("laptop-7", "hot", 8)}))
    for night in range(3):
        replace_all(lake, 8)
        aged(lake, 8 * DAY)
        if night:
            sweep(lake)
    aged(lake, 2 * DAY)
    replace_all(lake, 8)
    clock = datetime.now(UTC)
    deaths = 0
    while True:
        fuse = Fuse(deaths + 1, done=done)
        victim = Lake(lake.settings, DyingStore(lake.store, fuse), DyingStore(lake.cold, fuse), lake.identity)
        try:
            sweep_shard(victim, SHARD, WRITER, now=clock)
        except DiedError:
            deaths += 1
            report = fsck(lake, read_data=False)
            assert report.ok, report.findings
            continue
        break
    assert deaths >= 5
    aged(lake, 30 * DAY)
    for _ in range(3):
        sweep(lake)
        aged(lake, 2 * DAY)
    report = fsck(lake, read_data=True)
    assert report.ok
    assert not report.findings
    assert not lake.shard(SHARD).head().paths - objects(lake)


def test_the_job_sweeps_every_shard_scrubs_and_names_damage(lake: Lake, tmp_path: Path):
    """I7."""
    made = Installation.local(tmp_path)
    publish(lake, Shelf({"hot": memories("somebody else", "hot", 5)}))
    replace_all(lake, 20)
    aged(lake, 8 * DAY)
    dry = made.main("maintain", "--dry-run")
    assert (dry.returncode, "1 files of 0.1 MB would be condemned" in dry.stdout) == (0, True), dry.stdout
    done = made.main("maintain", "--json", scrub_days=1)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["counts"]["condemned"], summary["counts"]["scrubbed_findings"]) == (1, 0)
    assert summary["counts"]["scrubbed_files"] > 5
    head = lake.shard(SHARD).head()
    document = tmp_path / "lake" / commit_key(SHARD, 1)
    document.write_bytes(document.read_bytes()[:-20])
    other = lake.shard(shard_of("somebody else"))
    lake.store.put(new_file_key(other.shard, "hot"), b"left by a killed writer")
    aged(lake, 2 * DAY)
    damaged = made.main("maintain")
    assert damaged.returncode == 3
    assert f"shard {SHARD} was not swept" in damaged.stderr
    assert lake.shard(SHARD).head() == head
    assert other.head().operation == "sweep"


def test_folders_of_killed_processes_leave_the_cache_after_a_day(lake: Lake, tmp_path: Path):
    with lake.cache.scratch() as mine:
        theirs = mine.with_name("killed")
        (theirs / "plan").mkdir(parents=True)
        (theirs / "plan" / "rows.arrow").write_bytes(b"x")
        assert lake.cache.clear_scratch(before=datetime.now(UTC) - DAY) == 0
        old = time.time() - 2 * DAY.total_seconds()
        for path in (theirs / "plan" / "rows.arrow", theirs / "plan", theirs):
            os.utime(path, (old, old))
        assert lake.cache.clear_scratch(before=datetime.now(UTC) - DAY) == 1
        assert (mine.exists(), theirs.exists()) == (True, False)
