"""MinHash fingerprints, bit-identical to datasketch's ``affine32`` scheme.

A fingerprint equals ``datasketch.MinHash(num_perm=128, seed=1, hashfunc=lambda v: v, scheme="affine32")`` after
``update_batch(shingle_hashes(text))``; a test holds that. datasketch itself is not imported: that costs 2.5 CPU
seconds, and updates one text at a time.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

FINGERPRINT_ID = "minhash-affine32-byte8-v1"
PERMUTATIONS = 128
SEED = 1
SHINGLE_BYTES = 8
EMPTY_VALUE = 0xFFFFFFFF

# Texts are joined up to this many bytes, so that numpy's per-call cost is shared by about forty texts.
_BATCH_BYTES = 64 * 1024
# 16 permutations of 6,144 values are 384 KiB: multiply, add and minimum all run in a core's second-level cache.
_BLOCK_WINDOWS = 6 * 1024
_BLOCK_PERMUTATIONS = 16

_NON_WORD = re.compile(r"\W+")
_ASCII_WORDS = bytes(
    byte + 32 if 65 <= byte <= 90 else byte if chr(byte).isalnum() or byte == 95 else 32 for byte in range(128)
) + bytes(range(128, 256))


def fingerprints(texts: Sequence[str]) -> NDArray[np.uint32]:
    """MinHash signatures of the texts' 8-byte shingles.

    Args:
        texts: cleaned by the caller (`akosha.transforms.cleaning.clean`).

    Returns:
        uint32, shape ``(n, 128)``. A text without a word is all 0xFFFFFFFF: never index such a row.
    """
    result = np.full((len(texts), PERMUTATIONS), EMPTY_VALUE, dtype=np.uint32)
    for rows, batch in _batches(texts):
        result[rows] = _signatures(batch)
    return result


def shingle_hashes(text: str) -> NDArray[np.uint32]:
    """The values whose MinHash is taken, in the order of the text, repeats included.

    The text is lower-cased, every run of non-word characters becomes one blank, blanks at the ends go. Each window of 8
    UTF-8 bytes, read as a little-endian 64-bit number, goes through the finaliser of SplitMix64; the low 32 bits count.
    A text shorter than 8 bytes is one window, padded with zero bytes.

    Returns:
        uint32, shape ``(windows,)``; empty for a text without a word.
    """
    normalised = _normalised(text)
    if not normalised:
        return np.empty(0, dtype=np.uint32)
    return _window_hashes(normalised)


def _normalised(text: str) -> bytes:
    """Lower-case words with one blank between them, as UTF-8, at least 8 bytes long unless empty."""
    if text.isascii():
        words = b" ".join(text.encode("ascii").translate(_ASCII_WORDS).split())
    else:
        words = _NON_WORD.sub(" ", text.lower()).strip().encode("utf-8")
    return words.ljust(SHINGLE_BYTES, b"\0") if words else words


def _batches(texts: Sequence[str]) -> Iterator[tuple[list[int], list[bytes]]]:
    """Rows and normalised bytes of the texts that have words, in groups of about `_BATCH_BYTES`."""
    rows: list[int] = []
    batch: list[bytes] = []
    size = 0
    for row, text in enumerate(texts):
        normalised = _normalised(text)
        if not normalised:
            continue
        rows.append(row)
        batch.append(normalised)
        size += len(normalised)
        if size >= _BATCH_BYTES:
            yield rows, batch
            rows, batch, size = [], [], 0
    if rows:
        yield rows, batch


def _window_hashes(joined: bytes) -> NDArray[np.uint32]:
    """SplitMix64's finaliser of every 8-byte window, low 32 bits (Steele, Lea, Flood: Fast Splittable PRNGs, 2014)."""
    count = len(joined) - SHINGLE_BYTES + 1
    values = np.ndarray((count,), dtype="<u8", buffer=joined, strides=(1,)).astype(np.uint64)
    shifted = np.empty_like(values)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        np.right_shift(values, np.uint64(shift), out=shifted)
        np.bitwise_xor(values, shifted, out=values)
        np.multiply(values, np.uint64(factor), out=values)
    np.right_shift(values, np.uint64(31), out=shifted)
    np.bitwise_xor(values, shifted, out=values)
    return values.astype(np.uint32)


def _signatures(batch: list[bytes]) -> NDArray[np.uint32]:
    """Signatures of normalised texts of at least 8 bytes: shape ``(len(batch), 128)``."""
    lengths = np.array([len(item) for item in batch], dtype=np.int64)
    hashes = _window_hashes(b"".join(batch))
    inside = np.ones(len(hashes), dtype=np.bool_)
    for end in np.cumsum(lengths)[:-1].tolist():
        inside[end - SHINGLE_BYTES + 1 : end] = False
    hashes = _premixed(hashes[inside])
    counts = lengths - SHINGLE_BYTES + 1
    firsts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    # Texts are cut at block borders too; the minimum over a text's pieces is the minimum over the text.
    pieces = np.union1d(firsts, np.arange(0, len(hashes), _BLOCK_WINDOWS))
    minima = _piece_minima(hashes, pieces)
    signatures: NDArray[np.uint32] = np.minimum.reduceat(minima, np.searchsorted(pieces, firsts), axis=1).T
    return signatures


def _piece_minima(hashes: NDArray[np.uint32], pieces: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Smallest value of every permutation in every piece: shape ``(128, pieces)``."""
    factors, summands = permutations()
    minima = np.empty((PERMUTATIONS, len(pieces)), dtype=np.uint32)
    scratch = np.empty(_BLOCK_PERMUTATIONS * min(_BLOCK_WINDOWS, len(hashes)), dtype=np.uint32)
    for start in range(0, len(hashes), _BLOCK_WINDOWS):
        block = hashes[start : start + _BLOCK_WINDOWS]
        first, last = np.searchsorted(pieces, (start, start + len(block)))
        inner = pieces[first:last] - start
        values = scratch[: _BLOCK_PERMUTATIONS * len(block)].reshape(_BLOCK_PERMUTATIONS, len(block))
        for row in range(0, PERMUTATIONS, _BLOCK_PERMUTATIONS):
            chosen = slice(row, row + _BLOCK_PERMUTATIONS)
            np.multiply(block, factors[chosen, None], out=values)
            np.add(values, summands[chosen, None], out=values)
            minima[chosen, first:last] = np.minimum.reduceat(values, inner, axis=1)
    return minima


def _premixed(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """MurmurHash3's 32-bit finaliser, which ``affine32`` applies once before permuting. Works in place."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        values ^= values >> np.uint32(shift)
        values *= np.uint32(factor)
    values ^= values >> np.uint32(16)
    return values


@lru_cache(maxsize=1)
def permutations() -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Odd factors and summands of ``affine32``, uint32 ``(128,)`` each: value k of h is ``factor * h + summand``.

    Drawn exactly as datasketch draws them; numpy guarantees the stream of `RandomState` for ever.
    """
    generator = np.random.RandomState(SEED)  # a declared constant sequence, not chance
    factors = generator.randint(0, 1 << 31, PERMUTATIONS, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    summands = generator.randint(0, 1 << 32, PERMUTATIONS, dtype=np.uint32)
    return factors, summands
