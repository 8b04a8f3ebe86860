"""The decision about one upload, compared with plain dictionaries: whatever the order of the uploads, the same records. Cites I12, I13, I14 and I23: absence, age, times, order."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from akosha.lake import files
from akosha.transforms.times import EVIDENCE
from akosha.uploads import upsert
from akosha.uploads.upsert import (
    _ANSWERS,
    ARRIVED,
    COUNTED,
    Arrival,
    Rules,
    Snapshot,
    UpsertPlan,
    duplicates,
    plan_upserts,
)

START = datetime(2026, 11, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
V2, REFLECTIONS = "conversations_v2", "reflections_v2"
Key = tuple[str, str]
Record = dict[str, Any]


class Row(NamedTuple):
    """A row of an upload; `hour` and `rank` are its time and that time's evidence, the smaller the better."""

    id: str
    text: str = "x"
    hour: int = 0
    rank: int = 2
    details: int = 0
    vector: bool = False
    seen: int = 0
    table: str = V2


class Upload(NamedTuple):
    """An upload made at an hour."""

    manifest: int
    rows: tuple[Row, ...]


class Seen(NamedTuple):
    """A row as one upload held it."""

    manifest: int
    row: Row


def digest(text: str) -> bytes:
    """SHA-256; but ``x`` and ``x'`` begin alike, as two digests of a million texts may."""
    whole = hashlib.sha256(text.encode()).digest()
    return hashlib.sha256(text[:1].encode()).digest()[:4] + whole[4:]


def details_digest(details: int) -> bytes:
    return hashlib.sha256(bytes([details])).digest()


def at(hour: int) -> datetime:
    return START + hour * HOUR


def arrived(rows: Sequence[Row]) -> pa.Table:
    columns = {
        "position": range(len(rows)),
        "source_table": [row.table for row in rows],
        "record_id": [row.id for row in rows],
        "content_xxh128": [digest(row.text)[:16] for row in rows],
        "content_sha256": [digest(row.text) for row in rows],
        "details_sha256": [details_digest(row.details) for row in rows],
        "has_vector": [row.vector for row in rows],
        "created_at": [at(row.hour) for row in rows],
        "rank": [row.rank for row in rows],
        "bookkeeping": [f'{{"seen":{row.seen}}}' for row in rows],
    }
    return pa.table({name: list(columns[name]) for name in ARRIVED.names}, schema=ARRIVED)


