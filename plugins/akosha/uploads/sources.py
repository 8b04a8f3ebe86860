"""Rows of an upload as the job sees them: checked, with what was refused counted, and with their UTC times."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from akosha.errors import InvalidUploadError
from akosha.transforms.times import NAT, InferredTimes, infer_times
from akosha.uploads.reader import DIMENSION, ROWS_SCHEMA, SOURCE_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from akosha.uploads.sandbox import Reading, TableReading

EXAMPLES: Final = 5


@dataclass(slots=True)
class RowFaults:
    """Counts by reason code, with the record ids of the first few.

    Rows not taken: ``no-id``, ``long-id``, ``no-content``, ``blank-content``, ``too-long``.
    Rows taken without their vector: ``vector-wrong-length``, ``vector-not-finite``, ``vector-zero``.
    """

    refused: dict[str, int] = field(default_factory=dict)
    dropped_vectors: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def note(self, tally: dict[str, int], reason: str, record_ids: pa.Array) -> None:
        """Count `record_ids` under `reason` in `tally`, one of this object's two."""
        if len(record_ids):
            tally[reason] = tally.get(reason, 0) + len(record_ids)
            seen = self.examples.setdefault(reason, [])
            seen.extend(str(found) for found in record_ids[: EXAMPLES - len(seen)].to_pylist())


def read_batches(table: TableReading, faults: RowFaults | None = None) -> Iterator[pa.RecordBatch]:
    """The usable rows of `table` as batches of `SOURCE_SCHEMA`, in the order of the file, memory-mapped.

    ``record_id`` and ``content`` are never NULL or blank; ``embedding`` is NULL or 384 finite floats, not all zero.

    Args:
        table: a table read by the sandbox.
        faults: where to count what was refused or dropped.

    Raises:
        InvalidUploadError: ``damaged``: text is not UTF-8, or the rows are not what the sandbox announced.
    """
    tally = faults if faults is not None else RowFaults()
    rows = 0
    with pa.memory_map(str(table.path)) as source, pa.ipc.open_file(source) as file:
        if file.schema != ROWS_SCHEMA:
            raise _damaged(table, "other columns than announced")
        for index in range(file.num_record_batches):
            batch = file.get_batch(index)
            rows += batch.num_rows
            yield _checked(table, batch, tally)
    if rows != table.rows:
        raise _damaged(table, f"{rows} rows, announced were {table.rows}")


def extracted_us(batch: pa.RecordBatch) -> NDArray[np.int64]:
    """metadata.extracted_at as UTC microseconds, int64 ``(n,)``; `NAT` where there is none."""
    return _microseconds(batch.column("extracted_at"))


def local_us(batch: pa.RecordBatch) -> NDArray[np.int64]:
    """The client's naive local time as microseconds, int64 ``(n,)``; `NAT` where there is none."""
    return _microseconds(batch.column("local_time"))


def checkpoint_us(batch: pa.RecordBatch) -> NDArray[np.int64]:
    """metadata.timestamp of checkpoints as UTC microseconds, int64 ``(n,)``; `NAT` where there is none."""
    return _microseconds(batch.column("checkpoint_at"))


def upload_times(reading: Reading, manifest_us: int) -> tuple[InferredTimes, dict[str, slice]]:
    """UTC times of all rows of one upload, inferred together: ids of one table are anchors for the others.

    Args:
        reading: the upload's database as read by the sandbox.
        manifest_us: manifest time, UTC microseconds.

    Returns:
        The times of all usable rows, and for each table by name its slice of them, in the order of `read_batches`.

    Raises:
        InvalidUploadError: as `read_batches`.
    """
    ids: list[str] = []
    columns: list[list[NDArray[np.int64]]] = [[], [], []]
    slices: dict[str, slice] = {}
    for table in reading.tables:
        start = len(ids)
        for batch in read_batches(table):
            ids.extend(batch.column("record_id").to_pylist())
            for column, of in zip(columns, (local_us, extracted_us, checkpoint_us), strict=True):
                column.append(of(batch))
        slices[table.name] = slice(start, len(ids))
    local, extracted, checkpoint = (np.concatenate([*column, np.empty(0, np.int64)]) for column in columns)
    return infer_times(ids, local, extracted, manifest_us, checkpoint), slices


def _checked(table: TableReading, batch: pa.RecordBatch, faults: RowFaults) -> pa.RecordBatch:
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        raise _damaged(table, str(error)[:200]) from error
    refused = batch.column("refused")
    if refused.null_count < batch.num_rows:
        for reason in pc.unique(refused.drop_null()).to_pylist():
            faults.note(faults.refused, reason, batch.column("record_id").filter(pc.equal(refused, reason)))
        batch = batch.filter(refused.is_null())
    ids = batch.column("record_id")
    if ids.null_count or batch.column("content").null_count:
        raise _damaged(table, "a row without id or content")
    faults.note(faults.dropped_vectors, "vector-wrong-length", ids.filter(batch.column("unusable_vector")))
    embedding = _usable_vectors(batch.column("embedding"), ids, faults)
    kept = [embedding if name == "embedding" else batch.column(name) for name in SOURCE_SCHEMA.names]
    return pa.RecordBatch.from_arrays(kept, schema=SOURCE_SCHEMA)


def _usable_vectors(vectors: pa.FixedSizeListArray, ids: pa.Array, faults: RowFaults) -> pa.FixedSizeListArray:
    """`vectors` with NULL in place of every one that holds NaN, an infinity or NULL, or nothing but zeros."""
    # `values` is the whole buffer; a filtered batch owns its buffer, an unfiltered one starts at its offset.
    values = vectors.values.slice(vectors.offset * DIMENSION, len(vectors) * DIMENSION)
    if values.null_count:
        values = pc.fill_null(values, np.nan)
    present = vectors.is_valid().to_numpy(zero_copy_only=False)
    floats = values.to_numpy(zero_copy_only=True).reshape(-1, DIMENSION)
    finite = np.isfinite(floats).all(axis=1)
    nonzero = (floats != 0).any(axis=1)
    usable = present & finite & nonzero
    if np.array_equal(usable, present):
        return vectors
    faults.note(faults.dropped_vectors, "vector-not-finite", ids.filter(pa.array(present & ~finite)))
    faults.note(faults.dropped_vectors, "vector-zero", ids.filter(pa.array(present & finite & ~nonzero)))
    return pa.FixedSizeListArray.from_arrays(values, DIMENSION, mask=pa.array(~usable)).cast(vectors.type)


def _microseconds(times: pa.Array) -> NDArray[np.int64]:
    filled: NDArray[np.int64] = pc.fill_null(times.cast(pa.int64()), NAT).to_numpy(zero_copy_only=False)
    return filled


def _damaged(table: TableReading, what: str) -> InvalidUploadError:
    message = f"table {table.name} cannot be used: {what}. Have the system upload again"
    return InvalidUploadError(message, reason="damaged", table=table.name)
