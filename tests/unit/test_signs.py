from __future__ import annotations

import hashlib

import numpy as np
import pytest

from akosha.declared import sign_mean
from akosha.transforms.signs import sign_bits


def test_bits_are_packed_highest_first_and_equal_gives_zero() -> None:
    mean = np.full(8, 0.5, dtype=np.float32)
    vectors = np.array([[1, 0, 0.5, 1, 0, 0, 0, 1]], dtype=np.float32)
    assert sign_bits(vectors, mean).tolist() == [[0b10010001]]


def test_384_dimensions_make_48_bytes() -> None:
    vectors = np.random.default_rng(2).normal(size=(3, 384)).astype(np.float32)
    bits = sign_bits(vectors, sign_mean())
    assert bits.shape == (3, 48)
    assert bits.dtype == np.uint8
    assert sign_bits(vectors[:0], sign_mean()).shape == (0, 48)


def test_bits_never_change_for_the_same_vectors() -> None:
    vectors = (np.arange(2 * 384, dtype=np.float32).reshape(2, 384) % 31 - 15) / np.float32(160)
    assert (
        hashlib.sha256(sign_bits(vectors, sign_mean()).tobytes()).hexdigest()
        == "8709828b2e38ae2326604139746df3e447f90718ab6af875d0f83ffc7010b6fc"
    )


def test_wrong_shapes_and_values_are_refused() -> None:
    mean = np.zeros(8, dtype=np.float32)
    with pytest.raises(ValueError, match="expected vectors"):
        sign_bits(np.zeros((1, 16), dtype=np.float32), mean)
    with pytest.raises(ValueError, match="row is 1"):
        sign_bits(np.array([[0] * 8, [np.nan] * 8], dtype=np.float32), mean)