@dataclass
class Lake:
    """Key file and records of one system, changed only by what plans say."""

    folder: Path
    rules: Rules = field(default_factory=Rules)
    known: Snapshot = field(default_factory=Snapshot)
    records: dict[Key, Record] = field(default_factory=dict)

    def arrival(self, upload: Upload) -> Arrival:
        return Arrival(arrived(upload.rows), at(upload.manifest), self.known, self.rules)

    def apply(self, upload: Upload) -> UpsertPlan:
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        (plan,) = plan_upserts([self.arrival(upload)], folder)
        for name, schema in _ANSWERS.items():
            assert getattr(plan, name).schema == schema, "an answer that was not asked for looks like one that was"
        self._retire(plan)
        self._amend(plan, upload)
        for new in plan.rows.to_pylist():
            if new["is_revision"]:
                key, row = (new["source_table"], new["record_id"]), upload.rows[new["position"]]
                assert key not in self.records
                self.records[key] = {
                    "text": row.text, "details": row.details, "has_vector": row.vector,
                    "created_at": new["created_at"], "time_evidence": new["time_evidence"],
                }  # fmt: skip
        newest = at(upload.manifest) if plan.is_newest else self.known.newest
        self.known = replace(self.known, newest=newest)
        if plan.keys is not None:
            path = folder / "keys.parquet"
            files.write(plan.keys, path, kind="keys", about={})
            self.known = replace(self.known, keys=path, rows=plan.keys.num_rows)
        self._check(plan, upload)
        return plan

    def apply_all(self, uploads: Sequence[Upload]) -> None:
        for upload in uploads:
            self.apply(upload)

    def _retire(self, plan: UpsertPlan) -> None:
        for gone in plan.retired.to_pylist():
            removed = self.records.pop((gone["source_table"], gone["record_id"]))
            assert removed["created_at"] == gone["created_live"]

    def _amend(self, plan: UpsertPlan, upload: Upload) -> None:
        amended = plan.amended.to_pylist()
        taken = [self.records.pop((change["source_table"], change["record_id_live"])) for change in amended]
        asked = set(plan.rows.column("position").to_pylist())
        for change, record in zip(amended, taken, strict=True):
            assert record["created_at"] == change["created_live"]
            record.update({name: change[name] for name in ("created_at", "time_evidence")})
            if change["takes_details"] or change["takes_vector"]:
                assert change["position"] in asked, "its texts are read"
            if change["takes_details"]:
                record["details"] = upload.rows[change["position"]].details
            if change["takes_vector"]:
                assert upload.rows[change["position"]].vector
                record["has_vector"] = True
            key = change["source_table"], change["record_id"]
            assert key not in self.records, "no two records have one name"
            self.records[key] = record

    def _check(self, plan: UpsertPlan, upload: Upload) -> None:
        """Key file and records agree; every row of the upload is accounted for."""
        keys = self.keys()
        names = [(row["source_table"], row["record_id"]) for row in keys]
        assert names == sorted(set(names))
        assert {
            name: (row["content_sha256"], row["details_sha256"], row["has_vector"], row["created_at"], row["time_evidence"])
            for name, row in zip(names, keys, strict=True)
        } == {
            name: (digest(record["text"]), details_digest(record["details"]), record["has_vector"],
                   record["created_at"], record["time_evidence"])
            for name, record in self.records.items()
        }  # fmt: skip
        counts = plan.counts
        assert set(counts) == {*COUNTED, "unchanged"}
        assert sum(counts[name] for name in ("new", "changed", "unchanged", "older")) == len(upload.rows)
        revisions = sum(row["is_revision"] for row in plan.rows.to_pylist())
        assert (revisions, plan.retired.num_rows, plan.amended.num_rows <= counts["retimed"] + counts["amended"]) == (
            counts["new"] + counts["changed"], counts["changed"] + counts["gone"], True
        )  # fmt: skip

    def keys(self) -> list[Record]:
        if self.known.keys is None:
            return []
        return files.read(self.known.keys, kind="keys").drop_columns([files.ROW]).to_pylist()

    def bookkeeping(self) -> dict[Key, Record]:
        """What only the key file says of each record; `applied` is the newest upload that held it."""
        return {
            (row["source_table"], row["record_id"]): {
                "bookkeeping": row["bookkeeping"],
                "time_manifest": row["time_manifest"],
                "first": row["first_manifest"],
                "applied": self.known.newest if row["in_newest"] else row["applied_manifest"],
            }
            for row in self.keys()
        }


@contextmanager
def new_lake(**rules: bool) -> Iterator[Lake]:
    with tempfile.TemporaryDirectory() as folder:
        yield Lake(Path(folder), Rules(**rules))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


# ---- the model: what must come out, from everything that was ever seen of a record


def revision_of(seen: Sequence[Seen]) -> Seen:
    """The newest; of one instant that with the greater digests."""
    return max(
        seen, key=lambda one: (one.manifest, digest(one.row.text), details_digest(one.row.details), one.row.seen)
    )


def time_of(seen: Sequence[Seen]) -> Seen:
    """The best evidence, of equal evidence the earliest manifest, of one instant the earlier time."""
    return min(seen, key=lambda one: (one.row.rank, one.manifest, one.row.hour))


def modelled(seen: Sequence[Seen]) -> Record:
    newest, timed = revision_of(seen).row, time_of(seen).row
    return {
        "text": newest.text,
        "details": newest.details,
        "created_at": at(timed.hour),
        "time_evidence": EVIDENCE[timed.rank],
    }


def modelled_bookkeeping(seen: Sequence[Seen]) -> Record:
    return {
        "bookkeeping": f'{{"seen":{revision_of(seen).row.seen}}}',
        "time_manifest": at(time_of(seen).manifest),
        "first": at(min(one.manifest for one in seen)),
        "applied": at(max(one.manifest for one in seen)),
    }


def vector_bounds(seen: Sequence[Seen]) -> tuple[bool, bool]:
    """Whether a record must have a vector, and whether it may: a text that was replaced in between may have lost its own."""
    newest = revision_of(seen)
    other = max((one.manifest for one in seen if one.row.text != newest.row.text), default=-1)
    with_vector = [one for one in seen if one.row.vector and one.row.text == newest.row.text]
    must = any(one.manifest > other or one.manifest == newest.manifest for one in with_vector)
    return must, bool(with_vector)


