"""A shard goes back to a retained version, is held, and is let go: nothing is lost on the way, wherever it is cut off. Cites I28, I29, I30."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.installation import Installation
from tests.support.uploads import Row, database, memory, put_upload, vectors

from akosha.errors import ShardHeldError, UsageError
from akosha.jobs import reading
from akosha.lake.commits import Change
from akosha.lake.edit import edit_shard
from akosha.lake.lake import Lake
from akosha.lake.layout import shard_of
from akosha.lake.shard_log import Writer
from akosha.lake.undo import release_shard, undo_shard
from akosha.uploads.memos import APPLIED, UploadRef, write_memo

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


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    """Three uploads taken in one by one: versions 1, 2, 3."""
    made = Installation.local(tmp_path)
    Lake.create(made.settings, now=NOW)
    for number in range(3):
        put(made, NOW - 3 * HOUR + number * HOUR, *range(number + 1))
        made.ingest()
    assert made.lake.shard(SHARD).head().version == 3
    return made


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
        assert (said in summary["message"]) == bool(waiting)
    assert lake.shard(SHARD).head() == held


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
