from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import xxhash
from tests.integration.small_lake import AGE_DAYS, NOW, Memory, Shelf, full_lake, memories, new_lake, publish
from tests.support.installation import Installation

from akosha.errors import AkoshaError, IntegrityError
from akosha.lake.documents import seal, unseal
from akosha.lake.lake import Lake
from akosha.lake.layout import commit_key
from akosha.quality.findings import FsckReport
from akosha.quality.fsck import fsck

KINDS = {"hot", "warm", "cold", "archive", "keys", "removals", "commits", "lake.json", "policy", "uploads", "runs"}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pristine")
    full_lake(folder)
    return folder


@pytest.fixture
def lake(pristine: Path, tmp_path: Path) -> Lake:
    shutil.copytree(pristine / "lake", tmp_path / "lake")
    return new_lake(tmp_path)


def files_of(lake: Lake) -> list[Path]:
    return sorted(item for found in lake.store.list("") if (item := lake.store.local_path(found.key)) is not None)


def kind_of(key: str) -> str:
    return next((part for part in KINDS if part in Path(key).parts), "reports")


def codes(report: FsckReport) -> set[str]:
    return {finding.code for finding in report.findings}


def path_of(lake: Lake, key: str) -> Path:
    path = lake.store.local_path(key)
    assert path is not None
    return path


def test_a_sound_lake_has_no_finding(lake: Lake):
    for read_data in (False, True):
        report = fsck(lake, read_data=read_data)
        assert report.findings == []
        assert report.ok
        assert report.document()["checked"]["commits"] == 3
    assert report.checked["records"] == 53
    assert report.checked["heads"] == 2
    assert report.checked["orphans"] == 0


def test_an_empty_lake_has_no_finding(tmp_path: Path):
    assert fsck(new_lake(tmp_path), read_data=True).findings == []


def test_the_sound_lake_has_every_kind_of_object(lake: Lake):
    keys = [path.relative_to(path_of(lake, "")).as_posix() for path in files_of(lake)]
    assert {kind_of(key) for key in keys if not key.startswith("reports/")} == KINDS


def key_of(lake: Lake, path: Path) -> str:
    return path.relative_to(path_of(lake, "")).as_posix()


def flipped(sound: bytes, share: float) -> bytes:
    data = bytearray(sound)
    place = min(int(len(data) * share), len(data) - 1)
    data[place] ^= 1 << (place % 8)
    return bytes(data)


@pytest.mark.parametrize("share", [0, 0.3, 0.7, 1])
def test_one_flipped_bit_is_found_in_every_data_file(lake: Lake, share: float):
    """Each of them has one bit flipped, and each must be named."""
    damaged = [path for path in files_of(lake) if path.suffix in {".duckdb", ".parquet", ".rows"}]
    assert {kind_of(key_of(lake, path)) for path in damaged} == {"hot", "warm", "cold", "archive", "keys", "removals"}
    for path in damaged:
        path.write_bytes(flipped(path.read_bytes(), share))
    assert fsck(lake, read_data=False).ok, "the fast check reads no data"
    report = fsck(lake, read_data=True)
    assert {finding.key for finding in report.findings} == {
        key_of(lake, path).removeprefix("cold/") for path in damaged
    }
    assert {finding.code for finding in report.findings} == {"file_digest"}
    assert all(finding.recoverable_from and finding.shard is not None for finding in report.findings)


def test_one_flipped_bit_is_found_in_every_document(lake: Lake):
    """At many places each, one document and one bit at a time."""
    missed = []
    documents = [path for path in files_of(lake) if path.suffix == ".json"]
    for path in documents:
        sound = path.read_bytes()
        for step in range(9):
            path.write_bytes(flipped(sound, step / 8))
            report = fsck(lake, read_data=False)
            if not any(found.severity == "damage" and found.key == key_of(lake, path) for found in report.findings):
                missed.append((path, step))
        path.write_bytes(sound)
    assert missed == []
    assert len(documents) == 8
    assert fsck(lake, read_data=False).findings == []


@pytest.mark.parametrize(
    ("wrong", "severity", "code"),
    [("xxh128", "warning", "file_fast_digest"), ("sha256", "damage", "file_digest")],
)
def test_a_file_with_one_digest_of_two_is_told_by_its_sha256(tmp_path: Path, wrong: str, severity: str, code: str):
    lake = new_lake(tmp_path)
    publish(lake, Shelf({"hot": memories("laptop-7", "hot", 3)}))
    (head,) = lake.heads()
    key = commit_key(head.shard, head.version)
    document = unseal(lake.store.get(key), kind="commit", key=key)
    (entry,) = document["files"]
    lake.store.delete(key)
    lake.store.put(key, seal({**document, "files": [{**entry, wrong: "0" * len(entry[wrong])}]}))
    found = [(item.severity, item.code, item.key) for item in fsck(new_lake(tmp_path), read_data=True).findings]
    assert (severity, code, entry["path"]) in found
    assert len(new_lake(tmp_path).rows(head.of_tier("hot")[0])) == 3


