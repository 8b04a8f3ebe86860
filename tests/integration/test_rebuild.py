"""Replaying all uploads into an empty lake gives the live lake's export: cites I23, I6 and I12."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.support.installation import Installation
from tests.support.uploads import database, memory, put_upload, vectors

from akosha.demo.texts import harvest
from akosha.demo.vectors import Corpus, unit_vectors
from akosha.demo.world import build_world, publish_world
from akosha.embedding.cache import EmbeddingCache
from akosha.embedding.model import OUR_MODELS
from akosha.jobs.rebuild import moves_of, planned_moves
from akosha.lake.edit import edit_shard
from akosha.lake.files import ROW
from akosha.lake.lake import Lake
from akosha.lake.layout import shard_of
from akosha.lake.provenance import about
from akosha.lake.shard_log import Writer

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
AGES = (0.5, 2, 8, 20, 60, 95, 150)
LAPTOP, SHARED, TIDY = "laptop-7", "unknown-system", "tidy"
TEXT = "Note {} of {}. Set a deadline on every call. Retries without one hide an exhausted pool. Measure first."


def rows_of(system: str, count: int = 14, *, without: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    carried = vectors(14, seed=len(system))
    return [
        memory(f"r{number}", TEXT.format(number, system), NOW - AGES[number // 2] * DAY,
               None if number in without else carried[number])
        for number in range(count)
    ]  # fmt: skip


def put(installation: Installation, system: str, moment: datetime, rows: list[dict[str, Any]]) -> str:
    return put_upload(installation.uploads, system, moment, database({"conversations_v2": rows}))


def keep_vectors(installation: Installation, rows: list[dict[str, Any]]) -> None:
    """Put vectors of ours into the cache, so that no model need be loaded."""
    with EmbeddingCache(installation.settings.cache / "embeddings.sqlite") as cache:
        for number, row in enumerate(rows):
            digest = hashlib.sha256(row["content"].encode()).digest()
            cache.put_many(OUR_MODELS[0], {digest: vectors(1, seed=1000 + number)[0]})


@pytest.fixture
def lived(nights: Path, tmp_path: Path) -> Installation:
    """A copy of it for one test."""
    shutil.copytree(nights, tmp_path, dirs_exist_ok=True)
    return Installation.local(tmp_path, workers=1, client_vectors="keep")


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nights of a lake: late and replayed uploads, a policy that deletes by absence for a while, vectors of ours, moves."""
    installation = Installation.local(tmp_path_factory.mktemp("nights"), workers=1, client_vectors="keep")
    Lake.create(installation.settings, now=NOW - 5 * DAY)
    keep_vectors(installation, rows_of(LAPTOP))
    put(installation, LAPTOP, NOW - 2 * DAY, rows_of(LAPTOP, 10, without=(0, 4)))
    put(installation, SHARED, NOW - 2 * DAY, rows_of(SHARED, 6))
    put(installation, TIDY, NOW - 2 * DAY, rows_of(TIDY, 12))
    installation.ingest()
    installation.run("plan_embed")
    installation.move("hot-to-warm", NOW - DAY)
    assert installation.main("policy", "set", "--delete-absent", TIDY).returncode == 0
    put(installation, TIDY, NOW - DAY, rows_of(TIDY)[:4])
    put(installation, SHARED, NOW - DAY, [memory("r1", "Another machine's text.", NOW - DAY)])
    broken = put_upload(installation.uploads, LAPTOP, NOW - DAY, b"no database")
    installation.ingest()
    assert installation.main("policy", "set", "--keep-absent", TIDY).returncode == 0
    put(installation, LAPTOP, NOW, rows_of(LAPTOP, 13))
    put(installation, TIDY, NOW, rows_of(TIDY)[:2])
    installation.ingest()
    installation.run("plan_backfill", systems=(LAPTOP,), force=True, dry_run=False)
    installation.move("hot-to-warm", NOW)
    installation.move("warm-to-cold", NOW)
    put(installation, LAPTOP, NOW + HOUR, rows_of(LAPTOP))  # r13 is 150 days old and comes after the moves
    installation.ingest()
    assert broken
    return installation.folder


def proof(installation: Installation, *arguments: str) -> dict[str, Any]:
    done = installation.main("rebuild-proof", "--json", *arguments)
    answer: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if answer["ok"] else 3), done.stderr
    return answer


def test_the_uploads_give_the_live_lake_again(lived: Installation, tmp_path: Path):
    heads = lived.heads()
    answer = proof(lived, "--out", str(tmp_path / "rebuilt"))
    assert answer["differences"] == [], answer
    live = lived.export()
    assert answer["counts"]["equal"] == answer["counts"]["records"] == live.num_rows
    assert answer["counts"]["vectors"] > 0
    assert answer["least_cosine"] >= 0.9999
    assert answer["uploads"]["gone"] == []
    assert {"hot", "warm", "cold"} == set(live.column("tier").to_pylist())
    assert lived.heads() == heads, "the live lake is only read"
    assert (tmp_path / "rebuilt" / "lake" / "lake.json").exists()


def test_the_moves_of_the_rebuilt_lake_are_those_of_the_live_one(lived: Installation):
    found = moves_of(planned_moves(lived.lake), lived.lake, shard_of(LAPTOP))
    assert [(move.kind, move.as_of) for move in found] == [
        ("hot-to-warm", NOW - DAY), ("hot-to-warm", NOW), ("warm-to-cold", NOW),
    ]  # fmt: skip


