"""The client's own fingerprint: 128 minimum SHA-256 hashes over character 3-grams, 1,024 bytes.

It is not ours (`akosha.transforms.fingerprints`), only something uploads carry. Hashing each gram of each text would take
minutes; texts share their grams, so each gram is hashed once and texts only compare ranks.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

HASHES = 128
LONGEST_GRAMS = 2048
_SIZE = 3


def client_fingerprints(texts: Sequence[str]) -> list[bytes]:
    """One fingerprint per text: 128 unsigned 64-bit little-endian values.

    Text is lower-cased and its white space collapsed; hash i of a gram is SHA-256 of ``42:{i}:{gram}``; the low 64 bits
    of the smallest are kept. Above 2,048 grams every n-th one is used.
    """
    grams = [_grams(text) for text in texts]
    known = sorted({gram for found in grams for gram in found})
    encoded = [gram.encode() for gram in known]
    place = {gram: index for index, gram in enumerate(known)}
    filled = [row for row, found in enumerate(grams) if found]
    columns = np.array([place[gram] for row in filled for gram in grams[row]], dtype=np.int64)
    starts = np.cumsum([0] + [len(grams[row]) for row in filled])[:-1]
    result = np.zeros((len(texts), HASHES), dtype="<u8")
    for number in range(HASHES if filled else 0):
        high, low = _hashes(number, encoded)
        order = np.argsort(high, kind="stable")
        rank = np.empty(len(known), dtype=np.int64)
        rank[order] = np.arange(len(known))
        result[filled, number] = low[order[np.minimum.reduceat(rank[columns], starts)]]
    return [row.tobytes() for row in result]


def _grams(text: str) -> list[str]:
    clean = re.sub(r"\s+", " ", text.lower()).strip()
    found = sorted({clean[start : start + _SIZE] for start in range(max(len(clean) - _SIZE + 1, 0))})
    return found[:: -(-len(found) // LONGEST_GRAMS)] if len(found) > LONGEST_GRAMS else found


def _hashes(number: int, grams: list[bytes]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The first 64 bits (which order the hashes) and the last 64 bits (which are kept) of hash `number` of each gram."""
    start = f"42:{number}:".encode()
    digests = b"".join([hashlib.sha256(start + gram).digest() for gram in grams])
    words = np.frombuffer(digests, dtype=">u8").reshape(-1, 4)
    return words[:, 0].astype(np.uint64), words[:, 3].astype(np.uint64)
