"""Every step on a small demo world, with the lake on S3 and the real model: what comes out is what a reader expects."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from akosha import jobs
from akosha.demo.texts import harvest
from akosha.demo.vectors import Corpus, unit_vectors
from akosha.demo.world import World, build_world, publish_world
from akosha.embedding.model import OUR_MODELS
from akosha.jobs import reading
from akosha.jobs.plans import open_lake
from akosha.lake.lake import Lake
from akosha.lake.layout import commit_key
from akosha.lake.stores import open_store
from akosha.search.query import SearchQuery
from akosha.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ANCHOR = datetime(2026, 11, 20, 12, tzinfo=UTC)
SCALE = 0.08


def run(plan: jobs.plans.Plan) -> jobs.plans.Summary:
    return jobs.run_all(plan, progress=lambda line: None)


def heads() -> dict[int, tuple[int, str]]:
    return {head.shard: (head.version, head.sha256) for head in open_lake().heads()}


def everything(folder: Path) -> pl.DataFrame:
    reading.export_lake(folder)
    return pl.read_parquet(folder / "*.parquet")


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(ANCHOR, Corpus(tuple(harvest(("flask", "werkzeug", "alembic"))), unit_vectors), scale=SCALE)


@pytest.fixture
def lake(s3_server: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setenv("AKOSHA_LAKE_URL", f"s3://{bucket}/lake")
    monkeypatch.setenv("AKOSHA_UPLOADS_URL", f"s3://{bucket}/uploads")
    monkeypatch.setenv("AKOSHA_S3_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AKOSHA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("AKOSHA_WORKERS", "1")
    monkeypatch.setenv("AKOSHA_CLIENT_VECTORS", "keep")  # those of this world are drawn, not computed
    return Lake.create(Settings.from_environment(), now=ANCHOR)


def test_uploads_become_hot_warm_and_cold_records_that_are_all_found_again(
    lake: Lake, world: World, tmp_path: Path
) -> None:
    """Cites I1, I4, I8, I11 and I15 of docs/invariants.md."""
    settings = lake.settings
    publish_world(world, open_store(settings.uploads_url, settings, setting="AKOSHA_UPLOADS_URL"))
    expected = world.expected

    ingested = run(jobs.plan_ingest("one", listing="full"))
    assert ingested["ok"]
    assert ingested["counts"]["new"] == len(expected.records)
    found = {entry["upload"]: entry["reason"] for entry in ingested["quarantined"]}
    assert found.keys() == {upload.manifest_key for upload in expected.quarantined}
    for upload in expected.quarantined:
        assert found[upload.manifest_key] in upload.reasons

    embedded = run(jobs.plan_embed("one"))
    assert embedded["counts"]["left"] == 0
    assert embedded["counts"]["embedded"] == sum(not record.has_vector for record in expected.records)

    as_of = ANCHOR.isoformat()
    warmed = run(jobs.plan_move("one", "hot-to-warm", as_of=as_of))
    cooled = run(jobs.plan_move("one", "warm-to-cold", as_of=as_of))
    exported = everything(tmp_path / "export")
    assert exported.height == len(expected.records)
    ages = {"hot": timedelta(days=7), "warm": timedelta(days=90), "cold": timedelta(days=10_000)}
    tiers = dict.fromkeys(ages, 0)
    for row in exported.iter_rows(named=True):
        record = expected.by_key[row["system_id"], row["source_table"], row["record_id"]]
        assert row["content"] == record.content
        assert abs(row["created_at"] - record.created_at) < timedelta(seconds=1)
        tier = next(tier for tier, age in ages.items() if ANCHOR - row["created_at"] <= age)
        assert row["tier"] == tier
        assert (row["embedding"] is not None) or tier != "hot"
        assert (row["codes"] is not None) == (tier != "hot")
        tiers[tier] += 1
    assert min(tiers.values()) > 0
    assert warmed["counts"]["rows"] == tiers["warm"] + tiers["cold"]
    assert cooled["counts"]["rows"] == tiers["cold"]

    before = heads()
    for plan in (
        jobs.plan_ingest("two", listing="full"),
        jobs.plan_embed("two"),
        jobs.plan_move("two", "hot-to-warm", as_of=as_of),
        jobs.plan_move("two", "warm-to-cold", as_of=as_of),
    ):
        assert run(plan)["rows_changed"] == 0
    assert heads() == before

    report = reading.fsck_lake(read_data=True)
    assert report["findings"] == []
    assert report["checked"]["records"] == len(expected.records)

    ours = (pl.col("tier") == "warm") & pl.col("embedding_model").is_in(OUR_MODELS)
    one = exported.filter(ours).row(0, named=True)
    answer = reading.search_lake(one["content"], SearchQuery(k=3, systems=(one["system_id"],)))
    assert answer["hits"][0]["content_sha256"] == one["content_sha256"]
    assert {hit["place"]["system_id"] for hit in answer["hits"]} == {one["system_id"]}


def test_order_of_arrival_does_not_change_the_lake(lake: Lake, world: World, tmp_path: Path) -> None:
    """Uploads that come newest first, one run each, end in the same records as all at once; cites I12, I13 and I14."""
    settings = lake.settings
    store = open_store(settings.uploads_url, settings, setting="AKOSHA_UPLOADS_URL")
    machines = ("les-mbp.local", "upgraded.host.example", "büro-rechner-ö")
    uploads = [made for made in world.uploads if made.name.system_id in machines]
    assert len({made.name.system_id for made in uploads}) == len(machines)
    for number, made in enumerate(reversed(uploads)):
        for key, data in made.objects:
            store.put(key, data)
        run(jobs.plan_ingest(f"late-{number}", listing="full"))
    exported = everything(tmp_path / "export")
    expected = [record for record in world.expected.records if record.system_id in machines]
    assert exported.height == len(expected)
    for record in expected:
        row = exported.row(
            by_predicate=(pl.col("system_id") == record.system_id)
            & (pl.col("source_table") == record.source_table)
            & (pl.col("record_id") == record.record_id),
            named=True,
        )
        assert row["content"] == record.content
        assert abs(row["created_at"] - record.created_at) < timedelta(seconds=1)
        assert row["tier"] == "hot"
        if record.has_vector:
            assert np.isclose(np.linalg.norm(row["embedding"]), 1, atol=1e-3)


def test_a_lost_head_or_shard_is_found_by_what_other_documents_say_of_it(lake: Lake, world: World) -> None:
    """Cites I17: memos and summaries name versions, so the newest cannot vanish unseen."""
    settings = lake.settings
    store = open_store(settings.uploads_url, settings, setting="AKOSHA_UPLOADS_URL")
    for made in world.uploads:
        if made.name.system_id == "legacy-feb":
            for key, data in made.objects:
                store.put(key, data)
    run(jobs.plan_ingest("one", listing="full"))
    (head,) = lake.heads()
    assert head.version > 1
    assert reading.fsck_lake(read_data=False)["ok"]
    lake.store.delete(commit_key(head.shard, head.version))
    assert "head_lost" in {finding["code"] for finding in reading.fsck_lake(read_data=False)["findings"]}
    for found in list(lake.store.list(f"shards/{head.shard:03d}/")):
        lake.store.delete(found.key)
    assert "head_lost" in {finding["code"] for finding in reading.fsck_lake(read_data=False)["findings"]}
