"""A whole bucket of Session-Buddy uploads, as many machines would have left it: deterministic, byte for byte.

The same anchor and the same vectors give the same objects; a second run puts equal bytes under equal keys.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol

from akosha.demo.broken import TORN, Donors, Upload, side_uploads, upload
from akosha.demo.cast import MACHINES
from akosha.demo.client_fingerprints import client_fingerprints
from akosha.demo.container import KNOWLEDGE_GRAPH, MANIFEST, REFLECTION, UploadName
from akosha.demo.database import build_database
from akosha.demo.expected import Expected, ExpectedUpload, expected_records
from akosha.demo.graph import OBSERVATIONS, graph_tables
from akosha.demo.memories import Memory, Pair, remember
from akosha.demo.rows import Derived, Snapshot, tables
from akosha.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from akosha.demo.vectors import Corpus

WORKERS: Final = 2
"""Files are built side by side; DuckDB and zlib release the interpreter lock, and each file has its own database."""
_NO_FINGERPRINT: Final = frozenset({"insight", "old_insight", "checkpoint", "legacy_reflection"})


class Writable(Protocol):
    """The part of an object store that is needed."""

    def put(self, key: str, data: bytes) -> None:
        """Write an object, replacing what is there."""


@dataclass(frozen=True, slots=True)
class World:
    """Everything in the bucket, oldest upload first, and what must be made of it.

    Attributes:
        anchor: the instant just after the last upload, UTC.
        uploads: objects in memory, a few tens of megabytes at full scale.
        expected: what a correct ingester finds.
        pairs: near-duplicates among the texts.
    """

    anchor: datetime
    uploads: tuple[Upload, ...]
    expected: Expected
    pairs: tuple[Pair, ...]

    @property
    def objects(self) -> dict[str, bytes]:
        """All objects by key, in the order in which they are written."""
        return {key: data for upload in self.uploads for key, data in upload.objects}


@dataclass(frozen=True, slots=True)
class WorldReport:
    """What was put: systems, uploads with a manifest, objects, bytes, distinct records, those without a vector."""

    systems: int
    uploads: int
    objects: int
    size_bytes: int
    records: int
    without_vector: int


def build_world(anchor: datetime, corpus: Corpus, *, scale: float = 1.0) -> World:
    """Make every object of the world that ends at `anchor`.

    Args:
        anchor: with a time zone; ages are counted back from it, up to 200 days.
        corpus: texts and vectors: `load_vectors()` for the real ones, any texts with `unit_vectors` for tests.
        scale: share of the rows of each machine, above 0 and up to 1; every upload is there at any scale.

    Raises:
        UsageError: the anchor has no time zone, or the scale is out of range.
    """
    if anchor.tzinfo is None or not 0 < scale <= 1:
        message = "expected an anchor with a time zone and a scale above 0 and up to 1"
        raise UsageError(message, anchor=anchor.isoformat(), scale=scale)
    anchor = anchor.astimezone(UTC)
    everyone, pairs = remember((*MACHINES, TORN), corpus.texts, scale)
    derived = _derived(everyone, corpus)
    *worlds, torn = everyone
    snapshots = [
        (Snapshot(machine, at, anchor, derived), world)
        for machine, world in zip(MACHINES, worlds, strict=True)
        for at in range(len(machine.uploads))
    ]
    with ThreadPoolExecutor(WORKERS) as pool:
        torn_file = pool.submit(_torn, Snapshot(TORN, 0, anchor, derived), torn)
        built = list(pool.map(lambda pair: _built(*pair), snapshots))
        regular = list(pool.map(_regular, built))
        donors = Donors(
            {one.snapshot.machine.system_id: one.files[REFLECTION] for one in built},
            {one.snapshot.machine.system_id: one.files[KNOWLEDGE_GRAPH] for one in built if one.graph_rows[0]},
            torn_file.result(),
        )
    uploads = sorted([*regular, *side_uploads(anchor, donors)], key=lambda made: made.name.moment)
    expected = Expected(expected_records(worlds, anchor), tuple(made.expected for made in uploads))
    return World(anchor, tuple(uploads), expected, tuple(pairs))


def publish_world(world: World, store: Writable, prefix: str = "") -> WorldReport:
    """Put every object in the client's order: upload by upload, each one's manifest last.

    Args:
        world: what `build_world` made.
        store: where uploads arrive.
        prefix: put before every key of the store. Manifests name paths from ``systems/`` on, whatever the prefix.
    """
    start = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
    for made in world.uploads:
        for key, data in made.objects:
            store.put(start + key, data)
    return report(world)


def report(world: World) -> WorldReport:
    """The size of a world."""
    sizes = [len(data) for made in world.uploads for _, data in made.objects]
    records = world.expected.records
    return WorldReport(
        systems=len({made.name.system_id for made in world.uploads}),
        uploads=sum(made.expected.outcome != "unfinished" for made in world.uploads),
        objects=len(sizes),
        size_bytes=sum(sizes),
        records=len(records),
        without_vector=sum(not record.has_vector for record in records),
    )


@dataclass(frozen=True, slots=True)
class _Built:
    snapshot: Snapshot
    files: dict[str, bytes]
    graph_rows: tuple[int, int]


def _derived(worlds: Sequence[Sequence[Memory]], corpus: Corpus) -> Derived:
    memories = [memory for world in worlds for memory in world]
    carried = [text for memory in memories if memory.vector for text in memory.contents]
    texts = list(dict.fromkeys([*carried, *OBSERVATIONS]))
    printed = [text for memory in memories if memory.kind not in _NO_FINGERPRINT for text in memory.contents]
    printed = list(dict.fromkeys(printed))
    return Derived(
        dict(zip(texts, corpus.encode(texts), strict=True)),
        dict(zip(printed, client_fingerprints(printed), strict=True)),
    )


def _built(snapshot: Snapshot, memories: Sequence[Memory]) -> _Built:
    machine = snapshot.machine
    files = {REFLECTION: build_database(machine.schema, tables(snapshot, memories), machine.storage)}
    graph_rows = (0, 0)
    if machine.graph:
        graph = graph_tables(snapshot)
        graph_rows = (graph["kg_entities"].num_rows, graph["kg_relationships"].num_rows)
        files[KNOWLEDGE_GRAPH] = build_database(("demo_graph",), graph, machine.storage)
    return _Built(snapshot, files, graph_rows)


def _regular(built: _Built) -> Upload:
    machine = built.snapshot.machine
    name = UploadName(machine.system_id, built.snapshot.moment)
    expected = ExpectedUpload(machine.system_id, name.key(MANIFEST), "applied", graph_rows=built.graph_rows)
    return upload(name, built.files, machine.compression, expected)


def _torn(snapshot: Snapshot, memories: Sequence[Memory]) -> bytes:
    rows = tables(snapshot, memories)
    return build_database(TORN.schema, rows, TORN.storage, damage="conversations_v2")
