"""Symmetric int8 quantisation of embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CODEC_ID = "int8-symmetric-v1"
MAX_CODE = 127
SMALLEST_PEAK = 1e-30
# 512 rows of 384 floats are 768 KiB: a block and its quotients stay in a core's second-level cache.
BLOCK_ROWS = 512


def quantize(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise each row with its own scale (symmetric, largest absolute value).

    Args:
        vectors: float32, shape ``(n, d)``. Finite; rows need not be unit length.

    Returns:
        ``codes`` int8 ``(n, d)`` in ``[-127, 127]`` and ``scales`` float32 ``(n,)``, such that
        ``codes * scales[:, None]`` is within ``scales / 2`` of the input (plus float32 rounding), element by element.
        A row whose largest value is below 1e-30 becomes zeros with scale 1.

    Raises:
        ValueError: a value is NaN or infinite; names the first offending row.
    """
    codes = np.empty(vectors.shape, dtype=np.int8)
    scales = np.empty(len(vectors), dtype=np.float32)
    quotients = np.empty((min(BLOCK_ROWS, len(vectors)), vectors.shape[1]), dtype=np.float32)
    for start in range(0, len(vectors), BLOCK_ROWS):
        block = vectors[start : start + BLOCK_ROWS]
        scale = _scales(block, start)
        quotient = quotients[: len(block)]
        np.divide(block, scale[:, None], out=quotient)
        np.rint(quotient, out=quotient)
        # Tiny rows get scale 1 and round to zero; all others are at most 127 by construction, so nothing is clipped.
        codes[start : start + len(block)] = quotient
        scales[start : start + len(block)] = scale
    return codes, scales


def _scales(block: NDArray[np.float32], first_row: int) -> NDArray[np.float32]:
    peaks = np.maximum(block.max(axis=1, initial=0.0), -block.min(axis=1, initial=0.0))
    if not np.isfinite(peaks).all():
        bad = first_row + int(np.flatnonzero(~np.isfinite(peaks))[0])
        message = f"vectors must be finite; first offending row is {bad}"
        raise ValueError(message)
    return np.where(peaks >= SMALLEST_PEAK, peaks / MAX_CODE, 1.0).astype(np.float32)


def dequantize(codes: NDArray[np.int8], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Undo `quantize` up to its rounding error. Shapes as returned there."""
    vectors: NDArray[np.float32] = codes.astype(np.float32)
    vectors *= scales[:, None]
    return vectors