def history(uploads: Sequence[Upload]) -> dict[Key, list[Seen]]:
    found: dict[Key, list[Seen]] = {}
    for upload in uploads:
        for row in upload.rows:
            found.setdefault((row.table, row.id), []).append(Seen(upload.manifest, row))
    return found


def ambiguous_history(uploads: Sequence[Upload]) -> dict[Key, list[Seen]]:
    """By the names that records of an ambiguous system get."""
    by_text: dict[tuple[str, str], dict[str, list[Seen]]] = {}
    for upload in uploads:
        for row in {(row.table, base_id(row), row.text): row for row in upload.rows}.values():
            texts = by_text.setdefault((row.table, base_id(row)), {})
            texts.setdefault(row.text, []).append(Seen(upload.manifest, row))
    found = {}
    for (table, base), texts in by_text.items():
        first = min(texts, key=lambda text: (min(one.manifest for one in texts[text]), digest(text)))
        for text, seen in texts.items():
            alike = sum(digest(other)[:4] == digest(text)[:4] for other in texts)
            suffix = digest(text).hex()[: 8 if alike == 1 else 64]
            bare = text == first and not re.search(r"~([0-9a-f]{8}|[0-9a-f]{64})\Z", base)
            found[table, base if bare else f"{base}~{suffix}"] = seen
    return found


def base_id(row: Row) -> str:
    for suffix in (f"~{digest(row.text).hex()[:8]}", f"~{digest(row.text).hex()}"):
        if row.id.endswith(suffix) and row.id != suffix:
            return row.id.removesuffix(suffix)
    return row.id


def assert_as_modelled(lake: Lake, found: dict[Key, list[Seen]]) -> None:
    without_vector = {
        key: {name: value for name, value in record.items() if name != "has_vector"}
        for key, record in lake.records.items()
    }
    assert without_vector == {key: modelled(seen) for key, seen in found.items()}
    assert lake.bookkeeping() == {key: modelled_bookkeeping(seen) for key, seen in found.items()}
    for key, seen in found.items():
        must, may = vector_bounds(seen)
        assert must <= lake.records[key]["has_vector"] <= may


# ---- strategies: few ids, texts and hours, so that they meet

TEXTS = st.sampled_from(["x", "x'", "y", "z"])
ROW = st.builds(
    Row, st.sampled_from("abc"), TEXTS, st.integers(0, 2), st.integers(0, 4), st.integers(0, 2), st.booleans(),
    st.integers(0, 2), st.sampled_from([V2, REFLECTIONS]),
)  # fmt: skip
HOSTILE_IDS = ["a", "a\n", "~", "b~", "a~00000000", "ä", *(
    f"{base}~{digest(text).hex()[:length]}" for base in ("a", "", "a\n", "a~00000000") for text in "xy" for length in (8, 64)
)]  # fmt: skip
AMBIGUOUS_ROW = st.builds(Row._replace, ROW, id=st.sampled_from(HOSTILE_IDS))


def uploads_of(rows: st.SearchStrategy[Row]) -> st.SearchStrategy[list[Upload]]:
    """Snapshots of up to three rows; several may be made in the same hour, any may lack what an earlier one has."""
    some = st.lists(rows, min_size=1, max_size=4, unique_by=lambda row: (row.table, row.id)).map(tuple)
    return st.lists(st.builds(Upload, st.integers(10, 14), some), min_size=1, max_size=5)


def shuffled(data: st.DataObject, uploads: list[Upload]) -> list[Upload]:
    """In any order, some of them twice."""
    order = data.draw(st.permutations(uploads))
    return [*order, *data.draw(st.lists(st.sampled_from(order), max_size=2))]


@given(uploads_of(ROW), st.data())
@settings(max_examples=40, deadline=None)
def test_any_order_of_the_same_uploads_gives_the_same_records(uploads: list[Upload], data: st.DataObject):
    """I1, I5, I6: texts, times, details and bookkeeping; also with uploads that come twice or were made at one instant."""
    with new_lake() as lake:
        lake.apply_all(shuffled(data, uploads))
        assert_as_modelled(lake, history(uploads))


