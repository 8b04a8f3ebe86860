"""One upload, from its manifest to checked keys on local disk. Nothing here touches the lake."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from akosha.errors import AkoshaError, InvalidUploadError, ObjectMissingError
from akosha.lake import files
from akosha.lake.graph_schema import ENTITY, OBSERVATION, RELATION
from akosha.lake.objects import ObjectInfo, ObjectStore
from akosha.lake.provenance import record_provenance
from akosha.transforms.times import InferredTimes
from akosha.uploads.container import Unpacked, unpack, unpack_json
from akosha.uploads.graph_rows import Anchors, Origin, incoming_rows, offset_anchors, read_graph
from akosha.uploads.known_texts import KNOWN, write_known
from akosha.uploads.manifest import MAX_MANIFEST_BYTES, MEMORIES, Manifest, ManifestFile, parse_manifest
from akosha.uploads.memories import check_count
from akosha.uploads.memos import UploadRef
from akosha.uploads.quarantine import about_object
from akosha.uploads.sandbox import Form, Reading, Sandbox
from akosha.uploads.sources import RowFaults, key_batches, local_us, upload_times
from akosha.uploads.upsert import ARRIVED, LARGE_ROWS, duplicates

MICROSECOND: Final = timedelta(microseconds=1)
KNOWN_FROM_BYTES: Final = 16 << 20  # below, digesting the texts costs less than preparing the known ones
PACKED: Final = "packed"
AHEAD_BYTES: Final = 16 << 20  # a larger object costs so much more than another request that it waits for its manifest
BELIEVED_AHEAD: Final = timedelta(days=1)  # how far a client's clock may be ahead of the store's


@dataclass(frozen=True, slots=True)
class Source:
    """Where uploads come from: the store, and the prefix that manifests may write before their paths."""

    store: ObjectStore
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class FetchedUpload:
    """An upload on local disk, unpacked and hashed, not opened yet.

    Attributes:
        records: the unpacked database or document of records in `folder`, or None when the upload has none.
        file_xxh128: its hash, hex, "" without one: it tells the same file when it comes again.
        graph: the unpacked knowledge graph, or None.
        facts: what the memo will say of it.
    """

    ref: UploadRef
    manifest: Manifest
    folder: Path
    records: Path | None
    file_xxh128: str
    graph: Path | None
    facts: dict[str, Any]

    @property
    def file_sha256(self) -> str:
        """SHA-256 of `records`, hex, "" without one. Made when it is first asked for: a repeated upload needs none."""
        return _sha256(self.records, self.facts["file"]) if self.records else ""


@dataclass(frozen=True, slots=True)
class PreparedUpload:
    """An upload ready to be compared with the lake.

    Attributes:
        arrived: one row per accepted row, schema ``ARRIVED``, memory-mapped in part; texts stay on disk.
        source_rows: the row number in its table of each accepted row, int64 ``(n,)``, by position.
        faults: what the quality rules found.
        anchors: moments that its rows show in both clocks, for the knowledge graph beside them.
    """

    fetched: FetchedUpload
    reading: Reading
    arrived: pa.Table
    source_rows: NDArray[np.int64]
    faults: RowFaults
    anchors: Anchors
    facts: dict[str, Any] = field(default_factory=dict)


def fetch(source: Source, ref: UploadRef, folder: Path, *, max_bytes: int) -> FetchedUpload:
    """Fetch, unpack and hash one upload.

    Args:
        source: where it lies.
        ref: which upload.
        folder: a private folder for its files; must be empty.
        max_bytes: largest unpacked database that is read.

    Raises:
        InvalidUploadError: it breaks its contract; it belongs in quarantine.
        ObjectMissingError: it changed while it was read; the next run sees the new one.
        RetryableError: the store or the disk failed; nothing is known about the upload.
    """
    full_key = f"{source.prefix}/{ref.manifest_key}" if source.prefix else ref.manifest_key
    ahead = _ahead(source.store, ref, folder / PACKED, min(max_bytes, AHEAD_BYTES))
    found, data = _manifest(source.store, ref)
    manifest = _dated(parse_manifest(full_key, data, source.prefix), found)
    facts: dict[str, Any] = {"manifest_time": manifest.timestamp.isoformat(), "notes": list(manifest.notes)}
    records, graph, unpacked = None, None, Unpacked("", 0, 0)
    file = manifest.memories or manifest.reflection
    named = [_relative(one, source) for one in (file, manifest.knowledge_graph) if one is not None]
    if ahead is not None and named != [ahead.key]:
        ahead = None
    if file is not None:
        records, unpacked, facts["file"] = _fetch(source, file, folder, max_bytes, ahead)
    if manifest.knowledge_graph is not None:
        with _of_the_graph(manifest.knowledge_graph):
            graph, _, facts["knowledge_graph"] = _fetch(source, manifest.knowledge_graph, folder, max_bytes, ahead)
    if ahead is None:  # what was read after the manifest may be of another upload
        _require_same(ref, source.store.stat(ref.manifest_key))
    return FetchedUpload(ref, manifest, folder, records, unpacked.xxh128, graph, facts)


def read_keys(fetched: FetchedUpload, sandbox: Sandbox, *, keys: Path | None = None) -> PreparedUpload:
    """Read, check, digest and date the rows of a fetched upload. Reading it again gives the same, whatever `keys`.

    Args:
        fetched: the upload.
        sandbox: a running sandbox.
        keys: the key file of its system, where it spares work: texts that are in it are not digested again.

    Raises:
        InvalidUploadError: it breaks its contract; it belongs in quarantine.
        DiskFullError: no room on the local disk.
    """
    reading = Reading((), ())
    if fetched.records is not None:
        file = fetched.facts["file"]
        form: Form = "memories" if fetched.manifest.memories else "keys"
        with about_object(file["path"], file["etag"], file["packed_bytes"]):
            reading = sandbox.read(fetched.records, fetched.folder / "rows", form=form, known=_known(fetched, keys))
    faults = RowFaults()
    check_count(fetched.manifest, reading)
    named = [(table.name, batch) for table in reading.tables for batch in key_batches(table, faults)]
    batches = [batch for _, batch in named]
    times = upload_times(batches, (fetched.manifest.timestamp - datetime(1970, 1, 1, tzinfo=UTC)) // MICROSECOND)
    arrived = _arrived(named, times)
    source_rows = np.concatenate([np.empty(0, np.int64), *(batch.column("source_row").to_numpy() for batch in batches)])
    arrived = _once(arrived, source_rows, fetched.folder, faults)
    if arrived.num_rows >= LARGE_ROWS:
        pa.default_memory_pool().release_unused()  # 160 MiB after a million rows
    facts = {
        "rows": arrived.num_rows,
        "tables": {table.name: table.rows for table in reading.tables},
        "ignored_tables": list(reading.ignored),
        "refused": faults.refused,
        "utc_offsets": _offsets(times),
    }
    anchors = offset_anchors([local_us(batch) for batch in batches], times) if fetched.graph else Anchors.none()
    return PreparedUpload(fetched, reading, arrived, source_rows, faults, anchors, facts)


@dataclass(frozen=True, slots=True)
class PreparedGraph:
    """The rows of an upload's knowledge graph, schema ``INCOMING_GRAPH``, and what the memo will say of them."""

    rows: pa.Table
    facts: dict[str, Any]


