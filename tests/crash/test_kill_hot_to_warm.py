"""Kill -9 at random moments, again and again, and one clean run: as if nothing had happened."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.integration.small_lake import NOW, Shelf, memories, new_lake, publish
from tests.support.installation import Installation
from tests.support.uploads import database, memory, put_upload, vectors
from tests.support.victims import Launcher, launcher

from akosha.jobs import reading
from akosha.lake.layout import shard_of

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SYSTEMS = [f"laptop-{number}" for number in range(10)]
ROWS = 500
AS_OF = NOW + timedelta(days=30)
MOVE = ["migrate", "hot-to-warm", "--as-of", AS_OF.isoformat(), "--force"]
REACH = 0.6  # of the work that is left: ten kills must not use it up
EXACT = ["system_id", "source_table", "record_id", "tier", "created_at", "time_evidence", "content_sha256", "content",
         "summary", "embedding_model", "fingerprint", "project", "metadata", "attributes", "provenance"]  # fmt: skip


@pytest.fixture(scope="module")
def victims() -> Iterator[Launcher]:
    with launcher() as running:
        yield running


@pytest.fixture
def chance(capsys: pytest.CaptureFixture[str]) -> random.Random:
    seed = int(os.environ.get("KILL_SEED") or time.time_ns() % 1_000_000)
    with capsys.disabled():
        print(f"\nKILL_SEED={seed}", end="")  # noqa: T201
    return random.Random(seed)  # noqa: S311


@dataclass
class Job:
    """One command on one lake: start it, wait until it has planned, kill it or let it end."""

    installation: Installation
    arguments: list[str]
    victims: Launcher
    moments: Counter[str] = field(default_factory=Counter)

    def plans(self) -> int:
        return len(list((self.installation.folder / "lake" / "runs").glob("*/plan-*.json")))

    def start(self) -> int:
        """Start it and wait for its plan, the last thing it writes before it works."""
        before = self.plans()
        log = self.installation.folder / "victim.log"
        pid = self.victims.start(self.arguments, self.installation.environment, log)
        deadline = time.monotonic() + 60
        while self.plans() == before:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.002)
        return pid

    def undisturbed(self) -> float:
        """Let it end, which must be well; the seconds from its plan to its end."""
        pid = self.start()
        begun = time.monotonic()
        status = self.victims.wait(pid)
        assert status == 0, (self.installation.folder / "victim.log").read_text()
        return time.monotonic() - begun

    def killed(self, seconds: float, committed_before: int, committed_in_all: int) -> int:
        """Kill it this long after its plan; shards committed by then."""
        pid = self.start()
        time.sleep(seconds)
        status = self.victims.kill(pid)
        committed = len(self.done())
        if not os.WIFSIGNALED(status):
            assert status == 0, (self.installation.folder / "victim.log").read_text()
            self.moments["after its end"] += 1
        elif committed_before == committed_in_all:
            self.moments["with nothing left to do"] += 1
        elif committed == committed_before:
            self.moments["before its first commit"] += 1
        elif committed < committed_in_all:
            self.moments["between its commits"] += 1
        else:
            self.moments["after its last commit"] += 1
        assert not os.WIFSIGNALED(status) or os.WTERMSIG(status) == signal.SIGKILL
        return committed

    def done(self) -> list[int]:
        """Shards whose head is the work of this job."""
        operation = "ingest" if self.arguments[0] == "ingest" else "hot-to-warm"
        return [head.shard for head in self.installation.lake.heads() if head.operation == operation]


def copied(source: Path, target: Path) -> Installation:
    shutil.copytree(source / "lake", target / "lake")
    return Installation.local(target, workers=1).using(uploads_url=f"file://{source}/uploads")


def assert_consistent(installation: Installation) -> None:
    """I1, from the documents of the heads alone: after every kill, before anything is repaired."""
    with installation.applied():
        answer = reading.fsck_lake(read_data=False)
    assert answer["ok"], answer["findings"]


def assert_equal(found: pa.Table, wanted: pa.Table) -> None:
    assert found.num_rows == wanted.num_rows
    for name in EXACT:
        assert found.column(name).equals(wanted.column(name)), name
    for one, other in zip(decoded(found), decoded(wanted), strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert one @ other / (np.linalg.norm(one) * np.linalg.norm(other)) >= 0.9999


def decoded(table: pa.Table) -> list[np.ndarray | None]:
    """The vector of each record, from FLOAT where it is kept, else from its codes."""
    columns = [table.column(name).to_pylist() for name in ("tier", "embedding", "codes", "scale")]
    return [
        (None if embedding is None else np.float32(embedding))
        if tier == "hot"
        else (None if codes is None else np.frombuffer(codes, np.int8).astype(np.float32) * np.float32(scale))
        for tier, embedding, codes, scale in zip(*columns, strict=True)
    ]


def test_ten_kills_of_a_move_and_one_clean_run(
    tmp_path: Path, victims: Launcher, chance: random.Random, capsys: pytest.CaptureFixture[str]
):
    """I1, I2, I3, I4."""
    shelf = Shelf({"hot": [one for system_id in SYSTEMS for one in memories(system_id, "hot", ROWS)]})
    for number in range(0, len(shelf.tiers["hot"]), 9):
        shelf.tiers["hot"][number].vector = None
    publish(new_lake(tmp_path / "source"), shelf)
    shards = len({shard_of(system_id) for system_id in SYSTEMS})

    calm = copied(tmp_path / "source", tmp_path / "calm")
    seconds = Job(calm, MOVE, victims).undisturbed()
    wanted = calm.export()
    assert set(wanted.column("tier").to_pylist()) == {"warm"}

    job = Job(copied(tmp_path / "source", tmp_path / "killed"), MOVE, victims)
    committed = 0
    for _ in range(10):
        left = seconds * (1 - committed / shards) + 0.05
        committed = job.killed(chance.uniform(0, left * REACH), committed, shards)
        assert_consistent(job.installation)
    job.undisturbed()
    with capsys.disabled():
        print(f" work {seconds:.2f} s, {shards} shards, killed {dict(job.moments)}", end=" ")  # noqa: T201
    assert job.moments["before its first commit"] + job.moments["between its commits"] >= 3

    assert_equal(job.installation.export(), wanted)
    heads = job.installation.heads()
    job.undisturbed()
    assert job.installation.heads() == heads
    with job.installation.applied():
        answer = reading.fsck_lake(read_data=True)
    assert answer["ok"], answer["findings"]


def test_three_kills_of_an_ingest_and_one_clean_run(
    tmp_path: Path, victims: Launcher, chance: random.Random, capsys: pytest.CaptureFixture[str]
):
    """I1, I4, I5."""
    source = Installation.local(tmp_path / "source")
    new_lake(tmp_path / "source")
    systems = SYSTEMS[:6]
    carried = vectors(60)
    for system_id in systems:
        rows = [
            memory(f"id-{n}", f"Note {n} of {system_id}. Set a deadline. Then measure it again.", NOW, carried[n])
            for n in range(60)
        ]
        put_upload(source.uploads, system_id, NOW - timedelta(days=1), database({"conversations_v2": rows[:45]}))
        put_upload(source.uploads, system_id, NOW, database({"conversations_v2": rows[15:]}))

    calm = copied(tmp_path / "source", tmp_path / "calm")
    seconds = Job(calm, ["ingest"], victims).undisturbed()
    wanted = calm.export()
    assert wanted.num_rows == 6 * 60

    job = Job(copied(tmp_path / "source", tmp_path / "killed"), ["ingest"], victims)
    committed = 0
    for _ in range(3):
        committed = job.killed(chance.uniform(0, seconds * 0.6), committed, len(systems))
        assert_consistent(job.installation)
        if job.installation.heads():
            assert_whole_uploads(job.installation)
    job.undisturbed()
    with capsys.disabled():
        print(f" work {seconds:.2f} s, killed {dict(job.moments)}", end=" ")  # noqa: T201
    assert_equal(job.installation.export(), wanted)
    heads = job.installation.heads()
    job.undisturbed()
    assert job.installation.heads() == heads
    with job.installation.applied():
        answer = reading.fsck_lake(read_data=True)
    assert answer["ok"], answer["findings"]


@pytest.mark.parametrize(("arguments", "plan_writes"), [(MOVE, 1), (["ingest"], 2)], ids=["move", "ingest"])
def test_a_crash_before_any_of_its_writes_is_healed_by_the_next_run(
    tmp_path: Path, victims: Launcher, arguments: list[str], plan_writes: int
):
    """I1, I2, I4, I5: not at random, but at every single step after the plan that another process could see."""
    source = Installation.local(tmp_path / "source")
    lake = new_lake(tmp_path / "source")
    shelf = Shelf({"hot": [one for system_id in SYSTEMS[:2] for one in memories(system_id, "hot", 20)]})
    publish(lake, shelf)
    put_upload(
        source.uploads, "laptop-7", NOW, database({"conversations_v2": [memory("id", "A note. It is new.", NOW)]})
    )
    calm = copied(tmp_path / "source", tmp_path / "calm")
    Job(calm, arguments, victims).undisturbed()
    wanted, heads = calm.export(), calm.heads()

    crashes = 0
    while True:
        installation = copied(tmp_path / "source", tmp_path / f"crash-{crashes}")
        log = installation.folder / "victim.log"
        status = victims.wait(
            victims.start(arguments, installation.environment, log, crash_at=plan_writes + crashes + 1)
        )
        if not os.WIFSIGNALED(status):
            assert status == 0, log.read_text()
            break
        crashes += 1
        assert_consistent(installation)
        Job(installation, arguments, victims).undisturbed()
        assert_equal(installation.export(), wanted)
        assert {shard: head[0] for shard, head in installation.heads().items()} == {
            shard: head[0] for shard, head in heads.items()
        }
    assert crashes >= 6


def assert_whole_uploads(installation: Installation) -> None:
    """I5: 45 records of the first snapshot, or all 60."""
    counts = Counter(installation.export().column("system_id").to_pylist())
    assert set(counts.values()) <= {45, 60}, counts
