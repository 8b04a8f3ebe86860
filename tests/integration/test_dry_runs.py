"""A dry run says what a job would do and what it would cost, and does nothing of it."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path

import pytest
from tests.integration.small_lake import NOW, Shelf, memories, new_lake, publish
from tests.support.installation import Installation
from tests.support.uploads import database, memory, put_upload, vectors

from akosha.jobs.estimates import estimate, lines

pytestmark = pytest.mark.integration

WANTED = {"rows", "bytes", "files", "requests", "minutes", "first_records"}
HOT, WARM = 300, 200


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    hot = memories("laptop-1", "hot", HOT)
    for record in hot[::3]:
        record.vector = None
    publish(new_lake(tmp_path), Shelf({"hot": hot, "warm": memories("laptop-2", "warm", WARM)}))
    made = Installation.local(tmp_path, workers=1)
    carried = vectors(20)
    for name in ("laptop-1", "desk-9"):
        rows = [memory(f"id-{n}", f"Note {n} of {name}.", NOW, carried[n]) for n in range(20)]
        put_upload(made.uploads, name, NOW, database({"conversations_v2": rows}))
    return made


def objects(installation: Installation) -> dict[str, str]:
    """Everything in the lake but plans and summaries: those of what the next run remembers are in."""
    root = installation.folder / "lake"
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith(("plan-", "summary-"))
    }


JOBS = {
    "ingest": ("plan_ingest", (), {"listing": "full"}),
    "backfill": ("plan_backfill", (), {"force": True}),
    "embed": ("plan_embed", (), {"budget_seconds": 0}),
    "hot-to-warm": ("plan_move", ("hot-to-warm",), {"as_of": (NOW + timedelta(days=60)).isoformat(), "force": True}),
    "warm-to-cold": ("plan_move", ("warm-to-cold",), {"as_of": (NOW + timedelta(days=200)).isoformat(), "force": True}),
}


@pytest.mark.parametrize("job", JOBS)
def test_a_dry_run_changes_no_object_and_its_estimate_is_complete(installation, job):
    before = objects(installation)
    planning, arguments, options = JOBS[job]
    summary = installation.run(planning, *arguments, **options, dry_run=True)
    assert objects(installation) == before
    assert (summary["ok"], summary["dry_run"], summary["rows_changed"]) == (True, True, 0)
    document = summary["estimate"]
    assert set(document) >= WANTED
    assert all(document[name] > 0 for name in ("rows", "bytes", "files", "requests"))
    assert document["minutes"] >= 0
    assert document["first_records"]
    assert "declared in rates-v1" in document["basis"]


@pytest.mark.parametrize(("job", "rows"), [("hot-to-warm", HOT), ("warm-to-cold", WARM)])
def test_a_dry_run_of_a_move_says_exactly_what_the_move_then_does(installation, job, rows):
    planning, arguments, options = JOBS[job]
    said = installation.run(planning, *arguments, **options, dry_run=True)["estimate"]
    done = installation.run(planning, *arguments, **options)
    assert said["rows"] == done["rows_changed"] == rows
    assert (said["bytes"], said["files"]) == (done["counts"]["bytes_read"], done["counts"]["files"])
    assert done["spent"]["rows"] == rows
    assert done["spent"]["requests"] > 0


def test_the_rates_are_those_of_the_lakes_own_last_runs_where_there_are_any(installation):
    planning, arguments, options = JOBS["warm-to-cold"]
    done = installation.run(planning, *arguments, **options)
    with installation.applied():
        own = estimate(installation.lake, "warm-to-cold", {"rows": 10 * WARM, "bytes": 1, "files": 1})
        other = estimate(installation.lake, "embed", {"rows": 18 * 60, "bytes": 1, "files": 1})
    assert own["basis"].startswith("this lake's last 1 runs of warm-to-cold")
    assert own["minutes"] == pytest.approx(10 * done["spent"]["seconds"] / 60, abs=0.01)
    assert other["basis"].startswith("declared in rates-v1")
    assert other["minutes"] == 1.0


def test_rows_that_nobody_counted_are_guessed_from_the_bytes_and_it_says_so(installation):
    document = estimate(installation.lake, "ingest", {"bytes": 2_400_000, "files": 3}, ["systems/a/manifest.json"])
    assert (document["rows"], document["requests"]) == (1_000, 36)
    assert document["basis"].endswith("rows are guessed from the bytes")
    said = list(lines(document))
    assert said[0].startswith("estimate: 1,000 rows, 2.4 MB, 3 files, 36 requests")
    assert said[-1] == "concerns systems/a/manifest.json"


def test_the_command_line_prints_the_estimate(installation):
    done = installation.main("ingest", "--dry-run")
    assert done.returncode == 0
    assert "estimate: " in done.stdout
    assert "would take in systems/desk-9/" in done.stdout
    assert installation.ingest()["counts"]["applied"] == 2


def test_slices_of_a_move_end_in_the_same_lake_as_one_run(installation, tmp_path):
    planning, arguments, options = JOBS["hot-to-warm"]
    sliced = installation.using(move_bytes_per_run=1)
    continues, moved, slices = "", 0, 0
    while slices == 0 or continues:
        with sliced.applied():
            from akosha import jobs

            plan = jobs.plan_move(f"slice-{slices}", *arguments, **options, continues=continues)
            summary = jobs.run_all(plan, progress=lambda _: None)
        moved += summary["rows_changed"]
        slices += 1
        continues = plan["plan_key"] if plan["left"] else ""
    assert moved == HOT
    assert installation.run(planning, *arguments, **options)["rows_changed"] == 0
    assert set(installation.export().column("tier").to_pylist()) == {"warm"}
