"""The knowledge graph of one upload as the job sees it: checked, dated in UTC, and digested."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from akosha.errors import InvalidUploadError
from akosha.lake.graph_schema import ENTITY, OBSERVATION, RELATION, VECTOR
from akosha.transforms.times import EVIDENCE, NAT, InferredTimes, infer_times, times_in_ids
from akosha.uploads.graph import INCOMING_GRAPH
from akosha.uploads.graph_reader import FILES, MAX_OUTPUT_BYTES, MAX_ROWS, size_of
from akosha.uploads.reader import DIMENSION
from akosha.uploads.sources import RowFaults

KNOWLEDGE_GRAPH: Final = "knowledge_graph.duckdb"
NEEDED: Final = {"entities": ("client_id", "name"), "relations": ("client_id", "from_entity", "to_entity")}
BLOCK_BYTES: Final = 1 << 20  # what an Arrow file has besides its rows


@dataclass(frozen=True, slots=True)
class Anchors:
    """Moments known in both clocks, from the other database of the same upload: local and UTC microseconds, int64 ``(n,)``."""

    local_us: NDArray[np.int64]
    utc_us: NDArray[np.int64]

    @classmethod
    def none(cls) -> Anchors:
        """No moment is known."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64))


@dataclass(frozen=True, slots=True)
class GraphSnapshot:
    """What a knowledge graph file held: accepted rows (schemas of `graph_reader`), and what was refused of it."""

    entities: pa.Table
    relations: pa.Table
    faults: RowFaults
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """Which upload a snapshot came with: its manifest's time, UTC, and the provenance written into every row."""

    manifest_time: datetime
    provenance: str


@dataclass(slots=True)
class _Columns:
    """Columns of incoming rows by name; what is not given is NULL."""

    rows: int
    given: dict[str, Any] = field(default_factory=dict)

    def table(self) -> pa.Table:
        columns = [
            pa.array(self.given[of.name], of.type) if of.name in self.given else pa.nulls(self.rows, of.type)
            for of in INCOMING_GRAPH
        ]
        return pa.table(columns, schema=INCOMING_GRAPH)


def read_graph(reply: dict[str, Any], folder: Path) -> GraphSnapshot:
    """Check what the sandbox wrote for a knowledge graph (`akosha.uploads.graph_reader.extract_graph`).

    Args:
        reply: what the child said of it.
        folder: where its Arrow files lie.

    Raises:
        InvalidUploadError: ``damaged``: text is not UTF-8, or the rows are not what was announced.
    """
    faults = RowFaults()
    tables = {}
    for name in FILES:
        table = _checked(name, folder / f"{name}.arrow")
        if table.num_rows != int(reply[name]):
            raise _damaged(name, f"{table.num_rows} rows, announced were {reply[name]}")
        tables[name] = _accepted(name, table, faults)
    if size_of(tables["entities"]) + tables["relations"].num_rows > MAX_ROWS:
        raise _damaged(what=f"more than {MAX_ROWS:,} entities, relations and observations", name="the graph")
    ignored = tuple(str(name) for name in reply["ignored"])
    return GraphSnapshot(_with_usable_vectors(tables["entities"], faults), tables["relations"], faults, ignored)


def incoming_rows(
    snapshot: GraphSnapshot, origin: Origin, anchors: Anchors | None = None
) -> tuple[pa.Table, InferredTimes]:
    """Rows to merge (schema ``INCOMING_GRAPH``), and the times inferred for them.

    Ids of graphs usually carry no time (UUIDv4): `anchors` of the other database tell the client's offset. A row without
    a time of its own has the manifest's; ``time_evidence`` says which.
    """
    manifest_us = _epoch_us(origin.manifest_time)
    times = _times(snapshot, manifest_us, anchors or Anchors.none())
    sizes = [snapshot.entities.num_rows, snapshot.relations.num_rows]
    created, updated, evidence = _split(times, snapshot)
    entities = _entities(snapshot.entities)
    notes = _observations(snapshot.entities, entities.given)
    relations = _relations(snapshot.relations)
    for columns, at in ((entities, slice(0, sizes[0])), (relations, slice(sizes[0], sum(sizes)))):
        columns.given |= {
            "created_at": created[at],
            "time_evidence": evidence[at],
            "time_manifest": [origin.manifest_time] * columns.rows,
            "updated_at": updated[at],
        }
    for columns in (entities, relations, notes):
        columns.given |= {
            "id": columns.given["client_id"],
            "first_manifest": [origin.manifest_time] * columns.rows,
            "last_manifest": [origin.manifest_time] * columns.rows,
            "provenance": [origin.provenance] * columns.rows,
        }
    return pa.concat_tables([columns.table() for columns in (entities, relations, notes)]), times


