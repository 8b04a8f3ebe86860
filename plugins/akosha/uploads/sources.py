"""Rows of an upload as the job sees them: checked by the declared quality rules, with their UTC times.

What a rule refuses is counted and listed by row (`RowFaults`), so that it can be quarantined as a row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from akosha.declared import model
from akosha.errors import InvalidUploadError
from akosha.transforms.times import NAT, InferredTimes, infer_times, times_in_ids
from akosha.uploads.reader import DIMENSION, KEY_ROWS, RULES_ID, TEXT_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from akosha.uploads.sandbox import TableReading

EXAMPLES: Final = 5
MAX_LISTED: Final = 10_000
_TIMES: Final = ("local_time", "extracted_at", "checkpoint_at")
_ID_CHARACTERS: Final = 64  # of an id in a report: it may be anything


@dataclass(slots=True)
class RowFaults:
    """What the rules found: counts by code, the record ids of the first few, and the refused rows one by one.

    Attributes:
        refused: rows not taken, by code.
        dropped_vectors: rows taken without their vector, by code.
        examples: record ids of the first few, by code.
        rows: table, row number, record id and reason of refused rows, up to `MAX_LISTED`.
    """

    refused: dict[str, int] = field(default_factory=dict)
    dropped_vectors: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def refuse(self, table: str, reason: str, rows: Sequence[int], record_ids: Sequence[str | None]) -> None:
        """Note rows of `table` that are not taken."""
        self._count(self.refused, reason, record_ids)
        for row, record_id in list(zip(rows, record_ids, strict=True))[: MAX_LISTED - len(self.rows)]:
            short = None if record_id is None else record_id[:_ID_CHARACTERS]
            self.rows.append({"table": table, "row": row, "record_id": short, "reason": reason})

    def drop_vectors(self, reason: str, record_ids: Sequence[str | None]) -> None:
        """Note rows that are taken without their vector."""
        self._count(self.dropped_vectors, reason, record_ids)

    def _count(self, tally: dict[str, int], reason: str, record_ids: Sequence[str | None]) -> None:
        if record_ids:
            tally[reason] = tally.get(reason, 0) + len(record_ids)
            seen = self.examples.setdefault(reason, [])
            seen.extend(str(found)[:_ID_CHARACTERS] for found in record_ids[: EXAMPLES - len(seen)])


def key_batches(table: TableReading, faults: RowFaults | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of `table` that can become records, as batches of `KEY_ROWS`, memory-mapped, in the order of the file.

    ``record_id`` and both digests are never NULL.

    Args:
        table: a table read by the sandbox.
        faults: where to note what was refused.

    Raises:
        InvalidUploadError: ``damaged``: text is not UTF-8, or the rows are not what the sandbox announced.
    """
    rows = 0
    for batch in _batches(table.name, table.keys, KEY_ROWS):
        rows += batch.num_rows
        refused = batch.column("refused")
        if refused.null_count < batch.num_rows:
            if faults is not None:
                _note(table.name, batch, faults)
            batch = batch.filter(refused.is_null())
        if any(
            batch.column(name).null_count for name in ("source_row", "record_id", "content_sha256", "details_sha256")
        ):
            raise _damaged(table.name, "a row without id or content")
        yield batch
    if rows != table.rows:
        raise _damaged(table.name, f"{rows} rows, announced were {table.rows}")


def text_batches(table: str, path: Path) -> Iterator[pa.RecordBatch]:
    """Texts and vectors as batches of `TEXT_ROWS`, memory-mapped, as the sandbox wrote them.

    Raises:
        InvalidUploadError: ``damaged``.
    """
    return _batches(table, path, TEXT_ROWS)


def upload_times(batches: Sequence[pa.RecordBatch], manifest_us: int) -> InferredTimes:
    """UTC times of all rows of an upload, inferred together: ids of one table date the others.

    Args:
        batches: of `key_batches` of all its tables.
        manifest_us: manifest time, UTC microseconds.
    """
    in_ids = times_in_ids(batch.column("record_id").to_pylist() for batch in batches)
    local, extracted, checkpoint = (
        np.concatenate([np.empty(0, np.int64), *(_microseconds(batch.column(name)) for batch in batches)])
        for name in _TIMES
    )
    return infer_times(in_ids, local, extracted, manifest_us, checkpoint)


def local_us(batch: pa.RecordBatch) -> NDArray[np.int64]:
    """The client's naive local time as microseconds, int64 ``(n,)``; `NAT` where there is none."""
    return _microseconds(batch.column("local_time"))


def checked_vectors(batch: pa.RecordBatch, record_ids: pa.Array, faults: RowFaults) -> pa.FixedSizeListArray:
    """The vectors of a batch of `TEXT_ROWS`, NULL in place of every one that the rules drop.

    A vector that stays has 384 finite numbers and unit length within the declared tolerance.
    """
    unusable = batch.column("unusable_vector")
    faults.drop_vectors("vector-wrong-length", record_ids.filter(unusable).to_pylist())
    return _usable_vectors(batch.column("embedding"), record_ids, faults)


def _batches(table: str, path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
        if file.schema != schema:
            raise _damaged(table, "other columns than announced")
        for index in range(file.num_record_batches):
            batch = file.get_batch(index)
            try:
                batch.validate(full=True)
            except pa.ArrowInvalid as error:
                raise _damaged(table, str(error)[:200]) from error
            yield batch


def _note(table: str, batch: pa.RecordBatch, faults: RowFaults) -> None:
    refused = batch.column("refused")
    for reason in pc.unique(refused.drop_null()).to_pylist():
        chosen = batch.filter(pc.equal(refused, reason))
        faults.refuse(table, reason, chosen.column("source_row").to_pylist(), chosen.column("record_id").to_pylist())


def _usable_vectors(vectors: pa.FixedSizeListArray, ids: pa.Array, faults: RowFaults) -> pa.FixedSizeListArray:
    # `values` is the whole buffer; a filtered batch owns its buffer, an unfiltered one starts at its offset.
    values = vectors.values.slice(vectors.offset * DIMENSION, len(vectors) * DIMENSION)
    if values.null_count:
        values = pc.fill_null(values, np.nan)
    present = vectors.is_valid().to_numpy(zero_copy_only=False)
    floats = values.to_numpy(zero_copy_only=True).reshape(-1, DIMENSION)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite shows in the sum
        squares = np.einsum("ij,ij->i", floats, floats, dtype=np.float64)
    finite = np.isfinite(squares)
    zero = finite & (squares == 0)
    unit = np.abs(np.sqrt(np.where(finite, squares, 0)) - 1) <= model(RULES_ID)["unit_tolerance"]
    if np.array_equal(present & unit, present):
        return vectors
    for reason, rows in (
        ("vector-not-finite", present & ~finite),
        ("vector-zero", present & zero),
        ("vector-not-unit", present & finite & ~zero & ~unit),
    ):
        faults.drop_vectors(reason, ids.filter(pa.array(rows)).to_pylist())
    return pa.FixedSizeListArray.from_arrays(values, DIMENSION, mask=pa.array(~(present & unit))).cast(vectors.type)


def _microseconds(times: pa.Array) -> NDArray[np.int64]:
    filled: NDArray[np.int64] = pc.fill_null(times.cast(pa.int64()), NAT).to_numpy(zero_copy_only=False)
    return filled


def _damaged(table: str, what: str) -> InvalidUploadError:
    message = f"table {table} cannot be used: {what}. Have the system upload again"
    return InvalidUploadError(message, reason="damaged", table=table)
