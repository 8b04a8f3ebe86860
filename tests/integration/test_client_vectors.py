"""Vectors that came with uploads and are of another model are found by a sample, replaced, and named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.installation import Installation
from tests.support.uploads import Row, database, memory, put_upload, vectors

from akosha import jobs
from akosha.embedding.cache import EmbeddingCache
from akosha.embedding.model import LANE_MODEL_ID, OUR_MODELS, load_encoder
from akosha.jobs import reading
from akosha.jobs.embed import CACHE_FILE
from akosha.lake.lake import Lake
from akosha.tiers import strangers
from akosha.tiers.strangers import JUDGE_AGAIN_AFTER, SAMPLE_RECORDS, Verdict, due_systems, read_verdicts

pytestmark = pytest.mark.integration

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)
RECORDS = 20


def text(system_id: str, number: int) -> str:
    return f"Note {number} of {system_id}: the port was closed, so the proxy answered for it."


def ours(content: str) -> np.ndarray:
    """What stands for our model's vector of a text."""
    return vectors(1, seed=int(hashlib.sha256(content.encode()).hexdigest()[:8], 16))[0]


def rows(system_id: str, *, agreeing: int, count: int = RECORDS, first: int = 0) -> list[Row]:
    """Records, newest last; the newest `agreeing` ones carry a vector of ours, the others one of another model."""
    made = []
    for number in range(first, first + count):
        content = text(system_id, number)
        own = number >= first + count - agreeing
        vector = ours(content) if own else vectors(1, seed=number)[0]
        made.append(memory(f"n-{number}", content, NOW - (first + count - number) * HOUR, vector))
    return made


def upload(installation: Installation, system_id: str, records: Sequence[Row], moment: datetime = NOW) -> None:
    put_upload(installation.uploads, system_id, moment, database({"conversations_v2": records}))


def remember_texts(installation: Installation, records: Sequence[Row]) -> None:
    """Put our vectors of these texts into the cache: the job then needs no model."""
    contents = [record["content"] for record in records]
    with EmbeddingCache(installation.settings.cache / CACHE_FILE) as cache:
        digests = [hashlib.sha256(content.encode()).digest() for content in contents]
        cache.put_many(
            LANE_MODEL_ID, {digest: ours(content) for digest, content in zip(digests, contents, strict=True)}
        )


