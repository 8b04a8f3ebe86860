"""What `akosha explain` says of one record is what happened to it. Cites I1: a record is in exactly one tier."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.installation import Installation
from tests.support.uploads import database, memory, put_upload, vectors

from akosha.jobs.explained import lines, one_line
from akosha.lake.lake import Lake
from akosha.lake.layout import commit_key, shard_of

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SYSTEM, TABLE = "laptop-7", "conversations_v2"
SHARED = "unknown-system"
AS_OF = (NOW + timedelta(hours=2)).isoformat()


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """A lake in which records arrived, aged, changed, and went."""
    installation = Installation.local(tmp_path_factory.mktemp("lived"))
    Lake.create(installation.settings, now=NOW)
    carried = vectors(5)
    rows = [
        memory("cold", "A hundred days ago retries needed a deadline.", NOW - 100 * DAY, carried[0]),
        memory("changed", "Thirty days ago the pool was exhausted.", NOW - 30 * DAY, carried[1]),
        memory("young", "Yesterday it worked.", NOW - 1 * DAY, carried[2]),
        memory("waiting", "No vector came with this.", NOW - 10 * DAY),
        memory("gone", "Nobody will miss this.", NOW - 40 * DAY, carried[3]),
    ]
    put_upload(installation.uploads, SYSTEM, NOW, database({TABLE: rows}))
    twins = [memory("same", text, NOW - DAY, carried[4]) for text in ("One machine said this.", "Another said that.")]
    for number, row in enumerate(twins):
        put_upload(installation.uploads, SHARED, NOW + timedelta(minutes=number), database({TABLE: [row]}))
    assert installation.ingest()["counts"]["new"] == 7
    installation.move("hot-to-warm", NOW)
    installation.move("warm-to-cold", NOW)
    assert installation.main("policy", "set", "--delete-absent", SYSTEM, "--yes").returncode == 0
    rows[1] = memory("changed", "Today the pool is larger.", NOW - 30 * DAY, carried[1])
    put_upload(installation.uploads, SYSTEM, NOW + timedelta(hours=1), database({TABLE: rows[:4]}))
    assert installation.ingest()["counts"]["gone"] == 1
    return installation


def told(installation: Installation, record: str, **other: str) -> dict[str, Any]:
    done = installation.main("explain", other.get("system", SYSTEM), TABLE, record, "--as-of", AS_OF, "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def steps(answer: dict[str, Any]) -> list[tuple[str, str]]:
    return [(step["operation"], step["what"]) for step in answer["history"] if "anew" not in step["what"]]


def test_a_cold_record_is_followed_back_to_its_upload(lived: Installation):
    """I1."""
    answer = told(lived, "cold")
    assert answer["place"]["tier"] == "cold"
    assert steps(answer) == [
        ("warm-to-cold", "moved warm -> cold"),
        ("hot-to-warm", "moved hot -> warm"),
        ("ingest", "came into hot"),
    ]
    assert (answer["archive"]["state"], answer["archive"]["text"], answer["archive"]["codes"]) == ("kept", True, True)
    assert answer["next"] == {"move": "", "due": False, "not_before": "", "reasons": []}
    arrival = answer["history"][-1]
    assert arrival["uploads"] == [answer["upload"]["manifest"]]
    assert "read back" in arrival["verified"]
    moves = [step for step in answer["history"] if step["operation"] == "hot-to-warm"]
    assert (moves[0]["recall"], "half a step" in moves[0]["verified"]) == (1.0, True)
    assert {step["policy"] for step in answer["history"]} == {1}


def test_nothing_is_said_of_the_vector_of_a_record_that_moved_without_one(tmp_path: Path):
    installation = Installation.local(tmp_path, workers=1)
    Lake.create(installation.settings, now=NOW)
    rows = [memory("bare", "It never had one.", NOW - 120 * DAY, None)]
    put_upload(installation.uploads, SYSTEM, NOW, database({TABLE: rows}))
    installation.ingest()
    for kind in ("hot-to-warm", "warm-to-cold"):
        assert installation.move(kind, NOW)["rows_changed"] == 1
    history = told(installation, "bare")["history"]
    assert [step["operation"] for step in history] == ["warm-to-cold", "hot-to-warm", "ingest"]
    for step in history[:2]:
        assert "it had no vector" in step["verified"]
        assert "codes" not in step["verified"]


def test_the_file_and_row_that_are_named_hold_the_record(lived: Installation):
    place = told(lived, "cold")["place"]
    lake = lived.lake
    entry = lake.shard(shard_of(SYSTEM)).head().files[place["path"]]
    rows = {row["row"]: row["record_id"] for row in lake.rows(entry, ["record_id"]).to_pylist()}
    assert rows[place["row"]] == "cold"


def test_a_replaced_text_says_which_upload_brought_it(lived: Installation):
    answer = told(lived, "changed")
    assert answer["place"]["tier"] == "hot"
    assert steps(answer)[0] == ("ingest", "its text was replaced: warm -> hot")
    assert answer["history"][0]["uploads"] == [answer["upload"]["manifest"]]
    assert "20261120_130000" in answer["upload"]["manifest"]
    assert answer["next"]["due"], "its time did not change with its text"
    digests = [step["content_sha256"] for step in answer["history"]]
    assert digests[0] == answer["revision"]["content_sha256"] != digests[1]


def test_why_a_record_does_not_move_yet_and_when_it_will(lived: Installation):
    young, waiting = told(lived, "young")["next"], told(lived, "waiting")["next"]
    assert (young["move"], young["due"], young["not_before"]) == ("hot-to-warm", False, (NOW + 6 * DAY).isoformat())
    assert [(reason["reason"], reason["holds"]) for reason in young["reasons"]] == [("age", True)]
    assert [(reason["reason"], reason["holds"]) for reason in waiting["reasons"]] == [("age", False), ("vector", True)]
    assert waiting["not_before"] == (NOW + 4 * DAY).isoformat()
    assert "hot_days is 7 (policy 2)" in young["reasons"][0]["rule"]


def test_a_record_that_left_is_told_of_as_well(lived: Installation):
    answer = told(lived, "gone")
    assert answer["place"] is None
    assert steps(answer)[0] == ("ingest", "left warm")
    assert answer["history"][0]["policy"] == 2
    said = "\n".join(lines(answer))
    assert "in no tier: left warm in version" in said
    assert f"akosha backfill --system {SYSTEM} --force" in said


def test_a_pin_shows_in_the_answer(lived: Installation):
    assert lived.main("policy", "set", "--pin", SYSTEM, TABLE, "young", "--yes").returncode == 0
    answer = told(lived, "young")
    assert answer["next"]["not_before"] == ""
    assert "no move hot to warm, as long as it is pinned" in "\n".join(lines(answer))
    assert lived.main("policy", "set", "--unpin", SYSTEM, TABLE, "young", "--yes").returncode == 0


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (
            (SYSTEM, TABLE, "nothing"),
            "no retained version of shard 077 (from 1 on) knows laptop-7 / conversations_v2 / nothing",
        ),
        ((SYSTEM, TABLE, "you"), "'laptop-7' has conversations_v2 / young"),
        ((SYSTEM, "reflections", "young"), "'laptop-7' has conversations_v2 / young"),
        ((SYSTEM, "reflections", "x"), "has no table 'reflections', but conversations_v2"),
        (("laptop-8", TABLE, "young"), "no system 'laptop-8' in this lake; near are 'laptop-7'"),
        ((SHARED, "reflections", "same"), "conversations_v2 / same~"),
    ],
)
def test_an_unknown_record_is_refused_with_what_comes_near(lived: Installation, key: tuple[str, ...], said: str):
    done = lived.main("explain", *key)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_an_answer_reads_as_a_person_would_say_it(lived: Installation):
    said = lived.main("explain", SYSTEM, TABLE, "waiting", "--as-of", AS_OF).stdout.splitlines()
    assert said[0] == "laptop-7 / conversations_v2 / waiting"
    starts = [line.split()[0] for line in said[1:] if line.startswith("  ") and line[2] != " "]
    assert starts == [
        "where",
        "summary",
        "revision",
        "created",
        "came",
        "vector",
        "archive",
        "next",
        "over",
        "why",
        "history",
    ]
    assert "  vector     none yet: `akosha embed` makes it" in said
    assert "  next       hot to warm, in the first run after 2026-11-24 12:00:00" in said
    assert any(line.startswith("    version 1, ") and "ingest: came into hot" in line for line in said)


def test_the_log_of_a_move_says_the_same_of_its_first_records(lived: Installation, caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO", logger="akosha.jobs.moves"):
        lived.move("hot-to-warm", NOW + timedelta(hours=2), dry_run=True)
    (line,) = [record.getMessage() for record in caplog.records if "first record" in record.getMessage()]
    assert line == f"first record: {one_line(told(lived, 'changed'))}"
    assert "due: the next run of hot to warm takes it" in line


def test_what_is_no_longer_retained_is_said_and_not_guessed(lived: Installation) -> None:
    store, shard = lived.lake.store, shard_of(SYSTEM)
    kept = {version: store.get(commit_key(shard, version)) for version in (1, 2)}
    for version in kept:
        store.delete(commit_key(shard, version))
    try:
        answer = told(lived, "cold")
        assert steps(answer) == [("warm-to-cold", "moved warm -> cold")] or answer["history_since"] == 3
        assert "versions from 3 on are retained; what happened before is not known any more" in "\n".join(lines(answer))
    finally:
        for version, data in kept.items():
            store.put(commit_key(shard, version), data)


def versions(answer: dict[str, Any]) -> Iterator[int]:
    for step in answer["history"]:
        yield step["version"]


def test_steps_come_newest_first(lived: Installation):
    found = list(versions(told(lived, "cold")))
    assert found == sorted(found, reverse=True)
