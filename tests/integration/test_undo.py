"""A shard goes back to a retained version, is held, and is let go: nothing is lost on the way, wherever it is cut off. Cites I28, I29, I30."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.dying_store import DiedError, DyingStore, Fuse
from tests.support.installation import Installation
from tests.support.uploads import Row, database, memory, put_upload, vectors

from akosha import jobs
from akosha.errors import ShardHeldError, UsageError
from akosha.jobs import reading
from akosha.lake.commits import Change, commit_document
from akosha.lake.documents import seal
from akosha.lake.edit import edit_shard
from akosha.lake.lake import Lake
from akosha.lake.layout import commit_key, is_memo_key, shard_of
from akosha.lake.objects import ObjectStore
from akosha.lake.shard_log import Writer
from akosha.lake.sweep import sweep_shard
from akosha.lake.undo import release_shard, undo_shard, undone_since
from akosha.lake.undone import set_aside, undone_uploads
from akosha.quality.fsck import fsck
from akosha.uploads.ingest import Ingester
from akosha.uploads.memos import APPLIED, UploadRef, write_memo
from akosha.uploads.prepare import Source
from akosha.uploads.sandbox import Sandbox

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
UNDOER = Writer("undo-run", 1, NOW)
SYSTEM = "laptop-7"
SHARD = shard_of(SYSTEM)


def rows(*numbers: int, age: float = 1) -> list[Row]:
    carried = vectors(50)
    return [memory(f"id-{n}", f"Note {n}. Set a deadline. Then measure.", NOW - age * DAY, carried[n]) for n in numbers]


def put(installation: Installation, moment: datetime, *numbers: int) -> str:
    return put_upload(installation.uploads, SYSTEM, moment, database({"conversations_v2": rows(*numbers)}))


def ids(installation: Installation) -> set[str]:
    return set(installation.export().column("record_id").to_pylist())


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three uploads taken in one by one: versions 1, 2, 3."""
    made = Installation.local(tmp_path_factory.mktemp("source"))
    Lake.create(made.settings, now=NOW)
    for number in range(3):
        put(made, NOW - 3 * HOUR + number * HOUR, *range(number + 1))
        made.ingest()
    assert made.lake.shard(SHARD).head().version == 3
    return made.folder


@pytest.fixture
def installation(source: Path, tmp_path: Path) -> Installation:
    """A copy of it."""
    shutil.copytree(source, tmp_path, dirs_exist_ok=True)
    return Installation.local(tmp_path)


def undo(installation: Installation, to_version: int, reason: str = "a test") -> Any:
    return undo_shard(installation.lake, SHARD, to_version=to_version, writer=UNDOER, reason=reason)


def release(installation: Installation, *, skip: bool = False) -> Any:
    return release_shard(installation.lake, SHARD, UNDOER, skip=skip)


def test_an_undo_is_a_commit_that_names_what_it_took_back_and_holds_the_shard(installation: Installation):
    """I28."""
    log = installation.lake.shard(SHARD)
    before = [log.read(version) for version in (3, 2)]
    undone = undo(installation, 1)
    assert (undone.version, undone.operation, undone.held_by) == (4, "undo", "undo-run")
    assert undone.undo.to_commit_id == log.read(1).commit_id
    assert [(one.version, one.commit_id) for one in undone.undo.undone] == [
        (one.version, one.commit_id) for one in before
    ]
    assert (undone.files, undone.keys) == (log.read(1).files, log.read(1).keys)
    assert log.head() == undone
    assert ids(installation) == {"id-0"}


def test_uploads_of_undone_commits_count_as_new_after_the_release(installation: Installation):
    """I29."""
    before = installation.export()
    undo(installation, 1)
    put(installation, NOW, 0, 1, 2, 7)
    held = installation.ingest()
    assert (held["counts"]["applied"], held["counts"]["held"]) == (0, 1)
    assert f"akosha release --shard {SHARD}" in held["message"]
    assert held["ok"]
    release(installation)
    assert installation.ingest()["counts"]["applied"] == 3
    assert ids(installation) == {"id-0", "id-1", "id-2", "id-7"}
    assert installation.ingest()["counts"]["due"] == 0
    undo(installation, 3)
    assert installation.export().equals(before)


