"""Uploads of the older Akosha: from memories.json to records that nobody can tell from others, or set aside with a reason."""

from __future__ import annotations

import gzip
import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.installation import Installation
from tests.support.uploads import database, memory, put_older_upload, put_upload, vectors

from akosha.lake.lake import Lake
from akosha.lake.layout import shard_of
from akosha.uploads.memos import read_memo

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SYSTEM = "old-laptop"


def said(record_id: Any, content: Any, **fields: Any) -> dict[str, Any]:
    return {"id": record_id, "content": content, "timestamp": (NOW - HOUR).isoformat(), **fields}


def payload(*items: Any) -> bytes:
    return json.dumps({"conversations": list(items)}).encode()


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    made = Installation.local(tmp_path)
    Lake.create(made.settings, now=NOW)
    return made


def exported(installation: Installation) -> dict[str, dict[str, Any]]:
    return {row["record_id"]: row for row in installation.export().to_pylist()}


@pytest.mark.parametrize("compressed", [True, False])
def test_an_upload_of_the_older_akosha_is_ingested(compressed: bool, installation: Installation):
    vector = vectors(1)[0]
    data = payload(
        said("m1", "Retry with a deadline.", embedding=vector.tolist(), source="cli", metadata={"project": "web"}),
        said("m2", "Pairs \U0001f600, NUL \0, overrides \u202e, half of NaN.", embedding=[float("nan")] * 384),
        said("m3", "half a pair \ud800"),
    )
    key = put_older_upload(
        installation.uploads, SYSTEM, NOW, data, conversation_count=3, compressed=compressed,
        compression_format="gzip" if compressed else None, checksum=hashlib.sha256(data).hexdigest(),
    )  # fmt: skip
    summary = installation.ingest()
    assert (summary["counts"]["new"], summary["counts"]["refused_rows"], summary["counts"]["applied"]) == (2, 1, 1)
    rows = exported(installation)
    assert set(rows) == {"m1", "m2"}
    first = rows["m1"]
    assert (first["source_table"], first["project"], first["time_evidence"]) == ("conversations", "web", "extracted_at")
    assert first["created_at"] == NOW - HOUR
    assert first["embedding"] == pytest.approx(vector.tolist())
    assert json.loads(first["attributes"]) == {"source": "cli"}
    assert json.loads(first["provenance"])["file_sha256"] == hashlib.sha256(data).hexdigest()
    assert json.loads(first["provenance"])["upload"] == key
    assert rows["m2"]["content"] == "Pairs \U0001f600, NUL \0, overrides \u202e, half of NaN."
    assert rows["m2"]["embedding"] is None

    head = installation.lake.shard(shard_of(SYSTEM)).head()
    assert head.uploads[0]["refused"] == {"lone-surrogate": 1}
    memo = read_memo(installation.lake.store, head.uploads[0]["memo"])
    assert memo["examples"] == {"lone-surrogate": ["m3"], "vector-not-finite": ["m2"]}
    assert (memo["dropped_vectors"], memo["notes"]) == ({"vector-not-finite": 1}, [])
    heads = installation.heads()
    assert installation.ingest()["counts"]["uploads"] == 0
    assert installation.heads() == heads


def test_times_without_a_zone_are_dated_by_neighbours_that_name_one(installation: Installation):
    data = payload(
        said("zoned", "In Los Angeles, and says so.", timestamp="2026-11-20T02:00:00-08:00"),
        said("bare", "In Los Angeles as well.", timestamp="2026-11-20T03:30:00"),
    )
    put_older_upload(installation.uploads, SYSTEM, NOW, data)
    installation.ingest()
    found = {key: (row["created_at"].isoformat(), row["time_evidence"]) for key, row in exported(installation).items()}
    assert found == {
        "zoned": ("2026-11-20T10:00:00+00:00", "extracted_at"),
        "bare": ("2026-11-20T11:30:00+00:00", "offset"),
    }


