from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from tests.integration.small_lake import AGE_DAYS, NOW, Memory, Shelf, memories, new_lake, publish, remove

from akosha.errors import IntegrityError, UsageError
from akosha.lake.lake import Lake
from akosha.search.engine import search
from akosha.search.query import SearchQuery, SearchResult
from akosha.search.sidecars import Sidecars
from akosha.settings import Settings
from akosha.transforms.quantization import dequantize, quantize
from akosha.transforms.recall import unit

SYSTEMS = ("laptop-7", "büro pc", "unknown-system")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, Shelf]:
    lake = new_lake(tmp_path_factory.mktemp("world"))
    shelf = Shelf({
        tier: [memory for seed, system in enumerate(SYSTEMS) for memory in memories(system, tier, 120, seed=seed)]
        for tier in AGE_DAYS
    })  # fmt: skip
    publish(lake, shelf)
    return lake, shelf


def question(seed: int = 11) -> np.ndarray:
    centre = memories("laptop-7", "hot", 8, seed=0)[seed % 8].vector
    return (centre + np.random.default_rng(seed).normal(size=384)).astype(np.float32)


def brute_force(rows: list[Memory], vector: np.ndarray, k: int, *, decoded: bool) -> list[tuple[str, str, str]]:
    stored = np.stack([memory.vector for memory in rows])
    stored = dequantize(*quantize(stored)) if decoded else stored
    scores = unit(stored).astype(np.float64) @ (vector / np.linalg.norm(vector)).astype(np.float64)
    order = sorted(range(len(rows)), key=lambda row: (-round(scores[row], 6), rows[row].key))
    return [rows[row].key for row in order[:k]]


def keys(result: SearchResult) -> list[tuple[str, str, str]]:
    return [(hit.place.system_id, hit.place.source_table, hit.place.record_id) for hit in result.hits]


@pytest.mark.parametrize("seed", range(5))
def test_hot_answers_exactly_as_brute_force_on_float(world: tuple[Lake, Shelf], seed: int):
    lake, shelf = world
    result = search(lake, question(seed), SearchQuery(k=10, tiers=("hot",)))
    assert keys(result) == brute_force(shelf.tiers["hot"], question(seed), 10, decoded=False)
    assert result.scanned == 360


@pytest.mark.parametrize("seed", range(5))
def test_warm_answers_exactly_as_brute_force_on_its_codes(world: tuple[Lake, Shelf], seed: int):
    lake, shelf = world
    result = search(lake, question(seed), SearchQuery(k=10, tiers=("warm",)))
    assert keys(result) == brute_force(shelf.tiers["warm"], question(seed), 10, decoded=True)


def test_both_tiers_are_searched_by_default_and_merged_by_score(world: tuple[Lake, Shelf]):
    lake, _ = world
    result = search(lake, question(), SearchQuery(k=100))
    scores = [hit.score for hit in result.hits]
    assert scores == sorted(scores, reverse=True)
    assert {hit.place.tier for hit in result.hits} == {"hot", "warm"}
    assert result.scanned == 720


def test_the_length_of_vectors_does_not_matter(world: tuple[Lake, Shelf]):
    lake, _ = world
    assert search(lake, question() * 1e-3, SearchQuery()).hits == search(lake, question() * 1e3, SearchQuery()).hits


@pytest.mark.parametrize("system", SYSTEMS)
def test_nothing_of_another_system_is_returned(world: tuple[Lake, Shelf], system: str):
    lake, _ = world
    result = search(lake, question(), SearchQuery(k=1000, systems=(system,)))
    assert {hit.place.system_id for hit in result.hits} == {system}
    assert len(result.hits) == result.scanned == 240


def test_an_unknown_system_finds_nothing(world: tuple[Lake, Shelf]):
    lake, _ = world
    assert search(lake, question(), SearchQuery(systems=("nobody",))).hits == ()


def test_times_filter_from_inclusive_until_exclusive(world: tuple[Lake, Shelf]):
    lake, shelf = world
    since, until = NOW - timedelta(days=1) + timedelta(minutes=5), NOW - timedelta(days=1) + timedelta(minutes=9)
    result = search(lake, question(), SearchQuery(k=100, since=since, until=until))
    expected = {memory.key for memory in shelf.tiers["hot"] if since <= memory.created_at < until}
    assert set(keys(result)) == expected
    assert len(expected) == 12


