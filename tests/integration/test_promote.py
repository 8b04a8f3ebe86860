"""Aged records come back to hot as they were, stay there for a while, and are in one tier at every moment. Cites I1, I2, I11, I32."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.integration.small_lake import NOW, Memory, Shelf, memories, new_lake, publish
from tests.support.dying_store import DiedError, DyingStore, Fuse
from tests.support.installation import Installation
from tests.support.uploads import database, put_upload, vectors
from tests.support.uploads import memory as uploaded

from akosha.embedding.source import Embedded
from akosha.errors import IntegrityError
from akosha.lake.columns import vectors_of
from akosha.lake.edit import edit_shard
from akosha.lake.export import export_shard
from akosha.lake.files import ROW
from akosha.lake.holds import holds, with_holds
from akosha.lake.lake import Lake
from akosha.lake.layout import shard_of
from akosha.lake.provenance import about
from akosha.lake.schemas import HOLDS, KEY
from akosha.lake.shard_log import Writer
from akosha.lake.undo import undo_shard
from akosha.quality.fsck import fsck
from akosha.tiers.promote import PromoteOutcome, promote_shard
from akosha.transforms.cleaning import clean
from akosha.transforms.summaries import summarise

pytestmark = pytest.mark.integration

SHARD = shard_of("laptop-7")
WRITER = Writer("promoter", 1, NOW)
UNTIL = NOW + timedelta(days=30)


class Vectors:
    """A source that gives every text one vector, until its budget is spent."""

    def __init__(self, budget: int = 99) -> None:
        self.left = budget

    def vectors(self, texts: list[str], digests: list[bytes]) -> tuple[dict[bytes, Embedded], int]:
        assert len(texts) == len(digests)
        made = digests[: self.left]
        self.left -= len(made)
        return {digest: Embedded(np.full(384, 0.05, np.float32), "all-minilm-l6-v2") for digest in made}, 0


@pytest.fixture
def shelf() -> Shelf:
    return Shelf({tier: memories("laptop-7", tier, 12) for tier in ("hot", "warm", "cold")})


@pytest.fixture
def lake(tmp_path: Path, shelf: Shelf) -> Lake:
    made = new_lake(tmp_path)
    publish(made, shelf)
    return made


def keys(*wanted: Memory) -> pa.Table:
    return pa.table({name: [memory.key[at] for memory in wanted] for at, name in enumerate(KEY)})


def promote(lake: Lake, *wanted: Memory, **options: Any) -> PromoteOutcome:
    return promote_shard(lake, SHARD, keys(*wanted), WRITER, **{"hold_until": UNTIL, **options})


def records(lake: Lake) -> dict[str, dict[str, Any]]:
    return {row["record_id"]: row for row in export_shard(lake, lake.shard(SHARD).head()).to_pylist()}


def live(lake: Lake) -> dict[str, int]:
    head = lake.shard(SHARD).head()
    return {tier: sum(entry.live_rows for entry in head.of_tier(tier)) for tier in ("hot", "warm", "cold", "archive")}


def test_records_come_back_as_they_were(lake: Lake, shelf: Shelf):
    """I1, I11."""
    wanted = [*shelf.tiers["warm"][:3], *shelf.tiers["cold"][:2]]
    before = records(lake)
    outcome = promote(lake, *wanted)
    assert (outcome.rows, outcome.from_warm, outcome.from_cold, outcome.original_vector) == (5, 3, 2, 5)
    assert live(lake) == {"hot": 17, "warm": 9, "cold": 10, "archive": 19}
    after = records(lake)
    assert after.keys() == before.keys()
    for memory in wanted:
        row = after[memory.record_id]
        assert (row["tier"], row["content"], row["embedding_model"]) == ("hot", memory.text, "client")
        assert np.array_equal(np.float32(row["embedding"]), memory.vector)
        same = ("created_at", "time_evidence", "content_sha256", "fingerprint", "project", "metadata", "provenance")
        assert {name: row[name] for name in same} == {name: before[memory.record_id][name] for name in same}
    untouched = before.keys() - {memory.record_id for memory in wanted}
    assert {name: after[name] for name in untouched} == {name: before[name] for name in untouched}
    assert fsck(lake, read_data=True).ok


def test_a_cold_record_gets_its_summary_from_its_text(lake: Lake, shelf: Shelf):
    warm, cold = shelf.tiers["warm"][0], shelf.tiers["cold"][0]
    promote(lake, warm, cold)
    after = records(lake)
    assert after[warm.record_id]["summary"] == f"About {warm.text}"
    (made,) = summarise([clean(cold.text)])
    assert after[cold.record_id]["summary"] == made.text


def without_floats(lake: Lake) -> None:
    """The archive as it is where the audit sample does not keep a vector."""
    from akosha.lake.edit import edit_shard
    from akosha.lake.provenance import about
    from akosha.lake.schemas import ARCHIVE

    head = lake.shard(SHARD).head()
    with edit_shard(lake, head, about()) as edit:
        for entry in head.of_tier("archive"):
            rows = lake.rows(entry)
            edit.drop(entry, rows.column("row").to_numpy())
            at = ARCHIVE.get_field_index("embedding")
            edit.put("archive", rows.set_column(at, ARCHIVE.field(at), pa.nulls(rows.num_rows, ARCHIVE.field(at).type)))
        edit.publish("ingest", WRITER, counts={})


def test_a_vector_that_was_not_kept_is_left_to_the_embedding_lane_and_that_is_said(lake: Lake, shelf: Shelf):
    without_floats(lake)
    outcome = promote(lake, *shelf.tiers["warm"][:2])
    assert (outcome.original_vector, outcome.embedded, outcome.left_to_lane) == (0, 0, 2)
    after = records(lake)[shelf.tiers["warm"][0].record_id]
    assert (after["embedding"], after["embedding_model"]) == (None, None)
    assert sum(entry.without_vector for entry in lake.shard(SHARD).head().of_tier("hot")) == 2
    assert fsck(lake, read_data=True).ok


def test_a_vector_that_was_not_kept_is_made_at_once_where_there_is_a_source(lake: Lake, shelf: Shelf):
    without_floats(lake)
    outcome = promote(lake, *shelf.tiers["warm"][:2], source=Vectors())
    assert (outcome.original_vector, outcome.embedded, outcome.left_to_lane) == (0, 2, 0)
    head = lake.shard(SHARD).head()
    rows = pa.concat_tables([lake.rows(entry) for entry in head.of_tier("hot")])
    ours = rows.filter(pa.compute.equal(rows.column("embedding_model"), "all-minilm-l6-v2"))
    assert vectors_of(ours.column("embedding"))[0].tolist() == [[pytest.approx(0.05)] * 384] * 2
    assert head.counts["embedded"] == 2


@pytest.mark.parametrize("budget", [0, 1])
def test_records_come_back_without_a_vector_when_the_budget_of_the_source_is_spent(
    lake: Lake, shelf: Shelf, budget: int
):
    """I1: the rest is left to the embedding lane."""
    without_floats(lake)
    outcome = promote(lake, *shelf.tiers["warm"][:2], source=Vectors(budget))
    assert (outcome.rows, outcome.embedded, outcome.left_to_lane) == (2, budget, 2 - budget)
    assert sum(entry.without_vector for entry in lake.shard(SHARD).head().of_tier("hot")) == 2 - budget
    assert live(lake) == {"hot": 14, "warm": 10, "cold": 12, "archive": 22}
    assert fsck(lake, read_data=True).ok


def test_promoted_records_are_on_hold_and_an_undo_takes_the_hold_back(lake: Lake, shelf: Shelf):
    """I32, I28."""
    promote(lake, shelf.tiers["warm"][0], shelf.tiers["hot"][0])
    head = lake.shard(SHARD).head()
    held = holds(lake, head).to_pylist()
    assert [(row["record_id"], row["hold_until"]) for row in held] == [("hot-0000", UNTIL), ("warm-0000", UNTIL)]
    promote(lake, shelf.tiers["warm"][1], hold_until=UNTIL + timedelta(days=1))
    assert holds(lake, lake.shard(SHARD).head()).num_rows == 3
    undo_shard(lake, SHARD, to_version=head.version, writer=WRITER, reason="")
    assert holds(lake, lake.shard(SHARD).head()).to_pylist() == held
    undo_shard(lake, SHARD, to_version=1, writer=WRITER, reason="")
    assert holds(lake, lake.shard(SHARD).head()).num_rows == 0
    assert fsck(lake, read_data=True).ok


def test_the_next_night_leaves_promoted_records_in_hot(tmp_path: Path):
    """I32, through the jobs."""
    made = Installation.local(tmp_path)
    Lake.create(made.settings, now=NOW)
    aged = [uploaded(f"id-{n}", f"Note {n}. Measure it.", datetime.now(UTC) - timedelta(days=100), one)
            for n, one in enumerate(vectors(3))]  # fmt: skip
    put_upload(made.uploads, "laptop-7", NOW, database({"conversations_v2": aged}))
    made.ingest()

    def night(after: timedelta) -> dict[str, int]:
        for kind in ("hot-to-warm", "warm-to-cold"):
            made.move(kind, datetime.now(UTC) + after)
        return dict(Counter(made.export().column("tier").to_pylist()))

    assert night(timedelta(0)) == {"cold": 3}
    dry = made.main("promote", "--system", "laptop-7", "--dry-run")
    assert (dry.returncode, "3 records would come back to hot" in dry.stdout) == (0, True), dry.stderr
    keys = tmp_path / "keys.tsv"
    keys.write_text("laptop-7\tconversations_v2\tid-0\n")
    done = made.main("promote", "laptop-7", "conversations_v2", "id-1", "--keys", str(keys))
    assert (done.returncode, "2 records came back to hot, 0 from warm and 2 from cold" in done.stdout) == (0, True), (
        done.stderr
    )
    assert night(timedelta(days=29)) == {"cold": 1, "hot": 2}
    assert night(timedelta(days=31)) == {"cold": 3}
    for wrong in (("laptop-7",), (), ("a", "b", "c", "--system", "d"), ("--system", "x", "--hold-days", "0")):
        assert made.main("promote", *wrong).returncode == 2


def test_holds_end_and_the_latest_counts():
    """I32."""
    one, two = Memory("s", "a", "x", None, NOW), Memory("s", "b", "x", None, NOW)
    held = with_holds(HOLDS.empty_table(), keys(one, two), until=UNTIL, now=NOW)
    longer = with_holds(held, keys(one), until=UNTIL + timedelta(days=1), now=NOW)
    assert longer.column("hold_until").to_pylist() == [UNTIL + timedelta(days=1), UNTIL]
    assert with_holds(longer, keys(two), until=NOW, now=NOW).equals(longer)
    later = with_holds(longer, keys(), until=UNTIL, now=UNTIL + timedelta(hours=1))
    assert later.column("record_id").to_pylist() == ["a"]


def test_promoting_again_publishes_nothing(lake: Lake, shelf: Shelf):
    """I4."""
    promote(lake, shelf.tiers["cold"][0])
    head = lake.shard(SHARD).head()
    again = promote(lake, shelf.tiers["cold"][0])
    assert (again.rows, again.in_hot) == (0, 1)
    assert lake.shard(SHARD).head() == head


def test_a_dry_run_changes_nothing_and_unknown_keys_are_counted(lake: Lake, shelf: Shelf):
    head = lake.shard(SHARD).head()
    stranger = Memory("laptop-7", "nowhere", "x", None, NOW)
    elsewhere = Memory("somebody else", "x", "x", None, NOW)
    dry = promote(lake, shelf.tiers["cold"][0], stranger, elsewhere, dry_run=True)
    assert (dry.wanted, dry.rows, dry.unknown, dry.bytes) == (3, 1, 2, len(shelf.tiers["cold"][0].text))
    assert dry.first_records == [list(shelf.tiers["cold"][0].key)]
    assert lake.shard(SHARD).head() == head


def test_a_record_without_archived_text_is_refused_and_named(tmp_path: Path, shelf: Shelf):
    """I2."""
    shelf.without_archive = {"warm-0003"}
    lake = new_lake(tmp_path / "other")
    publish(lake, shelf)
    head = lake.shard(SHARD).head()
    named = r"no text of 1 records: laptop-7 / conversations / warm-0003\. Run `akosha fsck --read-data`"
    with pytest.raises(IntegrityError, match=named):
        promote(lake, *shelf.tiers["warm"][:5])
    assert lake.shard(SHARD).head() == head


def test_another_text_in_the_archive_is_damage(tmp_path: Path, shelf: Shelf):
    """I2, I6."""
    wrong = Memory(
        **{**{name: getattr(shelf.tiers["warm"][3], name) for name in Memory.__dataclass_fields__}, "text": "other"}
    )
    shelf.archived_as = {"warm-0003": wrong}
    lake = new_lake(tmp_path / "other")
    publish(lake, shelf)
    with pytest.raises(IntegrityError, match="another text"):
        promote(lake, shelf.tiers["warm"][3])
    assert lake.shard(SHARD).head().version == 1


def test_a_record_that_the_archive_has_twice_is_damage(lake: Lake, shelf: Shelf):
    """I1, I11."""
    head = lake.shard(SHARD).head()
    with edit_shard(lake, head, about()) as edit:
        for entry in head.of_tier("archive"):
            edit.put("archive", lake.rows(entry).drop_columns([ROW]))
        doubled = edit.publish("ingest", WRITER, counts={})
    with pytest.raises(IntegrityError, match="the archive has a record twice; nothing was promoted"):
        promote(lake, shelf.tiers["warm"][3])
    assert lake.shard(SHARD).head() == doubled


@pytest.mark.parametrize("done", [False, True])
def test_a_promotion_killed_at_any_call_loses_and_doubles_nothing(lake: Lake, shelf: Shelf, done: bool):
    """I1, I2."""
    wanted = [shelf.tiers["warm"][0], shelf.tiers["cold"][0]]
    before = set(records(lake))
    deaths = 0
    while True:
        fuse = Fuse(deaths + 1, done=done)
        victim = Lake(lake.settings, DyingStore(lake.store, fuse), DyingStore(lake.cold, fuse), lake.identity)
        try:
            promote(victim, *wanted)
        except DiedError:
            deaths += 1
            report = fsck(lake, read_data=False)
            assert report.ok, report.findings
            continue
        break
    assert deaths >= 5
    assert set(records(lake)) == before
    assert fsck(lake, read_data=True).ok
    assert live(lake) == {"hot": 14, "warm": 11, "cold": 11, "archive": 22}