@pytest.mark.parametrize("name", ["a*b", "a?b", "a[1x]b", "**", "it's", "has_vector=false"])
def test_a_key_file_is_read_for_its_own_system_whatever_its_folder_is_called(tmp_path: Path, name: str):
    """Beside one whose path matches, were it a pattern."""
    arrivals = []
    for folder, record in ((name, "mine"), ("a1b", "other"), ("c", "third")):
        lake = Lake(tmp_path)
        lake.apply(Upload(10, (Row(record, vector=True),)))
        path = tmp_path / folder / "keys.parquet"
        path.parent.mkdir()
        assert lake.known.keys is not None
        lake.known.keys.rename(path)
        lake.known = replace(lake.known, keys=path)
        arrivals.append(lake.arrival(Upload(11, (Row(record, vector=True), Row("new")))))
    together = plan_upserts(arrivals, Path(tempfile.mkdtemp(dir=tmp_path)))
    alone = plan_upserts(arrivals[:1], Path(tempfile.mkdtemp(dir=tmp_path)))
    for plan, record in zip([*together, *alone], ("mine", "other", "third", "mine"), strict=True):
        assert plan.keys is not None
        assert plan.keys.column("record_id").to_pylist() == sorted([record, "new"])
        assert plan.keys.column("has_vector").to_pylist() == [name == record for name in sorted([record, "new"])]
        assert (plan.counts["new"], plan.counts["unchanged"]) == (1, 1)


@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), uploads_of(ROW)), min_size=2, max_size=4),
    st.sampled_from([5, 1_000]),
)
@example(
    [
        (False, False, [Upload(10, (Row("a"),)), Upload(11, (Row("a"), Row("new")))]),
        (False, False, [Upload(10, (Row("a"),)), Upload(11, (Row("a", "y"),))]),
    ],
    1_000,
)
@settings(max_examples=30, deadline=None)
def test_uploads_of_several_systems_are_planned_together_as_alone(
    systems: list[tuple[bool, bool, list[Upload]]], most: int
):
    """Whatever their rules, whether or not the lake knows them, and however many rows one statement compares."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        patched.setattr(upsert, "LARGE_ROWS", most)
        lakes = [Lake(Path(folder), Rules(ambiguous, deletes)) for ambiguous, deletes, _ in systems]
        for turn in range(5):
            now = [
                (lake, uploads[turn]) for lake, (*_, uploads) in zip(lakes, systems, strict=True) if turn < len(uploads)
            ]
            together = plan_upserts([lake.arrival(upload) for lake, upload in now], Path(tempfile.mkdtemp(dir=folder)))
            assert together == [lake.apply(upload) for lake, upload in now]


@given(uploads_of(AMBIGUOUS_ROW), st.data())
@settings(max_examples=40, deadline=None)
def test_any_order_of_the_uploads_of_an_ambiguous_system_gives_the_same_names(
    uploads: list[Upload], data: st.DataObject
):
    """I6: every text is kept, once, and the one seen first has the bare id."""
    with new_lake(ambiguous=True, delete_absent=True) as lake:
        lake.apply_all(shuffled(data, uploads))
        assert_as_modelled(lake, ambiguous_history(uploads))


@given(uploads_of(ROW), st.booleans())
@settings(max_examples=12, deadline=None)
def test_an_upload_applied_before_changes_nothing(uploads: list[Upload], delete_absent: bool):
    """I4: as long as nothing newer came in between."""
    with new_lake(delete_absent=delete_absent) as lake:
        for upload in uploads:
            lake.apply(upload)
            assert_idle(lake.apply(upload))


@given(uploads_of(AMBIGUOUS_ROW))
@settings(max_examples=12, deadline=None)
def test_no_upload_of_an_ambiguous_system_changes_anything_a_second_time(uploads: list[Upload]):
    """I4: whatever came in between."""
    with new_lake(ambiguous=True) as lake:
        lake.apply_all(uploads)
        for upload in uploads:
            assert_idle(lake.apply(upload))


def assert_idle(plan: UpsertPlan) -> None:
    assert plan.keys is None
    assert [table.num_rows for table in (plan.rows, plan.retired, plan.amended)] == [0, 0, 0]
    assert {name: count for name, count in plan.counts.items() if count and name not in ("unchanged", "older")} == {}


# ---- deletion by absence, where the policy says so


def after_deletions(uploads: Sequence[Upload]) -> dict[Key, list[Seen]]:
    """What uploads in the order of their arrival leave: the newest one's absences delete, late ones neither add nor delete."""
    live: dict[Key, list[Seen]] = {}
    newest = -1
    for upload in uploads:
        for row in upload.rows:
            if upload.manifest >= newest or (row.table, row.id) in live:
                live.setdefault((row.table, row.id), []).append(Seen(upload.manifest, row))
        if upload.manifest >= newest:
            newest = upload.manifest
            for table in {row.table for row in upload.rows}:
                delete_absent(live, upload, table)
    return live


