"""Runs one after the other over one bucket: what a run does not see or not take is late, never lost.

Cites I4: a job run again with nothing left to do publishes no version.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.installation import Installation
from tests.support.uploads import database, memory, put_upload, vectors

from akosha import jobs
from akosha.errors import ConfigurationError, UsageError
from akosha.lake.lake import Lake
from akosha.uploads.schedule import SLOT, slot_of

pytestmark = pytest.mark.integration

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)
VECTOR = vectors(1)[0]


def note(record_id: str, text: str, moment: datetime = NOW - HOUR) -> bytes:
    return database({"conversations_v2": [memory(record_id, text, moment, VECTOR)]})


DATA = note("n-0", "Note 0: the same in every upload.", NOW - timedelta(days=30))


@pytest.fixture(params=["file", "s3"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installation]:
    """An empty lake with one upload of laptop-7, three hours old, taken in by a full listing."""
    if request.param == "file":
        installation = Installation.local(tmp_path)
    else:
        installation = Installation.on_s3(
            tmp_path, request.getfixturevalue("s3_server"), request.getfixturevalue("bucket")
        )
    Lake.create(installation.settings, now=NOW)
    put(installation, "laptop-7", NOW - 3 * HOUR)
    assert installation.ingest()["counts"]["applied"] == 1
    return installation


@pytest.fixture
def s3(tmp_path: Path, s3_server: str, bucket: str) -> Installation:
    installation = Installation.on_s3(tmp_path, s3_server, bucket)
    Lake.create(installation.settings, now=NOW)
    return installation


def put(installation: Installation, system: str, moment: datetime, data: bytes = DATA) -> str:
    return put_upload(installation.uploads, system, moment, data)


def recent(installation: Installation, **options: Any) -> dict[str, Any]:
    return installation.ingest(listing="recent", **options)


def counts(summary: dict[str, Any], *names: str) -> tuple[int, ...]:
    return tuple(summary["counts"][name] for name in names)


def plan_message(installation: Installation, summary: dict[str, Any]) -> str:
    return str(json.loads(installation.lake.store.get(f"runs/{summary['run_id']}/plan-ingest.json"))["message"])


def test_a_run_with_nothing_new_takes_nothing_and_says_what_it_asked_for(lake: Installation):
    heads = lake.heads()
    summary = recent(lake)
    assert counts(summary, "due", "uploads", "applied", "systems_listed") == (0, 0, 0, 1)
    assert lake.heads() == heads
    # State and heads, folders, one system, its memos.
    assert summary["counts"]["requests"] == summary["counts"]["requests_for_heads"] + 4
    assert f"{summary['counts']['requests']} requests" in summary["message"]


def test_an_upload_that_a_stale_listing_hid_is_only_late(lake: Installation):
    """The store shows the newer of two uploads first, and the older one, five hours older, a run later."""
    put(lake, "laptop-7", NOW - HOUR, note("n-1", "Note 1: the newer text."))
    assert counts(recent(lake), "applied") == (1,)
    put(lake, "laptop-7", NOW - 6 * HOUR, note("n-1", "Note 1: an older text."))
    put(lake, "laptop-7", NOW - 5 * HOUR, note("n-2", "Note 2: only in the late one."))
    summary = recent(lake)
    assert counts(summary, "due", "new", "changed", "older") == (2, 1, 0, 1)
    contents = lake.export().column("content").to_pylist()
    assert sorted(contents) == [
        "Note 0: the same in every upload.", "Note 1: the newer text.", "Note 2: only in the late one.",
    ]  # fmt: skip


def test_an_upload_that_is_days_late_is_found_by_the_full_listing(lake: Installation):
    put(lake, "laptop-7", NOW - timedelta(days=9), note("n-9", "Note 9: nine days late."))
    assert counts(recent(lake), "due", "new") == (0, 0)
    assert counts(lake.ingest(listing="full"), "due", "new") == (1, 1)


def test_a_late_upload_that_a_run_found_and_did_not_take_is_looked_at_again(lake: Installation):
    """Only the full listing reaches it; the run that found it dies, and the next recent one goes on."""
    put(lake, "laptop-7", NOW - timedelta(days=9), note("n-9", "Note 9: nine days late."))
    with lake.applied():
        jobs.plan_ingest("dies", listing="full")
    assert counts(recent(lake), "due", "new") == (1, 1)
    assert counts(recent(lake), "due", "manifests_listed") == (0, 2)
    assert counts(recent(lake), "due", "manifests_listed") == (0, 1)


def test_two_uploads_in_one_second_under_one_prefix_are_both_taken_in(lake: Installation):
    """The second is written over the first: same key, another ETag."""
    first = put(lake, "laptop-7", NOW - HOUR, note("n-1", "Note 1: the first of that second."))
    assert counts(recent(lake), "new") == (1,)
    folder = first.removesuffix("/manifest.json")
    manifest = json.loads(lake.uploads.get(first))
    put(lake, "laptop-7", NOW - HOUR, note("n-2", "Note 2: the second of that second."))
    lake.uploads.put(first, json.dumps({**manifest, "metadata": {"second": True}}).encode())
    assert counts(recent(lake), "due", "new") == (1, 1)
    assert counts(recent(lake), "due") == (0,)
    assert first == f"{folder}/manifest.json"
    assert lake.export().num_rows == 3


@pytest.fixture
def idle(s3: Installation) -> Installation:
    """One system, idle for 40 days, as a run of two days ago has left it; an upload a day younger has come in since."""
    start = (NOW - timedelta(days=2)).isoformat()
    put(s3, "idle", NOW - timedelta(days=40))
    s3.ingest(at=start)
    recent(s3, at=start)  # looks once more at what had due uploads
    put(s3, "idle", NOW - timedelta(days=39), note("n-1", "Note 1: a day later."))
    return s3


def test_an_idle_system_is_listed_in_its_quarter_of_an_hour_and_in_no_other(idle: Installation):
    found = []
    with idle.applied():
        for number in range(1, 97):
            at = NOW - timedelta(days=2) + number * SLOT
            counted = jobs.plan_ingest("turns", listing="recent", at=at.isoformat())["counts"]
            assert counted["parts_listed"] == counted["due"] or found
            if counted["due"]:
                found.append(int(at.timestamp()) // 900 % 96)
                break
    assert found == [slot_of("idle")]


def test_runs_that_never_took_place_leave_their_turns_to_the_next(idle: Installation):
    assert counts(recent(idle), "due", "new") == (1, 1)


def test_a_system_that_repeats_itself_stays_active(s3: Installation):
    """Its uploads hold nothing new, so the heads know only its first: the memos' newest is remembered."""
    nothing = database({"conversations_v2": []})
    for days, data in ((9, DATA), (6, nothing), (3, nothing), (0, nothing)):
        put(s3, "laptop-7", NOW - HOUR - timedelta(days=days), data)
    assert counts(s3.ingest(), "applied", "unchanged") == (1, 3)
    s3.ingest()
    put(s3, "laptop-7", NOW - timedelta(minutes=30), note("n-1", "Note 1."))
    # No turn is served at the instant of the run before.
    with s3.applied():
        plan = jobs.plan_ingest("again", listing="recent", at=(NOW - timedelta(days=1)).isoformat())
    assert plan["counts"]["due"] == 1
    assert plan["counts"]["manifests_listed"] <= 3


