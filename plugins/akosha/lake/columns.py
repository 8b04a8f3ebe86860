"""Between Arrow columns and numpy arrays, without a Python loop over rows."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from akosha.lake.schemas import DIMENSION

Column: TypeAlias = pa.ChunkedArray | pa.Array


def vectors_of(column: Column) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Vectors of a FLOAT[384] column.

    Returns:
        float32 ``(m, 384)`` of the rows that have one, in order; and bool ``(n,)``: which rows those are.
    """
    flat, present = _flat(column)
    return flat.astype(np.float32, copy=False).reshape(-1, DIMENSION), present


def codes_of(codes: Column, scales: Column) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.bool_]]:
    """INT8 codes ``(m, 384)`` and scales ``(m,)`` of the rows that have them, and which rows those are, ``(n,)``."""
    flat, present = _flat(codes)
    scale = np.asarray(_whole(scales).drop_null().to_numpy(zero_copy_only=False), dtype=np.float32)
    return flat.astype(np.int8, copy=False).reshape(-1, DIMENSION), scale, present


def vectors_column(vectors: NDArray[np.float32], present: NDArray[np.bool_]) -> pa.Array:
    """FLOAT[384] column of ``n`` rows from the ``(m, 384)`` vectors of the rows that are present."""
    return _spread(vectors.astype(np.float32, copy=False), present, pa.float32())


def codes_column(codes: NDArray[np.int8], present: NDArray[np.bool_]) -> pa.Array:
    """TINYINT[384] column of ``n`` rows from the ``(m, 384)`` codes of the rows that are present."""
    return _spread(codes, present, pa.int8())


def packed_codes(codes: NDArray[np.int8], present: NDArray[np.bool_]) -> pa.Array:
    """Codes as 384 bytes a row."""
    return nullable_binary(codes.view(np.uint8), present, DIMENSION)


def nullable_binary(rows: NDArray[np.uint8], present: NDArray[np.bool_], width: int) -> pa.Array:
    """Fixed-size binary column of ``n`` rows from the ``(m, width)`` bytes of the rows that are present."""
    if present.all():
        whole = np.ascontiguousarray(rows)
        return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(present), [None, pa.py_buffer(whole)])
    full = np.zeros((len(present), width), np.uint8)
    full[present] = rows
    mask = pa.array(present).buffers()[1]
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(width), len(present), [mask, pa.py_buffer(full)], null_count=int((~present).sum())
    )


def digests_of(column: Column) -> NDArray[np.uint8]:
    """Digests of a binary column: uint8 ``(n, 32)``.

    Raises:
        ValueError: one has another length than 32 bytes.
    """
    return np.frombuffer(b"".join(column.to_pylist()), np.uint8).reshape(len(column), 32)


def only_rows(column: Column, wanted: NDArray[np.bool_]) -> pa.Array:
    """A FLOAT[384] column with nulls in all rows but the wanted ones, which must have a vector. Copies no vector."""
    whole = _whole(column)
    values = whole.values.slice(whole.offset * DIMENSION, len(whole) * DIMENSION)
    return pa.FixedSizeListArray.from_arrays(values, DIMENSION, mask=pa.array(~wanted))


def _flat(column: Column) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    whole = _whole(column)
    present = np.asarray(whole.is_valid().to_numpy(zero_copy_only=False), dtype=bool)
    flat: NDArray[np.generic] = (
        (whole.drop_null() if whole.null_count else whole).flatten().to_numpy(zero_copy_only=False)
    )
    return flat, present


def _spread(rows: NDArray[np.generic], present: NDArray[np.bool_], kind: pa.DataType) -> pa.Array:
    if present.all():
        return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows).reshape(-1), kind), DIMENSION)
    full = np.zeros((len(present), DIMENSION), rows.dtype)
    full[present] = rows
    values = pa.array(full.reshape(-1), kind)
    return pa.FixedSizeListArray.from_arrays(values, DIMENSION, mask=pa.array(~present))


def _whole(column: Column) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
