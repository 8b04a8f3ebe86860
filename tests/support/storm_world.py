"""The lake of the state machine beside the dictionary that says what it holds: a system's uploads, which of them are applied."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import pyarrow as pa
from tests.integration.small_lake import NOW
from tests.support.installation import Installation
from tests.support.scenarios import SETTINGS
from tests.support.uploads import database, memory, put_upload, vectors

from akosha import jobs
from akosha.embedding.cache import EmbeddingCache
from akosha.embedding.model import LANE_MODEL_ID
from akosha.errors import RetryableError
from akosha.jobs import reading
from akosha.jobs.embed import CACHE_FILE
from akosha.lake import failpoints
from akosha.lake.lake import Lake
from akosha.lake.layout import shard_of
from akosha.lake.schemas import KEY
from akosha.lake.shard_log import Writer
from akosha.lake.sweep import sweep_shard
from akosha.lake.undo import release_shard, undo_shard
from akosha.quality.fsck import fsck
from akosha.tiers import hot_to_warm, warm_to_cold
from akosha.tiers.promote import promote_shard

SYSTEMS: Final = ("laptop-7", "desk-131")
NAMES: Final = tuple(f"{age}-{number}" for age in (1, 30, 120) for number in range(2))  # days old, and which
VERSIONS: Final = 4
TABLE: Final = "conversations_v2"
FIRST: Final = NOW - timedelta(hours=20)
Records = dict[str, str]  # text by name


class DiedError(BaseException):
    """The process is gone; nobody can catch that."""


@dataclass(frozen=True)
class Upload:
    """One snapshot of a system."""

    number: int
    rows: Mapping[str, int]  # version of the text by name
    with_vectors: bool


@dataclass
class Model:
    """What one system's shard must hold. `past` has the uploads applied at each version that an undo may go back to."""

    sent: list[Upload] = field(default_factory=list)
    applied: frozenset[int] = frozenset()
    aside: frozenset[int] = frozenset()
    held: bool = False
    past: dict[int, frozenset[int]] = field(default_factory=lambda: {0: frozenset()})

    @property
    def waiting(self) -> list[int]:
        return [one.number for one in self.sent if one.number not in self.applied | self.aside]

    def records(self, system: str, applied: Iterable[int]) -> Records:
        """The newest text of every name that was ever in an applied snapshot."""
        found: dict[str, int] = {}
        for number in sorted(applied):
            found |= self.sent[number].rows
        return {name: text_of(system, name, version) for name, version in found.items()}


def text_of(system: str, name: str, version: int) -> str:
    return f"Note {name} of {system}, version {version}. The retry of a stage needs a deadline."


def created(name: str) -> datetime:
    days, number = name.split("-")
    return NOW - timedelta(days=int(days)) + timedelta(minutes=int(number))


