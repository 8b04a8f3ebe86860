"""The decision about one upload, compared with a plain dict: whatever the order of the uploads, the same records. Cites I13 and I14: an older upload never replaces, time changes only for better evidence."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from akosha.lake.schemas import KEYS
from akosha.transforms.times import EVIDENCE
from akosha.uploads.upsert import INCOMING, UpsertPlan, plan_upsert

START = datetime(2026, 11, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
Row = tuple[str, str, int, int]  # id, text, hour of created_at, evidence rank
Snapshot = tuple[int, tuple[Row, ...]]  # hour of the manifest, rows


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def incoming(rows: tuple[Row, ...] | list[Row], manifest: int = 0) -> pa.Table:
    return pa.table(
        {
            "position": list(range(len(rows))),
            "source_table": ["conversations_v2"] * len(rows),
            "record_id": [row[0] for row in rows],
            "content_sha256": [digest(row[1]) for row in rows],
            "created_at": [START + row[2] * HOUR for row in rows],
            "time_evidence": [EVIDENCE[row[3]] for row in rows],
            "bookkeeping": [f'{{"seen":{manifest}}}'] * len(rows),
        },
        schema=INCOMING,
    )


@dataclass
class Lake:
    """Key file and records of one system, changed only by what plans say."""

    ambiguous: bool = False
    keys: pa.Table = field(default_factory=KEYS.empty_table)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)

    def apply(self, snapshot: Snapshot) -> UpsertPlan:
        manifest, rows = snapshot
        plan = plan_upsert(
            self.keys, incoming(rows, manifest), manifest_time=START + manifest * HOUR, ambiguous=self.ambiguous
        )
        for gone in plan.replaced.to_pylist():
            assert self.records.pop(gone["record_id"])["created_at"] == gone["created_live"]
        for new in plan.rows.to_pylist():
            assert new["record_id"] not in self.records
            text = rows[new["position"]][1]
            self.records[new["record_id"]] = {"text": text, **{n: new[n] for n in ("created_at", "time_evidence")}}
        for timed in plan.retimed.to_pylist():
            record = self.records[timed["record_id"]]
            assert record["created_at"] == timed["created_live"]
            record.update({name: timed[name] for name in ("created_at", "time_evidence")})
        self.keys = self.keys if plan.keys is None else plan.keys
        return plan


def model(snapshots: list[Snapshot]) -> dict[str, dict[str, Any]]:
    """What must come out: the newest text, the best time (earliest manifest among equals)."""
    made: dict[str, dict[str, Any]] = {}
    for record_id in {row[0] for _, rows in snapshots for row in rows}:
        seen = [(manifest, row) for manifest, rows in snapshots for row in rows if row[0] == record_id]
        newest = max(seen)[1]
        best = min(seen, key=lambda one: (one[1][3], one[0]))[1]
        made[record_id] = {
            "text": newest[1], "created_at": START + best[2] * HOUR, "time_evidence": EVIDENCE[best[3]]
        }  # fmt: skip
    return made


def as_listed(keys: pa.Table) -> dict[str, tuple[bytes, datetime, str]]:
    return {
        row["record_id"]: (row["content_sha256"], row["created_at"], row["time_evidence"]) for row in keys.to_pylist()
    }


ROW = st.tuples(st.sampled_from("abc"), st.sampled_from(["x", "y", "z"]), st.integers(0, 2), st.integers(0, 4))
ROWS = st.lists(ROW, max_size=4, unique_by=lambda row: row[0]).map(tuple)
SNAPSHOTS = st.lists(st.tuples(st.integers(10, 99), ROWS), min_size=1, max_size=4, unique_by=lambda one: one[0])


@given(SNAPSHOTS, st.data())
@settings(max_examples=30, deadline=None)
def test_any_order_of_the_same_uploads_gives_the_same_records(snapshots: list[Snapshot], data: st.DataObject):
    """I1, I5, I6: also with uploads that come twice."""
    order = data.draw(st.permutations(snapshots))
    again = data.draw(st.lists(st.sampled_from(order), max_size=2))
    lake = Lake()
    for snapshot in [*order, *again]:
        lake.apply(snapshot)
    wanted = model(snapshots)
    assert lake.records == wanted
    assert as_listed(lake.keys) == {
        record_id: (digest(record["text"]), record["created_at"], record["time_evidence"])
        for record_id, record in wanted.items()
    }


@given(SNAPSHOTS)
@settings(max_examples=10, deadline=None)
def test_an_upload_applied_before_changes_nothing(snapshots: list[Snapshot]):
    """I4."""
    lake = Lake()
    for snapshot in snapshots:
        lake.apply(snapshot)
    for snapshot in snapshots:
        plan = lake.apply(snapshot)
        assert plan.keys is None
        assert plan.new == plan.changed == plan.rows.num_rows == plan.replaced.num_rows == plan.retimed.num_rows == 0


@given(st.permutations([(10, (("a", "x", 0, 2),)), (20, (("a", "y", 1, 2),)), (30, (("a", "x", 0, 2),))]))
@settings(deadline=None)
def test_unrelated_machines_under_one_name_lose_no_text(snapshots: list[Snapshot]):
    """I6: under an ambiguous system another text is another record, whatever comes first."""
    lake = Lake(ambiguous=True)
    for snapshot in [*snapshots, *snapshots]:
        lake.apply(snapshot)
    assert sorted(record["text"] for record in lake.records.values()) == ["x", "y"]
    (suffixed,) = [record_id for record_id in lake.records if record_id != "a"]
    assert suffixed == f"a~{digest(lake.records[suffixed]['text']).hex()[:8]}"


def test_a_row_given_twice_in_one_upload_is_taken_once():
    plan = plan_upsert(
        KEYS.empty_table(), incoming([("a", "x", 0, 2), ("a", "y", 1, 2)]), manifest_time=START, ambiguous=False
    )
    assert (plan.new, plan.rows.column("position").to_pylist()) == (1, [1])


def test_two_texts_under_one_id_of_an_ambiguous_upload_are_two_records():
    lake = Lake(ambiguous=True)
    lake.apply((10, (("a", "x", 0, 2),)))
    lake.apply((11, (("a", "y", 0, 2), ("b", "z", 0, 2))))
    assert {record["text"] for record in lake.records.values()} == {"x", "y", "z"}


def test_absence_from_a_later_upload_deletes_nothing():
    lake = Lake()
    lake.apply((10, (("a", "x", 0, 2), ("b", "y", 0, 2))))
    lake.apply((11, (("b", "y", 0, 2),)))
    lake.apply((12, ()))
    assert set(lake.records) == {"a", "b"}
    assert lake.keys.num_rows == 2


def test_counters_that_move_change_the_key_file_and_no_record():
    lake = Lake()
    lake.apply((10, (("a", "x", 0, 2),)))
    plan = lake.apply((11, (("a", "x", 0, 2),)))
    assert plan.keys is not None
    assert plan.keys.column("bookkeeping").to_pylist() == ['{"seen":11}']
    assert (plan.new, plan.changed, plan.unchanged, plan.retimed.num_rows) == (0, 0, 1, 0)


def test_an_older_upload_is_counted_as_such():
    lake = Lake()
    lake.apply((20, (("a", "new text", 0, 2),)))
    plan = lake.apply((10, (("a", "old text", 0, 2),)))
    assert (plan.older, plan.changed, plan.unchanged) == (1, 0, 0)
    assert lake.records["a"]["text"] == "new text"


def test_equal_instants_with_better_evidence_are_still_recorded():
    """The evidence is part of the record: its order of arrival must not show."""
    lake = Lake()
    lake.apply((10, (("a", "x", 0, 3),)))
    plan = lake.apply((11, (("a", "x", 0, 0),)))
    assert plan.retimed.column("time_evidence").to_pylist() == ["id"]