def test_a_release_takes_all_in_again_where_a_sweep_deleted_an_undone_commit_at_that_moment(installation: Installation):
    """I29. The sweep had read its head before the undo was there."""
    before = installation.export()
    undo(installation, 1)
    for version in (1, 2):
        installation.lake.store.delete(commit_key(SHARD, version))
    refused = r"1 of its undone commits went with a sweep .* release without --skip"
    with pytest.raises(UsageError, match=refused):
        release(installation, skip=True)
    dry = installation.main("release", "--skip", "--dry-run")
    assert (dry.returncode, "went with a sweep" in dry.stderr) == (2, True)
    undo(installation, 3)
    undo(installation, 4)
    assert ids(installation) == {"id-0"}
    release(installation)
    assert installation.ingest()["counts"]["due"] == 2
    assert ids(installation) == {"id-0", "id-1", "id-2"}
    assert installation.export().equals(before)
    assert fsck(installation.lake, read_data=True).ok


def test_what_was_deleted_before_the_version_gone_back_to_stays_deleted(tmp_path: Path):
    """I29, I12. Also where a sweep deleted every commit but the head at the moment of the undo."""
    made = Installation.local(tmp_path)
    Lake.create(made.settings, now=NOW)
    for hours, numbers, policy in (
        (5, (0, 1), "--delete-absent"),
        (4, (0,), "--keep-absent"),
        (3, (0, 2), ""),
        (2, (0, 2, 3), ""),
    ):
        put(made, NOW - hours * HOUR, *numbers)
        made.ingest()
        assert not policy or made.main("policy", "set", policy, SYSTEM, "--yes").returncode == 0
    undo(made, 2)
    for version in range(1, 5):
        made.lake.store.delete(commit_key(SHARD, version))
    release(made)
    assert made.ingest()["counts"]["due"] == 2
    assert ids(made) == {"id-0", "id-2", "id-3"}


def test_a_held_shard_refuses_every_writer(installation: Installation):
    lake = installation.lake
    before = lake.shard(SHARD).head()
    held = undo(installation, 1)
    said = f"shard {SHARD} is held after an undo by run undo-run; `akosha release --shard {SHARD}` lets it go"
    with pytest.raises(ShardHeldError, match=said), edit_shard(lake, held, {}):
        pass
    with pytest.raises(ShardHeldError, match=said):
        lake.shard(SHARD).publish(before, Change("ingest", remove=before.of_tier("hot")[:1]), UNDOER)
    for job, waiting in (("plan_embed", 0), ("plan_move", 1)):
        arguments = ["hot-to-warm"] if waiting else []
        summary = installation.run(
            job, *arguments, **({"as_of": (NOW + 30 * DAY).isoformat(), "force": True} if waiting else {})
        )
        assert summary["ok"]
        assert ("held after an undo" in summary["message"]) == bool(waiting)
    assert lake.shard(SHARD).head() == held


def test_an_undo_done_already_publishes_nothing(installation: Installation):
    """I4."""
    held = undo(installation, 1)
    assert undo(installation, 1) == held
    assert installation.lake.shard(SHARD).head() == held


def test_a_shard_can_be_emptied_and_filled_again(installation: Installation):
    """I28, I29: version 0 is the shard before its first commit."""
    before = installation.export()
    undo(installation, 0)
    head = installation.lake.shard(SHARD).head()
    assert (head.files, head.keys, head.version) == ({}, {}, 4)
    release(installation)
    assert installation.ingest()["counts"]["applied"] == 3
    assert installation.export().drop_columns(["provenance"]).equals(before.drop_columns(["provenance"]))