@pytest.fixture
def local(tmp_path: Path) -> Installation:
    """A lake with a system of our model and two of another; the cache knows our vectors of all texts."""
    installation = Installation.local(tmp_path)
    Lake.create(installation.settings, now=NOW)
    for system_id, agreeing in (("own-box", RECORDS), ("alien-box", 0), ("mostly-alien", SAMPLE_RECORDS // 2 - 1)):
        records = rows(system_id, agreeing=agreeing)
        upload(installation, system_id, records)
        remember_texts(installation, records)
    installation.ingest()
    return installation


def models(installation: Installation) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in installation.export().to_pylist():
        found.setdefault(row["system_id"], set()).add(row["embedding_model"])
    return found


def status(installation: Installation) -> dict[str, Any]:
    with installation.applied():
        return jobs.status()


def planned(installation: Installation, **settings: object) -> dict[str, Any]:
    with installation.using(**settings).applied():
        return jobs.plan_embed("only-planned")


def test_foreign_vectors_are_replaced_and_named_and_own_ones_kept(local: Installation):
    before = {(row["system_id"], row["record_id"]): row for row in local.export().to_pylist()}
    summary = local.run("plan_embed")
    assert summary["foreign"] == {"alien-box": RECORDS, "mostly-alien": RECORDS}
    assert summary["counts"]["replaced"] == summary["rows_changed"] == 2 * RECORDS
    assert (summary["counts"]["judged"], summary["counts"]["foreign"], summary["counts"]["to_replace"]) == (3, 2, 0)
    assert "alien-box, mostly-alien" in summary["message"]
    assert models(local) == {"own-box": {"client"}, "alien-box": {LANE_MODEL_ID}, "mostly-alien": {LANE_MODEL_ID}}
    for row in local.export().to_pylist():
        old = before[row["system_id"], row["record_id"]]
        if row["system_id"] == "own-box":
            assert row == old
        else:
            assert np.allclose(row["embedding"], ours(row["content"]), atol=1e-6)
            assert {**row, "embedding": None, "embedding_model": None} == {
                **old,
                "embedding": None,
                "embedding_model": None,
            }
    assert status(local)["foreign_vectors"] == {"alien-box": 0, "mostly-alien": 0}
    shown = local.main("status").stdout
    assert "send vectors of another model, which are replaced (0 left): alien-box, mostly-alien" in shown
    with local.applied():
        assert reading.fsck_lake(read_data=True)["findings"] == []


def test_what_is_judged_is_not_judged_again_and_nothing_is_published(local: Installation):
    """I4."""
    local.run("plan_embed")
    heads = local.heads()
    assert planned(local)["batches"] == []
    assert local.run("plan_embed")["rows_changed"] == 0
    assert local.heads() == heads


def test_a_sample_that_agrees_costs_a_look_at_a_few_texts(local: Installation):
    local.run("plan_embed")
    verdict = read_verdicts(local.lake)["own-box"]
    assert (verdict.finding, verdict.sampled, verdict.agreeing, verdict.left) == (
        "own",
        SAMPLE_RECORDS,
        SAMPLE_RECORDS,
        0,
    )


def test_half_of_a_sample_is_enough_to_be_kept(local: Installation):
    records = rows("half-box", agreeing=SAMPLE_RECORDS // 2)
    upload(local, "half-box", records)
    remember_texts(local, records)
    local.ingest()
    summary = local.run("plan_embed")
    assert "half-box" not in summary["foreign"]
    assert models(local)["half-box"] == {"client"}


def test_keep_judges_nothing(local: Installation):
    assert planned(local, client_vectors="keep")["batches"] == []
    assert models(local)["alien-box"] == {"client"}


def test_replace_takes_them_all_without_asking(local: Installation):
    summary = local.using(client_vectors="replace").run("plan_embed")
    assert summary["counts"]["replaced"] == 3 * RECORDS
    assert set().union(*models(local).values()) == {LANE_MODEL_ID}
    assert {verdict.sampled for verdict in read_verdicts(local.lake).values()} == {0}
    assert planned(local, client_vectors="replace")["batches"] == []
    assert planned(local)["batches"] != [], "another policy judges anew"


def test_a_system_found_foreign_is_judged_again_with_its_next_upload(local: Installation):
    local.run("plan_embed")
    later = rows("alien-box", agreeing=0, count=3, first=100)
    upload(local, "alien-box", [*rows("alien-box", agreeing=0), *later], NOW + HOUR)
    remember_texts(local, later)
    assert local.ingest()["counts"]["new"] == 3
    summary = local.run("plan_embed")
    assert summary["foreign"] == {"alien-box": 3}
    assert models(local)["alien-box"] == {LANE_MODEL_ID}


def test_a_spent_budget_leaves_the_rest_for_the_next_run(local: Installation):
    plan = planned(local)
    spent = local.run("plan_embed", budget_seconds=1e-9)
    assert (spent["counts"]["judged"], spent["counts"]["replaced"]) == (0, 0)
    assert [one["label"] for one in planned(local)["batches"]] == [one["label"] for one in plan["batches"]]
    assert local.run("plan_embed")["counts"]["replaced"] == 2 * RECORDS


def test_a_replacement_that_stopped_half_way_goes_on(local: Installation):
    local.run("plan_embed")
    lake = local.lake
    known = read_verdicts(lake)
    key_digests = {system: keys.sha256 for head in lake.heads() for system, keys in head.keys.items()}
    (head,) = [head for head in lake.heads() if "alien-box" in head.keys]
    half = {
        "alien-box": Verdict("alien-box", "foreign", 8, 0, 5, 15, "verify", key_digests["alien-box"], NOW.isoformat())
    }
    assert due_systems(head, known, "verify", NOW) == []
    assert due_systems(head, known | half, "verify", NOW) == ["alien-box"]


def test_a_system_of_our_model_is_judged_again_after_a_day_when_its_records_changed(local: Installation):
    local.run("plan_embed")
    lake = local.lake
    known = read_verdicts(lake)
    (head,) = [head for head in lake.heads() if "own-box" in head.keys]
    judged = datetime.fromisoformat(known["own-box"].judged_at)
    assert due_systems(head, known, "verify", judged + 2 * JUDGE_AGAIN_AFTER) == [], "its records are the same"
    records = [*rows("own-box", agreeing=RECORDS), memory("n-999", "A new note.", NOW, ours("A new note."))]
    upload(local, "own-box", records, NOW + HOUR)
    local.ingest()
    (head,) = [head for head in local.lake.heads() if "own-box" in head.keys]
    assert due_systems(head, known, "verify", judged + JUDGE_AGAIN_AFTER / 2) == []
    assert due_systems(head, known, "verify", judged + JUDGE_AGAIN_AFTER) == ["own-box"]


def test_a_lost_memory_only_costs_another_look(local: Installation):
    local.run("plan_embed")
    local.lake.store.delete(strangers.VERDICTS)
    assert status(local)["foreign_vectors"] == {}
    summary = local.run("plan_embed")
    assert (summary["counts"]["judged"], summary["rows_changed"]) == (3, 0)
    assert {verdict.finding for verdict in read_verdicts(local.lake).values()} == {"own", "none"}


@pytest.mark.slow
def test_the_command_embeds_judges_and_replaces_with_the_real_model(tmp_path: Path):
    """Vectors of our model at full precision are kept, random ones replaced, missing ones filled; progress is shown."""
    installation = Installation.local(tmp_path)
    Lake.create(installation.settings, now=NOW)
    contents = [text("real-box", number) for number in range(6)]
    real = load_encoder().encode(contents)
    made = [memory(f"n-{n}", contents[n], NOW - n * HOUR, real[n]) for n in range(6)]
    upload(installation, "real-box", made)
    upload(installation, "alien-box", rows("alien-box", agreeing=0, count=6))
    upload(installation, "bare-box", [memory("n-0", contents[0], NOW, None)])
    installation.ingest()
    done = installation.cli("embed")
    assert done.returncode == 0, done.stderr
    assert "7 vectors" not in done.stdout
    assert "1 vectors filled" in done.stdout
    assert "6 vectors of another model replaced, 0 left, sent by alien-box" in done.stdout
    assert "texts_per_second=" in done.stderr
    assert "eta_seconds=" in done.stderr
    found = models(installation)
    assert found["real-box"] == {"client"}
    assert found["alien-box"] <= set(OUR_MODELS)
    assert json.loads(installation.main("embed", "--json").stdout)["rows_changed"] == 0
