"""Real uploads, end to end: every row of every layer is in the export, with the text, tier and UTC time it must have.

What is expected is read from the sample files with DuckDB alone, and the UTC offsets of their clients are known.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pytest
from tests.support.installation import Installation

from akosha.lake.lake import Lake
from akosha.uploads.memos import read_memo

pytestmark = pytest.mark.integration

SAMPLES = Path(__file__).parents[1] / "data" / "session_buddy"
OFFSET = {
    "les-mbp.local": timedelta(hours=-8),
    "unknown-system": timedelta(hours=5.5),
    "legacy-feb": timedelta(hours=1),
}
LAYERS = {
    "conversations_v2", "reflections_v2", "conversations", "reflections", "default_conversations", "default_reflections"
}  # fmt: skip
FIRST, SECOND = "20261120_235053_les-mbp.local", "20261120_235111_les-mbp.local"
Key = tuple[str, str, str]


@dataclass
class Wanted:
    """What the sample files say of one record."""

    content: str
    created_at: datetime
    vector: list[float] | None
    metadata: str | None
    project: str | None


def expected(folder: Path) -> dict[Key, Wanted]:
    """Every row of every snapshot, later snapshots over earlier ones."""
    found: dict[Key, Wanted] = {}
    for manifest in sorted(SAMPLES.rglob("manifest.json")):
        system_id = json.loads(manifest.read_text())["system_id"]
        path = folder / f"{manifest.parent.name}.duckdb"
        path.write_bytes(gzip.decompress((manifest.parent / "reflection.duckdb").read_bytes()))
        with duckdb.connect(str(path), read_only=True) as con:
            names = {name for (name,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
            for table in sorted(names & LAYERS):
                columns = {one[0] for one in con.execute(f'SELECT * FROM "{table}" LIMIT 0').description}
                time = "timestamp" if table in {"conversations_v2", "conversations", "reflections"} else "created_at"
                project = "project" if "project" in columns else "NULL"
                query = f'SELECT id, content, {time}, embedding, metadata, {project} FROM "{table}"'
                for record_id, content, local, vector, metadata, named in con.execute(query).fetchall():
                    told = json.loads(metadata) if metadata else {}
                    found[system_id, table, record_id] = Wanted(
                        content, local.replace(tzinfo=UTC) - OFFSET[system_id], vector, metadata,
                        named or told.get("project"),
                    )  # fmt: skip
    return found


def created(installation: Installation) -> Installation:
    Lake.create(installation.settings, now=datetime.now(UTC))
    return installation


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return created(Installation.local(tmp_path))


@pytest.fixture(params=["file", "s3"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Installation:
    """On the local disk, and on S3."""
    if request.param == "file":
        return created(Installation.local(tmp_path))
    return created(
        Installation.on_s3(tmp_path, request.getfixturevalue("s3_server"), request.getfixturevalue("bucket"))
    )


def upload(installation: Installation, *only: str) -> None:
    """Put sample uploads as the client does, manifests last; those whose id is named, or all."""
    for manifest in sorted(SAMPLES.rglob("manifest.json")):
        if not only or manifest.parent.name in only:
            for path in sorted(manifest.parent.iterdir(), key=lambda path: path.name == "manifest.json"):
                installation.uploads.put(path.relative_to(SAMPLES).as_posix(), path.read_bytes())


def test_every_row_of_every_layer_is_in_the_export(anywhere: Installation, tmp_path: Path):
    upload(anywhere)
    summary = anywhere.ingest()
    wanted = expected(tmp_path)
    assert len(wanted) == 27
    assert {table for _, table, _ in wanted} == LAYERS
    assert summary["counts"]["applied"] == 4
    assert summary["counts"]["new"] == 27
    assert summary["counts"]["quarantined"] == summary["counts"]["refused_rows"] == 0
    rows = {(row["system_id"], row["source_table"], row["record_id"]): row for row in anywhere.export().to_pylist()}
    assert rows.keys() == wanted.keys()
    for key, want in wanted.items():
        row = rows[key]
        assert row["content"] == want.content
        assert row["content_sha256"] == hashlib.sha256(want.content.encode()).hexdigest()
        assert abs(row["created_at"] - want.created_at) < timedelta(seconds=2), (key, row["time_evidence"])
        assert row["tier"] == "hot"
        assert row["metadata"] == want.metadata
        assert row["project"] == want.project
        assert row["summary"]
        assert len(row["fingerprint"]) == 512
        if want.vector is None:
            assert row["embedding"] is row["embedding_model"] is None
        else:
            assert np.array_equal(np.float32(row["embedding"]), np.float32(want.vector))
            assert row["embedding_model"] == "client"
        provenance = json.loads(row["provenance"])
        assert provenance["upload"].startswith(f"systems/{key[0]}/uploads/")


def test_ingesting_again_changes_nothing(anywhere: Installation):
    """I4: neither with memos, nor without them."""
    upload(anywhere)
    anywhere.ingest()
    heads = anywhere.heads()
    assert len(heads) == 3
    assert anywhere.ingest()["counts"]["uploads"] == 0
    assert anywhere.heads() == heads
    store = anywhere.lake.store
    for memo in list(store.list("uploads/")):
        store.delete(memo.key)
    summary = anywhere.ingest()
    assert (summary["counts"]["uploads"], summary["counts"]["unchanged"]) == (4, 4)
    assert summary["rows_changed"] == 0
    assert anywhere.heads() == heads


def test_the_second_snapshot_first_gives_the_same_export(installation: Installation, tmp_path: Path):
    upload(installation, FIRST)
    installation.ingest()
    upload(installation, SECOND)
    later = installation.ingest()
    assert later["counts"]["new"] == 3
    in_order = installation.export()

    reversed_ = created(Installation.local(tmp_path / "reversed"))
    upload(reversed_, SECOND)
    reversed_.ingest()
    upload(reversed_, FIRST)
    assert reversed_.ingest()["counts"]["new"] == 1
    out_of_order = reversed_.export()
    assert in_order.num_rows == out_of_order.num_rows == 19
    assert in_order.drop_columns(["provenance"]).equals(out_of_order.drop_columns(["provenance"]))


def test_a_row_deleted_by_the_client_stays(installation: Installation):
    upload(installation, FIRST)
    installation.ingest()
    upload(installation, SECOND)
    installation.ingest()
    ids = installation.export().column("record_id").to_pylist()
    assert "b77d35c460b6af46" in ids  # only the first snapshot holds it


def test_a_memo_says_what_was_done(installation: Installation):
    upload(installation)
    installation.ingest()
    store = installation.lake.store
    memos = {memo["upload_id"]: memo for memo in (read_memo(store, found.key) for found in store.list("uploads/"))}
    assert len(memos) == 4
    assert {memo["outcome"] for memo in memos.values()} == {"applied"}
    assert memos[SECOND]["knowledge_graph"]["path"].endswith(f"{SECOND}/knowledge_graph.duckdb")
    graph = memos[SECOND]["knowledge_graph"]
    assert (graph["entities"], graph["relations"], graph["observations"]) == (2, 1, 2)
    assert [used["evidence"] for used in graph["utc_offsets"]] == ["offset"]
    assert memos[SECOND]["utc_offsets"][0]["minutes"] == -480
    assert memos["20261120_234040_legacy-feb"]["tables"]["default_reflections"] == 2
    assert memos["20261120_235143_unknown-system"]["file"]["storage_version"] in {64, 999}