def digest(*parts: str | bytes | None) -> bytes:
    """SHA-256 over the parts, each with its length before it, so that no two lists of parts share their bytes."""
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        whole.update(b"-" if data is None else b"%d:" % len(data))
        whole.update(data or b"")
    return whole.digest()


def _entities(table: pa.Table) -> _Columns:
    names, types, properties, metadata = (
        table.column(name).to_pylist() for name in ("name", "type", "properties", "metadata")
    )
    lists = _texts(table.column("observations"))
    vectors = _vector_bytes(table.column("embedding").combine_chunks())
    identities = [digest(*parts) for parts in zip(names, types, properties, metadata, strict=True)]
    contents = [
        digest(identity, vector, *items) for identity, vector, items in zip(identities, vectors, lists, strict=True)
    ]
    given = {name: table.column(name).combine_chunks() for name in ("client_id", "name", "type")}
    given["embedding"] = table.column("embedding").combine_chunks().cast(VECTOR)
    given |= {"kind": [ENTITY] * table.num_rows, "identity_sha256": identities, "content_sha256": contents}
    return _Columns(table.num_rows, {**given, "properties": properties, "metadata": metadata})


def _relations(table: pa.Table) -> _Columns:
    names = ("from_entity", "to_entity", "type", "properties", "metadata")
    given: dict[str, Any] = {name: table.column(name).to_pylist() for name in names}
    contents = [digest(*parts) for parts in zip(*given.values(), strict=True)]
    given |= {"kind": [RELATION] * table.num_rows, "client_id": table.column("client_id").to_pylist()}
    return _Columns(table.num_rows, {**given, "identity_sha256": contents, "content_sha256": contents})


def _observations(entities: pa.Table, made: dict[str, Any]) -> _Columns:
    """One row for each text of each list, at its first place in it."""
    columns: dict[str, list[Any]] = {
        name: [] for name in ("client_id", "identity_sha256", "list_sha256", "text", "position", "content_sha256")
    }
    lists = _texts(entities.column("observations"))
    ids = entities.column("client_id").to_pylist()
    owners = zip(ids, made["identity_sha256"], made["content_sha256"], lists, strict=True)
    for client_id, identity, content, texts in owners:
        places: dict[str, int] = {}
        for position, text in enumerate(texts):
            places.setdefault(text, position)
        for text, position in places.items():
            row = (client_id, identity, content, text, position, hashlib.sha256(text.encode()).digest())
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
    rows = len(columns["text"])
    return _Columns(rows, {**columns, "kind": [OBSERVATION] * rows})


def _texts(lists: pa.ChunkedArray) -> list[list[str]]:
    return [[text for text in texts or () if text is not None] for texts in lists.to_pylist()]


def _times(snapshot: GraphSnapshot, manifest_us: int, anchors: Anchors) -> InferredTimes:
    """Times of creation, then of update, of entities and relations together, then those of the anchors."""
    tables = (snapshot.entities, snapshot.relations)
    ids = [client_id for table in tables for client_id in table.column("client_id").to_pylist()]
    local = [_local_us(table.column(name)) for name in ("created_local", "updated_local") for table in tables]
    known = np.concatenate([np.full(2 * len(ids), NAT, np.int64), anchors.utc_us])
    # Only the time of creation may lie in an id.
    rows = [*ids, *[""] * (len(ids) + len(anchors.utc_us))]
    nothing = np.full(len(rows), NAT, np.int64)
    return infer_times(times_in_ids([rows]), np.concatenate([*local, anchors.local_us]), nothing, manifest_us, known)


def _split(times: InferredTimes, snapshot: GraphSnapshot) -> tuple[pa.Array, pa.Array, list[str]]:
    rows = snapshot.entities.num_rows + snapshot.relations.num_rows
    updated = [_local_us(table.column("updated_local")) for table in (snapshot.entities, snapshot.relations)]
    moment = pa.timestamp("us", tz="UTC")
    untold = np.concatenate(updated) == NAT
    return (
        pa.array(times.created_us[:rows], moment),
        pa.array(times.created_us[rows : 2 * rows], moment, mask=untold),
        [EVIDENCE[rank] for rank in times.evidence[:rows]],
    )


