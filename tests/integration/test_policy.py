"""Policies at work on real lakes: who leaves, who stays and why, what the archive takes, and what a change says before it is made.

Cites I11: the archive holds exactly the aged records that a policy gave it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from tests.integration.small_lake import NOW, Memory, keys_of, memories, new_lake, table_of
from tests.support.installation import Installation
from tests.support.uploads import database, put_upload, vectors
from tests.support.uploads import memory as uploaded

from akosha.jobs import explain
from akosha.jobs.explained import lines
from akosha.lake.edit import edit_shard
from akosha.lake.holds import holds
from akosha.lake.lake import Lake
from akosha.lake.layout import shard_of
from akosha.lake.policy import Policy, Source
from akosha.lake.policy_documents import PolicyChange, changed_document, newest_document, write_policy
from akosha.lake.provenance import about, is_unarchived
from akosha.lake.shard_log import Writer
from akosha.lake.undo import undo_shard
from akosha.quality.fsck import fsck
from akosha.tiers import due as due_module
from akosha.tiers import hot_to_warm, warm_to_cold
from akosha.tiers.due import Due
from akosha.tiers.moves import ShardMove
from akosha.tiers.promote import promote_shard

pytestmark = pytest.mark.integration

DAY = timedelta(days=1)
SYSTEM = "laptop-7"
SHARD = shard_of(SYSTEM)
TABLE = "conversations"


def changed(lake: Lake, **parts: Any) -> Policy:
    """The next policy, in force."""
    write_policy(lake.store, changed_document(newest_document(lake.store), PolicyChange(**parts), now=NOW))
    return lake.policy()


def aged(system: str, *ages: float, seed: int = 1) -> list[Memory]:
    """Records of some ages in days, named by them."""
    rows = memories(system, "hot", len(ages), seed=seed)
    for row, age in zip(rows, ages, strict=True):
        row.record_id, row.created_at = f"{age:g}", NOW - age * DAY
    return rows


def put(
    lake: Lake,
    tier: str,
    rows: list[Memory],
    *,
    told: dict[str, dict[str, Any]] | None = None,
    ingested_on: str = "",
) -> None:
    """Commit records of one shard into a tier, with what their clients tell of them by record id."""
    shard = shard_of(rows[0].system_id)
    with edit_shard(lake, lake.shard(shard).head(), about()) as edit:
        table = table_of(tier, rows)
        if ingested_on:
            facts = json.dumps({"upload": "u", "ingested_on": ingested_on})
            at = table.schema.get_field_index("provenance")
            table = table.set_column(at, table.schema.field(at), pa.array([facts] * len(rows)))
        edit.put(tier, table)  # type: ignore[arg-type]
        if tier != "hot":
            edit.put("archive", table_of("archive", rows))
        for system in sorted({row.system_id for row in rows}):
            listed = [row for row in rows if row.system_id == system]
            keys = keys_of(listed)
            said = pa.array([json.dumps((told or {}).get(row.record_id, {})) for row in listed], pa.string())
            at = keys.schema.get_field_index("bookkeeping")
            edit.set_keys(system, keys.set_column(at, keys.schema.field(at), said).sort_by(
                [("source_table", "ascending"), ("record_id", "ascending")]), newest=NOW)  # fmt: skip
        edit.publish("ingest", Writer("run-1", 1, NOW), counts={"new": len(rows)})


def moved(lake: Lake, policy: Policy, tier: Source, as_of: datetime = NOW, **options: Any) -> ShardMove:
    """Move what is due out of a tier of the one shard that the lake has."""
    writer = Writer("run-2", policy.number, as_of)
    (shard,) = lake.shards()
    if tier == "hot":
        (outcome,), _ = hot_to_warm.move_batch(lake, [shard], policy, writer, as_of=as_of, **options)
    else:
        (outcome,) = warm_to_cold.move_batch(lake, [shard], policy, writer, as_of=as_of, **options)
    return outcome


def ids(lake: Lake, tier: str) -> set[str]:
    return {
        f"{row['record_id']}"
        for head in lake.heads()
        for entry in head.of_tier(tier)  # type: ignore[arg-type]
        for row in lake.rows(entry, ["record_id"]).to_pylist()
    }


def assert_sound(lake: Lake) -> None:
    report = fsck(lake, read_data=True)
    assert report.ok, report.findings


def neighbour(system: str) -> str:
    """Another system of the same shard."""
    return next(name for name in (f"box-{number}" for number in range(5_000)) if shard_of(name) == shard_of(system))


def test_pinned_important_and_used_records_stay_and_are_counted_by_why(tmp_path: Path):
    lake = new_lake(tmp_path)
    told = {
        "21": {"importance_score": 0.9},
        "22": {"importance_score": 0.7},
        "23": {"last_accessed": "2026-11-19 12:00:00"},
        "24": {"last_used_at": "2026-11-18 12:00:00.5", "last_accessed": "2026-01-01 00:00:00"},
        "25": {"last_accessed": "2026-10-01 12:00:00"},
        "26": {"importance_score": "much", "last_accessed": "soon"},
        "60": {"importance_score": 0.9},
    }
    put(lake, "hot", aged(SYSTEM, 3, 20, 21, 22, 23, 24, 25, 26, 60), told=told)
    policy = changed(
        lake,
        fields={"importance_at_least": 0.8, "importance_days": 30, "access_days": 14},
        pin=frozenset({(SYSTEM, TABLE, "20"), ("other", TABLE, "22"), (SYSTEM, "other", "25")}),
    )
    outcome = moved(lake, policy, "hot")
    assert outcome.staying == {"pinned": 1, "importance": 1, "access": 2}
    assert (ids(lake, "warm"), ids(lake, "hot")) == ({"22", "25", "26", "60"}, {"3", "20", "21", "23", "24"})
    head = lake.shard(SHARD).head()
    assert (head.policy, head.counts["stay_pinned"], head.counts["stay_access"]) == (2, 1, 2)
    assert_sound(lake)


def test_records_that_no_key_file_lists_leave_by_their_age(tmp_path: Path):
    """A policy of importance and access has nothing to go by for them; their neighbours are judged by it."""
    lake = new_lake(tmp_path)
    put(lake, "hot", aged(SYSTEM, 3, 21), told={"21": {"importance_score": 0.9}})
    with edit_shard(lake, lake.shard(SHARD).head(), about()) as edit:
        edit.put("hot", table_of("hot", aged(neighbour(SYSTEM), 2, 20)))
        edit.publish("ingest", Writer("run-1", 1, NOW), counts={})
    policy = changed(lake, fields={"importance_at_least": 0.8, "importance_days": 30, "access_days": 14})
    assert moved(lake, policy, "hot").staying == {"importance": 1}
    assert (ids(lake, "warm"), ids(lake, "hot")) == ({"20"}, {"2", "3", "21"})


def test_a_record_without_a_vector_waits_only_in_hot(tmp_path: Path):
    lake = new_lake(tmp_path)
    rows = aged(SYSTEM, 10, 15)
    for row in rows:
        row.vector = None
    put(lake, "hot", rows)
    assert (moved(lake, lake.policy(), "hot").staying, ids(lake, "warm")) == ({"vector": 1}, {"15"})
    later = NOW + 100 * DAY
    assert moved(lake, lake.policy(), "hot", later).waiting == 0
    assert moved(lake, lake.policy(), "warm", later).rows == 2


def test_old_data_that_arrives_today_does_not_fall_through_two_tiers_in_one_night(tmp_path: Path):
    lake = new_lake(tmp_path)
    put(lake, "hot", aged(SYSTEM, 200), ingested_on="2026-11-20")
    assert moved(lake, lake.policy(), "hot", dry_run=True).rows == 1, "off by default"
    policy = changed(lake, fields={"min_residence_days": 3})
    nights = {}
    for night in range(10):
        as_of = datetime(2026, 11, 20, 14, tzinfo=NOW.tzinfo) + night * DAY
        nights[night] = (moved(lake, policy, "hot", as_of).rows, moved(lake, policy, "warm", as_of).rows)
    assert [night for night, counts in nights.items() if counts == (1, 0)] == [4], "three whole days after that day"
    assert [night for night, counts in nights.items() if counts == (0, 1)] == [7]
    assert_sound(lake)


def test_a_record_from_before_arrivals_were_noted_is_not_kept_by_residence(tmp_path: Path):
    lake = new_lake(tmp_path)
    put(lake, "hot", aged(SYSTEM, 200))
    assert moved(lake, changed(lake, fields={"min_residence_days": 30}), "hot").rows == 1


def test_a_system_with_fewer_days_has_its_files_considered_earlier_and_others_do_not_follow(tmp_path: Path):
    fast, slow = SYSTEM, neighbour(SYSTEM)
    lake = new_lake(tmp_path)
    put(lake, "hot", [*aged(fast, 0.5, 2, 8), *aged(slow, 3, 9, 40)])
    policy = changed(lake, systems={fast: {"hot_days": 1}, slow: {"hot_days": 30}})
    outcome = moved(lake, policy, "hot")
    assert (outcome.rows, outcome.staying, ids(lake, "warm")) == (3, {}, {"2", "8", "40"})
    policy = changed(lake, systems={fast: {"warm_days": 3}})
    assert moved(lake, policy, "warm").rows == 1
    assert ids(lake, "cold") == {"8"}
    assert_sound(lake)


def test_a_slice_takes_only_what_is_older_than_its_end(tmp_path: Path):
    lake = new_lake(tmp_path)
    put(lake, "hot", aged(SYSTEM, 3, 10, 20, 30))
    for policy in (lake.policy(), changed(lake, systems={"other": {"hot_days": 1}, SYSTEM: {"hot_days": 2}})):
        assert moved(lake, policy, "hot", until=NOW - 15 * DAY, dry_run=True).rows == 2


def test_without_rules_of_its_own_no_key_file_is_read_for_a_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lake = new_lake(tmp_path)
    put(lake, "hot", aged(SYSTEM, 3, 10))
    opened: list[Path] = []
    real = due_module.duck.connection
    monkeypatch.setattr(due_module.duck, "connection", lambda path: opened.append(path) or real(path))  # type: ignore[func-returns-value]
    head = lake.shard(SHARD).head()
    (entry,) = head.of_tier("hot")
    rows = lake.rows(entry)
    opened.clear()
    found = Due(lake, head, lake.policy(), "hot", NOW).select(rows)
    assert (found.due.num_rows, opened) == (1, [])
    policy = changed(lake, fields={"access_days": 1})
    Due(lake, head, policy, "hot", NOW).select(rows)
    assert len(opened) == 1


def test_with_the_archive_off_records_age_without_their_text_and_nothing_calls_it_damage(tmp_path: Path):
    """I11."""
    plain, kept = SYSTEM, neighbour(SYSTEM)
    lake = new_lake(tmp_path)
    put(lake, "hot", [*aged(plain, 10, 100), *aged(kept, 11, 101)])
    policy = changed(lake, systems={plain: {"archive": False}})
    outcome = moved(lake, policy, "hot")
    assert (outcome.rows, outcome.unarchived) == (4, 2)
    assert (ids(lake, "warm"), ids(lake, "archive")) == ({"10", "11", "100", "101"}, {"11", "101"})
    assert moved(lake, changed(lake, systems={plain: {"archive": True}}), "warm").rows == 2
    rows = pa.concat_tables([lake.rows(entry) for entry in lake.shard(SHARD).head().of_tier("cold")])
    assert is_unarchived(rows.column("provenance")).to_pylist().count(True) == 1, "the row says so as long as it lives"
    assert_sound(lake)
    out = Installation.local(tmp_path).using(lake_url=lake.settings.lake_url).export()
    told = {(row["system_id"], row["record_id"]): row for row in out.to_pylist()}
    assert told[plain, "10"]["content"] is None
    assert told[plain, "10"]["codes"] is not None, "warm has its own"
    assert told[plain, "100"]["codes"] is None
    assert told[kept, "101"]["content"].endswith("seed 1")


def test_a_promotion_leaves_what_was_never_archived_where_it_is_and_brings_back_the_rest(tmp_path: Path):
    """I1, I11, I32."""
    lake = new_lake(tmp_path)
    rows = aged(SYSTEM, 10, 11, 100)
    put(lake, "hot", rows)
    assert moved(lake, changed(lake, fields={"archive": False}), "hot", NOW - 3.5 * DAY).unarchived == 2
    assert moved(lake, changed(lake, fields={"archive": True}), "hot").unarchived == 0
    akosha = Installation.local(tmp_path).using(lake_url=lake.settings.lake_url).main
    stays = (
        "; 2 stay where they are, since the archive was off for their system when they left hot and only their uploads have the "
        f"full text: {SYSTEM} / {TABLE} / 100; {SYSTEM} / {TABLE} / 11"
    )
    dry = akosha("promote", "--system", SYSTEM, "--dry-run")
    assert "1 records would come back to hot" in dry.stdout, dry.stderr
    assert stays in dry.stdout
    assert ids(lake, "hot") == set()
    done = akosha("promote", "--system", SYSTEM)
    assert (done.returncode, stays in done.stdout) == (0, True), done.stderr
    assert (ids(lake, "hot"), ids(lake, "warm"), ids(lake, "archive")) == ({"10"}, {"11", "100"}, set())
    head = lake.shard(SHARD).head()
    assert holds(lake, head).column("record_id").to_pylist() == ["10"]
    assert (head.counts["promoted"], head.counts["unarchived"], head.counts["in_hot"]) == (1, 2, 0)
    again = akosha("promote", "--system", SYSTEM)
    assert "0 records came back to hot" in again.stdout, again.stderr
    assert lake.shard(SHARD).head().files == head.files, (
        "what is left cannot come back; the hold of the other is longer"
    )
    stranger = akosha("promote", "--system", "laptop-8")
    assert (stranger.returncode, "no system 'laptop-8' in this lake; near are 'laptop-7'" in stranger.stderr) == (
        2,
        True,
    )
    assert_sound(lake)


def test_a_shard_that_is_held_since_its_batch_began_is_left_and_the_others_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """I30."""
    lake = new_lake(tmp_path)
    other = next(name for name in ("box-0", "box-1") if shard_of(name) != SHARD)
    for system, age in ((SYSTEM, 10), (SYSTEM, 11), (other, 12)):
        put(lake, "hot", aged(system, age))
    stage = hot_to_warm._Mover.stage

    def staged(mover: Any, shard: int, sample: Any) -> Any:
        if shard == SHARD:
            undo_shard(lake, SHARD, to_version=1, writer=Writer("undoer", 1, NOW), reason="")
        return stage(mover, shard, sample)

    monkeypatch.setattr(hot_to_warm._Mover, "stage", staged)
    writer = Writer("run-2", 1, NOW)
    outcomes, _ = hot_to_warm.move_batch(lake, [shard_of(other), SHARD], lake.policy(), writer, as_of=NOW)
    said = {outcome.shard: (outcome.rows, bool(outcome.waits_for)) for outcome in outcomes}
    assert said == {SHARD: (0, True), shard_of(other): (1, False)}
    assert ids(lake, "warm") == {"12"}


def test_deletion_by_absence_takes_effect_with_the_next_upload_also_when_that_is_the_same_file(tmp_path: Path):
    """I12."""
    made = Installation.local(tmp_path)
    Lake.create(made.settings, now=NOW)
    rows = [uploaded(f"id-{n}", f"Note {n}. Measure it.", NOW - DAY, one) for n, one in enumerate(vectors(2))]
    shorter = database({"conversations_v2": rows[:1]})
    for hours, file in enumerate((database({"conversations_v2": rows}), shorter)):
        put_upload(made.uploads, SYSTEM, NOW + timedelta(hours=hours), file)
        made.ingest()
    assert made.export().num_rows == 2
    said = made.main("policy", "set", "--delete-absent", SYSTEM, "--yes").stdout
    assert "1 records that their system's newest upload lacks go away" in said
    put_upload(made.uploads, SYSTEM, NOW + timedelta(hours=2), shorter)
    made.ingest()
    assert made.export().column("record_id").to_pylist() == ["id-0"]


def test_a_lost_row_of_the_archive_is_damage_also_where_a_policy_once_left_others_out(tmp_path: Path):
    """I11."""
    lake = new_lake(tmp_path)
    put(lake, "hot", aged(SYSTEM, 10, 11))
    off = changed(lake, fields={"archive": False})
    assert moved(lake, off, "hot", NOW - 3.5 * DAY).unarchived == 1
    assert moved(lake, changed(lake, fields={"archive": True}), "hot").unarchived == 0
    assert_sound(lake)
    head = lake.shard(SHARD).head()
    with edit_shard(lake, head, about()) as edit:
        for entry in head.of_tier("archive"):
            edit.drop(entry, lake.rows(entry, ["record_id"]).column("row").to_numpy())
        edit.publish("embed", Writer("run-3", 1, NOW), counts={})
    report = fsck(lake, read_data=True)
    assert [finding.code for finding in report.findings if finding.severity == "damage"] == ["record_archive_missing"]
    assert "1 records" in next(f.message for f in report.findings if f.code == "record_archive_missing")


def test_vectors_for_audits_are_kept_by_the_share_of_each_system(tmp_path: Path):
    all_kept, none_kept = SYSTEM, neighbour(SYSTEM)
    lake = new_lake(tmp_path)
    put(lake, "hot", [*aged(all_kept, *range(10, 20)), *aged(none_kept, *range(30, 40))])
    moved(lake, changed(lake, fields={"audit_share": 1}, systems={none_kept: {"audit_share": 0}}), "hot")
    rows = pa.concat_tables([lake.rows(entry) for entry in lake.shard(SHARD).head().of_tier("archive")])
    kept = rows.filter(pc.is_valid(rows.column("embedding"))).column("system_id").to_pylist()
    assert kept == [all_kept] * 10


# The command line, over the same lakes.


@pytest.fixture
def akosha(tmp_path: Path) -> Callable[..., Any]:
    """The command line of a lake with records of 3, 10, 20 and 100 days in hot."""
    lake = new_lake(tmp_path)
    put(lake, "hot", aged(SYSTEM, 3, 10, 20, 100), told={"10": {"importance_score": 1.0}})
    return Installation.local(tmp_path).using(lake_url=lake.settings.lake_url).main


AS_OF = ("--as-of", NOW.isoformat())


def test_a_change_says_what_it_would_do_and_writes_nothing_until_it_is_told_to(akosha: Callable[..., Any]):
    asked = ["policy", "set", "--hot-days", "2", "--pin", SYSTEM, TABLE, "20", *AS_OF]
    looked = akosha(*asked)
    assert looked.returncode == 0, looked.stderr
    assert looked.stdout.splitlines()[:5] == [
        "policy 1 -> 2 (dry run)",
        "  hot_days as AKOSHA_HOT_DAYS -> 2",
        f"  pin {SYSTEM} / {TABLE} / 20",
        "next night hot to warm: 3 records leave, 3 under policy 1; 1 more, 1 fewer",
        "next night warm to cold: 1 records leave, 1 under policy 1; 0 more, 0 fewer",
    ]
    assert looked.stdout.splitlines()[-1] == "nothing was written; to write it, give the same command --yes"
    assert json.loads(akosha("policy", "show", "--json").stdout)["number"] == 1
    done = akosha(*asked, "--yes")
    assert done.stdout.splitlines()[-1] == "policy 2 is in force: the next run uses it, runs at work keep theirs"
    shown = akosha("policy", "show").stdout
    assert "policy 2, in force" in shown
    assert f"  pinned {SYSTEM} / {TABLE} / 20" in shown
    assert "(from AKOSHA_WARM_DAYS)" in shown
    assert "policy 1, no longer in force" in akosha("policy", "show", "--number", "1").stdout
    assert akosha(*asked, "--yes").stdout == "policy 2 says so already: there is nothing to write\n"


@pytest.mark.parametrize("asked", [("--warm-days", "15"), ("--min-residence-days", "5"), ("--hot-days", "15")])
def test_the_next_night_does_what_was_said_also_to_records_that_pass_both_lines(
    akosha: Callable[..., Any], asked: tuple[str, ...]
):
    said = json.loads(akosha("policy", "set", *asked, "--yes", *AS_OF, "--json").stdout)["moves"]
    done = {
        kind: json.loads(akosha("migrate", kind, *AS_OF, "--json").stdout)["counts"]["rows"]
        for kind in ("hot-to-warm", "warm-to-cold")
    }
    assert {kind: found["after"] for kind, found in said.items()} == done
    assert done["hot-to-warm"] > 0


def test_what_is_lost_for_good_is_said_beforehand(akosha: Callable[..., Any]):
    said = akosha("policy", "set", "--archive", "off", "--system", SYSTEM, *AS_OF).stdout
    assert "3 of them lose their full text for good: the archive is off for their system" in said
    answer = json.loads(akosha("policy", "set", "--archive", "off", *AS_OF, "--json").stdout)
    assert (answer["written"], answer["moves"]["hot-to-warm"]["without_text"]) == (False, 3)
    assert answer["estimate"].keys() >= {"rows", "bytes", "files", "requests", "minutes", "first_records"}


def test_doctor_says_what_a_lake_without_archive_gives_up(akosha: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AIRFLOW_HOME", raising=False)  # asking Airflow for its pools takes seconds
    assert "the archive is on" in akosha("doctor").stdout
    assert akosha("policy", "set", "--archive", "off", "--system", SYSTEM, "--yes").returncode == 0
    told = next(line for line in akosha("doctor").stdout.splitlines() if " policy " in line and "archive" in line)
    assert f"the archive is OFF for {SYSTEM}" in told
    assert "promotion" in told


def test_rules_of_one_system_leave_the_others_alone(akosha: Callable[..., Any]):
    assert akosha("policy", "set", "--system", "other", "--hot-days", "2", "--yes").returncode == 0
    assert "  only other: hot_days 2" in akosha("policy", "show").stdout
    back = akosha("policy", "set", "--system", "other", "--hot-days", "default", "--yes").stdout
    assert "  only other: hot_days 2 -> as the lake" in back
    assert "only other" not in akosha("policy", "show").stdout


def test_absent_records_go_or_stay_by_system_and_only_when_it_is_meant(akosha: Callable[..., Any]):
    looked = akosha("policy", "set", "--delete-absent", SYSTEM)
    assert f"  only {SYSTEM}: delete_absent as the lake -> on" in looked.stdout
    assert "nothing was written" in looked.stdout
    assert akosha("policy", "set", "--delete-absent", SYSTEM, "--no-dry-run").returncode == 0
    assert f"only {SYSTEM}: delete_absent on" in akosha("policy", "show").stdout
    shared = akosha("policy", "set", "--delete-absent", "unknown-system")
    assert (shared.returncode, "shared by unrelated machines" in shared.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say what is to change"),
        (["--hot-days", "0"], "hot_days must be a whole number in 1-36500, found 0"),
        (["--hot-days", "two"], "expected a whole number of days, or default, found 'two'"),
        (["--importance-at-least", "much"], "expected a number in 0-1, off or default, found 'much'"),
        (["--audit-share", "off"], "expected a number in 0-1 or default, found 'off'"),
        (["--hot-days", "91"], "warm_days must be at least hot_days, found 90 below 91"),
        (["--system", SYSTEM, "--hot-days", "91"], f"warm_days of system '{SYSTEM}' must be at least"),
        (["--system", SYSTEM], "--system says for whom a value counts"),
        (["--unpin", SYSTEM, TABLE, "20"], "is not pinned"),
        (["--delete-absent", SYSTEM, "--keep-absent", SYSTEM], "name each system once"),
        (["--archive", "perhaps"], "invalid choice"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_can(akosha: Callable[..., Any], arguments: list[str], said: str):
    done = akosha("policy", "set", *arguments)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_a_pin_of_a_record_that_is_not_there_is_named(akosha: Callable[..., Any]):
    said = akosha("policy", "set", "--pin", SYSTEM, TABLE, "2o").stdout
    assert f"no such record lives in the lake now, the pin waits for it: {SYSTEM} / {TABLE} / 2o" in said
    said = akosha("policy", "set", "--hot-days", "2", "--system", "laptop-77").stdout
    assert "no system 'laptop-77' has a record in the lake now: check its name, or the rule waits for it" in said


def test_a_promoted_record_is_held_and_says_until_when(tmp_path: Path):
    lake = new_lake(tmp_path)
    put(lake, "warm", aged(SYSTEM, 20, 30))
    keys = pa.table({"system_id": [SYSTEM], "source_table": [TABLE], "record_id": ["20"]})
    until = NOW + 30 * DAY
    promote_shard(lake, SHARD, keys, Writer("run-2", 1, NOW), hold_until=until)
    assert (moved(lake, lake.policy(), "hot").staying, ids(lake, "hot")) == ({"held": 1}, {"20"})
    with Installation.local(tmp_path).using(lake_url=lake.settings.lake_url).applied():
        answer = explain(SYSTEM, TABLE, "20", as_of=NOW.isoformat())
    held = next(reason for reason in answer["next"]["reasons"] if reason["reason"] == "held")
    assert (held["holds"], answer["next"]["due"]) == (True, False)
    assert answer["next"]["not_before"] == (until - timedelta(seconds=1)).isoformat()
    assert answer["history"][0]["what"] == "moved warm -> hot"
    assert moved(lake, lake.policy(), "hot", until).rows == 1


def test_what_the_archive_left_out_is_not_taken_for_lost_when_something_else_is(tmp_path: Path):
    """I11."""
    lake = new_lake(tmp_path)
    put(lake, "hot", aged(SYSTEM, 3, 10))
    moved(lake, changed(lake, fields={"archive": False}), "hot")
    (entry,) = lake.shard(SHARD).head().of_tier("hot")
    lake.store.delete(entry.path)
    report = fsck(lake, read_data=True)
    (finding,) = [found for found in report.findings if found.severity == "damage"]
    assert (finding.code, finding.records) == ("file_missing", 1), "the young one"


def test_an_undone_move_is_told_as_what_it_was(tmp_path: Path):
    lake = new_lake(tmp_path)
    put(lake, "hot", aged(SYSTEM, *range(20, 26)))
    policy = changed(lake, systems={SYSTEM: {"hot_days": 24}})
    assert moved(lake, policy, "hot").rows == 1, "a row leaves its file by a removal list"
    undo_shard(lake, SHARD, to_version=1, writer=Writer("run-3", 2, NOW), reason="a slip")
    with Installation.local(tmp_path).using(lake_url=lake.settings.lake_url).applied():
        answer = explain(SYSTEM, TABLE, "25", as_of=NOW.isoformat())
    assert [(step["operation"], step["what"]) for step in answer["history"]] == [
        ("undo", "moved warm -> hot"),
        ("hot-to-warm", "moved hot -> warm"),
        ("ingest", "came into hot"),
    ]
    assert answer["held_by"]
    assert "nothing moves until `akosha release`" in "\n".join(lines(answer))
