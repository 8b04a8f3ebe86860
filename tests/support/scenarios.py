"""One small lake at each stage of its life, what can be done to it next, and the dictionary that says what it must hold.

Two systems in two shards. Everything is made by the real jobs, as of one instant.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from tests.integration.small_lake import NOW
from tests.support.installation import Installation
from tests.support.mutation_corpus import SmallSandbox
from tests.support.uploads import database, memory, put_upload, vectors

from akosha import jobs
from akosha.embedding.cache import EmbeddingCache
from akosha.embedding.model import LANE_MODEL_ID
from akosha.jobs import ingest
from akosha.jobs.embed import CACHE_FILE
from akosha.lake.lake import Lake
from akosha.lake.layout import shard_of
from akosha.lake.schemas import KEY
from akosha.lake.shard_log import Writer
from akosha.lake.sweep import sweep_shard
from akosha.tiers.promote import promote_shard
from akosha.uploads.sandbox import reading_process

SYSTEMS: Final = ("laptop-7", "desk-131")
TABLE: Final = "conversations_v2"
AGES: Final = {"young": 1, "middle": 30, "old": 120}  # days at `NOW`: hot, warm, cold
EACH: Final = 4
AGED: Final = 3  # the version of both shards at that stage
FIRST: Final = NOW - timedelta(hours=12)
SECOND: Final = NOW - timedelta(hours=3)

Contents = dict[tuple[str, str, str], tuple[str, datetime]]  # text and time by key


@dataclass(frozen=True)
class Scenario:
    """What is done to a lake of a stage: `act` runs in a process that may die; `before` and `after` by system."""

    name: str
    stage: str
    act: Callable[[Installation], object]
    before: Contents
    after: Contents

    def wrong(self, found: pa.Table) -> dict[str, int]:
        """Records lost, doubled and altered: each system must be as before or as after, whole."""
        rows = [(key_of(row), (row["content"], row["created_at"])) for row in found.to_pylist()]
        seen = dict(rows)
        lost = altered = 0
        for system in SYSTEMS:
            states = [{key: said for key, said in state.items() if key[0] == system} for state in self.states]
            ours = {key: said for key, said in seen.items() if key[0] == system}
            if ours not in states:
                nearest = min(states, key=lambda state: len(state.keys() ^ ours.keys()))
                lost += len(nearest.keys() - ours.keys())
                altered += sum(nearest.get(key) != said for key, said in ours.items())
        return {"lost": lost, "doubled": len(rows) - len(seen), "altered": altered}

    @property
    def states(self) -> Sequence[Contents]:
        return (self.before, self.after)


def key_of(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["system_id"], row["source_table"], row["record_id"]


def _text(system: str, name: str, version: int = 0) -> str:
    return f"Note {name} of {system}, version {version}. The retry of a stage needs a deadline. It was found by a test."


def _created(name: str) -> datetime:
    age, number = name.split("-")
    return NOW - timedelta(days=AGES[age]) + timedelta(minutes=int(number))


NAMES: Final = [f"{age}-{number}" for age in AGES for number in range(EACH)]
CHANGED: Final = ("young-0", "middle-1", "old-2")
NEW: Final = ("young-4", "middle-4")
WITHOUT_VECTOR: Final = ("young-1", "middle-2", "young-4")


def snapshot(system: str, number: int) -> Contents:
    """What a system holds at its first (0) and second (1) snapshot."""
    names = [*NAMES, *(NEW if number else ())]
    return {
        (system, TABLE, name): (_text(system, name, number if name in CHANGED else 0), _created(name)) for name in names
    }


def both(number: int) -> Contents:
    return {key: said for system in SYSTEMS for key, said in snapshot(system, number).items()}


def _vector(text: str) -> list[float]:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    return list(vectors(1, seed=seed)[0])


def put_snapshot(installation: Installation, system: str, number: int) -> None:
    rows = [
        memory(name, text, created, None, access_count=number,
               embedding=None if name in WITHOUT_VECTOR else _vector(text))
        for (_, _, name), (text, created) in snapshot(system, number).items()
    ]  # fmt: skip
    put_upload(installation.uploads, system, (FIRST, SECOND)[number], database({TABLE: rows}))


def fill_cache(installation: Installation) -> None:
    """Vectors for every text that comes without one: an embedding run then needs no model."""
    texts = [_text(system, name, number) for system in SYSTEMS for name in WITHOUT_VECTOR for number in range(2)]
    with EmbeddingCache(installation.settings.cache / CACHE_FILE) as cache:
        cache.put_many(
            LANE_MODEL_ID,
            {hashlib.sha256(text.encode()).digest(): vectors(1, seed=number)[0] for number, text in enumerate(texts)},
        )


def do_ingest(installation: Installation) -> object:
    """All but the summary, which changes no record: to judge its figures costs more than everything else here."""
    with installation.applied():
        plan = jobs.plan_ingest(f"test-{uuid.uuid4().hex[:8]}", listing="full")
        return [jobs.run_batch(plan["plan_key"], batch["batch"]) for batch in plan["batches"]]


def do_embed(installation: Installation) -> object:
    return installation.run("plan_embed")


def hot_to_warm(installation: Installation) -> object:
    return installation.move("hot-to-warm", NOW)


def warm_to_cold(installation: Installation) -> object:
    return installation.move("warm-to-cold", NOW)


def undo(installation: Installation) -> object:
    """Take the second ingest back. One run, however often it is tried."""
    plans = []
    with installation.applied():
        for system in SYSTEMS:
            plan = jobs.plan_undo(f"undo-{system}", system=system, to_version=AGED, reason="storm", dry_run=False)
            plans.append(jobs.run_all(plan, progress=lambda _: None))
    return plans


def release(installation: Installation) -> object:
    return installation.run("plan_release")


def release_and_skip(installation: Installation) -> object:
    return installation.run("plan_release", skip=True)


def promote(installation: Installation) -> object:
    """Bring everything back to hot."""
    lake = installation.lake
    keys = pa.Table.from_pylist([dict(zip(KEY, key, strict=True)) for key in both(0)])
    return [
        promote_shard(
            lake,
            shard_of(system),
            keys.filter(pc.equal(keys.column("system_id"), system)),
            Writer("promote", 1, datetime.now(UTC)),
            hold_until=NOW + timedelta(days=30),
        )
        for system in SYSTEMS
    ]


def sweep(installation: Installation, first: int = 40) -> object:
    """Both passes, long after: everything but the heads goes."""
    lake = installation.lake
    clock = datetime.now(UTC)
    return [
        sweep_shard(lake, shard_of(system), Writer("sweep", 1, clock), now=clock + timedelta(days=days))
        for days in (first, first + 40)
        for system in SYSTEMS
    ]


def share_sandbox(sandbox: SmallSandbox) -> None:
    """One reading process for all victims of this process: they read one after the other, and never die reading."""
    ingest.reading_process = lambda: nullcontext(sandbox)  # type: ignore[attr-defined]


def own_sandbox() -> None:
    """From now on every job of this process starts its own: what reads beside others must."""
    ingest.reading_process = reading_process  # type: ignore[attr-defined]


SETTINGS: Final[dict[str, object]] = {"workers": 1, "client_vectors": "keep", "batches": 1}


def installed(folder: Path) -> Installation:
    return Installation.local(folder, **SETTINGS)


def stages(root: Path) -> None:
    """Make a lake at every stage, each in its folder below `root`."""
    lake = installed(root / "uploaded")
    Lake.create(lake.settings, now=FIRST)
    fill_cache(lake)
    for system in SYSTEMS:
        put_snapshot(lake, system, 0)
    for stage, act in (
        ("ingested", do_ingest),
        ("warm", hot_to_warm),
        ("aged", warm_to_cold),
    ):
        shutil.copytree(lake.folder, root / stage)
        lake = installed(root / stage)
        act(lake)
    shutil.copytree(root / "ingested", root / "due")
    do_embed(installed(root / "due"))  # else it matters whether a record moves before its vector comes
    for system in SYSTEMS:
        put_snapshot(lake, system, 1)
        put_snapshot(installed(root / "due"), system, 1)
    shutil.copytree(lake.folder, root / "renewed")
    do_ingest(installed(root / "renewed"))
    shutil.copytree(root / "renewed", root / "held")
    undo(installed(root / "held"))


SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in (
        Scenario("first ingest", "uploaded", do_ingest, {}, both(0)),
        Scenario("embed", "ingested", do_embed, both(0), both(0)),
        Scenario("hot to warm", "ingested", hot_to_warm, both(0), both(0)),
        Scenario("warm to cold", "warm", warm_to_cold, both(0), both(0)),
        Scenario("second ingest", "aged", do_ingest, both(0), both(1)),
        Scenario("promote", "aged", promote, both(0), both(0)),
        Scenario("undo", "renewed", undo, both(1), both(0)),
        Scenario("release", "held", release, both(0), both(0)),
        Scenario("release --skip", "held", release_and_skip, both(0), both(0)),
        Scenario("sweep", "renewed", sweep, both(1), both(1)),
    )
}


def described(table: pa.Table) -> str:
    """A digest of an export: equal for equal records in every column. The day of arrival is that of the run, and left out."""
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    columns["provenance"] = [{**json.loads(text), "ingested_on": ""} for text in columns["provenance"]]
    return hashlib.sha256(json.dumps(columns, default=repr).encode()).hexdigest()