def test_undoing_the_undo_brings_everything_back(installation: Installation):
    """I28."""
    before = installation.export()
    undo(installation, 1)
    undo(installation, 3)
    assert installation.export().equals(before)
    release(installation)
    assert installation.ingest()["counts"]["due"] == 0


def test_what_an_undone_undo_had_taken_back_comes_again_when_it_is_undone_itself(installation: Installation):
    """I29: 4 takes 2 and 3 back, 5 brings them again, 6 goes back to what 4 held."""
    undo(installation, 1)
    undo(installation, 3)
    undo(installation, 4)
    assert ids(installation) == {"id-0"}
    release(installation)
    assert installation.ingest()["counts"]["applied"] == 2
    assert ids(installation) == {"id-0", "id-1", "id-2"}


def test_a_memo_written_late_by_a_frozen_writer_hides_nothing(installation: Installation):
    """I29."""
    key = put(installation, NOW, 9)
    listed = installation.uploads.stat(key)
    assert listed is not None
    upload = UploadRef(key, listed.etag, SYSTEM, key.split("/")[3])
    installation.ingest()
    installation.lake.store.delete(upload.memo_key)
    undo(installation, 3)
    release(installation)
    write_memo(installation.lake.store, upload, APPLIED, {"version": 4})
    assert installation.ingest()["counts"]["applied"] == 1
    assert "id-9" in ids(installation)
    assert installation.ingest()["counts"]["due"] == 0


class FrozenBeforeMemo:
    """A real store; before the first memo is put, something else happens."""

    def __init__(self, store: ObjectStore, meanwhile: Callable[[], None]) -> None:
        self._store = store
        self._meanwhile: Callable[[], None] | None = meanwhile

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put(self, key: str, data: bytes) -> None:
        meanwhile, self._meanwhile = self._meanwhile, None if is_memo_key(key) else self._meanwhile
        if meanwhile is not None and is_memo_key(key):
            meanwhile()
        self._store.put(key, data)


@pytest.mark.parametrize("newer", [True, False])
def test_an_upload_that_held_nothing_new_against_what_was_undone_comes_again(
    installation: Installation, *, newer: bool
):
    """I29: its memo came after the release, and no commit names it. `newer`: the round still made a commit."""
    numbers = (0, 1, 2) if newer else (0, 1)
    key = put(installation, NOW if newer else NOW - 1.5 * HOUR, *numbers)
    listed = installation.uploads.stat(key)
    assert listed is not None
    upload = UploadRef(key, listed.etag, SYSTEM, key.split("/")[3])

    def undone_and_released() -> None:
        undo(installation, 1)
        release(installation)

    lake = installation.lake
    frozen = Lake(lake.settings, FrozenBeforeMemo(lake.store, undone_and_released), lake.cold, lake.identity)
    with Sandbox() as sandbox:
        outcome = Ingester(frozen, Source(installation.uploads), sandbox, UNDOER).ingest_shard(SHARD, [upload])
    assert (outcome.unchanged, outcome.commits) == (1, int(newer))
    for manifest in [found.key for found in installation.uploads.list(f"systems/{SYSTEM}/")]:
        if manifest.endswith("manifest.json") and manifest != key:
            installation.uploads.delete(manifest)
    installation.ingest()
    assert ids(installation) == {f"id-{number}" for number in numbers}


def test_skipped_uploads_wait_in_quarantine_for_a_person(installation: Installation):
    """I29, I25."""
    undo(installation, 1)
    release(installation, skip=True)
    assert installation.ingest()["counts"]["due"] == 0
    put(installation, NOW, 0, 8)
    assert installation.ingest()["counts"]["applied"] == 1
    with installation.applied():
        found = reading.quarantine_list(reason="undone")
    assert len(found) == 2
    assert "replay" in found[0]["what_to_do"]
    installation.run("plan_replay", [])
    assert ids(installation) == {"id-0", "id-1", "id-2", "id-8"}
    assert installation.ingest()["counts"]["due"] == 0


