"""Quarantine as an operator works it, through the real jobs and command. Cites I15, I24 and I25."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_bad_uploads import sound, texts
from tests.support.installation import Installation
from tests.support.uploads import database, put_upload

from akosha.jobs import reading
from akosha.lake.documents import seal, unseal
from akosha.lake.lake import Lake
from akosha.lake.layout import commit_key, parse_quarantine_key, refused_rows_key, shard_of
from akosha.uploads.memos import APPLIED, UploadRef, memo_names, upload_of, write_memo
from akosha.uploads.refused_rows import refused_document, write_refused_rows

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    made = Installation.local(tmp_path)
    Lake.create(made.settings, now=NOW)
    return made


def put_torn(installation: Installation, system_id: str, moment: datetime) -> str:
    return put_upload(installation.uploads, system_id, moment, sound(system_id), packed=lambda data: data[:-40])


def answer(installation: Installation, *arguments: str) -> dict[str, Any]:
    done = installation.main(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_a_newer_good_upload_settles_quarantine_and_the_evidence_stays_readable(installation: Installation):
    broken = put_torn(installation, "laptop-7", NOW)
    for other in ("unknown-system", "dev box 3"):
        put_torn(installation, other, NOW)
    installation.ingest()
    before = installation.quarantine()["laptop-7"]
    listed = installation.uploads.stat(broken.replace("manifest.json", "reflection.duckdb"))
    assert listed is not None
    assert before["evidence"] == {
        "key": listed.key,
        "etag": listed.etag,
        "size_bytes": str(listed.size_bytes),
        "packed_offset": str(listed.size_bytes),
    }
    good = put_upload(installation.uploads, "laptop-7", NOW + HOUR, sound("laptop-7"))
    put_upload(installation.uploads, "unknown-system", NOW + HOUR, sound("unknown-system"))
    put_upload(installation.uploads, "dev box 3", NOW - HOUR, sound("dev box 3"))
    put_torn(installation, "laptop-7", NOW + 2 * HOUR)

    summary = installation.ingest()
    assert (summary["counts"]["superseded"], summary["counts"]["quarantined"]) == (1, 1)
    assert "1 left quarantine" in summary["message"]
    left = {(memo["system_id"], memo["upload_id"][:15]) for memo in installation.quarantine().values()}
    assert left == {
        ("laptop-7", "20261120_140000"),
        ("unknown-system", "20261120_120000"),
        ("dev box 3", "20261120_120000"),
    }
    assert answer(installation, "status")["quarantine_reasons"] == {"truncated": 3}
    kept = answer(installation, "quarantine", "show", before["memo"])
    assert (kept["outcome"], kept["manifest_key"], kept["superseded_by"]) == ("superseded", broken, good)
    assert (kept["first_seen"], kept["evidence"]) == (before["first_seen"], before["evidence"])
    assert installation.ingest()["counts"]["uploads"] == 0, "what was settled is not tried again"
    with installation.applied():
        assert reading.fsck_lake(read_data=True)["findings"] == []


@pytest.mark.parametrize("tables", [{}, {"conversations_v2": []}])
def test_an_upload_without_a_row_settles_nothing(installation: Installation, tables: dict[str, Any]):
    """It may be a stale file: all rows still in the write-ahead log."""
    put_torn(installation, "laptop-7", NOW)
    installation.ingest()
    put_upload(installation.uploads, "laptop-7", NOW + HOUR, database(tables))
    assert installation.ingest()["counts"]["superseded"] == 0
    assert len(installation.quarantine()) == 1


def test_a_good_upload_of_the_same_run_settles_it_as_well(installation: Installation):
    put_torn(installation, "laptop-7", NOW)
    put_upload(installation.uploads, "laptop-7", NOW + HOUR, sound("laptop-7"))
    counts = installation.ingest()["counts"]
    assert (counts["quarantined"], counts["superseded"], counts["new"]) == (1, 1, 3)
    assert installation.quarantine() == {}


def test_a_snapshot_that_holds_nothing_new_settles_it_as_well(installation: Installation):
    put_upload(installation.uploads, "laptop-7", NOW - HOUR, sound("laptop-7"))
    put_torn(installation, "laptop-7", NOW)
    assert installation.ingest()["counts"]["superseded"] == 0
    put_upload(installation.uploads, "laptop-7", NOW + HOUR, sound("laptop-7"))
    counts = installation.ingest()["counts"]
    assert (counts["new"], counts["superseded"]) == (0, 1)


def test_list_show_and_replay_work_the_quarantine_of_one_reason(installation: Installation):
    put_torn(installation, "laptop-7", NOW)
    put_upload(installation.uploads, "dev box 3", NOW, None)
    installation.ingest()
    text = installation.main("quarantine", "list").stdout
    assert "laptop-7   truncated   1 upload   first seen" in text
    assert "do: have the system upload again; look for a lifecycle rule" in text
    assert "2 uploads in quarantine" in text
    (gone,) = answer(installation, "quarantine", "list", "--reason", "missing-object")["quarantined"]
    assert answer(installation, "quarantine", "list", "--system", "dev box 3")["quarantined"] == [gone]
    assert answer(installation, "quarantine", "list", "--system", "laptop-7", "--reason", "timeout") == {
        "quarantined": []
    }
    assert "missing-object" in installation.main("quarantine", "show", gone["memo"]).stdout
    assert "1 missing-object, 1 truncated" in installation.main("status").stdout

    put_upload(installation.uploads, "dev box 3", NOW, sound("dev box 3"))
    assert installation.main("quarantine", "replay", "--reason", "timeout").returncode == 2
    assert answer(installation, "quarantine", "replay", "--reason", "missing-object")["counts"]["applied"] == 1
    assert set(installation.quarantine()) == {"laptop-7"}
    assert answer(installation, "quarantine", "replay", "--system", "laptop-7")["counts"]["quarantined"] == 1
    (torn,) = installation.quarantine().values()
    assert torn["attempts"] == 2
    assert torn["first_seen"] < torn["last_seen"]


def with_refused_rows(installation: Installation) -> tuple[str, UploadRef]:
    """A lake whose newest commit names a document of refused rows, as the gate's does; the key of the document."""
    put_upload(installation.uploads, "laptop-7", NOW, database({"conversations_v2": texts("laptop-7")}))
    installation.ingest()
    lake = installation.lake
    head = lake.shard(shard_of("laptop-7")).head()
    key = commit_key(head.shard, head.version)
    commit = unseal(lake.store.get(key), kind="commit", key=key)
    (entry,) = commit["uploads"]
    memo = unseal(lake.store.get(entry["memo"]), kind="memo", key=entry["memo"])
    rows = [
        {"table": "conversations_v2", "row": 4, "record_id": "id-4", "reason": "vector-not-unit"},
        {"table": "conversations_v2", "row": 7, "record_id": "", "reason": "no-id"},
    ]
    totals = {"vector-not-unit": 1, "no-id": 1}
    document = refused_document(
        upload_of(memo), file_sha256=memo["file"]["sha256"], rules="quality-rules-v1", totals=totals, rows=rows
    )
    entry["refused_rows"] = write_refused_rows(lake.store, upload_of(memo), document)
    lake.store.put(key, seal(commit))
    for found in list(lake.store.list("runs/")):
        lake.store.delete(found.key)  # summaries published the digest of the commit as it was
    return entry["refused_rows"]["path"], upload_of(memo)


