"""Damage of every kind of object, found in the right place, and what `akosha fsck` prints brings it back.

Cites I3 (a committed file matches its SHA-256), I10 (documents carry their digest) and I1 (nothing lost, nothing twice).
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.support.dying_store import DiedError, DyingStore, Fuse
from tests.support.installation import Installation
from tests.support.uploads import (
    database,
    graph_database,
    memory,
    put_graph_upload,
    put_upload,
    vectors,
)

from akosha.lake.lake import Lake
from akosha.lake.layout import commit_key, shard_of
from akosha.lake.shard_log import Writer
from akosha.quality.repair import Repair

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SYSTEM = "laptop-7"
OTHER = "büro pc"
SHARD = shard_of(SYSTEM)
AGES = (0.5, 2, 8, 20, 60, 95, 150)
TEXT = "Note {} of {}. Set a deadline on every call. Retries without one hide an exhausted pool. Measure first."
DATA_KINDS = ("hot", "warm", "cold", "archive", "keys", "graph", "removals")
# Everything that the definition of an equal export names; vectors are compared apart.
EQUAL = ["system_id", "source_table", "record_id", "created_at", "content_sha256", "content", "summary", "fingerprint",
         "project", "metadata"]  # fmt: skip


def rows_of(system: str, *, only: int | None = None) -> list[dict[str, Any]]:
    carried = vectors(len(AGES) * 2, seed=len(system))
    return [
        memory(f"r{number}", TEXT.format(number, system), NOW - AGES[number // 2] * DAY, vector)
        for number, vector in enumerate(carried[:only])
    ]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two systems, two uploads each, a graph, every tier, a removal list in hot."""
    installation = Installation.local(tmp_path_factory.mktemp("pristine"), workers=1)
    Lake.create(installation.settings, now=NOW)
    graph = graph_database([{"id": "e1", "name": "Akosha", "entity_type": "project", "observations": ["is a lake"]}])
    for system in (SYSTEM, OTHER):
        put_graph_upload(installation.uploads, system, NOW - DAY, graph,
                         database({"conversations_v2": rows_of(system, only=12)}))  # fmt: skip
    installation.ingest()
    for system in (SYSTEM, OTHER):
        put_upload(installation.uploads, system, NOW, database({"conversations_v2": rows_of(system)}))
    installation.ingest()
    installation.move("hot-to-warm", NOW)
    installation.move("warm-to-cold", NOW)
    changed = [*rows_of(SYSTEM)[1:], memory("r0", "Another text under the same key.", NOW - 0.5 * DAY, vectors(1)[0])]
    put_upload(installation.uploads, SYSTEM, NOW + timedelta(hours=1), database({"conversations_v2": changed}))
    installation.ingest()
    return installation.folder


@pytest.fixture
def sound(pristine: Path, tmp_path: Path) -> Installation:
    for part in ("lake", "uploads"):
        shutil.copytree(pristine / part, tmp_path / part)
    # ETags of a folder are times: copies keep theirs.
    return Installation.local(tmp_path, workers=1)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))


WAYS: dict[str, Callable[[Path], None]] = {"a flipped bit": flipped, "cut short": truncated, "deleted": Path.unlink}


def fsck(installation: Installation) -> dict[str, Any]:
    done = installation.main("fsck", "--read-data", "--json")
    answer: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if answer["ok"] else 3)
    return answer


