"""Removal lists: which rows of an immutable file no longer count.

Bytes: row numbers as little-endian uint32, strictly ascending, nothing else. The commit holds count and SHA-256.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

from akosha.errors import IntegrityError
from akosha.lake.commits import Removal

REWRITE_SHARE: Final = 0.30


def encode(rows: NDArray[np.integer]) -> bytes:
    """The bytes of a removal list. `rows` in any order, duplicates allowed."""
    return bytes(np.unique(rows).astype("<u4").tobytes())


def describe(path: str, data: bytes) -> Removal:
    """The entry a commit holds for removal list `data` stored at `path`."""
    return Removal(path, len(data) // 4, hashlib.sha256(data).hexdigest())


def decode(data: bytes, removal: Removal) -> NDArray[np.uint32]:
    """The row numbers of a removal list, ascending.

    Raises:
        IntegrityError: the bytes are not what the commit promises.
    """
    if hashlib.sha256(data).hexdigest() != removal.sha256:
        message = "a removal list does not match its SHA-256; run `akosha fsck`"
        raise IntegrityError(message, path=removal.path, expected=removal.sha256)
    return np.frombuffer(data, dtype="<u4")


def worth_rewriting(rows: int, removed: int) -> bool:
    """Whether so much of a file is gone that the next commit that touches it builds it anew (more than 30 %)."""
    return removed > REWRITE_SHARE * rows