def test_a_release_after_one_with_skip_that_was_killed_takes_everything_in_again(installation: Installation):
    """I29: the second decision counts."""
    undo(installation, 1)
    lake = installation.lake
    store = lake.store

    class _DiesAtTheRelease(DyingStore):
        def put_if_absent(self, key: str, data: bytes) -> bool:
            raise DiedError

    with pytest.raises(DiedError):
        release_shard(
            Lake(lake.settings, _DiesAtTheRelease(store, Fuse()), lake.cold, lake.identity), SHARD, UNDOER, skip=True
        )
    assert lake.shard(SHARD).head().held_by
    release(installation)
    assert installation.ingest()["counts"]["applied"] == 2
    assert ids(installation) == {"id-0", "id-1", "id-2"}


def test_a_release_leaves_in_quarantine_what_another_decision_set_aside(installation: Installation):
    held = undo(installation, 1)
    uploads = undone_uploads(installation.lake, held)
    set_aside(installation.lake, replace(held, version=99), uploads, run_id="other", now=NOW)
    release(installation)
    assert installation.ingest()["counts"]["due"] == 0
    with installation.applied():
        assert len(reading.quarantine_list(reason="undone")) == 2


def test_an_undo_is_seen_from_below_and_what_is_not_retained_may_hold_one(installation: Installation):
    log = installation.lake.shard(SHARD)
    assert not undone_since(log, 1)
    installation.lake.store.delete(commit_key(SHARD, 2))
    assert undone_since(log, 1)
    assert not undone_since(log, 2)


def test_versions_that_cannot_be_gone_back_to_are_refused(installation: Installation):
    lake = installation.lake
    log = lake.shard(SHARD)
    with pytest.raises(UsageError, match="goes to an older one"):
        undo(installation, 3)
    (gone,) = log.read(2).paths - log.head().paths - log.read(1).paths - log.read(3).paths or {""}
    if gone:
        lake.store.delete(gone)
        with pytest.raises(UsageError, match="one of its files is gone"):
            undo(installation, 2)
    with pytest.raises(UsageError, match="is not held"):
        release(installation)
    (
        Path(installation.settings.lake_url.removeprefix("file://")) / "shards/077/commits/99999998-00000001.json"
    ).unlink()
    for version in (0, 1):
        with pytest.raises(UsageError, match="not retained any more; the oldest that is is 2"):
            undo(installation, version)
    assert log.head().version == 3


def test_no_undo_goes_below_the_floor_that_a_shard_names(installation: Installation):
    """I28: as docs/format.md has it, whoever raised the floor."""
    log = installation.lake.shard(SHARD)
    head = log.head()
    raised = replace(head, version=4, commit_id="f" * 32, parent_sha256=head.sha256, floor=2)
    assert installation.lake.store.put_if_absent(commit_key(SHARD, 4), seal(commit_document(raised)))
    with pytest.raises(UsageError, match="version 1 of shard 77 cannot be gone back to: the floor is 2"):
        undo(installation, 1)
    assert log.head().version == 4
    assert undo(installation, 2).floor == 2


def test_an_undo_across_an_undo_works_after_the_version_between_was_swept(installation: Installation):
    """I28, I31: 4 went back to 1, which the sweep has taken away since; 3 is retained."""
    lake = installation.lake
    before = installation.export()
    undo(installation, 1)
    release(installation)
    for version in (1, 2):
        document = lake.store.local_path(commit_key(SHARD, version))
        assert document is not None
        os.utime(document, (0, 0))
    assert sweep_shard(lake, SHARD, UNDOER, now=datetime.now(UTC)).versions == 1
    undone = undo(installation, 3)
    assert undone.undo is not None
    assert [one.version for one in undone.undo.undone] == [5, 4]
    assert installation.export().equals(before)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("done", [False, True])