def damage(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [finding for finding in answer["findings"] if finding["severity"] == "damage"]


def live_files(installation: Installation, kind: str) -> list[Path]:
    """Files of a kind that the head of the first system's shard names."""
    lake = installation.lake
    head = lake.shard(SHARD).head()
    if kind == "keys":
        keys = [entry.path for entry in head.keys.values()]
    elif kind == "graph":
        keys = [entry.path for entry in head.graphs.values()]
    elif kind == "removals":
        keys = [entry.removal.path for entry in head.files.values() if entry.removal is not None]
    else:
        keys = [entry.path for entry in head.of_tier(kind)]  # type: ignore[arg-type]
    store = lake.cold if kind == "cold" else lake.store
    return [path for key in keys if (path := store.local_path(key)) is not None]


def run_printed(installation: Installation, answer: dict[str, Any]) -> None:
    """Run every command that the findings name, in their order, each once; then what the repair itself names."""
    seen: list[str] = []
    for finding in damage(answer):
        assert finding["commands"], finding
        seen += [command for command in finding["commands"] if command not in seen]
    # What repairs comes before what reads uploads again.
    for command in sorted(seen, key=lambda text: not text.startswith("akosha repair")):
        done = installation.main(*shlex.split(command)[1:])
        assert done.returncode == 0, (command, done.stdout, done.stderr)


def aged(installation: Installation) -> pa.Table:
    """The export after the night's moves: records that came back begin in hot again."""
    installation.move("hot-to-warm", NOW)
    installation.move("warm-to-cold", NOW)
    return installation.export()


def assert_restored(installation: Installation, before: pa.Table) -> None:
    answer = fsck(installation)
    assert damage(answer) == []
    after = aged(installation)
    assert after.select([*EQUAL, "tier"]).equals(before.select([*EQUAL, "tier"]))
    assert after.select(["codes", "embedding"]).num_rows == before.num_rows
    assert damage(fsck(installation)) == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", DATA_KINDS)
def test_what_fsck_prints_brings_back_every_kind_of_file(sound: Installation, kind: str, way: str):
    before = sound.export()
    victim = live_files(sound, kind)[0]
    WAYS[way](victim)
    answer = fsck(sound)
    (found,) = damage(answer)
    assert (found["shard"], found["kind"]) == (SHARD, kind)
    assert found["key"] == victim.relative_to(sound.folder / "lake").as_posix().removeprefix("cold/")
    assert found["records"] > 0
    assert sum(found["sources"].values()) >= found["records"]
    assert "nothing" not in found["sources"]
    run_printed(sound, answer)
    assert_restored(sound, before)


def document_of(installation: Installation, kind: str) -> Path:
    """One document of a kind; of commits the head of the first system's shard, of runs an ingest's."""
    lake = installation.lake
    keys = sorted(found.key for found in lake.store.list(""))
    match kind:
        case "commit":
            key = next(key for key in keys if key.startswith(f"shards/{SHARD:03d}/commits/"))
        case "older commit":
            key = sorted(key for key in keys if key.startswith(f"shards/{SHARD:03d}/commits/"))[1]
        case "memo":
            key = next(key for key in keys if key.startswith(f"uploads/{SHARD:03d}/"))
        case "policy":
            key = next(key for key in keys if key.startswith("policy/"))
        case "lake":
            key = "lake.json"
        case _:
            key = next(key for key in keys if key.startswith("runs/") and f"/{kind}-ingest" in key)
    path = lake.store.local_path(key)
    assert path is not None
    return path


DOCUMENTS = ("commit", "older commit", "memo", "policy", "lake", "plan", "summary")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", DOCUMENTS)
def test_what_fsck_prints_brings_back_every_kind_of_document(sound: Installation, kind: str, way: str):
    before = sound.export()
    victim = document_of(sound, kind)
    WAYS[way](victim)
    answer = fsck(sound)
    key = victim.relative_to(sound.folder / "lake").as_posix()
    if way == "deleted" and kind in {"memo", "plan", "summary"}:
        assert damage(answer) == [], "its absence means nothing: the upload is read again, the run has ended"
        sound.ingest()
    else:
        assert key in {finding["key"] for finding in damage(answer)}
        if kind in {"commit", "older commit", "memo"}:
            assert {finding["shard"] for finding in damage(answer)} == {SHARD}
        run_printed(sound, answer)
    if kind in {"commit", "memo"}:
        sound.ingest()
    assert_restored(sound, before)


@pytest.mark.parametrize("kind", ["commit", "memo", "policy", "lake"])
def test_one_flipped_bit_of_a_document_is_corrected_to_the_very_bytes(sound: Installation, kind: str):
    """At places all over it, the digest among them."""
    path = document_of(sound, kind)
    whole = path.read_bytes()
    for place in (0, len(whole) // 3, whole.index(b'"sha256": "') + 20, len(whole) - 1):
        data = bytearray(whole)
        data[place] ^= 1
        path.write_bytes(bytes(data))
        assert sound.main("repair", "--no-dry-run").returncode == 0
        assert path.read_bytes() == whole, place


def test_a_copy_of_the_lake_brings_everything_back_as_it_was(sound: Installation, pristine: Path):
    """A file of each kind and three documents at once, and not a byte of what is damaged in the copy."""
    store = sound.lake.store
    sound_bytes = {found.key: store.get(found.key) for found in store.list("")}
    victims = [live_files(sound, kind)[0] for kind in DATA_KINDS]
    victims += [document_of(sound, kind) for kind in ("memo", "commit", "policy")]
    for number, victim in enumerate(victims):
        list(WAYS.values())[number % 3](victim)
    done = sound.main("repair", "--from", f"file://{pristine}/lake", "--no-dry-run", "--json")
    assert (done.returncode, json.loads(done.stdout)["ok"]) == (0, True)
    restored = {found.key: store.get(found.key) for found in store.list("")}
    assert restored == sound_bytes


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(sound: Installation):
    flipped(live_files(sound, "warm")[0])
    flipped(document_of(sound, "memo"))
    before = {found.key: (found.size_bytes, found.etag) for found in sound.lake.store.list("")}
    done = sound.main("repair", "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == 3
    (records,) = [item["records"] for item in answer["repaired"] if item["what"] == "records brought back"]
    sources = ", ".join(f"{count} from {name}" for name, count in records.items())
    assert sum(records.values()) == 6
    assert f"  to do: records brought back: shard {SHARD:03d} ({sources})\n" in sound.main("repair").stdout
    assert {found.key: (found.size_bytes, found.etag) for found in sound.lake.store.list("")} == before


def test_records_that_nothing_has_stay_damaged_until_the_loss_is_accepted(sound: Installation):
    shutil.rmtree(sound.folder / "uploads" / "systems" / SYSTEM)
    lake = sound.lake
    for found in list(lake.store.list(f"shards/{SHARD:03d}/commits/"))[1:]:  # no older version either
        lake.store.delete(found.key)
    before = sound.export()
    victim = live_files(sound, "hot")[0]
    victim.unlink()
    (found,) = damage(fsck(sound))
    assert found["sources"]["nothing"] == found["records"] > 0
    heads = sound.heads()
    refused = sound.main("repair", "--shard", str(SHARD), "--no-dry-run")
    assert (refused.returncode, "--accept-loss" in refused.stderr) == (3, True)
    assert sound.heads() == heads
    assert sound.main("repair", "--shard", str(SHARD), "--no-dry-run", "--accept-loss").returncode == 0
    assert damage(fsck(sound)) == []
    assert sound.export().num_rows == before.num_rows - found["records"]


def test_texts_come_back_from_the_archive_when_uploads_and_older_versions_are_gone(sound: Installation):
    """Text, time, summary, fingerprint and vector; the details are what only an upload could bring again."""
    before = sound.export()
    shutil.rmtree(sound.folder / "uploads" / "systems" / SYSTEM)
    lake = sound.lake
    for found in list(lake.store.list(f"shards/{SHARD:03d}/commits/"))[1:]:
        lake.store.delete(found.key)
    victim = live_files(sound, "warm")[0]
    flipped(victim)
    (finding,) = damage(fsck(sound))
    assert finding["sources"] == {"archive": finding["records"]}
    assert sound.main("repair", "--shard", str(SHARD), "--no-dry-run").returncode == 0
    assert damage(fsck(sound)) == []
    after = aged(sound)
    kept = [name for name in EQUAL if name not in {"project", "metadata"}]
    assert after.select([*kept, "tier", "codes"]).equals(before.select([*kept, "tier", "codes"]))


def test_an_undo_to_the_version_that_fsck_names_works(sound: Installation):
    before = sound.export()
    flipped(live_files(sound, "hot")[0])
    (finding,) = damage(fsck(sound))
    (undo,) = finding["alternatives"]
    assert sound.main(*shlex.split(undo)[1:], "--no-dry-run").returncode == 0
    (held,) = [found for found in fsck(sound)["findings"] if found["severity"] == "info"]
    assert (held["code"], held["shard"]) == ("held", SHARD)
    assert sound.main("release", "--shard", str(SHARD)).returncode == 0
    sound.ingest()
    after = aged(sound)
    assert after.select([*EQUAL, "tier"]).equals(before.select([*EQUAL, "tier"]))


def test_a_remote_lake_is_repaired_from_the_cache(s3_server: str, bucket: str, tmp_path: Path):
    installation = Installation.on_s3(tmp_path, s3_server, bucket, workers=1)
    Lake.create(installation.settings, now=NOW)
    put_upload(installation.uploads, SYSTEM, NOW, database({"conversations_v2": rows_of(SYSTEM)}))
    installation.ingest()
    lake = installation.lake
    entry = lake.shard(SHARD).head().of_tier("hot")[0]
    whole = lake.store.get(entry.path)
    lake.store.put(entry.path, whole[:-1] + bytes((whole[-1] ^ 1,)))
    (finding,) = damage(fsck(installation))
    assert finding["sources"] == {"cache": 14}
    run_printed(installation, fsck(installation))
    assert lake.store.get(entry.path) == whole
    assert fsck(installation)["ok"]


def test_a_file_of_older_versions_only_concerns_no_record(sound: Installation):
    before = sound.heads()
    lake = sound.lake
    log = lake.shard(SHARD)
    live = log.head().paths
    old = next(path for version in log.versions() for path in log.read(version).paths if path not in live)
    path = lake.store.local_path(old)
    assert path is not None
    path.unlink()
    answer = fsck(sound)
    assert [found["records"] for found in damage(answer)] == [0]
    run_printed(sound, answer)
    assert damage(fsck(sound)) == []
    assert sound.heads() == before, "no commit is needed"


@pytest.mark.parametrize("kinds", [("warm", "archive"), ("hot", "keys"), ("cold", "archive", "keys"), ("hot", "removals"),
                                   ("warm", "cold", "graph")], ids="-".join)  # fmt: skip
def test_several_damaged_files_of_one_shard_come_back_together(sound: Installation, kinds: tuple[str, ...]):
    """Texts that neither tier nor archive has any more are in older versions and in the uploads."""
    before = sound.export()
    for kind in kinds:
        flipped(live_files(sound, kind)[0])
    answer = fsck(sound)
    assert sorted(found["kind"] for found in damage(answer)) == sorted(kinds)
    run_printed(sound, answer)
    assert_restored(sound, before)


def test_without_older_versions_the_uploads_bring_everything_back(sound: Installation):
    """Of every tier the first file, and the archive's: what is forgotten comes as new and ages again."""
    before = sound.export()
    lake = sound.lake
    for found in list(lake.store.list(f"shards/{SHARD:03d}/commits/"))[1:]:
        lake.store.delete(found.key)
    for kind in ("hot", "warm", "cold", "archive"):
        live_files(sound, kind)[0].unlink()
    answer = fsck(sound)
    assert {source for found in damage(answer) for source in found["sources"]} == {"upload"}
    run_printed(sound, answer)
    assert_restored(sound, before)


def test_a_lost_list_of_records_on_hold_lets_them_age_like_all_others(sound: Installation):
    before = sound.export()
    record = next(row for row in before.select(["system_id", "source_table", "record_id", "tier"]).to_pylist()
                  if row["tier"] == "warm" and row["system_id"] == SYSTEM)  # fmt: skip
    done = sound.main("promote", record["system_id"], record["source_table"], record["record_id"])
    assert done.returncode == 0, done.stderr
    head = sound.lake.shard(SHARD).head()
    assert head.holds is not None
    path = sound.lake.store.local_path(head.holds.path)
    assert path is not None
    flipped(path)
    answer = fsck(sound)
    assert [(found["kind"], found["records"]) for found in damage(answer)] == [("holds", 1)]
    run_printed(sound, answer)
    assert_restored(sound, before)


def killed_at_every_call(installation: Installation, *, done: bool) -> int:
    """Repair until it is through, each time killed one call later; how often it was killed."""
    lake, deaths = installation.lake, 0
    while True:
        fuse = Fuse(deaths + 1, done=done)
        victim = Lake(lake.settings, DyingStore(lake.store, fuse), DyingStore(lake.cold, fuse), lake.identity)
        writer = Writer("repair-run", 1, NOW)
        try:
            Repair(victim, installation.uploads, None, lambda made=writer: made, NOW, dry_run=False).run()
        except DiedError:
            deaths += 1
        else:
            return deaths


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("broken", ["head", "hot"])
def test_a_repair_killed_at_any_call_loses_no_upload(tmp_path: Path, broken: str, *, done: bool):
    """I1: what a repair takes out of the lake comes again, although the next repair finds nothing damaged."""
    installation = Installation.local(tmp_path, workers=1)
    Lake.create(installation.settings, now=NOW)
    carried = vectors(4)
    for number in range(2):
        rows = [memory(f"r{n}", TEXT.format(n, SYSTEM), NOW - DAY, carried[n]) for n in range(2 * number + 2)]
        put_upload(
            installation.uploads, SYSTEM, NOW + number * timedelta(hours=1), database({"conversations_v2": rows})
        )
        installation.ingest()
    lake = installation.lake
    if broken == "head":
        truncated(Path(f"{tmp_path}/lake/{commit_key(SHARD, 2)}"))
    else:
        newest = set(lake.shard(SHARD).head().files) - set(lake.shard(SHARD).read(1).files)
        flipped(Path(f"{tmp_path}/lake/{newest.pop()}"))
    assert killed_at_every_call(installation, done=done) > 10
    assert damage(fsck(installation)) == []
    installation.ingest()
    assert sorted(installation.export().column("record_id").to_pylist()) == ["r0", "r1", "r2", "r3"]