def fsck(installation: Installation) -> list[tuple[str, str]]:
    with installation.applied():
        return [(found["code"], found["key"]) for found in reading.fsck_lake(read_data=True)["findings"]]


def test_refused_rows_are_listed_and_shown(installation: Installation):
    key, upload = with_refused_rows(installation)
    assert key == refused_rows_key(upload.memo_key)
    assert fsck(installation) == []
    (found,) = answer(installation, "quarantine", "list", "--rows")["refused_rows"]
    assert (found["refused_rows"], found["totals"], found["listed"]) == (key, {"no-id": 1, "vector-not-unit": 1}, 2)
    for wanted in (("--system", "laptop-7"), ("--reason", "no-id")):
        assert len(answer(installation, "quarantine", "list", "--rows", *wanted)["refused_rows"]) == 1
    for other in (("--system", "laptop"), ("--reason", "too-long")):
        assert answer(installation, "quarantine", "list", "--rows", *other)["refused_rows"] == []
    text = installation.main("quarantine", "show", key).stdout
    assert "vector-not-unit    conversations_v2 row 4  id 'id-4'" in text
    assert installation.main("quarantine", "show", key.replace("refused", "x.refused")).returncode == 2
    assert "2 rows of 1 upload were refused" in installation.main("quarantine", "list", "--rows").stdout
    assert answer(installation, "status")["refused_rows_documents"] == 1


