"""A record near a tier line is never placed by a guess without saying so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.support.installation import Installation
from tests.support.uploads import Row, database, memory, put_upload, vectors

from akosha import jobs
from akosha.lake.lake import Lake
from akosha.lake.layout import shard_of

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
# Hours past the line; negative = on this side of it. The second and last of each are too far for a zone to matter.
PAST = {"past-1": 1, "past-15": 15, "past-13": 13, "before-1": -1, "before-13": -13, "before-15": -15}


def rows(line: timedelta, *, measured: bool) -> list[Row]:
    """Records around a line; without ``extracted_at`` and with ids that hold no time, unless `measured`."""
    told = {} if measured else {"metadata": None}
    carried = vectors(len(PAST) + 1)
    ages = {"newest": MINUTE, **{name: line + hours * HOUR for name, hours in PAST.items()}}
    return [
        memory(name, f"{name}: measured {measured}", NOW - age, carried[number], **told)
        for number, (name, age) in enumerate(ages.items())
    ]


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    made = Installation.local(tmp_path)
    Lake.create(made.settings, now=NOW)
    return made


def ingest(installation: Installation, line: timedelta) -> None:
    for system_id, measured in (("guessing", False), ("measured", True)):
        put_upload(installation.uploads, system_id, NOW, database({"conversations_v2": rows(line, measured=measured)}))
    installation.ingest()


@pytest.mark.parametrize(("kind", "line"), [("hot-to-warm", 7 * DAY), ("warm-to-cold", 90 * DAY)])
def test_what_a_guess_places_near_the_line_is_counted_and_named(installation: Installation, kind: str, line: timedelta):
    ingest(installation, line)
    if kind == "warm-to-cold":
        installation.move("hot-to-warm", NOW)
    dry = installation.move(kind, NOW, dry_run=True)
    assert dry["counts"]["placed_by_guess"] == 2
    assert "2 records near the line would be placed by a guessed time" in dry["message"]

    moved = installation.move(kind, NOW)
    assert moved["counts"]["rows"] == 6
    assert (moved["counts"]["placed_by_guess"], moved["counts"]["kept_by_guess"]) == (2, 2)
    assert "2 records near the line were placed by a guessed time" in moved["message"]
    assert "2 records near the line stay by a guessed time" in moved["message"]
    assert {tuple(key) for key in moved["guess_examples"]} == {
        ("guessing", "conversations_v2", name) for name in ("past-1", "past-13")
    }
    head = installation.lake.shard(shard_of("guessing")).head()
    assert head.counts["placed_by_guess"] == 2


def test_measured_times_are_no_guess(installation: Installation):
    put_upload(installation.uploads, "measured", NOW, database({"conversations_v2": rows(7 * DAY, measured=True)}))
    installation.ingest()
    moved = installation.move("hot-to-warm", NOW)
    assert (moved["counts"]["placed_by_guess"], moved["counts"]["kept_by_guess"], moved["guess_examples"]) == (0, 0, [])
    assert "guess" not in moved["message"]


def test_at_most_five_examples_of_a_shard_are_kept(installation: Installation):
    many = [memory("newest", "newest", NOW - MINUTE, metadata=None)] + [
        memory(f"id-{number}", f"note {number}", NOW - 7 * DAY - number * MINUTE, vectors(1, seed=number)[0], metadata=None)
        for number in range(1, 9)
    ]  # fmt: skip
    put_upload(installation.uploads, "guessing", NOW, database({"conversations_v2": many}))
    installation.ingest()
    with installation.applied():
        plan = jobs.plan_move("run-1", "hot-to-warm", as_of=NOW.isoformat(), force=True)
        (outcome,) = jobs.run_batch(plan["plan_key"], 0)["shards"]
    assert outcome["placed_by_guess"] == 8
    assert len(outcome["guess_examples"]) == 5