def _checked(name: str, path: Path) -> pa.Table:
    if path.stat().st_size > MAX_OUTPUT_BYTES + BLOCK_BYTES:
        raise _damaged(name, f"more than {MAX_OUTPUT_BYTES:,} bytes")
    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
        if file.schema != FILES[name]:
            raise _damaged(name, "other columns than announced")
        # Copied out of the map: the file goes away before the rows do.
        batches = [_valid(name, file.get_batch(index)) for index in range(file.num_record_batches)]
        table = pa.Table.from_batches(batches, schema=FILES[name])
        return pa.table([_copied(column) for column in table.columns], schema=FILES[name])


def _valid(name: str, batch: pa.RecordBatch) -> pa.RecordBatch:
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        raise _damaged(name, str(error)[:200]) from error
    return batch


def _copied(column: pa.ChunkedArray) -> pa.Array:
    return pc.take(column, pa.array(np.arange(len(column)))).combine_chunks()


def _accepted(name: str, table: pa.Table, faults: RowFaults) -> pa.Table:
    refused = table.column("refused")
    for reason in pc.unique(refused.drop_null()).to_pylist():
        rows = np.flatnonzero(pc.fill_null(pc.equal(refused, reason), False).to_numpy())  # noqa: FBT003 - a value
        ids = table.column("client_id").take(pa.array(rows))
        faults.refuse(name, reason, rows.tolist(), ids.to_pylist())
    accepted = table.filter(refused.is_null())
    if any(accepted.column(needed).null_count for needed in NEEDED[name]):
        raise _damaged(name, f"a row without one of {', '.join(NEEDED[name])}")
    return accepted


def _with_usable_vectors(table: pa.Table, faults: RowFaults) -> pa.Table:
    """`table` with NULL for every vector that holds NULL, NaN, an infinity, or nothing but zeros."""
    vectors = table.column("embedding").combine_chunks()
    ids = table.column("client_id").combine_chunks()
    faults.drop_vectors("vector-wrong-length", ids.filter(table.column("unusable_vector").combine_chunks()).to_pylist())
    present = np.asarray(vectors.is_valid().to_numpy(zero_copy_only=False), dtype=bool)
    flat = pc.fill_null(vectors.drop_null().flatten(), np.nan).to_numpy(zero_copy_only=False)
    floats = flat.reshape(-1, DIMENSION)
    finite, told = np.isfinite(floats).all(axis=1), (floats != 0).any(axis=1)
    rows = np.flatnonzero(present)
    faults.drop_vectors("vector-not-finite", ids.take(pa.array(rows[~finite])).to_pylist())
    faults.drop_vectors("vector-zero", ids.take(pa.array(rows[finite & ~told])).to_pylist())
    full = np.zeros((len(vectors), DIMENSION), np.float32)
    full[rows] = floats
    usable = present.copy()
    usable[rows] = finite & told
    values = pa.array(full.reshape(-1), pa.float32())
    kept = pa.FixedSizeListArray.from_arrays(values, DIMENSION, mask=pa.array(~usable))
    return table.set_column(table.schema.get_field_index("embedding"), pa.field("embedding", kept.type), kept)


def _vector_bytes(vectors: pa.FixedSizeListArray) -> Iterator[bytes | None]:
    present = vectors.is_valid().to_pylist()
    floats = vectors.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, DIMENSION)
    rows = iter(floats.astype("<f4"))
    return (next(rows).tobytes() if valid else None for valid in present)


def _local_us(times: pa.ChunkedArray) -> NDArray[np.int64]:
    filled: NDArray[np.int64] = pc.fill_null(times.cast(pa.int64()), NAT).to_numpy()
    return filled


def _epoch_us(moment: datetime) -> int:
    return int(pa.scalar(moment, pa.timestamp("us", tz="UTC")).value)


def _damaged(name: str, what: str) -> InvalidUploadError:
    message = f"{name} of {KNOWLEDGE_GRAPH} cannot be used: {what}. Have the system upload again"
    return InvalidUploadError(message, reason="damaged", file=KNOWLEDGE_GRAPH)


def offset_anchors(local_us: Sequence[NDArray[np.int64]], times: InferredTimes) -> Anchors:
    """The rows of the other database that show the client's offset: a local time, and a UTC time told by id or metadata.

    Args:
        local_us: naive local times of its rows, in the order of `times`.
        times: what was inferred for those rows.
    """
    local = np.concatenate([*local_us, np.empty(0, np.int64)])
    told = (times.evidence <= EVIDENCE.index("extracted_at")) & (local != NAT)
    return Anchors(local[told], times.created_us[told])