def test_an_undo_or_release_killed_at_any_call_loses_no_upload(installation: Installation, *, done: bool, skip: bool):
    """I29: before its commit a release is not one, and a second does the rest."""
    lake = installation.lake

    def until_done(act: Any) -> int:
        deaths = 0
        while deaths < 60:
            fuse = Fuse(deaths + 1, done=done)
            victim = Lake(lake.settings, DyingStore(lake.store, fuse), DyingStore(lake.cold, fuse), lake.identity)
            try:
                act(victim)
            except DiedError:
                deaths += 1
                if not deaths % 4:
                    assert fsck(lake, read_data=False).ok
                continue
            except UsageError:  # the call that was killed had taken effect
                pass
            return deaths
        raise AssertionError(deaths)

    assert until_done(lambda victim: undo_shard(victim, SHARD, to_version=1, writer=UNDOER, reason="")) > 4
    assert lake.shard(SHARD).head().held_by
    assert until_done(lambda victim: release_shard(victim, SHARD, UNDOER, skip=skip)) > 4
    assert not lake.shard(SHARD).head().held_by
    if skip:
        assert installation.ingest()["counts"]["due"] == 0
        installation.run("plan_replay", [])
    assert installation.ingest()["counts"]["due"] == (0 if skip else 2)
    assert ids(installation) == {"id-0", "id-1", "id-2"}
    with installation.applied():
        report = reading.fsck_lake(read_data=True)
    assert report["ok"], report["findings"]


def night(installation: Installation, moment: datetime) -> None:
    for kind in ("hot-to-warm", "warm-to-cold"):
        installation.move(kind, moment)


def test_undoing_a_whole_night_restores_the_earlier_export_exactly(tmp_path: Path):
    """I28."""
    made = Installation.local(tmp_path)
    Lake.create(made.settings, now=NOW)
    for system_id in ("laptop-7", "dev box 3", "東京-ws.example"):
        aged = [row for age in (1, 30, 200) for row in [dict(rows(age % 50, age=age)[0], id=f"{system_id} {age}")]]
        put_upload(made.uploads, system_id, NOW, database({"conversations_v2": aged}))
    made.ingest()
    made.move("hot-to-warm", NOW - 20 * DAY)
    before, heads = made.export(), made.lake.heads()
    night(made, NOW)
    assert set(made.export().column("tier").to_pylist()) == {"hot", "warm", "cold"}
    at = max(head.committed_at for head in heads)
    dry = made.main("undo", "--to-time", at)
    assert (dry.returncode, "dry run: 3 shards would go back" in dry.stdout) == (0, True), dry.stderr
    assert "cold 1 -> 0" in dry.stdout
    assert not any(head.held_by for head in made.lake.heads())
    done = made.main("undo", "--to-time", at, "--yes", "--reason", "the codec was wrong")
    assert done.returncode == 0, done.stderr
    assert "the shards are held" in done.stdout
    assert made.export().equals(before)
    held = made.lake.heads()
    assert {head.undo.reason for head in held} == {"the codec was wrong"}
    assert "HELD shards" in made.main("status").stdout
    waiting = made.move("hot-to-warm", NOW)
    assert (waiting["ok"], waiting["rows_changed"]) == (True, 0)
    assert "held after an undo" in waiting["message"]
    released = made.main("release")
    assert (released.returncode, "3 shards are let go" in released.stdout) == (0, True), released.stderr
    night(made, NOW)
    assert {row["tier"] for row in made.export().to_pylist()} == {"hot", "warm", "cold"}
    with made.applied():
        assert reading.fsck_lake(read_data=True)["ok"]