def test_every_file_of_a_head_has_both_digests(lake: Lake):
    entries = [
        entry
        for head in lake.heads()
        for entry in (*head.files.values(), *head.keys.values(), *head.graphs.values(), *filter(None, [head.holds]))
    ]
    assert {getattr(entry, "tier", "keys") for entry in entries} == {"hot", "warm", "cold", "archive", "keys"}
    for entry in entries:
        below = lake.cold if getattr(entry, "root", "") == "cold" else lake.store
        data = below.get(entry.path)
        assert entry.sha256 == hashlib.sha256(data).hexdigest()
        assert entry.xxh128 == xxhash.xxh3_128(data).hexdigest()


def test_a_bit_in_one_file_does_not_hide_or_multiply_findings(lake: Lake):
    victim = next(path for path in files_of(lake) if kind_of(key_of(lake, path)) == "warm")
    victim.write_bytes(flipped(victim.read_bytes(), 0.5))
    report = fsck(lake, read_data=True)
    assert [(found.code, found.key, found.shard) for found in report.findings] == [
        ("file_digest", key_of(lake, victim), int(key_of(lake, victim).split("/")[1]))
    ]
    assert "archive" in report.findings[0].recoverable_from
    assert report.checked["heads"] == 1, "the other shard is checked all the same"


@pytest.mark.parametrize("kind", ["hot", "warm", "cold", "archive", "keys", "removals"])
def test_a_missing_file_is_found_without_reading_data(lake: Lake, kind: str):
    victim = next(path for path in files_of(lake) if kind_of(key_of(lake, path)) == kind)
    victim.unlink()
    report = fsck(lake, read_data=False)
    assert [found.code for found in report.findings] == ["file_missing"]
    assert report.findings[0].key == key_of(lake, victim).removeprefix("cold/")


def test_a_file_cut_short_is_found_without_reading_data(lake: Lake):
    victim = next(path for path in files_of(lake) if kind_of(key_of(lake, path)) == "hot")
    victim.write_bytes(victim.read_bytes()[:-1])
    assert codes(fsck(lake, read_data=False)) == {"file_size"}


def test_a_missing_lake_document_or_policy_is_found(lake: Lake):
    lake.store.delete("lake.json")
    lake.store.delete("policy/00000001.json")
    assert [found.code for found in fsck(lake, read_data=False).findings] == ["document_missing", "document_missing"]


def test_files_that_no_version_names_are_a_warning(lake: Lake):
    lake.store.put("shards/077/hot/stray.duckdb", b"12345")
    lake.cold.put("shards/077/stray.parquet", b"123")
    lake.store.put("notes.txt", b"?")
    report = fsck(lake, read_data=True)
    assert report.ok
    assert {(found.code, found.severity) for found in report.findings} == {
        ("orphans", "warning"), ("unknown_object", "warning"),
    }  # fmt: skip
    assert (report.checked["orphans"], report.checked["orphan_bytes"]) == (2, 8)


def test_a_gap_between_versions_is_found(lake: Lake):
    publish(lake, Shelf({"hot": memories("laptop-7", "hot", 2, seed=9)}))
    lake.store.delete(commit_key(77, 2))
    report = fsck(lake, read_data=False)
    assert "version_gap" in codes(report)
    lake.store.delete(commit_key(77, 1))
    assert "version_gap" not in codes(fsck(lake, read_data=False)), "the oldest versions may go"


def test_a_replaced_version_breaks_the_chain(lake: Lake):
    key = commit_key(77, 1)
    document = unseal(lake.store.get(key), kind="commit", key=key)
    lake.store.put(key, seal({**document, "run_id": "somebody else"}))
    assert codes(fsck(lake, read_data=False)) == {"chain_broken"}


def test_a_sound_document_under_another_name_is_found(lake: Lake):
    lake.store.put(commit_key(9, 1), lake.store.get(commit_key(77, 1)))
    lake.store.put("policy/00000002.json", lake.store.get("policy/00000001.json"))
    memo = next(found.key for found in lake.store.list("uploads/"))
    lake.store.put(f"{memo[:-6]}x.json", lake.store.get(memo))
    findings = fsck(lake, read_data=False).findings
    assert [found.code for found in findings] == ["document_misplaced"] * 3