def test_a_manifest_of_the_future_does_not_blind_discovery(lake: Installation):
    def ahead(document: dict[str, Any]) -> None:
        document["timestamp"] = "2099-01-01T00:00:00+00:00"

    put_upload(lake.uploads, "laptop-7", NOW - 2 * HOUR, note("n-1", "Note 1: from the future."), change=ahead)
    assert counts(recent(lake), "applied") == (1,)
    put(lake, "laptop-7", NOW - HOUR, note("n-2", "Note 2: from now."))
    assert counts(recent(lake), "due", "new") == (1, 1)


def test_an_event_wakes_one_system_and_costs_one_listing(s3: Installation):
    for number in range(12):
        put(s3, f"machine-{number}", NOW - timedelta(days=40))
    s3.ingest()
    for number in range(12):
        put(s3, f"machine-{number}", NOW - HOUR, note("n-1", f"Note of {number}."))
    summary = s3.ingest(listing="auto", wake=["machine-3"])
    assert counts(summary, "due", "new", "parts_listed") == (1, 1, 1)
    assert summary["counts"]["requests"] - summary["counts"]["requests_for_heads"] == 4, (
        "two days of memos, and quarantine"
    )
    assert counts(s3.ingest(), "due", "new") == (11, 11)


def test_a_name_that_no_key_has_wakes_nothing_and_is_named(lake: Installation):
    summary = recent(lake, wake=["..", "../../etc", "laptop-7"])
    assert counts(summary, "parts_listed", "unusable_keys") == (1, 2)
    assert summary["unusable"] == ["../uploads/", "../../etc/uploads/"]