def test_projects_filter_exactly(world: tuple[Lake, Shelf]):
    lake, _ = world
    result = search(lake, question(), SearchQuery(k=1000, projects=("web",)))
    assert {hit.project for hit in result.hits} == {"web"}
    assert len(result.hits) == 240


def test_filters_and_brute_force_agree_together(world: tuple[Lake, Shelf]):
    lake, shelf = world
    since = NOW - timedelta(days=1) + timedelta(minutes=30)
    query = SearchQuery(k=10, systems=("büro pc", "laptop-7"), since=since, projects=("data",), tiers=("hot",))
    rows = [memory for memory in shelf.tiers["hot"]
            if memory.system_id != "unknown-system" and memory.project == "data" and memory.created_at >= since]  # fmt: skip
    assert keys(search(lake, question(), query)) == brute_force(rows, question(), 10, decoded=False)


def test_every_hit_says_where_it_comes_from(world: tuple[Lake, Shelf]):
    lake, shelf = world
    hit = search(lake, question(), SearchQuery(k=1, tiers=("warm",))).document()["hits"][0]
    memory = next(memory for memory in shelf.tiers["warm"] if memory.record_id == hit["place"]["record_id"]
                  and memory.system_id == hit["place"]["system_id"])  # fmt: skip
    assert hit["content_sha256"] == memory.digest.hex()
    assert hit["created_at"] == memory.created_at.isoformat()
    assert hit["upload"] == "systems/laptop-7/uploads/1/manifest.json"
    assert hit["file"].startswith(f"shards/{hit['place']['shard']:03d}/warm/")
    assert (hit["project"], hit["embedding_model"], hit["summary"]) == (
        memory.project,
        "client",
        f"About {memory.text}",
    )


@pytest.mark.parametrize(
    ("query", "says"),
    [
        (SearchQuery(tiers=("cold",)), "hot and warm are searchable now"),
        (SearchQuery(tiers=("tepid",)), "no such tier"),
        (SearchQuery(k=0), "k must be 1 to 1000"),
        (SearchQuery(since=NOW.replace(tzinfo=None)), "timezone"),
    ],
)
def test_a_query_that_cannot_be_answered_is_refused(world: tuple[Lake, Shelf], query: SearchQuery, says: str):
    with pytest.raises(UsageError, match=says):
        search(world[0], question(), query)


@pytest.mark.parametrize("vector", [np.zeros(384), np.full(384, np.nan), np.ones(383)])
def test_a_vector_without_direction_is_refused(world: tuple[Lake, Shelf], vector: np.ndarray):
    with pytest.raises(UsageError, match="query vector"):
        search(world[0], vector.astype(np.float32), SearchQuery())


def test_the_same_text_under_several_keys_counts_once(tmp_path: Path):
    lake = new_lake(tmp_path)
    hot, warm = memories("laptop-7", "hot", 30), memories("büro pc", "warm", 30, seed=2)
    loud = hot[4]
    copies = [Memory(system, f"copy-{number:03d}", loud.text, loud.vector, loud.created_at)
              for system in ("laptop-7", "büro pc") for number in range(100)]  # fmt: skip
    publish(lake, Shelf({"hot": [*hot, *copies], "warm": warm}))
    result = search(lake, loud.vector, SearchQuery(k=10))
    assert len({hit.content_sha256 for hit in result.hits}) == len(result.hits) == 10
    first = result.hits[0]
    assert first.place.record_id == "copy-000"
    assert first.place.system_id == "büro pc"
    assert len(first.also) == 200
    assert [(place.system_id, place.record_id) for place in first.also] == sorted(
        (place.system_id, place.record_id) for place in first.also
    )
    ours = search(lake, loud.vector, SearchQuery(k=10, systems=("laptop-7",))).hits[0]
    assert {place.system_id for place in (ours.place, *ours.also)} == {"laptop-7"}


def test_the_answer_does_not_depend_on_how_files_are_cut(tmp_path: Path):
    rows = memories("laptop-7", "hot", 60)
    whole, cut = new_lake(tmp_path / "a"), new_lake(tmp_path / "b")
    publish(whole, Shelf({"hot": rows}))
    for start in range(0, 60, 20):
        publish(cut, Shelf({"hot": rows[start : start + 20]}))
    answers = [search(lake, question(), SearchQuery(k=20)) for lake in (whole, cut)]
    assert [(hit.score, hit.place) for hit in answers[0].hits] == [(hit.score, hit.place) for hit in answers[1].hits]
    assert answers[1].scanned == 60


