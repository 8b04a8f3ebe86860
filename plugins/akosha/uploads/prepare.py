"""One upload, from its manifest to checked rows on local disk. Nothing here touches the lake."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from akosha.errors import InvalidUploadError, ObjectMissingError
from akosha.lake.graph_schema import ENTITY, OBSERVATION, RELATION
from akosha.lake.objects import ObjectInfo, ObjectStore
from akosha.lake.provenance import record_provenance
from akosha.transforms.digests import content_digests
from akosha.transforms.times import EVIDENCE, InferredTimes
from akosha.uploads.container import Unpacked, unpack, unpack_json
from akosha.uploads.graph_rows import GraphSnapshot, Origin, incoming_rows, offset_anchors, read_graph
from akosha.uploads.manifest import MAX_MANIFEST_BYTES, MEMORIES, Manifest, ManifestFile, parse_manifest
from akosha.uploads.memories import check_count
from akosha.uploads.memos import UploadRef
from akosha.uploads.sandbox import Form, Reading, Sandbox, TableReading
from akosha.uploads.sources import RowFaults, local_us, read_batches, upload_times
from akosha.uploads.upsert import INCOMING

MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Source:
    """Where uploads come from: the store, and the prefix that manifests may write before their paths."""

    store: ObjectStore
    prefix: str = ""


@dataclass(slots=True)
class PreparedUpload:
    """An upload ready to be compared with the lake.

    Attributes:
        incoming: one row per accepted row, schema ``INCOMING``; texts stay on disk, see `batches`.
        facts: what the memo will say of it: files, hashes, row counts, what was refused, offsets used.
        graph: the rows of its knowledge graph, schema ``INCOMING_GRAPH``; None when it has none.
    """

    ref: UploadRef
    manifest: Manifest
    reading: Reading
    incoming: pa.Table
    facts: dict[str, Any]
    file_sha256: str
    graph: pa.Table | None = None

    def batches(self) -> Iterator[tuple[TableReading, pa.RecordBatch]]:
        """The accepted rows again, with their texts and vectors, in the order of `incoming`."""
        for table in self.reading.tables:
            for batch in read_batches(table):
                yield table, batch


def prepare(source: Source, sandbox: Sandbox, ref: UploadRef, folder: Path, *, max_bytes: int) -> PreparedUpload:
    """Fetch, unpack, read in the sandbox, check, digest, and date one upload.

    Args:
        source: where it lies.
        sandbox: a running sandbox.
        ref: which upload.
        folder: a private folder for its files; must be empty.
        max_bytes: largest unpacked database that is read.

    Raises:
        InvalidUploadError: it breaks its contract; it belongs in quarantine.
        ObjectMissingError: it changed while it was read; the next run sees the new one.
        RetryableError: the store or the disk failed; nothing is known about the upload.
    """
    full_key = f"{source.prefix}/{ref.manifest_key}" if source.prefix else ref.manifest_key
    manifest = parse_manifest(full_key, _manifest_bytes(source.store, ref), source.prefix)
    facts: dict[str, Any] = {"manifest_time": manifest.timestamp.isoformat(), "notes": list(manifest.notes)}
    reading, unpacked = Reading((), ()), Unpacked("", 0, 0)
    records = manifest.memories or manifest.reflection
    if records is not None:
        form: Form = "memories" if manifest.memories else "database"
        file, unpacked, facts["file"] = _fetch(source, records, folder, max_bytes)
        reading = sandbox.read(file, folder / "rows", form=form)
        file.unlink()
    check_count(manifest, reading)
    snapshot, graph_sha256 = None, ""
    if manifest.knowledge_graph is not None:
        snapshot, graph_sha256, facts["knowledge_graph"] = _read_graph(
            source, sandbox, manifest.knowledge_graph, folder, max_bytes
        )
    _require_unchanged(source.store, ref.manifest_key, ref.etag)
    faults = RowFaults()
    manifest_us = _microseconds(manifest)
    times, slices = upload_times(reading, manifest_us)
    incoming = pa.concat_tables([INCOMING.empty_table(), *_incoming(reading, times, slices, faults)])
    facts["rows"] = incoming.num_rows
    facts["tables"] = {table.name: table.rows for table in reading.tables}
    facts["ignored_tables"] = list(reading.ignored)
    facts["refused"], facts["dropped_vectors"] = faults.refused, faults.dropped_vectors
    facts["examples"] = faults.examples
    facts["utc_offsets"] = _offsets(times)
    upload = PreparedUpload(ref, manifest, reading, incoming, facts, unpacked.sha256)
    if snapshot is not None:
        upload.graph = _graph_rows(upload, snapshot, graph_sha256, times)
    return upload


def _offsets(times: InferredTimes) -> list[dict[str, Any]]:
    return [
        {"minutes": used.offset_us // 60_000_000, "evidence": used.evidence, "support": used.support}
        for used in times.offsets
    ]


def _read_graph(
    source: Source, sandbox: Sandbox, file: ManifestFile, folder: Path, max_bytes: int
) -> tuple[GraphSnapshot, str, dict[str, Any]]:
    """The knowledge graph beside an upload's records; an error names the file, since it sets the whole upload aside."""
    try:
        database, unpacked, facts = _fetch(source, file, folder, max_bytes)
        snapshot = read_graph(sandbox.extract("graph", database, folder / "graph"), folder / "graph")
    except InvalidUploadError as error:
        context = {name: value for name, value in error.context.items() if name != "reason"}
        message = f"{file.name}: {error.message}"
        raise InvalidUploadError(message, reason=error.reason, **{**context, "file": file.name}) from error
    database.unlink()
    facts |= {
        "refused": snapshot.faults.refused,
        "dropped_vectors": snapshot.faults.dropped_vectors,
        "examples": snapshot.faults.examples,
        "ignored_tables": list(snapshot.ignored),
    }
    return snapshot, unpacked.sha256, facts