def test_moves_under_an_earlier_policy_are_told_again_under_that_policy(lived: Installation):
    """What aged by a shorter line stays where it is when the line is drawn back."""
    assert lived.main("policy", "set", "--hot-days", "60", "--no-dry-run").returncode == 0
    lived.move("hot-to-warm", NOW)
    assert "warm" in lived.export().column("tier").to_pylist()
    answer = proof(lived, "--system", LAPTOP)
    assert answer["differences"] == [], answer


def change(installation: Installation, tier: str, name: str, value: object) -> str:
    """Change one value of one record of the live lake by a commit that is sound in itself; its record id."""
    lake = installation.lake
    head = lake.shard(shard_of(LAPTOP)).head()
    entry = head.of_tier(tier)[0]  # type: ignore[arg-type]
    row = lake.rows(entry).slice(0, 1)
    column = row.schema.get_field_index(name)
    changed = row.set_column(column, row.schema.field(name), pa.array([value], row.schema.field(name).type))
    with edit_shard(lake, head, about()) as edit:
        edit.put(tier, changed.drop_columns([ROW]))  # type: ignore[arg-type]
        edit.drop(entry, row.column(ROW).to_numpy().astype(np.uint32))
        edit.publish("hand", Writer("hand", 1, NOW), counts={})
    return str(row.column("record_id")[0].as_py())


@pytest.mark.parametrize(
    ("tier", "name", "value"),
    [
        ("warm", "summary", "Something else."),
        ("warm", "project", "other"),
        ("cold", "fingerprint", b"\1" * 512),
        ("cold", "metadata", "{}"),
        ("hot", "created_at", NOW - 3 * HOUR),
        ("hot", "embedding", [1.0] + [0.0] * 383),
    ],
)
def test_a_record_changed_in_the_live_lake_is_reported(lived: Installation, tier: str, name: str, value: object):
    record_id = change(lived, tier, name, value)
    answer = proof(lived, "--system", LAPTOP)
    assert not answer["ok"]
    expected = "vector" if name == "embedding" else name
    assert {(found["what"], found["key"][2]) for found in answer["differences"]} == {(expected, record_id)}


def test_a_record_that_no_upload_brings_is_reported(lived: Installation):
    lake = lived.lake
    head = lake.shard(shard_of(TIDY)).head()
    entry = head.of_tier("hot")[0]
    rows = lake.rows(entry)
    with edit_shard(lake, head, about()) as edit:
        edit.drop(entry, rows.column(ROW).to_numpy()[:1])
        edit.publish("hand", Writer("hand", 1, NOW), counts={})
    answer = proof(lived, "--system", TIDY)
    assert answer["difference_kinds"] == {"unknown to the live lake": 1}


def test_uploads_that_are_gone_are_listed_and_their_records_excluded(lived: Installation):
    gone = f"systems/{LAPTOP}/uploads/{NOW + HOUR:%Y%m%d_%H%M%S}_{LAPTOP}/manifest.json"
    lived.uploads.delete(gone)
    answer = proof(lived, "--system", LAPTOP)
    assert answer["ok"], answer
    assert answer["uploads"]["gone"] == [f"{gone} (no longer there)"]
    assert answer["counts"]["excluded"] > 0


def test_a_part_of_the_demo_world_is_rebuilt_after_its_moves(tmp_path: Path):
    """Layers of several clients, broken uploads, an ambiguous system, graphs: aged to three tiers and compared."""
    installation = Installation.local(tmp_path, workers=1, client_vectors="keep")
    Lake.create(installation.settings, now=NOW)
    corpus = Corpus(tuple(harvest(("flask", "alembic"))), unit_vectors)
    publish_world(build_world(NOW, corpus, scale=0.02), installation.uploads)
    installation.ingest()
    installation.move("hot-to-warm", NOW)
    installation.move("warm-to-cold", NOW)
    live = installation.export()
    assert set(live.column("tier").to_pylist()) == {"hot", "warm", "cold"}
    answer = proof(installation)
    assert answer["differences"] == [], answer
    assert answer["counts"]["equal"] == answer["counts"]["records"] == live.num_rows
    assert answer["uploads"]["aside"] > 0


def test_undone_moves_and_records_on_hold_are_known_to_the_proof(lived: Installation):
    shard = shard_of(LAPTOP)
    log = lived.lake.shard(shard)
    promoted = next(row for row in lived.export().select(["source_table", "record_id", "tier", "system_id"]).to_pylist()
                    if row["tier"] == "warm" and row["system_id"] == LAPTOP)  # fmt: skip
    before_moves = next(version for version in log.versions() if log.read(version).operation == "hot-to-warm") - 1
    done = lived.main("undo", "--shard", str(shard), "--to-version", str(before_moves), "--yes")
    assert done.returncode == 0, done.stderr
    held = proof(lived, "--shard", str(shard))
    assert (held["held_shards"], held["counts"]) == ([shard], {})
    assert lived.main("release", "--shard", str(shard)).returncode == 0
    lived.ingest()
    answer = proof(lived, "--shard", str(shard))
    assert answer["differences"] == [], answer
    assert answer["counts"]["equal"] == answer["counts"]["records"] > 0
    lived.move("hot-to-warm", NOW)
    done = lived.main("promote", LAPTOP, promoted["source_table"], promoted["record_id"])
    assert done.returncode == 0, done.stderr
    answer = proof(lived, "--shard", str(shard))
    assert answer["differences"] == [], answer
    assert answer["counts"]["on hold, tier not compared"] == 1
