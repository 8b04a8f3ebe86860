"""Records that keep their text and change where they are: details, names, times, vectors. Cites I1, I6, I11, I14."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.installation import Installation
from tests.support.uploads import Row, database, memory, put_upload, vectors

from akosha.jobs import reading
from akosha.lake.lake import Lake

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
AGES = {"hot": 0.5, "warm": 20.0, "cold": 150.0}
TABLE = "conversations_v2"
VECTORS = vectors(8)
Found = dict[str, dict[str, dict[str, Any]]]


def row(tier: str, *, age: float = 0.0, **fields: Any) -> Row:
    """The record that will live in `tier`; `age` days older than that when given."""
    number = list(AGES).index(tier)
    text = f"What {tier} taught us about retries. Set a deadline. Measure first."
    return memory(f"id-{tier}", text, NOW - (AGES[tier] + age) * DAY, VECTORS[number]) | fields


def without_time_evidence(tier: str) -> Row:
    return row(tier, metadata="{}")


def put(installation: Installation, rows: list[Row], moment: datetime, system_id: str = "laptop-7") -> dict[str, int]:
    """Ingest one more upload; what the newest commit counted."""
    put_upload(installation.uploads, system_id, moment, database({TABLE: rows}))
    before = installation.heads()
    summary = installation.ingest()
    assert summary["ok"] is True
    (head,) = installation.lake.heads()
    assert head.version <= before.get(head.shard, (0, ""))[0] + 1, "one commit"
    return dict(head.counts)


def aged(installation: Installation, rows: list[Row], system_id: str = "laptop-7") -> Found:
    """Rows taken in and moved as far as they go; what the lake holds then."""
    Lake.create(installation.settings, now=NOW)
    put(installation, rows, NOW, system_id)
    installation.move("hot-to-warm", NOW)
    installation.move("warm-to-cold", NOW)
    return held(installation)


def held(installation: Installation) -> Found:
    """Rows by tier and record id, without their numbers."""
    lake = installation.lake
    found: Found = {"hot": {}, "warm": {}, "cold": {}, "archive": {}}
    for head in lake.heads():
        for entry in head.files.values():
            for one in lake.rows(entry).drop_columns(["row"]).to_pylist():
                assert one["record_id"] not in found[entry.tier], "I1"
                found[entry.tier][one["record_id"]] = one
    return found


def assert_sound(installation: Installation) -> None:
    with installation.applied():
        answer = reading.fsck_lake(read_data=True)
    assert answer["ok"], answer["findings"]
    assert [one for one in answer["findings"] if one["severity"] == "damage"] == []


def changed(before: Found, **fields: Any) -> Found:
    """`before`, with these fields in every row that has them."""
    return {
        tier: {name: {**one, **{key: value for key, value in fields.items() if key in one}} for name, one in rows.items()}
        for tier, rows in before.items()
    }  # fmt: skip


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation.local(tmp_path)


def test_new_details_reach_the_record_wherever_it_lives(installation: Installation):
    """I1, I6, I11: in its tier, in place; the archive and everything made of the text stay."""
    before = aged(installation, [row(tier) for tier in AGES])
    assert [set(before[tier]) for tier in AGES] == [{f"id-{tier}"} for tier in AGES]
    details = {"project": "renamed", "metadata": json.dumps({"extracted_at": NOW.isoformat(), "more": "ünï"})}
    counts = put(installation, [row(tier, **details, category="plan") for tier in AGES], NOW + DAY)
    assert (counts["amended"], counts["new"], counts["changed"], counts["retimed"]) == (3, 0, 0, 0)
    after = held(installation)
    assert after == changed(before, **details, attributes='{"category":"plan"}')
    assert after["archive"] == before["archive"]
    assert_sound(installation)


@pytest.mark.parametrize("tier", AGES)
def test_details_of_one_record_touch_no_other(installation: Installation, tier: str):
    """The others repeat with what they had."""
    before = aged(installation, [row(each) for each in AGES])
    rows = [row(each, **({"project": None} if each == tier else {})) for each in AGES]
    assert put(installation, rows, NOW + DAY)["amended"] == 1
    before[tier][f"id-{tier}"]["project"] = None
    assert held(installation) == before
    assert_sound(installation)


def test_details_of_an_older_upload_change_nothing(installation: Installation):
    before = aged(installation, [row(tier) for tier in AGES])
    put(installation, [row(tier, project="older") for tier in AGES], NOW - DAY)
    assert held(installation) == before


def test_a_better_time_and_new_details_come_together(installation: Installation):
    """I14: guessed times at first; then the client says when, and more."""
    before = aged(installation, [without_time_evidence(tier) for tier in AGES])
    assert {one["time_evidence"] for tier in AGES for one in before[tier].values()} == {"manifest"}
    counts = put(installation, [row(tier, age=0.25) for tier in AGES], NOW + DAY)
    assert (counts["retimed"], counts["new"], counts["changed"]) == (3, 0, 0)
    after = held(installation)
    for tier, age in AGES.items():
        name, moment = f"id-{tier}", NOW - (age + 0.25) * DAY
        told = json.dumps({"extracted_at": moment.isoformat()})
        assert after[tier] == {
            name: {**before[tier][name], "created_at": moment, "time_evidence": "extracted_at", "metadata": told}
        }
        if tier != "hot":
            assert after["archive"][name] == {**before["archive"][name], "created_at": moment}
    assert_sound(installation)


def test_an_ambiguous_system_renames_the_record_where_it_lives(installation: Installation):
    """I1, I6, I11: a machine seen earlier arrives late; its texts get the bare ids, the others their digests."""
    before = aged(installation, [row(tier) for tier in AGES], "unknown-system")
    others = [row(tier, content=f"Another machine, {tier}.") for tier in AGES]
    counts = put(installation, others, NOW - DAY, "unknown-system")
    assert (counts["new"], counts["amended"], counts["changed"]) == (3, 3, 0)
    after = held(installation)
    for tier in AGES:
        (renamed,) = (one for one in after[tier].values() if "~" in one["record_id"])
        old = before[tier][f"id-{tier}"]
        assert renamed == {**old, "record_id": f"id-{tier}~{old['content_sha256'].hex()[:8]}"}
        assert after["hot"][f"id-{tier}"]["content_sha256"] == sha256(f"Another machine, {tier}.".encode()).digest()
        if tier != "hot":
            archived = before["archive"][f"id-{tier}"]
            assert after["archive"][renamed["record_id"]] == {**archived, "record_id": renamed["record_id"]}
    assert_sound(installation)
    installation.move("hot-to-warm", NOW)
    installation.move("warm-to-cold", NOW)
    assert_sound(installation)
    assert {tier: len(rows) for tier, rows in held(installation).items()} == {
        "hot": 2,
        "warm": 2,
        "cold": 2,
        "archive": 4,
    }


def test_a_vector_that_comes_later_fills_the_gap_in_hot(installation: Installation):
    """Beside a record that only gets other details, and one that has a vector already."""
    other = VECTORS[7]
    rows = [row("hot", embedding=None), row("hot", id="with"), row("hot", id="details", embedding=None)]
    Lake.create(installation.settings, now=NOW)
    put(installation, rows, NOW)
    before = held(installation)["hot"]
    again = [
        row("hot", embedding=other.tolist()),
        row("hot", id="with", embedding=other.tolist()),
        row("hot", id="details", embedding=None, project="moved"),
    ]
    counts = put(installation, again, NOW + DAY)
    assert (counts["amended"], counts["new"], counts["changed"]) == (2, 0, 0)
    after = held(installation)["hot"]
    assert np.array_equal(np.array(after["id-hot"].pop("embedding"), np.float32), other)
    assert after["id-hot"].pop("embedding_model") == "client"
    assert after["id-hot"].items() <= before["id-hot"].items()
    assert after["with"] == before["with"]
    assert after["details"] == {**before["details"], "project": "moved"}
    assert_sound(installation)
    assert installation.lake.heads()[0].of_tier("hot")[0].without_vector == 1


def test_a_vector_that_comes_after_the_move_changes_no_row_and_is_asked_for_once(installation: Installation):
    """I4: in warm and cold codes are verified against the archive's; a row there stays without."""
    before = aged(installation, [row(tier, embedding=None) for tier in ("warm", "cold")])
    again = [row(tier) for tier in ("warm", "cold")]
    put(installation, again, NOW + DAY)
    assert held(installation) == before
    heads = installation.heads()
    put(installation, [*reversed(again)], NOW + 2 * DAY)
    assert held(installation) == before
    assert {shard: version for shard, (version, _) in installation.heads().items()} == {
        shard: version + 1 for shard, (version, _) in heads.items()
    }, "only what the newest upload was is noted"
    assert_sound(installation)


def test_the_same_uploads_in_another_order_give_the_same_lake(tmp_path: Path):
    """I13, I14: through files, tiers and key files."""
    uploads = [
        (NOW, [row("hot"), row("warm", embedding=None)]),
        (NOW + MINUTE, [row("hot", project="two", access_count=3), row("cold")]),
        (NOW + 2 * MINUTE, [row("warm", content="Another text."), row("hot", project="three")]),
    ]
    found = []
    for number, order in enumerate([(0, 1, 2), (2, 1, 0), (1, 2, 0, 1)]):
        installation = Installation.local(tmp_path / str(number))
        Lake.create(installation.settings, now=NOW)
        for index in order:
            moment, rows = uploads[index]
            put(installation, rows, moment)
        lake = installation.lake
        keys = [lake.keys(entry).to_pylist() for head in lake.heads() for entry in head.keys.values()]
        records = {
            name: {k: v for k, v in one.items() if k != "provenance"} for name, one in held(installation)["hot"].items()
        }
        found.append((records, keys))
        assert_sound(installation)
    assert found[1] == found[0]
    assert found[2] == found[0]