def read_knowledge_graph(fetched: FetchedUpload, sandbox: Sandbox, anchors: Anchors) -> PreparedGraph | None:
    """Read, check and date the knowledge graph of a fetched upload; None when it has none.

    Args:
        fetched: the upload.
        sandbox: a running sandbox.
        anchors: what the records of the same upload tell of the client's clock.

    Raises:
        InvalidUploadError: it breaks its contract: the whole upload belongs in quarantine.
        DiskFullError: no room on the local disk.
    """
    file = fetched.manifest.knowledge_graph
    if fetched.graph is None or file is None:
        return None
    facts = fetched.facts["knowledge_graph"]
    with _of_the_graph(file), about_object(facts["path"], facts["etag"], facts["packed_bytes"]):
        folder = Path(mkdtemp(prefix="graph-", dir=fetched.folder)) / "rows"
        snapshot = read_graph(sandbox.extract("graph", fetched.graph, folder), folder)
    provenance = record_provenance(
        upload=fetched.ref.manifest_key,
        etag=fetched.ref.etag,
        file_sha256=_sha256(fetched.graph, facts),
        manifest_time=fetched.manifest.timestamp.isoformat(),
    )
    rows, dated = incoming_rows(snapshot, Origin(fetched.manifest.timestamp, provenance), anchors)
    kinds = rows.column("kind").to_pylist()
    names = {"entities": ENTITY, "relations": RELATION, "observations": OBSERVATION}
    return PreparedGraph(
        rows,
        facts
        | {name: kinds.count(kind) for name, kind in names.items()}
        | {
            "refused": snapshot.faults.refused,
            "dropped_vectors": snapshot.faults.dropped_vectors,
            "examples": snapshot.faults.examples,
            "ignored_tables": list(snapshot.ignored),
            "utc_offsets": _offsets(dated),
        },
    )