def test_both_dialects_of_one_system_are_the_same_records(installation: Installation):
    """The newest manifest wins, whichever dialect it speaks (I13)."""
    put_older_upload(installation.uploads, SYSTEM, NOW, payload(said("m1", "old words"), said("m2", "stays")))
    rows = [memory("m1", "new words", NOW - HOUR)]
    put_upload(installation.uploads, SYSTEM, NOW + HOUR, database({"conversations": rows}))
    summary = installation.ingest()
    assert (summary["counts"]["new"], summary["counts"]["changed"]) == (2, 1)
    assert {key: row["content"] for key, row in exported(installation).items()} == {"m1": "new words", "m2": "stays"}


BROKEN: dict[str, tuple[str, bytes | None, dict[str, Any]]] = {
    "gone": ("missing-object", None, {}),
    "no-json": ("invalid-payload", b"this is not JSON", {}),
    "torn": ("invalid-payload", payload(said("a", "b"))[:-5], {}),
    "other-shape": ("invalid-payload", b'{"memories": []}', {}),
    "binary": ("invalid-payload", b'{"conversations": ["\xff"]}', {}),
    "deep": ("invalid-payload", b'{"conversations": ' + b"[" * 100_000, {}),
    "too-few": ("count-mismatch", payload(said("a", "b")), {"conversation_count": 2}),
    "too-many": ("count-mismatch", payload(said("a", "b")), {"conversation_count": 0}),
    "promised-only": ("count-mismatch", None, {"conversation_count": 2, "files": []}),
    "wrong-sum": ("checksum-mismatch", payload(said("a", "b")), {"checksum": "0" * 64}),
    "zstd": ("invalid-manifest", payload(), {"compression_format": "zstd"}),
    "plain-as-gzip": ("wrong-label", payload(), {"compressed": False, "files": ["memories.json"], "told": True}),
    "impostor": ("other-system", payload(), {"system_id": "other"}),
    "climber": ("path-outside-prefix", payload(), {"files": ["../../memories.json"]}),
}


def test_each_broken_upload_is_set_aside_with_its_reason(installation: Installation):
    """I15."""
    for system_id, (_, data, fields) in BROKEN.items():
        stored = {name: value for name, value in fields.items() if name != "told"}
        key = put_older_upload(installation.uploads, system_id, NOW, data, **stored)
        if "told" in fields:
            document = json.loads(installation.uploads.get(key))
            installation.uploads.put(key, json.dumps({**document, "compressed": True}).encode())
    put_older_upload(installation.uploads, SYSTEM, NOW, payload(said("m1", "kept")), conversation_count=1)
    summary = installation.ingest()
    assert summary["ok"] is True
    found = installation.quarantine()
    assert {system_id: memo["reason"] for system_id, memo in found.items()} == {
        system_id: reason for system_id, (reason, _, _) in BROKEN.items()
    }
    assert all("\n" not in memo["message"] and "Traceback" not in memo["message"] for memo in found.values())
    assert "at character" in found["torn"]["message"]
    assert "zstd" in found["zstd"]["message"]
    assert set(exported(installation)) == {"m1"}


def test_a_payload_that_would_not_fit_in_memory_is_refused(tmp_path: Path):
    installation = Installation.local(tmp_path, sandbox_max_bytes=1 << 20)
    Lake.create(installation.settings, now=NOW)
    put_older_upload(installation.uploads, SYSTEM, NOW, b" " * (2 << 20))
    installation.ingest()
    memo = installation.quarantine()[SYSTEM]
    assert memo["reason"] == "too-large"
    assert "a JSON document of more than 1,048,576 bytes" in memo["message"]
    assert len(gzip.compress(b" " * (2 << 20))) < 1 << 14


def test_an_unknown_version_is_read_and_noted(installation: Installation):
    put_older_upload(installation.uploads, SYSTEM, NOW, payload(said("m1", "kept")), version="9")
    assert installation.ingest()["counts"]["new"] == 1
    head = installation.lake.shard(shard_of(SYSTEM)).head()
    (note,) = read_memo(installation.lake.store, head.uploads[0]["memo"])["notes"]
    assert "'9' is not known" in note
