"""SHA-256 digests of texts."""

from __future__ import annotations

from hashlib import sha256

import pyarrow as pa


def utf8_digests(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """SHA-256 of each text of a string column, 32 bytes as binary; the bytes are hashed as received, nothing is decoded.

    No text may be NULL.
    """
    return pa.array([sha256(text).digest() for text in texts.cast(pa.binary()).to_pylist()], pa.binary())