def test_a_run_is_undone_where_its_commits_are_the_newest(installation: Installation):
    lake = installation.lake
    last = lake.shard(SHARD).head()
    first = lake.shard(SHARD).read(2)
    moved_on = installation.main("undo", "--run", first.run_id, "--yes")
    assert moved_on.returncode == 0, moved_on.stderr
    assert f"would also take back 3 (ingest by {last.run_id})" in moved_on.stdout
    assert f"akosha undo --shard {SHARD} --to-version 1" in moved_on.stdout
    assert lake.shard(SHARD).head() == last
    undone = installation.main("undo", "--run", last.run_id, "--yes")
    assert undone.returncode == 0, undone.stderr
    assert ids(installation) == {"id-0", "id-1"}
    assert installation.main("undo", "--run", "nobody").returncode == 2


def test_a_run_is_undone_also_below_a_commit_of_a_task_that_began_before_it(installation: Installation):
    """A commit bears the instant at which its task began: here that of a long ingest comes after those of a younger run."""
    lake, run = installation.lake, "late-run"
    head = lake.shard(SHARD).head()
    began = datetime.fromisoformat(head.committed_at)
    document = {"format": "akosha-plan/1", "job": "ingest", "run_id": run, "planned_at": (began + HOUR).isoformat(),
                "parameters": {}, "message": "", "batches": [[{"shard": SHARD, "items": None}]]}  # fmt: skip
    lake.store.put(f"runs/{run}/plan-ingest.json", seal(document))
    log = lake.shard(SHARD)
    masked = Change("embed", remove=head.of_tier("hot")[:1], add=head.of_tier("hot")[:1], counts={})
    own = log.publish(head, masked, Writer(run, 1, began + 2 * HOUR))
    longer = log.publish(own, masked, Writer("long-run", 1, began))
    moved_on = installation.main("undo", "--run", run)
    assert f"would also take back {longer.version} (embed by long-run)" in moved_on.stdout, moved_on
    log.publish(longer, masked, Writer(run, 1, began + 3 * HOUR))
    assert f"version {longer.version + 1} to {longer.version}" in installation.main("undo", "--run", run).stdout


def test_what_came_after_an_undo_was_planned_is_not_taken_back_unseen(installation: Installation):
    """An approval may come a day after the plan that was shown."""
    before = installation.lake.shard(SHARD).head().version
    with installation.applied():
        plan = jobs.plan_undo("late", shard=SHARD, to_version=before - 1, dry_run=False)
    put(installation, NOW + 5 * HOUR, 41)
    installation.ingest()
    with installation.applied():
        summary = jobs.run_all(plan, progress=lambda _: None)
    assert summary["counts"] == {"shards": 0, "commits": 0, "moved_on": 1}
    assert f"shard {SHARD} has moved on since the plan and was left alone: plan again" in summary["message"]
    head = installation.lake.shard(SHARD).head()
    assert (head.version, head.held_by) == (before + 1, "")


def test_an_undo_of_what_is_undone_already_plans_nothing(installation: Installation):
    undo(installation, 1)
    again = installation.main("undo", "--shard", str(SHARD), "--to-version", "1", "--yes")
    assert again.returncode == 0
    assert f"0 shards go back: 0 commits with 0 uploads are undone; shard {SHARD} is held at version 1 already" in (
        again.stderr
    )


def test_old_uploads_come_again_in_a_recent_listing_too(installation: Installation):
    """I29: what is far older than the 48 hours that a recent listing looks back."""
    put(installation, NOW + 9 * DAY, 0, 1, 2, 3)
    installation.ingest()
    undo(installation, 1)
    installation.ingest(listing="recent")
    with installation.applied():
        jobs.run_all(jobs.plan_release("release-run"), progress=lambda _: None)
    assert installation.ingest(listing="recent")["counts"]["applied"] == 3


def test_the_command_line_says_what_is_wrong_with_an_undo(installation: Installation):
    for arguments, said in (
        ([], "say where to go back to in one way"),
        (["--to-version", "1"], "say where to go back to in one way"),
        (["--shard", "77", "--to-version", "9"], "is at version 3: an undo goes to an older one"),
        (["--to-time", "yesterday"], "as_of must be a time"),
    ):
        done = installation.main("undo", *arguments)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert installation.main("release", "--shard", "77").returncode == 2