def delete_absent(live: dict[Key, list[Seen]], upload: Upload, table: str) -> None:
    """Unless the copy lacks the newest record, and so is stale. What another upload of the same instant holds stays."""
    here = {(row.table, row.id) for row in upload.rows if row.table == table}
    absent = {key for key in live if key[0] == table} - here
    hours = {key: time_of(live[key]).row.hour for key in here | absent}
    if absent and max(hours[key] for key in here) < max(hours[key] for key in absent):
        return
    for key in absent:
        if max(one.manifest for one in live[key]) != upload.manifest:
            del live[key]


@given(uploads_of(ROW), st.data())
@settings(max_examples=40, deadline=None)
def test_what_the_newest_upload_lacks_goes_and_a_late_one_never_brings_it_back(
    uploads: list[Upload], data: st.DataObject
):
    order = shuffled(data, uploads)
    with new_lake(delete_absent=True) as lake:
        lake.apply_all(order)
        assert_as_modelled(lake, after_deletions(order))


@given(uploads_of(ROW))
@settings(max_examples=12, deadline=None)
def test_a_late_upload_of_a_system_that_deletes_adds_no_key(uploads: list[Upload]):
    in_order = sorted(uploads, key=lambda upload: upload.manifest)
    late = Upload(1, tuple(Row(f"late-{row.id}", table=row.table) for row in in_order[0].rows[:1]))
    with new_lake(delete_absent=True) as lake:
        lake.apply_all(in_order)
        before = set(lake.records)
        assert lake.apply(late).counts["new"] == 0
        assert set(lake.records) == before


def test_absence_deletes_under_the_policy_and_says_how_much(tmp_path: Path):
    lake = Lake(tmp_path, Rules(delete_absent=True))
    lake.apply(Upload(10, (Row("a"), Row("b"))))
    assert lake.apply(Upload(11, (Row("b"),))).counts == {
        "new": 0, "changed": 0, "gone": 1, "older": 0, "retimed": 0, "amended": 0, "unchanged": 1
    }  # fmt: skip
    assert set(lake.records) == {(V2, "b")}


def test_two_uploads_of_one_instant_do_not_delete_each_other(tmp_path: Path):
    lake = Lake(tmp_path, Rules(delete_absent=True))
    lake.apply_all([Upload(10, (Row("a"), Row("old"))), Upload(11, (Row("a"),)), Upload(11, (Row("b"),))])
    assert set(lake.records) == {(V2, "a"), (V2, "b")}


def test_a_policy_that_deletes_takes_effect_with_the_newest_upload_once_more(tmp_path: Path):
    lake = Lake(tmp_path)
    lake.apply_all([Upload(10, (Row("a"), Row("b"))), Upload(11, (Row("b"),))])
    lake.rules = Rules(delete_absent=True)
    assert lake.apply(Upload(11, (Row("b"),))).counts["gone"] == 1


def test_a_stale_copy_deletes_nothing(tmp_path: Path):
    """Its newest row is older than what the lake has: rows may still wait in its write-ahead log."""
    lake = Lake(tmp_path, Rules(delete_absent=True))
    lake.apply(Upload(10, (Row("a", hour=1), Row("b", hour=2))))
    assert lake.apply(Upload(11, (Row("a", hour=1),))).counts["gone"] == 0


def test_absence_from_a_later_upload_deletes_nothing_without_a_policy(lake: Lake):
    lake.apply(Upload(10, (Row("a"), Row("b", "y"))))
    lake.apply(Upload(11, (Row("b", "y"),)))
    lake.apply(Upload(12, ()))
    assert set(lake.records) == {(V2, "a"), (V2, "b")}
    assert len(lake.keys()) == 2


# ---- single sentences


def test_the_text_of_a_machine_that_arrives_late_gets_the_bare_id(tmp_path: Path):
    """I6: the record that had it is renamed where it is."""
    lake = Lake(tmp_path, Rules(ambiguous=True))
    lake.apply(Upload(20, (Row("a", "x"),)))
    plan = lake.apply(Upload(10, (Row("a", "y"),)))
    (renamed,) = plan.amended.to_pylist()
    assert (renamed["record_id_live"], renamed["record_id"]) == ("a", f"a~{digest('x').hex()[:8]}")
    assert plan.retired.num_rows == 0
    assert {key[1]: record["text"] for key, record in lake.records.items()} == {"a": "y", renamed["record_id"]: "x"}