@contextmanager
def _of_the_graph(file: ManifestFile) -> Iterator[None]:
    """An error inside names the file, since it sets the whole upload aside."""
    try:
        yield
    except InvalidUploadError as error:
        context = {name: value for name, value in error.context.items() if name != "reason"}
        message = f"{file.name}: {error.message}"
        raise InvalidUploadError(message, reason=error.reason, **{**context, "file": file.name}) from error


def _offsets(times: InferredTimes) -> list[dict[str, Any]]:
    return [
        {"minutes": used.offset_us // 60_000_000, "evidence": used.evidence, "support": used.support}
        for used in times.offsets
    ]


def _known(fetched: FetchedUpload, keys: Path | None) -> Path | None:
    """The texts of a key file as the sandbox takes them; None when digesting the upload's own costs less."""
    if keys is None or fetched.facts["file"]["unpacked_bytes"] < KNOWN_FROM_BYTES:
        return None
    target = fetched.folder / "known.arrow"
    write_known(files.read(keys, kind="keys", columns=KNOWN.names), target)
    return target


def _arrived(batches: Sequence[tuple[str, pa.RecordBatch]], times: InferredTimes) -> pa.Table:
    position = 0
    parts = [ARRIVED.empty_table()]
    for table, batch in batches:
        rows = slice(position, position + batch.num_rows)
        columns = {name: batch.column(name) for name in ARRIVED.names if name in batch.schema.names} | {
            "position": pa.array(np.arange(rows.start, rows.stop, dtype=np.int64)),
            "source_table": pa.repeat(pa.scalar(table, pa.string()), batch.num_rows),
            "created_at": pa.array(times.created_us[rows], pa.timestamp("us", tz="UTC")),
            "rank": pa.array(times.evidence[rows].astype(np.int8)),
        }
        parts.append(pa.table([columns[name] for name in ARRIVED.names], schema=ARRIVED))
        position = rows.stop
    return pa.concat_tables(parts)


def _once(arrived: pa.Table, source_rows: NDArray[np.int64], folder: Path, faults: RowFaults) -> pa.Table:
    """`arrived` without rows whose key comes again: the row written last is taken, the others are refused."""
    repeated = duplicates(arrived, folder)
    if not repeated.num_rows:
        return arrived
    positions = repeated.column("position").to_numpy()
    for position, row in zip(positions.tolist(), repeated.to_pylist(), strict=True):
        faults.refuse(row["source_table"], "duplicate-key", [int(source_rows[position])], [row["record_id"]])
    kept = np.ones(arrived.num_rows, dtype=bool)
    kept[positions] = False
    return arrived.filter(pa.array(kept))


def _dated(manifest: Manifest, found: ObjectInfo) -> Manifest:
    """`manifest` with a time that can be: a clock that runs ahead must not outrank every later upload of its system."""
    latest = found.modified.astimezone(UTC) + BELIEVED_AHEAD
    if manifest.timestamp <= latest:
        return manifest
    note = f"its time {manifest.timestamp.isoformat()} lies in the future; read as {latest.isoformat()}, a day after it arrived"
    return replace(manifest, timestamp=latest, notes=(*manifest.notes, note))


def _manifest(store: ObjectStore, ref: UploadRef) -> tuple[ObjectInfo, bytes]:
    """The manifest, unless it is so large that it cannot be one."""
    found, data = store.read(ref.manifest_key, max_bytes=MAX_MANIFEST_BYTES)
    _require_same(ref, found)
    if found.size_bytes > MAX_MANIFEST_BYTES:
        message = (
            f"the manifest has {found.size_bytes:,} bytes, expected at most {MAX_MANIFEST_BYTES:,}; nothing was read. "
            "Have the system upload again"
        )
        raise InvalidUploadError(message, reason="invalid-manifest", manifest=ref.manifest_key)
    return found, data


def _ahead(store: ObjectStore, ref: UploadRef, packed: Path, max_bytes: int) -> ObjectInfo | None:
    """The only object beside a manifest, if small, downloaded before that is read, so that nothing has to be asked afterwards.

    What goes wrong here is nobody's fault yet: the manifest may not even name it.
    """
    if not ref.beside or ref.packed_bytes > max_bytes:
        return None
    key = f"{ref.manifest_key.rpartition('/')[0]}/{ref.beside}"
    try:
        found = store.download(key, packed, max_bytes=max_bytes)
    except AkoshaError:
        packed.unlink(missing_ok=True)
        return None
    return found if found.size_bytes <= max_bytes else None


def _fetch(
    source: Source, file: ManifestFile, folder: Path, max_bytes: int, ahead: ObjectInfo | None
) -> tuple[Path, Unpacked, dict[str, Any]]:
    """Download, unless that was done ahead, and unpack one file; where it lies, what it is, what the memo will say of it."""
    key, packed, target = _relative(file, source), folder / PACKED, folder / file.name
    found = ahead or _download(source.store, file, key, packed, max_bytes)
    promise: dict[str, Any] = {"compression": file.compression, "max_bytes": max_bytes, "checksum": file.checksum}
    with about_object(key, found.etag, found.size_bytes):
        if file.name == MEMORIES:
            unpacked = unpack_json(packed, target, **promise)
        else:
            unpacked = unpack(packed, target, size_bytes=file.size_bytes, **promise)
    packed.unlink()
    return target, unpacked, _file_facts(file, found, unpacked)


def _download(store: ObjectStore, file: ManifestFile, key: str, packed: Path, max_bytes: int) -> ObjectInfo:
    try:
        found = store.download(key, packed, max_bytes=max_bytes)
    except ObjectMissingError as error:
        if store.stat(key) is not None:
            raise  # replaced at this moment
        message = (
            f"the manifest names {file.path!r}, which is not in the store. "
            "Have the system upload again; a lifecycle rule may have deleted it"
        )
        raise InvalidUploadError(message, reason="missing-object", path=file.path) from error

    if found.size_bytes > max_bytes:
        message = (
            f"the packed object has {found.size_bytes:,} bytes, expected at most {max_bytes:,}; it was not fetched. "
            "If the system is trusted, raise AKOSHA_SANDBOX_MAX_BYTES and replay the upload"
        )
        raise InvalidUploadError(message, reason="too-large", path=file.path)
    return found


def _file_facts(file: ManifestFile, found: ObjectInfo, unpacked: Unpacked) -> dict[str, Any]:
    return {
        "path": file.path,
        "etag": found.etag,
        "packed_bytes": found.size_bytes,
        "unpacked_bytes": unpacked.size_bytes,
        "xxh128": unpacked.xxh128,
        "storage_version": unpacked.storage_version,
    }


def _sha256(path: Path, facts: dict[str, Any]) -> str:
    """The digest of a file of an upload, noted among its facts."""
    if "sha256" not in facts:
        facts["sha256"] = files.sha256_of(path)
    return str(facts["sha256"])


def _require_same(ref: UploadRef, found: ObjectInfo | None) -> None:
    if found is None or found.etag != ref.etag:
        message = "the upload was replaced while it was read; the next run reads the new one"
        raise ObjectMissingError(message, key=ref.manifest_key)


def _relative(file: ManifestFile, source: Source) -> str:
    return file.path.removeprefix(f"{source.prefix}/") if source.prefix else file.path
