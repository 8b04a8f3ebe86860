"""Records on their way from hot to cold: nothing lost, nothing twice, nothing changed that must stay. Cites I20: nothing that recall refuses is committed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.support.installation import Installation
from tests.support.uploads import Row, database, memory, put_upload, vectors

from akosha import jobs
from akosha.declared import sign_mean
from akosha.embedding.cache import EmbeddingCache
from akosha.embedding.source import VectorSource
from akosha.errors import RecallGateError, UsageError
from akosha.jobs import reading
from akosha.lake.lake import Lake
from akosha.lake.layout import shard_of
from akosha.lake.local_store import LocalStore
from akosha.lake.schemas import KEY
from akosha.lake.shard_log import Writer
from akosha.tiers import hot_to_warm, warm_to_cold
from akosha.tiers.embed import embed_shard
from akosha.transforms.signs import sign_bits

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)
WRITER = Writer("run-1", 1, NOW)
SYSTEMS = ("laptop-7", "dev box 3", "東京-ws.example")
AGES = (0.5, 6.9, 7.1, 10, 20, 60, 89.9, 90.1, 150, 200)
TEXT = (
    "Set a deadline on {}. Retries without one hide an exhausted pool. Measure first. Then change one thing at a time."
)
KEPT = ["created_at", "time_evidence", "content_sha256", "content", "fingerprint", "project", "metadata", "attributes",
        "provenance", "embedding_model"]  # fmt: skip


def world(system_id: str) -> list[Row]:
    """A record of each age with a vector, and of each age without."""
    carried = vectors(len(AGES), seed=len(system_id))
    rows = []
    for number, age in enumerate(AGES):
        for kind, vector in (("vector", carried[number]), ("none", None)):
            text = TEXT.format(f"{kind} call {number} of {system_id}")
            rows.append(memory(f"{kind}-{age}", text, NOW - age * DAY, vector, project=None if number % 3 else "web"))
    return rows


def started(installation: Installation) -> Installation:
    """With a lake that has taken in the world."""
    Lake.create(installation.settings, now=NOW)
    for system_id in SYSTEMS:
        put_upload(installation.uploads, system_id, NOW, database({"conversations_v2": world(system_id)}))
    assert installation.ingest()["counts"]["new"] == len(SYSTEMS) * len(AGES) * 2
    return installation


@pytest.fixture
def local(tmp_path: Path) -> Installation:
    return started(Installation.local(tmp_path))


@pytest.fixture(params=["file", "s3", "s3 with cold elsewhere"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Installation:
    if request.param == "file":
        return started(Installation.local(tmp_path))
    endpoint, bucket = request.getfixturevalue("s3_server"), request.getfixturevalue("bucket")
    cold = {} if request.param == "s3" else {"cold_url": f"s3://{bucket}/frost"}
    return started(Installation.on_s3(tmp_path, endpoint, bucket, **cold))


def by_key(table: pa.Table) -> dict[tuple[str, str, str], dict[str, Any]]:
    return {tuple(row[name] for name in KEY): row for row in table.to_pylist()}  # type: ignore[misc]


def tiers(installation: Installation) -> dict[str, set[str]]:
    """Record ids by tier, which must be the same for every system."""
    found: dict[str, dict[str, set[str]]] = {}
    for row in installation.export().to_pylist():
        found.setdefault(row["system_id"], {}).setdefault(row["tier"], set()).add(row["record_id"])
    first, *others = found.values()
    assert all(other == first for other in others)
    return first


def rows_of(installation: Installation, tier: str) -> pa.Table:
    lake = installation.lake
    tables = [lake.rows(entry) for head in lake.heads() for entry in head.of_tier(tier)]
    return pa.concat_tables(tables)


def assert_sound(installation: Installation) -> None:
    with installation.applied():
        answer = reading.fsck_lake(read_data=True)
    assert answer["ok"], answer["findings"]


def assert_archive_is_warm_and_cold(installation: Installation) -> None:
    def keys(*names: str) -> list[tuple[str, ...]]:
        tables = [rows_of(installation, name).select(KEY) for name in names if counts(installation)[name]]
        return sorted(tuple(row.values()) for table in tables for row in table.to_pylist())

    assert keys("archive") == keys("warm", "cold")


def counts(installation: Installation) -> dict[str, int]:
    heads = installation.lake.heads()
    return {
        tier: sum(entry.live_rows for head in heads for entry in head.of_tier(tier))
        for tier in ("hot", "warm", "cold", "archive")
    }


def named(kind: str, *ages: float) -> set[str]:
    return {f"{kind}-{age}" for age in ages}


def test_records_age_through_the_tiers_and_stay_what_they_are(anywhere: Installation):
    """I1, I2."""
    before = by_key(anywhere.export())
    sentences = {tuple(row[name] for name in KEY): row["sentence"] for row in rows_of(anywhere, "hot").to_pylist()}

    moved = anywhere.move("hot-to-warm", NOW)
    waiting = named("none", 7.1, 10)
    assert tiers(anywhere) == {
        "hot": named("vector", 0.5, 6.9) | named("none", 0.5, 6.9) | waiting,
        "warm": (named("vector", *AGES[2:]) | named("none", *AGES[2:])) - waiting,
    }
    assert moved["counts"]["rows"] == moved["rows_changed"] == 3 * 14
    assert (moved["counts"]["waiting"], moved["counts"]["without_vector"]) == (3 * 2, 3 * 6)
    assert_archive_is_warm_and_cold(anywhere)

    colder = anywhere.move("warm-to-cold", NOW)
    assert colder["counts"]["rows"] == 3 * 6
    assert tiers(anywhere)["cold"] == named("vector", 90.1, 150, 200) | named("none", 90.1, 150, 200)
    assert counts(anywhere) == {"hot": 18, "warm": 24, "cold": 18, "archive": 42}
    assert_archive_is_warm_and_cold(anywhere)

    after = by_key(anywhere.export())
    assert after.keys() == before.keys()
    for key, row in after.items():
        for name in KEPT:
            assert row[name] == before[key][name], (key, name)
        wanted = sentences[key] if row["tier"] == "cold" else before[key]["summary"]
        assert row["summary"] == wanted
    assert_sound(anywhere)


def test_codes_are_within_half_a_step_and_signs_come_from_them(local: Installation):
    before = by_key(local.export())
    local.move("hot-to-warm", NOW)
    warm = {row["record_id"]: row for row in rows_of(local, "warm").to_pylist() if row["system_id"] == "laptop-7"}
    local.move("warm-to-cold", NOW)
    cold = {row["record_id"]: row for row in rows_of(local, "cold").to_pylist() if row["system_id"] == "laptop-7"}
    for key, row in by_key(local.export()).items():
        vector = before[key]["embedding"]
        if row["tier"] == "hot":
            assert row["embedding"] == vector
        elif vector is None:
            assert row["codes"] is row["scale"] is row["embedding"] is None
        else:
            decoded = np.frombuffer(row["codes"], np.int8).astype(np.float32) * np.float32(row["scale"])
            assert np.abs(decoded - np.float32(vector)).max() <= row["scale"] * 0.5005
            assert decoded @ np.float32(vector) / np.linalg.norm(decoded) >= 0.9999
            assert row["embedding"] in (None, vector)
    assert warm["vector-150"]["codes"] is not None
    assert warm["none-150"]["codes"] is None
    decoded = np.float32(warm["vector-150"]["codes"]) * np.float32(warm["vector-150"]["scale"])
    assert cold["vector-150"]["signs"] == sign_bits(decoded[None], sign_mean()).tobytes()
    assert cold["none-150"]["signs"] is None


def test_a_move_run_again_publishes_nothing(local: Installation):
    """I4."""
    for kind in ("hot-to-warm", "warm-to-cold"):
        local.move(kind, NOW)
        heads, objects = local.heads(), data_objects(local)
        again = local.move(kind, NOW)
        assert again["rows_changed"] == 0
        assert (local.heads(), data_objects(local)) == (heads, objects)


def data_objects(installation: Installation) -> list[str]:
    return [found.key for found in installation.lake.store.list("") if not found.key.startswith("runs/")]


def test_a_dry_run_says_what_would_move_and_changes_nothing(local: Installation):
    before = (local.heads(), data_objects(local))
    dry = local.move("hot-to-warm", NOW, dry_run=True)
    assert (dry["counts"]["rows"], dry["counts"]["waiting"], dry["rows_changed"]) == (42, 6, 0)
    assert dry["first_records"][0][0] in SYSTEMS
    assert (local.heads(), data_objects(local)) == before
    assert local.move("hot-to-warm", NOW)["counts"] == dry["counts"]
    before = (local.heads(), data_objects(local))
    assert local.move("warm-to-cold", NOW, dry_run=True)["counts"]["rows"] == 18
    assert (local.heads(), data_objects(local)) == before


def test_records_without_a_vector_move_when_patience_ends(local: Installation):
    local.move("hot-to-warm", NOW)
    moved = local.move("hot-to-warm", NOW + 5 * DAY)
    assert tiers(local)["hot"] == named("vector", 0.5) | named("none", 0.5, 6.9, 7.1)
    assert (moved["counts"]["rows"], moved["counts"]["without_vector"]) == (3 * 2, 3 * 1)
    assert_sound(local)


def test_without_patience_nothing_waits(local: Installation):
    moved = local.using(vector_wait_days=0).move("hot-to-warm", NOW)
    assert (moved["counts"]["rows"], moved["counts"]["waiting"]) == (3 * 16, 0)


def test_a_move_of_one_system_leaves_the_others(local: Installation):
    moved = local.move("hot-to-warm", NOW, system="laptop-7")
    assert moved["counts"]["rows"] == 14
    systems = {row["system_id"] for row in local.export().to_pylist() if row["tier"] == "warm"}
    assert systems == {"laptop-7"}


def test_an_instant_ahead_of_the_clock_needs_force(local: Installation):
    heads = local.heads()
    ahead = datetime.now(UTC) + 2 * DAY
    with pytest.raises(UsageError, match="--force"):
        local.move("hot-to-warm", ahead, force=False)
    with pytest.raises(UsageError, match="hot-to-warm or warm-to-cold"):
        local.move("hot-to-cold", NOW)
    assert local.heads() == heads


class TestRecallGate:
    @pytest.fixture
    def coarse(self, tmp_path: Path) -> Installation:
        """300 records whose vectors differ only by what INT8 rounds away."""
        made = Installation.local(tmp_path)
        Lake.create(made.settings, now=NOW)
        random = np.random.default_rng(1).normal(scale=0.3, size=(300, 384)).astype(np.float32)
        random[:, 0] = 100
        random /= np.linalg.norm(random, axis=1, keepdims=True)
        rows = [memory(f"id-{n}", TEXT.format(n), NOW - 30 * DAY, random[n]) for n in range(300)]
        put_upload(made.uploads, "laptop-7", NOW, database({"conversations_v2": rows}))
        made.ingest()
        return made

    def test_a_move_that_loses_recall_commits_nothing(self, coarse: Installation):
        before = (coarse.heads(), data_objects(coarse))
        with pytest.raises(RecallGateError, match="AKOSHA_RECALL_FLOOR"):
            coarse.move("hot-to-warm", NOW)
        assert (coarse.heads(), data_objects(coarse)) == before
        done = coarse.cli("migrate", "hot-to-warm", "--as-of", NOW.isoformat(), "--force")
        assert done.returncode == 1
        assert "nothing was moved" in done.stderr
        assert coarse.heads() == before[0]

    def test_the_floor_is_a_setting(self, coarse: Installation):
        moved = coarse.using(recall_floor=0).move("hot-to-warm", NOW)
        assert moved["counts"]["rows"] == 300
        assert moved["recall"][0]["judged"] is True
        assert moved["recall"][0]["recall"] < 0.95

    def test_good_vectors_pass(self, tmp_path: Path):
        made = Installation.local(tmp_path)
        Lake.create(made.settings, now=NOW)
        carried = vectors(300)
        rows = [memory(f"id-{n}", TEXT.format(n), NOW - 30 * DAY, carried[n]) for n in range(300)]
        put_upload(made.uploads, "laptop-7", NOW, database({"conversations_v2": rows}))
        made.ingest()
        moved = made.move("hot-to-warm", NOW)
        assert moved["recall"][0]["judged"] is True
        assert moved["recall"][0]["recall"] >= 0.95

    def test_a_small_batch_is_reported_and_not_judged(self, local: Installation):
        moved = local.using(recall_floor=1).move("hot-to-warm", NOW)
        assert moved["counts"]["rows"] == 42
        assert [one["judged"] for one in moved["recall"]] == [False] * len(moved["recall"])


class TestLaterUploads:
    """What comes after a record has aged: new text, better time, counters."""

    @pytest.fixture
    def aged(self, local: Installation) -> Installation:
        local.move("hot-to-warm", NOW)
        local.move("warm-to-cold", NOW)
        return local

    def put(self, installation: Installation, rows: list[Row], ago: timedelta = timedelta(0)) -> dict[str, Any]:
        put_upload(installation.uploads, "laptop-7", NOW + 2 * DAY - ago, database({"conversations_v2": rows}))
        return installation.ingest()

    @pytest.mark.parametrize(
        ("record_id", "tier"), [("vector-0.5", "hot"), ("vector-20", "warm"), ("none-150", "cold")]
    )
    def test_a_new_text_replaces_the_record_wherever_it_lives(self, aged: Installation, record_id: str, tier: str):
        """I1, I6."""
        key = ("laptop-7", "conversations_v2", record_id)
        before = by_key(aged.export())
        assert before[key]["tier"] == tier
        (row,) = (row for row in world("laptop-7") if row["id"] == record_id)
        summary = self.put(aged, [{**row, "content": "Another text. It replaces the first."}])
        assert (summary["counts"]["changed"], summary["counts"]["new"], summary["counts"]["commits"]) == (1, 0, 1)
        after = by_key(aged.export())
        assert after.keys() == before.keys()
        assert (after[key]["tier"], after[key]["content"]) == ("hot", "Another text. It replaces the first.")
        assert {k: row for k, row in after.items() if k != key} == {k: row for k, row in before.items() if k != key}
        assert_archive_is_warm_and_cold(aged)
        assert_sound(aged)
        aged.move("hot-to-warm", NOW + 30 * DAY)
        assert by_key(aged.export())[key]["content"] == "Another text. It replaces the first."
        assert_sound(aged)

    @pytest.mark.parametrize(
        ("record_id", "tier"), [("vector-0.5", "hot"), ("vector-20", "warm"), ("none-150", "cold")]
    )
    def test_a_better_time_reaches_the_record_wherever_it_lives(self, aged: Installation, record_id: str, tier: str):
        """An earlier manifest of equal rank decides; the text and the revision stay."""
        key = ("laptop-7", "conversations_v2", record_id)
        before = by_key(aged.export())
        (row,) = (row for row in world("laptop-7") if row["id"] == record_id)
        moment = before[key]["created_at"] - timedelta(minutes=3)
        retimed = {**row, "metadata": json.dumps({"extracted_at": moment.isoformat()})}
        summary = self.put(aged, [retimed], ago=3 * DAY)
        assert (summary["counts"]["retimed"], summary["counts"]["changed"], summary["counts"]["new"]) == (1, 0, 0)
        after = by_key(aged.export())
        assert after.keys() == before.keys()
        assert after[key] == {**before[key], "created_at": moment}
        assert after[key]["tier"] == tier
        assert {k: row for k, row in after.items() if k != key} == {k: row for k, row in before.items() if k != key}
        assert_sound(aged)

    def test_moved_counters_touch_no_file_of_a_tier(self, aged: Installation):
        shard = shard_of("laptop-7")
        before = aged.lake.shard(shard).head()
        self.put(aged, [{**row, "access_count": 9} for row in world("laptop-7")])
        after = aged.lake.shard(shard).head()
        assert after.version == before.version + 1
        assert after.files == before.files
        assert after.keys["laptop-7"].sha256 != before.keys["laptop-7"].sha256

    def test_an_older_text_never_comes_back(self, aged: Installation):
        rows = [{**row, "content": "An older text."} for row in world("laptop-7")]
        before = aged.export()
        summary = self.put(aged, rows, ago=4 * DAY)
        assert (summary["counts"]["changed"], summary["counts"]["new"]) == (0, 0)
        after = aged.export()
        assert after.column("content").equals(before.column("content"))
        assert after.column("content_sha256").equals(before.column("content_sha256"))
        assert_sound(aged)


class Interrupting(LocalStore):
    """A store in which somebody else works just before the first upload of a file of one kind."""

    kind = ""
    work: Callable[[], object] | None = None

    def upload(self, key: str, path: Path) -> None:
        work, self.work = self.work, self.work if self.kind not in key else None
        if work is not None and self.kind in key:
            work()
        super().upload(key, path)


class TestOthersAtWork:
    @pytest.mark.parametrize("kind", ["hot-to-warm", "warm-to-cold"])
    def test_a_text_that_changes_during_a_move_is_not_lost(self, local: Installation, kind: str):
        """I1, I6: the move planned with the old revision; it must plan again."""
        if kind == "warm-to-cold":
            local.move("hot-to-warm", NOW)
        before = by_key(local.export())
        changed = [{**row, "content": "Changed meanwhile."} for row in world("laptop-7") if row["id"] == "vector-150"]

        def ingest() -> None:
            put_upload(local.uploads, "laptop-7", NOW + DAY, database({"conversations_v2": changed}))
            assert local.ingest()["counts"]["changed"] == 1

        lake = local.lake
        lake.store = store = Interrupting(local.folder / "lake", setting="AKOSHA_LAKE_URL")
        lake.cold = cold = Interrupting(local.folder / "lake" / "cold", setting="AKOSHA_LAKE_URL")
        busy = store if kind == "hot-to-warm" else cold
        busy.kind, busy.work = ("/warm/" if kind == "hot-to-warm" else "shards/"), ingest
        shard = shard_of("laptop-7")
        if kind == "hot-to-warm":
            hot_to_warm.move_batch(lake, [shard], lake.policy(), WRITER, as_of=NOW)
        else:
            warm_to_cold.move_batch(lake, [shard], lake.policy(), WRITER, as_of=NOW)
        assert busy.work is None
        after = by_key(local.export())
        assert after.keys() == before.keys()
        assert after["laptop-7", "conversations_v2", "vector-150"]["content"] == "Changed meanwhile."
        assert_archive_is_warm_and_cold(local)
        assert_sound(local)
        with local.applied():
            warnings = [one for one in reading.fsck_lake(read_data=True)["findings"] if one["severity"] != "note"]
        assert warnings == []

    def test_an_unrelated_upload_during_a_move_does_not_delay_it(self, local: Installation):
        other = next(name for name in (f"n{n}" for n in range(9_999)) if shard_of(name) == shard_of("laptop-7"))

        def ingest() -> None:
            put_upload(local.uploads, other, NOW + DAY, database({"conversations_v2": world("laptop-7")[:2]}))
            assert local.ingest()["counts"]["new"] == 2

        lake = local.lake
        lake.store = store = Interrupting(local.folder / "lake", setting="AKOSHA_LAKE_URL")
        store.kind, store.work = "/warm/", ingest
        ((outcome,), _) = hot_to_warm.move_batch(lake, [shard_of("laptop-7")], lake.policy(), WRITER, as_of=NOW)
        assert (outcome.rows, outcome.version) == (14, 3)
        assert_sound(local)


class Letters:
    """An encoder that knows no meaning: the vector of a text is drawn from its letters. Counts what it was asked."""

    model_id = "all-minilm-l6-v2"
    dimension = 384

    def __init__(self) -> None:
        self.encoded: list[str] = []
        self.loaded = 0

    def load(self) -> Letters:
        self.loaded += 1
        return self

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.encoded += texts
        return np.concatenate([vectors(1, seed=sum(text.encode())) for text in texts])


class TestEmbedding:
    def embed(
        self, installation: Installation, encoder: Letters, deadline: float | None = None, cache: str = "embeddings"
    ) -> list[dict[str, Any]]:
        lake = installation.lake
        with EmbeddingCache(installation.folder / f"{cache}.sqlite") as kept:
            source = VectorSource(kept, encoder.load, deadline=deadline)
            return [asdict(embed_shard(lake, head.shard, source, WRITER)) for head in lake.heads()]

    def test_missing_vectors_are_filled_and_nothing_else_changes(self, local: Installation):
        before = by_key(local.export())
        encoder = Letters()
        outcomes = self.embed(local, encoder)
        assert sum(outcome["embedded"] for outcome in outcomes) == 30
        assert (encoder.loaded, len(encoder.encoded)) == (1, 30)
        after = by_key(local.export())
        assert after.keys() == before.keys()
        for key, row in after.items():
            if before[key]["embedding"] is None:
                assert row["embedding_model"] == encoder.model_id
                assert abs(np.linalg.norm(row["embedding"]) - 1) < 1e-5
                assert {**row, "embedding": None, "embedding_model": None} == before[key]
            else:
                assert row == before[key]
        assert_sound(local)

    def test_a_second_run_loads_no_model_and_publishes_nothing(self, local: Installation):
        """I4."""
        self.embed(local, Letters())
        heads = local.heads()
        encoder = Letters()
        assert sum(outcome["left"] for outcome in self.embed(local, encoder)) == 0
        assert (encoder.loaded, local.heads()) == (0, heads)
        with local.using(client_vectors="keep").applied():
            assert jobs.plan_embed("run-9")["batches"] == []

    def test_a_spent_budget_leaves_the_rest_for_the_next_run(self, local: Installation):
        first = self.embed(local, Letters(), deadline=time.monotonic() - 1)
        assert (sum(one["embedded"] for one in first), sum(one["left"] for one in first)) == (0, 30)
        encoder = Letters()

        class OneShard(Letters):
            """Its budget ends with the first shard."""

            def encode(self, texts: Sequence[str]) -> np.ndarray:
                made = encoder.encode(texts)
                time.sleep(max(0, deadline - time.monotonic()))
                return made

        deadline = time.monotonic() + 0.5
        second = self.embed(local, OneShard(), deadline=deadline)
        assert [one["embedded"] for one in second].count(10) == 1
        assert sum(one["left"] for one in second) == 20
        third = self.embed(local, encoder)
        assert sum(one["embedded"] for one in third) == 20
        assert len(encoder.encoded) == 30, "no text twice"

    def test_the_cache_spares_the_model(self, local: Installation, tmp_path: Path):
        self.embed(local, Letters())
        again = started(Installation.local(tmp_path / "again"))
        encoder = Letters()
        lake = again.lake
        with EmbeddingCache(local.folder / "embeddings.sqlite") as kept:
            source = VectorSource(kept, encoder.load, deadline=None)
            outcomes = [embed_shard(lake, head.shard, source, WRITER) for head in lake.heads()]
        assert sum(outcome.from_cache for outcome in outcomes) == 30
        assert encoder.loaded == 0

    def test_a_record_moved_meanwhile_is_planned_again(self, local: Installation):
        """I1: the encoder takes minutes; a move and an upload take the record away under it."""
        encoder = Letters()
        changed = [{**row, "content": "Changed meanwhile."} for row in world("laptop-7") if row["id"] == "none-0.5"]

        class Slow(Letters):
            def encode(self, texts: Sequence[str]) -> np.ndarray:
                if not encoder.encoded:
                    local.move("hot-to-warm", NOW)
                    put_upload(local.uploads, "laptop-7", NOW + DAY, database({"conversations_v2": changed}))
                    local.ingest()
                return encoder.encode(texts)

        before = by_key(local.export())
        self.embed(local, Slow())
        after = by_key(local.export())
        assert after.keys() == before.keys()
        assert all(row["embedding"] is not None for row in after.values() if row["tier"] == "hot")
        assert after["laptop-7", "conversations_v2", "none-0.5"]["content"] == "Changed meanwhile."
        assert_archive_is_warm_and_cold(local)
        assert_sound(local)

    def test_filled_vectors_let_waiting_records_go(self, local: Installation):
        local.move("hot-to-warm", NOW)
        self.embed(local, Letters())
        moved = local.move("hot-to-warm", NOW)
        assert (moved["counts"]["rows"], moved["counts"]["waiting"]) == (6, 0)
        assert_sound(local)