def test_a_budget_carries_over_and_nothing_is_forgotten(s3: Installation):
    for number in range(10):
        put(s3, f"machine-{number}", NOW - HOUR, note("n-1", f"Note of {number}."))
    budget = s3.using(list_budget=6)
    first = budget.ingest(listing="full")
    assert counts(first, "new", "parts_listed", "parts_left") == (3, 3, 7)
    assert "7 parts of the bucket are left to the next run (AKOSHA_LIST_BUDGET)" in plan_message(s3, first)
    runs = [recent(budget) for _ in range(4)]
    assert sum(counts(run, "new")[0] for run in runs) == 7
    assert max(counts(run, "parts_listed")[0] for run in runs) < 6


def test_a_flood_of_one_system_is_drained_in_bounded_runs_beside_the_others(s3: Installation):
    limited = s3.using(system_uploads=3)
    for number in range(8):
        put(s3, "huge", NOW - 2 * HOUR + timedelta(minutes=number), note(f"n-{number}", f"Note {number} of the flood."))
    put(s3, "small", NOW - HOUR, note("n-0", "Note of the small one."))
    first = limited.ingest()
    assert counts(first, "due", "planned", "applied", "backlog_uploads", "backlog_systems") == (9, 4, 4, 5, 1)
    assert first["counts"]["backlog_bytes"] > 0
    assert 6_000 < first["counts"]["backlog_oldest_seconds"] < 9_000
    with limited.applied():
        status = jobs.status()
    assert status["due_uploads"] == status["due"]["uploads"] == status["backlog"]["uploads"] == 5
    assert "backlog that the last plan left: 5 of 1 systems" in limited.main("status").stdout
    put(s3, "small", NOW - HOUR / 2, note("n-1", "Another note of the small one."))
    second = recent(limited)
    assert counts(second, "planned", "new", "backlog_uploads") == (4, 4, 2)
    assert "the backlog is 2 uploads of 1 systems" in plan_message(s3, second)
    third = recent(limited)
    assert counts(third, "planned", "new", "backlog_uploads") == (2, 2, 0)
    contents = s3.export().column("content").to_pylist()
    assert sorted(contents) == sorted(
        [
            *(f"Note {number} of the flood." for number in range(8)),
            "Note of the small one.",
            "Another note of the small one.",
        ]
    )
    with limited.applied():
        assert jobs.status()["backlog"]["uploads"] == 0


def test_the_log_and_the_summary_name_every_number(lake: Installation, caplog: pytest.LogCaptureFixture):
    lake.uploads.put("systems/laptop-7/uploads/odd\x85line/manifest.json", b"x")
    with caplog.at_level("INFO"):
        summary = recent(lake)
    [line] = [record.getMessage() for record in caplog.records if record.getMessage().startswith("finished ")]
    for name in ("uploads", "applied", "unchanged", "quarantined", "rows_read", "refused_rows", "requests",
                 "backlog_uploads", "backlog_bytes", "unusable_keys", "systems_listed", "manifests_listed"):  # fmt: skip
        assert f" {name}={summary['counts'][name]}" in line
    assert counts(summary, "unusable_keys") == (1,)
    assert summary["unusable"] == ["systems/laptop-7/uploads/odd\x85line/manifest.json"]


def test_an_uploads_folder_that_is_not_there_is_an_error_that_names_the_setting(tmp_path: Path):
    installation = Installation.local(tmp_path)
    Lake.create(installation.settings, now=NOW)
    with pytest.raises(
        ConfigurationError, match=r"no folder .*/uploads: create or mount it, or change AKOSHA_UPLOADS_URL"
    ):
        installation.ingest()
    assert installation.main("ingest").returncode == 1
    assert installation.main("backfill").returncode == 1


