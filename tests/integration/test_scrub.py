"""The scrub reads every byte within a cycle and sees damage on the day of the object: cites I3 and I10."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.integration.small_lake import Shelf, full_lake, memories, new_lake, publish
from tests.support.installation import Installation

from akosha.lake.lake import Lake
from akosha.lake.shard_log import Writer
from akosha.lake.sweep import list_shard, plan_sweep, store_clock, sweep_shard
from akosha.quality.findings import FsckReport
from akosha.quality.fsck import fsck
from akosha.quality.scrub import is_due, scrub
from akosha.quality.stored_files import files_of

NIGHT = datetime(2026, 11, 20, 3, tzinfo=UTC)
CYCLE = 5
NIGHTS = [NIGHT + timedelta(days=day) for day in range(CYCLE)]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pristine")
    full_lake(folder)
    return folder


@pytest.fixture
def lake(pristine: Path, tmp_path: Path) -> Lake:
    shutil.copytree(pristine / "lake", tmp_path / "lake")
    return new_lake(tmp_path)


def named(lake: Lake) -> dict[tuple[str, str], int]:
    heads = [lake.shard(shard) for shard in lake.shards()]
    commits = [log.read(version) for log in heads for version in log.versions()]
    return {file.place: file.bytes for commit in commits for file in files_of(commit)}


@pytest.mark.parametrize("cycle", [1, 5, 28])
def test_every_object_is_due_on_exactly_one_day_of_any_cycle(cycle: int):
    for number in range(200):
        path = f"shards/077/hot/{number:032x}.duckdb"
        for start in (NIGHT, NIGHT + timedelta(days=3)):
            days = [start + timedelta(days=day) for day in range(cycle)]
            assert sum(is_due(path, day, cycle) for day in days) == 1


def test_a_cycle_reads_every_file_once_and_a_sound_lake_is_sound(lake: Lake):
    answers = [scrub(lake, now=night, cycle_days=CYCLE) for night in NIGHTS]
    assert all(answer["ok"] and answer["findings"] == [] for answer in answers)
    assert sum(answer["counts"]["files"] for answer in answers) == len(named(lake))
    assert {answer["counts"]["files_in_all"] for answer in answers} == {len(named(lake))}
    assert len({answer["counts"]["files"] for answer in answers}) > 1, "a share a night, not everything"


def test_one_flipped_bit_in_any_object_is_seen_within_a_cycle(lake: Lake):
    """Each object in turn; on its day it is named, with what is recoverable."""
    missed = []
    keys = [found.key for found in lake.store.list("") if not found.key.startswith("reports/")]
    for key in keys:
        path = lake.store.local_path(key)
        assert path is not None
        sound = path.read_bytes()
        data = bytearray(sound)
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))
        found = [
            finding for night in NIGHTS for finding in scrub(new_lake_of(lake), now=night, cycle_days=CYCLE)["findings"]
        ]
        if key.removeprefix("cold/") not in {finding["key"] for finding in found} or not all(
            finding["commands"] for finding in found
        ):
            missed.append(key)
        path.write_bytes(sound)
    assert missed == []
    assert len(keys) == 20


def new_lake_of(lake: Lake) -> Lake:
    """The same lake, with nothing verified yet."""
    return Lake(lake.settings, lake.store, lake.cold, lake.identity)


def test_a_missing_file_is_seen_the_same_night(lake: Lake):
    root, path = min(named(lake))
    (lake.cold if root == "cold" else lake.store).delete(path)
    for night in NIGHTS:
        answer = scrub(lake, now=night, cycle_days=CYCLE)
        assert {finding["code"] for finding in answer["findings"]} == {"file_missing"}
        assert not answer["ok"]
        assert "DAMAGE FOUND" in answer["message"]


def test_what_lies_in_the_cache_does_not_hide_damage_in_the_store(s3_server: str, bucket: str, tmp_path: Path):
    """Cites I22: the cache decides nothing."""
    lake = new_lake(tmp_path, lake_url=f"s3://{bucket}/lake", s3_endpoint_url=s3_server)
    publish(lake, Shelf({"hot": memories("laptop-7", "hot", 3)}))
    entry = lake.shard(77).head().of_tier("hot")[0]
    assert lake.rows(entry).num_rows == 3
    data = lake.store.get(entry.path)
    lake.store.put(entry.path, data[:-1] + bytes((data[-1] ^ 1,)))
    (finding,) = scrub(lake, now=NIGHT, cycle_days=1)["findings"]
    assert (finding["code"], finding["key"], finding["sources"]) == ("file_digest", entry.path, {"cache": 3})


def test_the_command_ends_with_3_when_it_finds_damage(tmp_path: Path):
    installation = Installation.local(tmp_path, scrub_days=1)
    lake, _ = full_lake(tmp_path)
    done = installation.main("scrub", "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["ok"], answer["cycle_days"]) == (0, True, 1)
    assert answer["counts"]["files"] == len(named(lake))
    entry = lake.shard(77).head().of_tier("warm")[0]
    path = lake.store.local_path(entry.path)
    assert path is not None
    path.write_bytes(path.read_bytes()[:-1])
    done = installation.main("scrub")
    assert done.returncode == 3
    assert "akosha repair --shard 77 --no-dry-run" in done.stdout
    assert installation.main("scrub", "--cycle-days", "0").returncode == 2


def orphans(lake: Lake) -> tuple[int, int]:
    checked = fsck(lake, read_data=False).checked
    return checked["orphans"], checked["condemned"]


def test_the_orphans_of_fsck_are_what_the_sweep_condemns(tmp_path: Path):
    """Cites I18: what is named by a retained version is neither."""
    lake = new_lake(tmp_path, sweep_grace_hours=1)
    full_lake(tmp_path)
    lake.store.put("shards/077/hot/stray.duckdb", b"12345")
    lake.cold.put("shards/077/stray.parquet", b"123")
    later = store_clock(lake.store) + timedelta(hours=2)
    objects, log = list_shard(lake, 77), lake.shard(77)
    retained = {version: log.read(version) for version in log.versions()}
    plan = plan_sweep(lake, log.head(), retained, objects, later)
    assert orphans(lake) == (len(plan.fresh), 0) == (2, 0)
    sweep_shard(lake, 77, Writer("run-9", 1, later), now=later)
    assert orphans(lake) == (0, 2)
    report: FsckReport = fsck(lake, read_data=True)
    assert report.findings == []
    muchlater = later + timedelta(hours=2)
    sweep_shard(lake, 77, Writer("run-10", 1, muchlater), now=muchlater)
    assert orphans(lake) == (0, 0)
