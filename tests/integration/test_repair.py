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
from akosha.lake.layout import shard_of

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