class World:
    """A lake and its models. Acts are done as one writer; a hook on the failpoints decides its fate."""

    def __init__(self, folder: Path) -> None:
        self.installation = Installation.local(folder, **SETTINGS)
        Lake.create(self.installation.settings, now=FIRST)
        self.models = {system: Model() for system in SYSTEMS}
        self.days = 0.0
        self._runs = 0
        self._fill_cache()
        for system in SYSTEMS:
            self.send(system, dict.fromkeys(NAMES, 0), with_vectors=True)

    def _fill_cache(self) -> None:
        texts = [text_of(system, name, n) for system in SYSTEMS for name in NAMES for n in range(VERSIONS)]
        rows = vectors(len(texts))
        with EmbeddingCache(self.installation.settings.cache / CACHE_FILE) as cache:
            digests = (hashlib.sha256(text.encode()).digest() for text in texts)
            cache.put_many(LANE_MODEL_ID, dict(zip(digests, rows, strict=True)))

    @property
    def lake(self) -> Lake:
        return self.installation.lake

    def writer(self, skew_days: int = 0) -> Writer:
        self._runs += 1
        return Writer(f"run-{self._runs}", 1, NOW + timedelta(days=self.days + skew_days))

    def send(self, system: str, rows: Mapping[str, int], *, with_vectors: bool) -> None:
        model = self.models[system]
        upload = Upload(len(model.sent), rows, with_vectors)
        model.sent.append(upload)
        made = [
            memory(name, text_of(system, name, n), created(name), vectors(1, seed=n + 1)[0] if with_vectors else None)
            for name, n in rows.items()
        ]
        moment = FIRST + timedelta(minutes=upload.number)
        put_upload(self.installation.uploads, system, moment, database({TABLE: made}))

    def ingest(self) -> None:
        with self.installation.applied():
            self._runs += 1
            plan = jobs.plan_ingest(f"ingest-{self._runs}", listing="full")
            for batch in plan["batches"]:
                jobs.run_batch(plan["plan_key"], batch["batch"])

    def embed(self) -> None:
        self._runs += 1
        self.installation.run("plan_embed")

    def move(self, kind: str, system: str, skew_days: int) -> None:
        lake = self.lake
        batch = hot_to_warm.move_batch if kind == "hot" else warm_to_cold.move_batch
        batch(lake, [shard_of(system)], lake.policy(), self.writer(skew_days), as_of=NOW)

    def promote(self, system: str, names: Sequence[str]) -> None:
        keys = pa.Table.from_pylist([dict(zip(KEY, (system, TABLE, name), strict=True)) for name in names])
        until = NOW + timedelta(days=30)
        promote_shard(self.lake, shard_of(system), keys, self.writer(), hold_until=until)

    def undo(self, system: str, version: int) -> None:
        undo_shard(self.lake, shard_of(system), to_version=version, writer=self.writer(), reason="the machine")

    def release(self, system: str, *, skip: bool) -> None:
        release_shard(self.lake, shard_of(system), self.writer(), skip=skip)

    def sweep(self, system: str, skew_days: int) -> None:
        now = datetime.now(NOW.tzinfo) + timedelta(days=self.days)
        sweep_shard(self.lake, shard_of(system), self.writer(skew_days), now=now)

    def set_aside(self, system: str) -> frozenset[int]:
        """Numbers of the uploads of a system that are in quarantine."""
        with self.installation.applied():
            keys = {memo["manifest_key"] for memo in reading.quarantine_list(system=system)}
        moments = [FIRST + timedelta(minutes=one.number) for one in self.models[system].sent]
        return frozenset(
            number for number, moment in enumerate(moments) if any(f"{moment:%Y%m%d_%H%M%S}" in key for key in keys)
        )

    def found(self, system: str) -> tuple[int, bool, Records]:
        """Version, whether it is held, and the live records of a system, each of which must be there once."""
        lake = self.lake
        head = lake.shard(shard_of(system)).head()
        archived = {}
        for entry in head.of_tier("archive"):
            for row in lake.rows(entry, ["record_id", "content"]).to_pylist():
                assert row["record_id"] not in archived, "a text is twice in the archive"
                archived[row["record_id"]] = row["content"]
        records: Records = {}
        for tier in ("hot", "warm", "cold"):
            for entry in head.of_tier(tier):
                columns = ["record_id", "created_at", *(["content"] if tier == "hot" else [])]
                for row in lake.rows(entry, columns).to_pylist():
                    name = row["record_id"]
                    assert name not in records, f"{name} is in two tiers, or twice in one"
                    assert row["created_at"] == created(name)
                    records[name] = row["content"] if tier == "hot" else archived.pop(name)
        assert not archived, f"the archive holds texts of records that are not warm or cold: {sorted(archived)}"
        keys = lake.keys(head.keys.get(system)).column("record_id").to_pylist()
        assert sorted(keys) == sorted(records)
        return head.version, bool(head.held_by), records

    def check(self) -> None:
        """Every system is as some whole number of its waiting uploads leaves it, and the model takes note."""
        for system, model in self.models.items():
            version, held, records = self.found(system)
            states = [model.applied | frozenset(model.waiting[:count]) for count in range(len(model.waiting) + 1)]
            fitting = [state for state in states if model.records(system, state) == records]
            assert fitting, (system, version, records, [model.records(system, state) for state in states])
            model.applied, model.held = fitting[0], held
            model.past[version] = model.applied
            retained = {0, *self.lake.shard(shard_of(system)).versions()}
            model.past = {number: state for number, state in model.past.items() if number in retained}

    def assert_sound(self, *, read_data: bool) -> None:
        report = fsck(self.lake, read_data=read_data)
        assert report.ok, [one for one in report.findings if one.severity == "damage"]


@dataclass
class Fate:
    """What happens to an act at its n-th failpoint: it dies, the call fails, or others do something first."""

    kind: str
    at: int
    meanwhile: Callable[[], None] | None = None
    points: int = 0
    met: bool = False

    def __call__(self, name: str) -> None:
        self.points += 1
        if self.kind == "dies" and self.points >= self.at:
            self.met = True
            raise DiedError(name)
        if self.points != self.at:
            return
        self.met = True
        if self.kind == "fails":
            raise OSError(28, "No space left on device")
        if self.meanwhile is not None:
            failpoints.hooks.clear()
            try:
                self.meanwhile()
            finally:
                failpoints.hooks.append(self)


def done(act: Callable[[], None], fate: Fate) -> bool:
    """Do an act that may meet its fate. Whether it ended well; it may fail only by a fault or by losing a race."""
    failpoints.hooks[:] = [fate]
    try:
        act()
    except DiedError:
        return False
    except (RetryableError, OSError):
        if not fate.met:
            raise
        return False
    finally:
        with suppress(ValueError):
            failpoints.hooks.remove(fate)
        failpoints.hooks.clear()
    return True
