"""Whatever arrives in the bucket: broken uploads are set aside with a reason, the others are not disturbed."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.installation import Installation
from tests.support.uploads import database, memory, put_upload, vectors

from akosha import jobs
from akosha.errors import UsageError
from akosha.jobs import reading
from akosha.lake.documents import unseal
from akosha.lake.lake import Lake
from akosha.lake.layout import REFUSED_ROWS_MARK, parse_quarantine_key, shard_of
from akosha.lake.objects import ObjectStore
from akosha.uploads.memos import read_memo

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
Make = Callable[[ObjectStore, str], object]


def texts(system_id: str, count: int = 3) -> list[dict[str, Any]]:
    return [
        memory(f"id-{number}", f"Note {number} of {system_id}: retry with a deadline.", NOW - HOUR * number)
        for number in range(count)
    ]


def sound(system_id: str) -> bytes:
    return database({"conversations_v2": texts(system_id)})


def damaged(system_id: str) -> bytes:
    """The headers are whole; every block is not."""
    data = bytearray(sound(system_id))
    for at in range(3 * 4_096 + 8_000, len(data), 16_384):
        data[at] ^= 0x10
    return bytes(data)


def half_damaged(system_id: str) -> bytes:
    """Two tables of many blocks; only the second one cannot be read."""
    long = [memory(f"id-{n}", f"{n} " + "word " * 50, NOW, vectors(1, seed=n)[0]) for n in range(40)]
    data = bytearray(database({"conversations": long, "reflections": long}))
    alone = len(database({"conversations": long}))
    for at in range(alone + 8_000, len(data), 16_384):
        data[at] ^= 0x10
    return bytes(data)


def elsewhere(path: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document["files"][0]["path"] = path

    return change


def labelled(label: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document["files"][0]["compression"] = label

    return change


def renamed(document: dict[str, Any]) -> None:
    document["system_id"] = "good-one"


def torn_manifest(store: ObjectStore, system_id: str) -> None:
    key = put_upload(store, system_id, NOW, sound(system_id))
    store.put(key, store.get(key)[:-40])


def text_as_manifest(store: ObjectStore, system_id: str) -> None:
    key = put_upload(store, system_id, NOW, sound(system_id))
    store.put(key, b"this is not JSON")


def bomb(store: ObjectStore, system_id: str) -> None:
    key = put_upload(store, system_id, NOW, None)
    store.put(key.replace("manifest.json", "reflection.duckdb"), gzip.compress(bytes(40 << 20), 1))


def plain(**given: Any) -> Make:
    return lambda store, system_id: put_upload(store, system_id, NOW, sound(system_id), **given)


BROKEN: dict[str, tuple[str, Make]] = {
    "cut-off": ("truncated", plain(packed=lambda data: data[: len(data) // 2])),
    "emptied": ("truncated", plain(packed=lambda _: b"")),
    "gone": ("missing-object", lambda store, system_id: put_upload(store, system_id, NOW, None)),
    "torn-manifest": ("invalid-manifest", torn_manifest),
    "text-manifest": ("invalid-manifest", text_as_manifest),
    "no-files": ("invalid-manifest", plain(change=lambda document: document.pop("files"))),
    "foreign": (
        "unknown-tables",
        lambda store, system_id: put_upload(store, system_id, NOW, database({"customers": "SELECT 1 AS id"})),
    ),
    "bad-block": ("damaged", lambda store, system_id: put_upload(store, system_id, NOW, damaged(system_id))),
    "half-bad": ("damaged", lambda store, system_id: put_upload(store, system_id, NOW, half_damaged(system_id))),
    "raw-as-gzip": (
        "wrong-label",
        lambda store, system_id: put_upload(
            store, system_id, NOW, sound(system_id), compression="none", change=labelled("gzip")
        ),
    ),
    "gzip-as-raw": ("wrong-label", plain(change=labelled("none"))),
    "other-path": ("path-outside-prefix", plain(change=elsewhere("systems/good-one/uploads/x/reflection.duckdb"))),
    "dotted-path": (
        "path-outside-prefix",
        plain(change=elsewhere("systems/dotted-path/uploads/20261120_120000_dotted-path/../../../../lake.json")),
    ),
    "impostor": ("other-system", plain(change=renamed)),
    "not-a-database": (
        "not-a-database",
        lambda store, system_id: put_upload(store, system_id, NOW, b"x" * 20_000),
    ),
    "promises": ("size-mismatch", plain(change=lambda document: document["files"][0].update(size_bytes=77))),
    "wrong-sum": (
        "checksum-mismatch",
        plain(change=lambda document: document["files"][0].update(checksum="0" * 64)),
    ),
    "bomb": ("too-large", bomb),
}
ADVICE = ("upload again", "replay", "update Akosha", "under its own key")


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    made = Installation.local(tmp_path, sandbox_max_bytes=32 << 20)
    Lake.create(made.settings, now=NOW)
    return made


def test_each_broken_upload_is_set_aside_and_no_other_is_disturbed(installation: Installation):
    """I5."""
    neighbour = next(name for name in (f"n{n}" for n in range(9_999)) if shard_of(name) == shard_of("bad-block"))
    for system_id in ("good-one", neighbour):
        put_upload(installation.uploads, system_id, NOW, sound(system_id))
    put_upload(installation.uploads, "cut-off", NOW - HOUR, sound("cut-off"))
    for system_id, (_, make) in BROKEN.items():
        make(installation.uploads, system_id)

    summary = installation.ingest()
    assert summary["ok"] is True
    assert summary["counts"]["quarantined"] == len(BROKEN)
    assert summary["counts"]["applied"] == 3
    found = installation.quarantine()
    assert {system_id: memo["reason"] for system_id, memo in found.items()} == {
        system_id: reason for system_id, (reason, _) in BROKEN.items()
    }
    for system_id, memo in found.items():
        message = memo["message"]
        assert "\n" not in message
        assert "Traceback" not in message
        assert any(advice in message for advice in ADVICE), (system_id, message)
        assert memo["manifest_key"].startswith(f"systems/{system_id}/uploads/")
    listed = {row["upload"]: row["reason"] for row in summary["quarantined"]}
    assert listed == {memo["manifest_key"]: memo["reason"] for memo in found.values()}
    records = installation.export()
    assert sorted(set(records.column("system_id").to_pylist())) == sorted(["good-one", neighbour, "cut-off"])
    assert records.num_rows == 9

    heads = installation.heads()
    assert installation.ingest()["counts"]["uploads"] == 0, "what is in quarantine is not tried again by itself"
    assert installation.heads() == heads


def test_a_replay_after_a_fix_takes_the_upload_in(installation: Installation):
    for system_id in ("gone", "cut-off", "torn-manifest", "bomb"):
        BROKEN[system_id][1](installation.uploads, system_id)
    installation.ingest()
    assert len(installation.quarantine()) == 4

    put_upload(installation.uploads, "gone", NOW, sound("gone"))  # the object arrives, the manifest is the same bytes
    put_upload(installation.uploads, "torn-manifest", NOW, sound("torn-manifest"))  # the manifest is another now
    put_upload(installation.uploads, "bomb", NOW, sound("bomb"))
    memo_of_bomb = installation.quarantine()["bomb"]["memo"]
    summary = installation.run("plan_replay", [])
    assert (summary["counts"]["applied"], summary["counts"]["quarantined"]) == (3, 1)
    assert set(installation.quarantine()) == {"cut-off"}
    assert sorted(set(installation.export().column("system_id").to_pylist())) == ["bomb", "gone", "torn-manifest"]

    heads = installation.heads()
    assert installation.ingest()["counts"]["uploads"] == 0
    assert installation.run("plan_replay", [])["counts"]["quarantined"] == 1
    assert installation.heads() == heads
    with pytest.raises(UsageError, match="not in quarantine"):
        installation.run("plan_replay", [memo_of_bomb])


def test_a_setting_named_by_the_reason_lets_the_upload_in(installation: Installation):
    rows = texts("big")
    data = database({"conversations_v2": rows, "padding": "SELECT repeat(uuid()::VARCHAR, 20) AS t FROM range(3_000)"})
    assert len(data) > 1 << 20
    small = installation.using(sandbox_max_bytes=1 << 20)
    put_upload(small.uploads, "big", NOW, data)
    small.ingest()
    memo = small.quarantine()["big"]
    assert memo["reason"] == "too-large"
    assert "AKOSHA_SANDBOX_MAX_BYTES" in memo["message"]
    summary = installation.run("plan_replay", [memo["memo"]])
    assert summary["counts"]["applied"] == 1
    assert installation.quarantine() == {}


def test_a_replaced_manifest_leaves_its_evidence_behind(installation: Installation):
    BROKEN["torn-manifest"][1](installation.uploads, "torn-manifest")
    installation.ingest()
    before = installation.quarantine()["torn-manifest"]
    put_upload(installation.uploads, "torn-manifest", NOW, sound("torn-manifest"))
    assert installation.ingest()["counts"]["applied"] == 1
    installation.run("plan_replay", [])
    assert installation.quarantine() == {}
    kept = read_memo(installation.lake.store, parse_quarantine_key(before["memo"]))
    assert (kept["outcome"], kept["reason"]) == ("replaced", "invalid-manifest")


def test_an_upload_of_which_rows_are_refused_says_which(installation: Installation):
    """I5, I24: one commit holds all its accepted rows and names the refused ones."""
    good = texts("mixed", 2)
    rows = [
        *good,
        memory("", "without an id", NOW),
        memory("blank", " \n\t", NOW),
        memory("null", None, NOW),  # type: ignore[arg-type]
        memory("nan", "kept, without its vector", NOW, vectors(1)[0] * float("nan")),
        memory("zero", "kept as well", NOW, vectors(1)[0] * 0),
    ]
    put_upload(installation.uploads, "mixed", NOW, database({"conversations_v2": rows}))
    summary = installation.ingest()
    assert (summary["counts"]["new"], summary["counts"]["refused_rows"]) == (4, 3)
    head = installation.lake.shard(shard_of("mixed")).head()
    assert head.version == 1
    assert head.uploads[0]["refused"] == {"no-id": 1, "blank-content": 1, "no-content": 1}
    named = head.uploads[0]["refused_rows"]
    data = installation.lake.store.get(named["path"])
    assert (named["rows"], named["sha256"]) == (3, hashlib.sha256(data).hexdigest())
    listed = unseal(data, kind="refused-rows", key=named["path"])
    assert [(row["table"], row["row"], row["record_id"], row["reason"]) for row in listed["rows"]] == [
        ("conversations_v2", 2, "", "no-id"),
        ("conversations_v2", 3, "blank", "blank-content"),
        ("conversations_v2", 4, "null", "no-content"),
    ]
    with installation.applied():
        assert reading.fsck_lake(read_data=True)["ok"]
    exported = {row["record_id"]: row for row in installation.export().to_pylist()}
    assert set(exported) == {"id-0", "id-1", "nan", "zero"}
    assert exported["nan"]["embedding"] is exported["zero"]["embedding"] is None


@pytest.mark.parametrize("tables", [{}, {"conversations_v2": []}])
def test_an_empty_database_is_a_success_without_records(installation: Installation, tables: dict[str, Any]):
    """All rows may still be in the write-ahead log, which is not uploaded."""
    put_upload(installation.uploads, "stale", NOW, database(tables))
    summary = installation.ingest()
    assert (summary["counts"]["unchanged"], summary["counts"]["quarantined"], summary["counts"]["new"]) == (1, 0, 0)
    assert installation.ingest()["counts"]["uploads"] == 0


def test_an_upload_that_vanishes_while_it_is_read_comes_again(installation: Installation):
    """Not broken: replaced or removed by its own client. Nothing is set aside."""
    key = put_upload(installation.uploads, "busy", NOW, sound("busy"))
    manifest = installation.uploads.get(key)
    with installation.applied():
        plan = jobs.plan_ingest("run-1", listing="full")
        installation.uploads.delete(key)
        summary = jobs.run_all(plan, progress=lambda _: None)
    assert (summary["counts"]["deferred"], summary["counts"]["quarantined"], summary["counts"]["new"]) == (1, 0, 0)
    installation.uploads.put(key, manifest)
    assert installation.ingest()["counts"]["new"] == 3


def test_an_upload_below_a_prefix_may_name_its_paths_with_or_without_it(tmp_path: Path, s3_server: str, bucket: str):
    installation = Installation.on_s3(tmp_path, s3_server, bucket)
    Lake.create(installation.settings, now=NOW)
    put_upload(installation.uploads, "short", NOW, sound("short"))
    full = elsewhere(f"up/systems/full/uploads/{NOW:%Y%m%d_%H%M%S}_full/reflection.duckdb")
    put_upload(installation.uploads, "full", NOW, sound("full"), change=full)
    summary = installation.ingest()
    assert (summary["counts"]["applied"], summary["counts"]["quarantined"]) == (2, 0)


def test_a_misplaced_list_of_refused_rows_is_found(installation: Installation):
    put_upload(
        installation.uploads, "mixed", NOW, database({"conversations_v2": [memory("", "no id", NOW), *texts("m")]})
    )
    installation.ingest()
    store = installation.lake.store
    (key,) = (found.key for found in store.list("uploads/") if found.key.endswith(REFUSED_ROWS_MARK))
    store.put(key.replace(key.split("/")[-1], f"{'0' * 64}{REFUSED_ROWS_MARK}"), store.get(key))
    with installation.applied():
        findings = reading.fsck_lake(read_data=False)["findings"]
    assert [finding["code"] for finding in findings if finding["severity"] == "damage"] == ["document_misplaced"]


def test_a_row_written_twice_is_refused_once_and_the_last_one_taken(installation: Installation):
    """I24."""
    rows = [*texts("twice", 2), memory("id-0", "Written later.", NOW)]
    put_upload(installation.uploads, "twice", NOW, database({"conversations_v2": rows}))
    summary = installation.ingest()
    assert (summary["counts"]["new"], summary["counts"]["refused_rows"]) == (2, 1)
    head = installation.lake.shard(shard_of("twice")).head()
    assert head.uploads[0]["refused"] == {"duplicate-key": 1}
    exported = {row["record_id"]: row["content"] for row in installation.export().to_pylist()}
    assert exported["id-0"] == "Written later."


def test_a_manifest_from_the_future_outranks_no_later_upload_for_long(installation: Installation):
    """I13: read as a day after its arrival."""
    ahead = datetime.now(UTC) + timedelta(days=400)
    put_upload(installation.uploads, "ahead", ahead, sound("ahead"))
    installation.ingest()
    head = installation.lake.shard(shard_of("ahead")).head()
    newest = datetime.fromisoformat(head.keys["ahead"].newest_manifest)
    assert newest < datetime.now(UTC) + timedelta(days=1, minutes=1)
    later = [memory("id-0", "Written later.", NOW)]
    put_upload(installation.uploads, "ahead", ahead - timedelta(days=398), database({"conversations_v2": later}))
    assert installation.ingest()["counts"]["changed"] == 1, "it came later, though its clock was not as far ahead"