def _graph_rows(upload: PreparedUpload, snapshot: GraphSnapshot, sha256: str, times: InferredTimes) -> pa.Table:
    """The graph's rows, dated by what the records of the same upload tell of the client's clock."""
    provenance = record_provenance(
        upload=upload.ref.manifest_key,
        etag=upload.ref.etag,
        file_sha256=sha256,
        manifest_time=upload.manifest.timestamp.isoformat(),
    )
    anchors = offset_anchors([local_us(batch) for _, batch in upload.batches()], times)
    rows, dated = incoming_rows(snapshot, Origin(upload.manifest.timestamp, provenance), anchors)
    kinds = rows.column("kind").to_pylist()
    names = {"entities": ENTITY, "relations": RELATION, "observations": OBSERVATION}
    upload.facts["knowledge_graph"] |= {name: kinds.count(kind) for name, kind in names.items()}
    upload.facts["knowledge_graph"]["utc_offsets"] = _offsets(dated)
    return rows


def _manifest_bytes(store: ObjectStore, ref: UploadRef) -> bytes:
    """The manifest, unless it is so large that it cannot be one."""
    found = _require_unchanged(store, ref.manifest_key, ref.etag)
    if found.size_bytes > MAX_MANIFEST_BYTES:
        message = (
            f"the manifest has {found.size_bytes:,} bytes, expected at most {MAX_MANIFEST_BYTES:,}; nothing was read. "
            "Have the system upload again"
        )
        raise InvalidUploadError(message, reason="invalid-manifest", manifest=ref.manifest_key)
    return store.get(ref.manifest_key)


def _fetch(source: Source, file: ManifestFile, folder: Path, max_bytes: int) -> tuple[Path, Unpacked, dict[str, Any]]:
    """Download and unpack one file of an upload; where it lies, what it is, and what the memo will say of it."""
    key = _relative(file, source)
    found = source.store.stat(key)
    if found is None:
        message = (
            f"the manifest names {file.path!r}, which is not in the store. "
            "Have the system upload again; a lifecycle rule may have deleted it"
        )
        raise InvalidUploadError(message, reason="missing-object", path=file.path)
    if found.size_bytes > max_bytes:
        message = (
            f"the packed object has {found.size_bytes:,} bytes, expected at most {max_bytes:,}; it was not fetched. "
            "If the system is trusted, raise AKOSHA_SANDBOX_MAX_BYTES and replay the upload"
        )
        raise InvalidUploadError(message, reason="too-large", path=file.path)
    packed, target = folder / "packed", folder / file.name
    source.store.download(key, packed, etag=found.etag)
    promise: dict[str, Any] = {"compression": file.compression, "max_bytes": max_bytes, "checksum": file.checksum}
    if file.name == MEMORIES:
        unpacked = unpack_json(packed, target, **promise)
    else:
        unpacked = unpack(packed, target, size_bytes=file.size_bytes, **promise)
    packed.unlink()
    return target, unpacked, _file_facts(file, found, unpacked)


def _file_facts(file: ManifestFile, found: ObjectInfo, unpacked: Unpacked) -> dict[str, Any]:
    return {
        "path": file.path,
        "etag": found.etag,
        "packed_bytes": found.size_bytes,
        "unpacked_bytes": unpacked.size_bytes,
        "sha256": unpacked.sha256,
        "storage_version": unpacked.storage_version,
    }


def _incoming(
    reading: Reading, times: InferredTimes, slices: dict[str, slice], faults: RowFaults
) -> Iterator[pa.Table]:
    position = 0
    for table in reading.tables:
        at = slices[table.name].start
        for batch in read_batches(table, faults):
            rows = slice(at, at + batch.num_rows)
            evidence = [EVIDENCE[rank] for rank in times.evidence[rows]]
            columns = [
                pa.array(range(position, position + batch.num_rows), pa.int64()),
                pa.repeat(pa.scalar(table.name, pa.string()), batch.num_rows),
                batch.column("record_id"),
                pa.array(content_digests(batch.column("content").to_pylist()), pa.binary()),
                pa.array(times.created_us[rows], pa.timestamp("us", tz="UTC")),
                pa.array(evidence, pa.string()),
                batch.column("bookkeeping"),
            ]
            yield pa.table(columns, schema=INCOMING)
            at += batch.num_rows
            position += batch.num_rows


def _require_unchanged(store: ObjectStore, key: str, etag: str) -> ObjectInfo:
    found = store.stat(key)
    if found is None or found.etag != etag:
        message = "the upload was replaced while it was read; the next run reads the new one"
        raise ObjectMissingError(message, key=key)
    return found


def _relative(file: ManifestFile, source: Source) -> str:
    return file.path.removeprefix(f"{source.prefix}/") if source.prefix else file.path


def _microseconds(manifest: Manifest) -> int:
    return (manifest.timestamp - datetime(1970, 1, 1, tzinfo=UTC)) // MICROSECOND