def test_a_removed_record_is_not_found_again(tmp_path: Path):
    lake = new_lake(tmp_path)
    rows = memories("laptop-7", "hot", 20)
    publish(lake, Shelf({"hot": rows}))
    sidecars = Sidecars(lake)
    before = search(lake, rows[7].vector, SearchQuery(k=1), sidecars=sidecars)
    remove(lake, rows[7], "hot", keep=[row for row in rows if row is not rows[7]])
    assert lake.shard(77).head().of_tier("hot")[0].removal is not None
    after = search(lake, rows[7].vector, SearchQuery(k=20), sidecars=sidecars)
    assert before.hits[0].place.record_id == "hot-0007"
    assert "hot-0007" not in {hit.place.record_id for hit in after.hits}
    assert after.scanned == 19


def test_records_without_a_comparable_vector_are_counted_not_compared(tmp_path: Path):
    lake = new_lake(tmp_path)
    rows = memories("laptop-7", "hot", 12)
    rows[0].vector = None
    rows[1].model = "another-model"
    rows[2].model = "all-minilm-l6-v2"
    rows[3].vector = np.zeros(384, np.float32)
    publish(lake, Shelf({"hot": rows}))
    result = search(lake, question(), SearchQuery(k=100))
    assert (result.without_vector, result.other_model, result.scanned) == (1, 1, 9)
    assert {hit.place.record_id for hit in result.hits} == {row.record_id for row in [rows[2], *rows[4:]]}


def test_a_lake_without_vectors_answers_with_nothing(tmp_path: Path):
    lake = new_lake(tmp_path)
    assert search(lake, question(), SearchQuery()).hits == ()
    rows = memories("laptop-7", "hot", 3)
    for row in rows:
        row.vector = None
    publish(lake, Shelf({"hot": rows}))
    assert search(lake, question(), SearchQuery()).without_vector == 3


def test_sidecars_can_be_deleted_or_damaged_at_any_time(tmp_path: Path):
    lake = new_lake(tmp_path)
    publish(lake, Shelf({"hot": memories("laptop-7", "hot", 20), "warm": memories("laptop-7", "warm", 20)}))
    expected = search(lake, question(), SearchQuery())
    parts = sorted(path for path in (tmp_path / "cache" / "sidecars").rglob("*") if path.is_file())
    assert len(parts) == 9
    for path in parts:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        assert search(lake, question(), SearchQuery()) == expected, f"flipped {path.name}"
        path.unlink()
        assert search(lake, question(), SearchQuery()) == expected, f"deleted {path.name}"
        path.write_bytes(path.read_bytes()[:10])
        assert search(lake, question(), SearchQuery()) == expected, f"cut {path.name}"
    assert not list((tmp_path / "cache" / "sidecars").rglob(".*"))


def test_many_readers_may_make_the_same_sidecars_at_once(tmp_path: Path):
    lake = new_lake(tmp_path)
    publish(lake, Shelf({"hot": memories("laptop-7", "hot", 20), "warm": memories("büro pc", "warm", 20)}))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        answers = list(pool.map(_search_anew, [lake.settings] * 4))
    assert all(answer == search(lake, question(), SearchQuery()) for answer in answers)
    assert not list((tmp_path / "cache" / "sidecars").rglob(".*"))


def _search_anew(settings: Settings) -> SearchResult:
    return search(Lake.open(settings), question(), SearchQuery())


def test_open_sidecars_hold_no_file_descriptors(world: tuple[Lake, Shelf]):
    lake, _ = world
    sidecars = Sidecars(lake)
    before = len(list(Path("/proc/self/fd").iterdir()))
    search(lake, question(), SearchQuery(), sidecars=sidecars)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_a_file_missing_from_the_head_is_damage(tmp_path: Path):
    lake = new_lake(tmp_path)
    publish(lake, Shelf({"hot": memories("laptop-7", "hot", 5)}))
    for path in (tmp_path / "lake").rglob("*.duckdb"):
        path.unlink()
    with pytest.raises(IntegrityError, match="akosha fsck"):
        search(lake, question(), SearchQuery())
