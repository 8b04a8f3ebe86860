"""Lakes of a few hundred records with rows in every tier, made through the one way lakes are written."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from akosha.lake.columns import codes_column, packed_codes, vectors_column
from akosha.lake.documents import seal
from akosha.lake.edit import edit_shard
from akosha.lake.lake import Lake
from akosha.lake.layout import memo_key, shard_of
from akosha.lake.provenance import about, record_provenance
from akosha.lake.schemas import ARCHIVE, COLD, HOT, KEYS, WARM
from akosha.lake.shard_log import Writer
from akosha.settings import Settings
from akosha.transforms.quantization import quantize

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
AGE_DAYS = {"hot": 1, "warm": 30, "cold": 120}
SCHEMAS = {"hot": HOT, "warm": WARM, "cold": COLD, "archive": ARCHIVE}
PROVENANCE = record_provenance(
    upload="systems/laptop-7/uploads/1/manifest.json", etag="e", file_sha256="f" * 64, manifest_time=NOW.isoformat()
)


@dataclass
class Memory:
    """One record. `vector` None = it has none."""

    system_id: str
    record_id: str
    text: str
    vector: np.ndarray | None
    created_at: datetime
    project: str | None = None
    model: str = "client"
    source_table: str = "conversations"

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.text.encode()).digest()

    @property
    def metadata(self) -> str:
        return json.dumps({"n": self.record_id})

    @property
    def details_digest(self) -> bytes:
        details = json.dumps([self.project, self.metadata, "{}"], separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(details.encode()).digest()

    @property
    def key(self) -> tuple[str, str, str]:
        return self.system_id, self.source_table, self.record_id


@dataclass
class Shelf:
    """Memories by tier, and what is deliberately wrong about the lake made of them."""

    tiers: dict[str, list[Memory]]
    unlisted: set[str] = field(default_factory=set)
    ghosts: list[Memory] = field(default_factory=list)
    without_archive: set[str] = field(default_factory=set)
    archived_as: dict[str, Memory] = field(default_factory=dict)


def memories(system_id: str, tier: str, count: int, *, seed: int = 1) -> list[Memory]:
    """Records with clustered vectors of various lengths, created a minute apart."""
    random = np.random.default_rng([seed, *tier.encode()])
    centres = random.normal(size=(8, 384))
    vectors = (centres[np.arange(count) % 8] + random.normal(size=(count, 384))) * random.uniform(0.5, 3, (count, 1))
    start = NOW - timedelta(days=AGE_DAYS[tier])
    return [
        Memory(system_id, f"{tier}-{number:04d}", f"{tier} note {number} of {system_id}, seed {seed}", vector,
               start + timedelta(minutes=number), project=("web", "data", None)[number % 3])
        for number, vector in enumerate(vectors.astype(np.float32))
    ]  # fmt: skip


def new_lake(folder: Path, **settings: object) -> Lake:
    environment = {"AKOSHA_LAKE_URL": f"file://{folder}/lake", "AKOSHA_CACHE_DIR": f"{folder}/cache"}
    environment |= {f"AKOSHA_{name.upper()}": str(value) for name, value in settings.items()}
    return Lake.create(Settings.from_environment(environment), now=NOW)


def publish(lake: Lake, shelf: Shelf) -> None:
    """Commit a shelf, shard by shard; the key files of its systems are replaced and list `ghosts` as well."""
    everything = [memory for rows in shelf.tiers.values() for memory in rows]
    for shard in sorted({shard_of(memory.system_id) for memory in everything}):
        with edit_shard(lake, lake.shard(shard).head(), about()) as edit:
            for tier, rows in shelf.tiers.items():
                ours = [memory for memory in rows if shard_of(memory.system_id) == shard]
                if not ours:
                    continue
                edit.put(tier, table_of(tier, ours))
                archived = [shelf.archived_as.get(memory.record_id, memory) for memory in ours
                            if memory.record_id not in shelf.without_archive]  # fmt: skip
                if tier != "hot" and archived:
                    edit.put("archive", table_of("archive", archived))
            for system in sorted({memory.system_id for memory in everything if shard_of(memory.system_id) == shard}):
                listed = [memory for memory in [*everything, *shelf.ghosts]
                          if memory.system_id == system and memory.record_id not in shelf.unlisted]  # fmt: skip
                edit.set_keys(system, keys_of(listed), newest=NOW)
            edit.publish("ingest", Writer("run-1", 1, NOW), counts={"new": len(everything)})


def remove(lake: Lake, memory: Memory, tier: str, *, keep: list[Memory]) -> None:
    """Take one record out of its tier by a removal list, and out of its key file, which then lists `keep`."""
    head = lake.shard(shard_of(memory.system_id)).head()
    with edit_shard(lake, head, about()) as edit:
        for entry in head.of_tier(tier):
            table = lake.rows(entry, ["record_id"])
            rows = [row["row"] for row in table.to_pylist() if row["record_id"] == memory.record_id]
            edit.drop(entry, np.array(rows, dtype=np.uint32))
        edit.set_keys(memory.system_id, keys_of(keep), newest=NOW)
        edit.publish("ingest", Writer("run-2", 1, NOW + timedelta(hours=1)), counts={"removed": 1})


def add_documents(lake: Lake) -> None:
    """A memo, a plan, a summary and a report, as runs leave them."""
    key, day = "systems/laptop-7/uploads/1/manifest.json", "2026-11-20"
    memo = {"format": "akosha-memo/1", "manifest_key": key, "etag": "e", "shard": 77, "outcome": "applied"}
    lake.store.put(memo_key(77, day, key, "e"), seal(memo))
    lake.store.put("runs/run-1/plan.json", seal({"format": "akosha-plan/1", "batches": []}))
    lake.store.put("runs/run-1/summary.json", seal({"format": "akosha-summary/1", "ok": True}))
    lake.store.put("reports/validate/run-1/index.html", b"<html></html>")


def full_lake(folder: Path) -> tuple[Lake, Shelf]:
    """A sound lake with every kind of object in it: two systems, four tiers, two versions, a removal list."""
    lake = new_lake(folder)
    shelf = Shelf({
        tier: [*memories("laptop-7", tier, 12), *memories("büro pc", tier, 6, seed=2)] for tier in AGE_DAYS
    })  # fmt: skip
    publish(lake, shelf)
    gone = shelf.tiers["hot"].pop(3)
    remove(lake, gone, "hot", keep=[memory for rows in shelf.tiers.values() for memory in rows
                                    if memory.system_id == gone.system_id])  # fmt: skip
    add_documents(lake)
    return lake, shelf


def table_of(tier: str, rows: list[Memory]) -> pa.Table:
    present = np.array([memory.vector is not None for memory in rows])
    given = [memory.vector for memory in rows if memory.vector is not None]
    vectors = np.stack(given) if given else np.empty((0, 384), np.float32)
    codes, scales = quantize(vectors)
    spread = np.zeros(len(rows), np.float32)
    spread[present] = scales
    columns = {
        "system_id": [memory.system_id for memory in rows],
        "source_table": [memory.source_table for memory in rows],
        "record_id": [memory.record_id for memory in rows],
        "created_at": pa.array([memory.created_at for memory in rows], pa.timestamp("us", tz="UTC")),
        "time_evidence": ["id"] * len(rows),
        "content_sha256": pa.array([memory.digest for memory in rows], pa.binary()),
        "content": [memory.text for memory in rows],
        "summary": [f"About {memory.text}" for memory in rows],
        "sentence": [memory.text for memory in rows],
        "fingerprint": pa.array([memory.digest * 16 for memory in rows], pa.binary()),
        "embedding": vectors_column(vectors, present),
        "codes": packed_codes(codes, present) if tier == "archive" else codes_column(codes, present),
        "scale": pa.array(spread, mask=~present),
        "signs": pa.array([memory.digest[:24] * 2 for memory in rows], pa.binary(48)),
        "embedding_model": [memory.model if memory.vector is not None else None for memory in rows],
        "project": [memory.project for memory in rows],
        "metadata": [memory.metadata for memory in rows],
        "attributes": ["{}"] * len(rows),
        "provenance": [PROVENANCE] * len(rows),
    }
    schema = SCHEMAS[tier]
    return pa.table({name: columns[name] for name in schema.names}).cast(schema)


def keys_of(rows: list[Memory]) -> pa.Table:
    instant = pa.timestamp("us", tz="UTC")
    return pa.table({
        "source_table": [memory.source_table for memory in rows],
        "record_id": [memory.record_id for memory in rows],
        "content_xxh128": [xxhash.xxh3_128_digest(memory.text.encode()) for memory in rows],
        "content_sha256": pa.array([memory.digest for memory in rows], pa.binary()),
        "details_sha256": pa.array([memory.details_digest for memory in rows], pa.binary()),
        "has_vector": [memory.vector is not None for memory in rows],
        "created_at": pa.array([memory.created_at for memory in rows], instant),
        "time_evidence": ["id"] * len(rows),
        "time_manifest": pa.array([NOW] * len(rows), instant),
        "first_manifest": pa.array([NOW] * len(rows), instant),
        "applied_manifest": pa.array([NOW] * len(rows), instant),
        "in_newest": [True] * len(rows),
        "bookkeeping": ["{}"] * len(rows),
    }).select(KEYS.names).cast(KEYS)  # fmt: skip