def test_refused_rows_are_mistaken_for_no_memo(installation: Installation):
    key, upload = with_refused_rows(installation)
    assert memo_names(installation.lake.store, upload.shard, "0001", "9999") == {upload.memo_key}
    installation.lake.store.delete(upload.memo_key)
    assert key in {found.key for found in installation.lake.store.list("uploads/")}
    assert installation.ingest()["counts"]["uploads"] == 1, "without its memo the upload is read again"


def test_a_commit_names_its_refused_rows_and_they_are_there(installation: Installation):
    """I24."""
    key, _ = with_refused_rows(installation)
    data = installation.lake.store.get(key)
    installation.lake.store.delete(key)
    assert fsck(installation) == [("refused_rows", key)]
    document = unseal(data, kind="refused-rows", key=key)
    installation.lake.store.put(key, seal({**document, "totals": {"no-id": 5}}))
    assert fsck(installation) == [("refused_rows", key)]
    installation.lake.store.put(key, data.replace(b"no-id", b"no-iD", 1))
    assert sorted(fsck(installation)) == [("document_damaged", key), ("refused_rows", key)]


def test_refused_rows_under_another_uploads_name_are_found(installation: Installation):
    key, _ = with_refused_rows(installation)
    installation.lake.store.put(key.replace("uploads/077", "uploads/078"), installation.lake.store.get(key))
    assert fsck(installation) == [("document_misplaced", key.replace("uploads/077", "uploads/078"))]


def test_a_memo_in_quarantine_under_another_systems_name_is_found(installation: Installation):
    put_torn(installation, "laptop-7", NOW)
    installation.ingest()
    memo = installation.quarantine()["laptop-7"]["memo"]
    assert fsck(installation) == []
    shard, folder = memo.split("/")[1:3]
    wrong = memo.replace(folder, "0" * 16)
    installation.lake.store.put(wrong, installation.lake.store.get(memo))
    outside = parse_quarantine_key(memo)
    assert outside is not None
    installation.lake.store.put(outside, installation.lake.store.get(memo))
    assert fsck(installation) == [("document_misplaced", wrong), ("document_misplaced", outside)]
    assert shard == "077"


def test_a_mark_of_an_older_release_is_no_damage_and_its_upload_is_tried_again(installation: Installation):
    """0.1.0 kept a memo in quarantine beside the others, with a mark in its name."""
    put_torn(installation, "laptop-7", NOW)
    installation.ingest()
    memo = installation.quarantine()["laptop-7"]
    old = str(parse_quarantine_key(memo["memo"])).replace(".json", ".quarantined.json")
    installation.lake.store.put(old, installation.lake.store.get(memo["memo"]))
    installation.lake.store.delete(memo["memo"])
    assert fsck(installation) == []
    assert installation.ingest()["counts"]["quarantined"] == 1
    write_memo(installation.lake.store, upload_of(memo), APPLIED, {})
    assert installation.quarantine() == {}
