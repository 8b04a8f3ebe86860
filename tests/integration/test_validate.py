from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from tests.integration.small_lake import NOW, Shelf, full_lake, memories, new_lake, publish

from akosha.errors import IntegrityError
from akosha.lake.lake import Lake
from akosha.quality.conservation import measure_shard
from akosha.quality.expectations import judge
from akosha.quality.recall_audit import audit_recall
from akosha.quality.validate import validate
from akosha.transforms.recall import RecallMeasure


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Validation asks nobody anything, not even from a thread that swallows its errors."""
    asked: list[object] = []

    def refuse(self: socket.socket, address: object) -> None:
        asked.append(address)
        raise OSError(address)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield
    assert asked == []


def lake_with_warm(folder: Path, count: int) -> Lake:
    lake = new_lake(folder)
    publish(lake, Shelf({"hot": memories("laptop-7", "hot", 4), "warm": memories("laptop-7", "warm", count)}))
    return lake


def pages(lake: Lake, run_id: str) -> dict[str, bytes]:
    prefix = f"reports/validate/{run_id}/"
    return {found.key.removeprefix(prefix): lake.store.get(found.key) for found in lake.store.list(prefix)}


def test_a_sound_lake_passes_and_its_report_can_be_opened(tmp_path: Path):
    lake = lake_with_warm(tmp_path, 120)
    run_id = "scheduled__2026-11-20T00:00:00+00:00"
    answer = json.loads(json.dumps(validate(lake, run_id, NOW)))
    assert answer["success"], answer["message"]
    assert answer["recall"]["judged"]
    assert answer["recall"]["queries"] == 120
    assert answer["recall"]["recall"] > 0.95
    assert answer["conservation"]["keys"] == 124
    assert answer["versions"] == {"77": 1}
    assert {found["suite"] for found in answer["expectations"]} == {"recall", "conservation"}
    found = pages(lake, run_id)
    assert answer["report"] == f"{lake.store.url}/reports/validate/{run_id}/report.html"
    assert b"conservation" in found["index.html"]
    page = found["report.html"].decode()
    assert answer["message"] in page
    assert page.count("<tr>") > len(answer["expectations"])
    assert set(re.findall(r'href="([^"]+)"', page)) <= found.keys()
    assert "http" not in page
    assert sum(name.startswith("validations/") for name in found) == 2
    assert sum(map(len, found.values())) < 2_000_000
    links = {unquote(link) for link in re.findall(r"'(validations/[^']+)'", found["index.html"].decode())}
    assert links == {name for name in found if name.startswith("validations/")}, "the entry links to every result"


def test_broken_conservation_is_red(tmp_path: Path):
    lake = new_lake(tmp_path)
    hot = memories("laptop-7", "hot", 4)
    publish(lake, Shelf({"hot": hot[1:]}, ghosts=[hot[0], replace(hot[1], text="changed")]))
    answer = validate(lake, "run-1", NOW)
    assert not answer["success"]
    failed = {(found["suite"], found["column"]) for found in answer["expectations"] if not found["success"]}
    assert failed == {("conservation", "missing"), ("conservation", "doubled"), ("conservation", "digest_mismatch")}
    assert "1 listed in a key file but in no tier" in answer["message"]
    assert "index.html" in pages(lake, "run-1")


def test_bad_recall_is_red_when_there_is_enough_to_judge(tmp_path: Path):
    lake = lake_with_warm(tmp_path, 10)
    figures = [measure_shard(lake, head)[0] for head in lake.heads()]
    bad = RecallMeasure(recall=0.8, overlap=0.8, queries=60, corpus=60, judged=True)
    verdict = judge(bad, figures, floor=0.95, run_id="bad", docs=tmp_path / "bad")
    assert not verdict.success
    assert [(found.suite, found.column) for found in verdict.expectations if not found.success] == [
        ("recall", "recall")
    ]
    few = judge(replace(bad, judged=False), figures, floor=0.95, run_id="few", docs=tmp_path / "few")
    assert few.success
    assert (tmp_path / "few" / "index.html").exists()


def test_codes_that_lost_their_meaning_are_noticed_by_the_audit(tmp_path: Path):
    rows = memories("laptop-7", "warm", 80)
    sound, spoilt = new_lake(tmp_path / "sound"), new_lake(tmp_path / "spoilt")
    publish(sound, Shelf({"warm": rows}))
    # The archive keeps the true vectors, warm holds codes of others: what a wrong codec would leave behind.
    others = [replace(row, vector=other.vector) for row, other in zip(rows, np.roll(rows, 7), strict=True)]
    publish(spoilt, Shelf({"warm": others}, archived_as={row.record_id: row for row in rows}))
    good, bad = audit_recall(sound, sound.heads()), audit_recall(spoilt, spoilt.heads())
    assert good.recall > 0.95
    assert bad.recall < 0.5
    assert good.judged
    assert bad.judged
    assert not validate(spoilt, "run-1", NOW)["success"]


def test_too_few_audited_records_are_reported_not_judged(tmp_path: Path):
    lake = lake_with_warm(tmp_path, 49)
    measure = audit_recall(lake, lake.heads())
    assert (measure.queries, measure.judged) == (49, False)


def test_records_without_a_vector_and_equal_texts_are_not_audited_twice(tmp_path: Path):
    rows = memories("laptop-7", "warm", 12)
    rows[0].vector = None
    rows[1] = replace(rows[2], record_id="twin")
    lake = new_lake(tmp_path)
    publish(lake, Shelf({"warm": rows}))
    assert audit_recall(lake, lake.heads()).queries == 10


def test_figures_of_a_sound_shard_count_every_tier(tmp_path: Path):
    lake, _ = full_lake(tmp_path)
    figures, breaches = measure_shard(lake, lake.shard(77).head())
    assert (figures.keys, figures.hot, figures.warm, figures.cold, figures.archive) == (35, 11, 12, 12, 24)
    assert breaches.num_rows == 0


def test_an_empty_lake_passes_and_says_that_it_is_empty(tmp_path: Path):
    answer = validate(new_lake(tmp_path), "run-1", NOW)
    assert answer["success"]
    assert "empty" in answer["message"]
    assert answer["report"] == ""


def test_a_lake_with_a_missing_file_is_not_judged(tmp_path: Path):
    lake = lake_with_warm(tmp_path, 3)
    for path in (tmp_path / "lake").rglob("warm/*.duckdb"):
        path.unlink()
    with pytest.raises(IntegrityError, match="akosha fsck"):
        validate(lake, "run-1", NOW)