def test_an_unsealed_document_of_a_run_is_damage(lake: Lake):
    lake.store.put("runs/run-1/state.json", b"{}\n")
    assert [found.key for found in fsck(lake, read_data=False).findings] == ["runs/run-1/state.json"]


def hot_and_warm() -> tuple[list[Memory], list[Memory]]:
    return memories("laptop-7", "hot", 6), memories("laptop-7", "warm", 6)


def test_a_key_in_two_tiers_is_found(tmp_path: Path):
    lake = new_lake(tmp_path)
    hot, warm = hot_and_warm()
    twin = replace(hot[2], created_at=NOW - timedelta(days=AGE_DAYS["hot"]) + timedelta(minutes=2))
    shelf = Shelf({"hot": hot, "warm": [*warm, twin]})
    publish(lake, shelf)
    assert "record_doubled" in codes(fsck(lake, read_data=True))


def test_a_key_in_no_tier_is_found(tmp_path: Path):
    lake = new_lake(tmp_path)
    hot, warm = hot_and_warm()
    publish(lake, Shelf({"hot": hot[:-1], "warm": warm}, ghosts=[hot[-1]]))
    assert codes(fsck(lake, read_data=False)) == {"count_mismatch"}
    report = fsck(lake, read_data=True)
    assert "record_missing" in codes(report)
    assert "laptop-7 / conversations / hot-0005" in report.findings[-1].message


def test_a_record_without_its_archive_row_is_found(tmp_path: Path):
    lake = new_lake(tmp_path)
    hot, warm = hot_and_warm()
    publish(lake, Shelf({"hot": hot, "warm": warm}, without_archive={"warm-0001"}))
    assert "record_archive_missing" in codes(fsck(lake, read_data=True))


def test_a_record_other_than_its_key_file_lists_is_found(tmp_path: Path):
    lake = new_lake(tmp_path)
    hot, warm = hot_and_warm()
    publish(lake, Shelf({"hot": hot, "warm": warm}, unlisted={"hot-0000"},
                        ghosts=[replace(hot[1], text="another text", created_at=NOW)]))  # fmt: skip
    assert {"record_digest_mismatch", "record_time_mismatch", "record_unlisted"} <= codes(fsck(lake, read_data=True))


def test_a_file_that_is_not_what_its_commit_says_is_found(lake: Lake):
    """The newest commit is sealed again around an entry that lies about a sound file."""
    head = lake.shard(77).head()
    key = commit_key(77, head.version)
    document = unseal(lake.store.get(key), kind="commit", key=key)
    for entry in document["files"]:
        if entry["tier"] == "warm":
            entry.update(last=NOW.isoformat(), without_vector=3)
        if entry["tier"] == "archive":
            entry["rows"] += 1
    lake.store.put(key, seal(document))
    assert codes(fsck(lake, read_data=True)) == {"time_range", "vector_count", "row_count", "count_mismatch"}


def test_a_damaged_lake_is_data_but_a_lost_store_is_an_error(lake: Lake, tmp_path: Path):
    broken = lake.store.get("lake.json").replace(b"akosha", b"Akosha", 1)
    lake.store.put("lake.json", broken)
    assert codes(fsck(lake, read_data=True)) == {"document_damaged"}
    with pytest.raises(IntegrityError):
        Lake.open(lake.settings)


def test_the_command_reports_a_damaged_lake_document_and_checks_the_rest(tmp_path: Path):
    """It exits with 3, damage found, where other commands cannot open the lake."""
    installation = Installation.local(tmp_path)
    lake, _ = full_lake(tmp_path)
    lake.store.put("lake.json", lake.store.get("lake.json").replace(b"akosha", b"Akosha", 1))
    done = installation.main("fsck", "--read-data", "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, [found["key"] for found in answer["findings"]]) == (3, ["lake.json"])
    assert answer["checked"]["records"] == 53
    assert installation.main("status").stdout == ""


def test_a_store_that_does_not_answer_is_an_error(s3_server: str, bucket: str, tmp_path: Path):
    url = f"s3://{bucket}/lake"
    lake = new_lake(tmp_path, lake_url=url, s3_endpoint_url=s3_server)
    publish(lake, Shelf({"hot": memories("laptop-7", "hot", 3)}))
    assert fsck(lake, read_data=True).findings == []
    import boto3

    client = boto3.client("s3", endpoint_url=s3_server)
    for found in client.list_objects_v2(Bucket=bucket)["Contents"]:
        client.delete_object(Bucket=bucket, Key=found["Key"])
    client.delete_bucket(Bucket=bucket)
    with pytest.raises(AkoshaError, match="bucket"):
        fsck(lake, read_data=False)