class TestBackfill:
    @pytest.fixture
    def filled(self, s3: Installation) -> Installation:
        """Two systems with an upload on each of three days."""
        for system in ("laptop-7", "team/ci"):
            for day in (1, 2, 3):
                put(s3, system, datetime(2026, 11, day, 12, tzinfo=UTC), note(f"n-{day}", f"Note {day} of {system}."))
        assert counts(s3.ingest(), "applied", "new") == (6, 6)
        return s3

    def test_a_forced_one_ends_unchanged_and_publishes_nothing(self, filled: Installation):
        heads = filled.heads()
        summary = filled.run("plan_backfill", force=True, dry_run=False)
        assert counts(summary, "uploads", "unchanged", "applied", "commits") == (6, 6, 0, 0)
        assert filled.heads() == heads

    def test_force_alone_is_a_dry_run(self, filled: Installation):
        summary = filled.run("plan_backfill", force=True)
        assert counts(summary, "due", "with_memo", "uploads") == (6, 6, 0)
        assert "dry run: 6 uploads of 2 systems" in summary["message"]
        assert len(summary["would_take"]) == 6

    def test_without_force_only_what_has_no_memo_is_taken(self, filled: Installation):
        put(filled, "laptop-7", datetime(2026, 11, 2, 13, tzinfo=UTC), note("n-4", "Note 4: late."))
        summary = filled.run("plan_backfill", between=("2026-11-02", "2026-11-02"))
        assert counts(summary, "uploads", "new") == (1, 1)
        assert counts(filled.run("plan_backfill"), "uploads") == (0,)

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"systems": ["team/ci"]}, ["20261101", "20261102", "20261103"]),
            ({"systems": ["laptop-7"], "between": ("2026-11-02", None)}, ["20261102", "20261103"]),
            ({"systems": ["laptop-7"], "between": (None, "2026-11-02")}, ["20261101", "20261102"]),
            ({"systems": ["laptop-7"], "between": ("2026-11-02T12:00:00", "2026-11-03T12:00:00Z")}, ["20261102"]),
            ({"between": ("2026-11-02T12:00:00Z", "2026-11-02T12:00:01Z")}, ["20261102", "20261102"]),
            ({"between": ("2026-11-02T12:00:01Z", "2026-11-03T12:00:00Z")}, []),
            ({"systems": ["nobody"]}, []),
            ({"shard": 77}, ["20261101", "20261102", "20261103"]),
        ],
    )
    def test_it_is_limited_to_systems_and_dates(
        self, filled: Installation, options: dict[str, Any], expected: list[str]
    ):
        summary = filled.run("plan_backfill", force=True, **options)
        assert sorted(key.split("/uploads/")[1][:8] for key in summary.get("would_take", [])) == expected
        assert ("nothing was found of 'nobody'" in summary["message"]) == (options.get("systems") == ["nobody"])

    def test_it_takes_in_again_what_was_lost_or_set_aside(self, filled: Installation):
        key = put(filled, "laptop-7", datetime(2026, 11, 4, tzinfo=UTC), note("n-4", "Note 4."))
        good = filled.uploads.get(key.replace("manifest.json", "reflection.duckdb"))
        filled.uploads.put(key.replace("manifest.json", "reflection.duckdb"), good[:50])
        assert counts(filled.ingest(), "quarantined") == (1,)
        filled.uploads.put(key.replace("manifest.json", "reflection.duckdb"), good)
        assert counts(filled.ingest(), "uploads") == (0,)
        summary = filled.run(
            "plan_backfill", systems=["laptop-7"], between=("2026-11-04", None), force=True, dry_run=False
        )
        assert counts(summary, "applied", "new") == (1, 1)
        assert filled.quarantine() == {}

    def test_the_limits_of_a_run_do_not_cut_it(self, filled: Installation):
        limited = filled.using(system_uploads=1, run_uploads=1, list_budget=1)
        assert counts(limited.run("plan_backfill", force=True, dry_run=False), "unchanged") == (6,)

    @pytest.mark.parametrize(
        "options",
        [
            {"between": ("yesterday", None)},
            {"between": ("2026-11-03", "2026-11-02")},
            {"between": (None, "2026-13-01")},
            {"systems": ["../x"]},
            {"shard": 256},
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, s3: Installation, options: dict[str, Any]):
        with pytest.raises(UsageError):
            s3.run("plan_backfill", **options)

    def test_the_command_line_says_what_it_would_take(self, filled: Installation):
        done = filled.main(
            "backfill", "--system", "laptop-7", "--since", "2026-11-02", "--until", "2026-11-02", "--force"
        )
        assert done.returncode == 0, done.stderr
        assert "dry run: 1 uploads" in done.stdout
        assert "would take in systems/laptop-7/uploads/20261102_120000_laptop-7/manifest.json" in done.stdout
        done = filled.main("backfill", "--system", "laptop-7", "--force", "--no-dry-run")
        assert "0 uploads applied, 3 held nothing new" in done.stdout
