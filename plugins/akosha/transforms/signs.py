"""Mean-centred sign bits: 48 bytes that stand for a vector until candidates are re-ranked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIGNS_ID = "sign-centred-v1"


def sign_bits(vectors: NDArray[np.float32], mean: NDArray[np.float32]) -> NDArray[np.uint8]:
    """One bit per dimension: is the value above the mean?

    Vectors of one model share a direction; without centring many bits would be equal for every text.

    Args:
        vectors: float32, shape ``(n, d)``, finite, ``d`` a multiple of 8.
        mean: float32, shape ``(d,)``: the declared mean of ``sign-centred-v1``.

    Returns:
        uint8, shape ``(n, d / 8)``; the first dimension is the highest bit of the first byte. A value equal to the mean
        gives 0.

    Raises:
        ValueError: the shapes do not fit, or a value is NaN or infinite (names the first offending row).
    """
    if vectors.ndim != 2 or mean.shape != (vectors.shape[1],) or vectors.shape[1] % 8:
        message = f"expected vectors (n, d) and a mean (d,), d a multiple of 8; found {vectors.shape} and {mean.shape}"
        raise ValueError(message)
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        message = f"vectors must be finite; first offending row is {int(np.flatnonzero(~finite)[0])}"
        raise ValueError(message)
    return np.packbits(vectors > mean, axis=1)
