from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from akosha.transforms.quantization import BLOCK_ROWS, dequantize, quantize

ROWS = arrays(
    np.float32,
    st.tuples(st.integers(0, 5), st.just(16)),
    elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False),
)


@given(ROWS)
def test_every_value_is_within_half_a_scale(vectors: np.ndarray) -> None:
    codes, scales = quantize(vectors)
    error = np.abs(dequantize(codes, scales).astype(np.float64) - vectors)
    peaks = np.abs(vectors).max(axis=1, initial=0.0)
    large = peaks >= 1e-30
    assert codes.dtype == np.int8
    assert scales.dtype == np.float32
    assert (np.abs(codes.astype(int)) <= 127).all()
    assert (error[large] <= scales[large, None] * 0.5001).all()
    assert (codes[~large] == 0).all()
    assert (scales[~large] == 1).all()


def test_unit_vectors_stay_within_the_bound_across_block_borders() -> None:
    vectors = np.random.default_rng(1).normal(size=(2 * BLOCK_ROWS + 3, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    codes, scales = quantize(vectors)
    decoded = dequantize(codes, scales)
    assert np.abs(decoded - vectors).max(axis=1) == pytest.approx(scales / 2, rel=0.1)
    cosines = np.einsum("ij,ij->i", decoded, vectors) / np.linalg.norm(decoded, axis=1)
    assert cosines.min() > 0.9998
    one_by_one = [quantize(vectors[row : row + 1]) for row in (0, BLOCK_ROWS - 1, BLOCK_ROWS, len(vectors) - 1)]
    for row, (code, scale) in zip((0, BLOCK_ROWS - 1, BLOCK_ROWS, len(vectors) - 1), one_by_one, strict=True):
        assert (code[0] == codes[row]).all()
        assert scale[0] == scales[row]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, BLOCK_ROWS + 1])
def test_a_value_that_is_not_finite_is_refused_by_row(bad: float, row: int) -> None:
    vectors = np.ones((BLOCK_ROWS + 5, 8), dtype=np.float32)
    vectors[row, 3] = bad
    with pytest.raises(ValueError, match=f"row is {row}$"):
        quantize(vectors)


def test_codes_never_change_for_the_same_vectors() -> None:
    vectors = (np.arange(3 * 384, dtype=np.float32).reshape(3, 384) % 97 - 48) / np.float32(53)
    codes, scales = quantize(vectors)
    assert (
        hashlib.sha256(codes.tobytes() + scales.astype("<f4").tobytes()).hexdigest()
        == "d716f37055d58d14d86f553ca6de183ca0fdd476cf47e61ab823ba7195c7fbf4"
    )
    assert quantize(np.array([[0.5, -0.25, 0.125, 0.0]], dtype=np.float32))[0].tolist() == [[127, -64, 32, 0]]


def test_no_rows_and_zero_rows_are_fine() -> None:
    codes, scales = quantize(np.zeros((0, 384), dtype=np.float32))
    assert codes.shape == (0, 384)
    assert scales.shape == (0,)
    codes, scales = quantize(np.zeros((1, 384), dtype=np.float32))
    assert not codes.any()
    assert scales.tolist() == [1.0]