def test_texts_whose_digests_begin_alike_are_named_by_all_of_them(tmp_path: Path):
    lake = Lake(tmp_path, Rules(ambiguous=True))
    lake.apply_all([Upload(10, (Row("a", "y"),)), Upload(11, (Row("a", "x"),)), Upload(12, (Row("a", "x'"),))])
    assert {key[1]: record["text"] for key, record in lake.records.items()} == {
        "a": "y", f"a~{digest('x').hex()}": "x", f"a~{digest(chr(120) + chr(39)).hex()}": "x'"
    }  # fmt: skip


def test_a_row_given_twice_in_one_upload_is_found_and_the_last_one_stays(tmp_path: Path):
    rows = arrived([Row("a", "x"), Row("b"), Row("a", "y"), Row("a", table=REFLECTIONS), Row("a", "z")])
    assert duplicates(rows, tmp_path).to_pylist() == [
        {"position": position, "source_table": V2, "record_id": "a"} for position in (0, 2)
    ]


def test_two_texts_under_one_id_of_an_ambiguous_upload_are_two_records(tmp_path: Path):
    lake = Lake(tmp_path, Rules(ambiguous=True))
    lake.apply(Upload(10, (Row("a", "x"),)))
    lake.apply(Upload(11, (Row("a", "y"), Row("b", "z"))))
    assert {record["text"] for record in lake.records.values()} == {"x", "y", "z"}


def test_counters_that_move_change_the_key_file_and_no_record(lake: Lake):
    lake.apply(Upload(10, (Row("a", seen=10),)))
    plan = lake.apply(Upload(11, (Row("a", seen=11),)))
    assert plan.keys is not None
    assert plan.keys.column("bookkeeping").to_pylist() == ['{"seen":11}']
    assert [table.num_rows for table in (plan.rows, plan.retired, plan.amended)] == [0, 0, 0]
    assert plan.counts["unchanged"] == 1


def test_details_that_move_amend_the_record_and_make_no_revision(lake: Lake):
    lake.apply(Upload(10, (Row("a", details=1),)))
    plan = lake.apply(Upload(11, (Row("a", details=2),)))
    assert plan.rows.column("is_revision").to_pylist() == [False]
    assert plan.amended.column("takes_details").to_pylist() == [True]
    assert (plan.counts["amended"], plan.retired.num_rows) == (1, 0)


def test_a_vector_that_comes_later_fills_the_gap_and_one_that_goes_leaves_none(lake: Lake):
    lake.apply(Upload(10, (Row("a"),)))
    assert lake.apply(Upload(9, (Row("a", vector=True),))).amended.column("takes_vector").to_pylist() == [True]
    lake.apply(Upload(11, (Row("a"),)))
    assert lake.records[V2, "a"]["has_vector"]


def test_the_vector_of_another_text_fills_nothing(lake: Lake):
    lake.apply(Upload(10, (Row("a", "new"),)))
    lake.apply(Upload(9, (Row("a", "old", vector=True),)))
    assert not lake.records[V2, "a"]["has_vector"]


def test_an_older_upload_is_counted_as_such(lake: Lake):
    lake.apply(Upload(20, (Row("a", "new text"),)))
    plan = lake.apply(Upload(10, (Row("a", "old text"),)))
    assert (plan.counts["older"], plan.counts["changed"], plan.counts["unchanged"]) == (1, 0, 0)
    assert lake.records[V2, "a"]["text"] == "new text"


def test_a_record_that_newer_uploads_lack_is_still_replaced_by_one_in_between(lake: Lake):
    """What counts is the newest upload that held it, not the newest of its system."""
    lake.apply_all([Upload(10, (Row("a", "x"), Row("b"))), Upload(30, (Row("b"),)), Upload(20, (Row("a", "y"),))])
    assert lake.records[V2, "a"]["text"] == "y"


def test_equal_instants_with_better_evidence_are_still_recorded(lake: Lake):
    """The evidence is part of the record: its order of arrival must not show."""
    lake.apply(Upload(10, (Row("a", rank=3),)))
    plan = lake.apply(Upload(11, (Row("a", rank=0),)))
    assert plan.amended.column("time_evidence").to_pylist() == ["id"]
    assert plan.counts["retimed"] == 1
