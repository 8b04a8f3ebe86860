"""Digests of texts: SHA-256, and the fast hash that tells whether one is needed."""

from __future__ import annotations

from hashlib import sha256

import pyarrow as pa
from xxhash import xxh3_128_digest

HASH_BYTES = 16
DIGEST_BYTES = 32


def utf8_digests(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """SHA-256 of each text of a string column, 32 bytes as binary; the bytes are hashed as received, nothing is decoded.

    No text may be NULL.
    """
    return pa.array([sha256(text).digest() for text in texts.cast(pa.binary()).to_pylist()], pa.binary())


def hashes_and_digests(texts: pa.Array) -> tuple[pa.Array, pa.Array]:
    """XXH3 (128 bits) and SHA-256 of each text's UTF-8 bytes, as binary of 16 and of 32 bytes; NULL for NULL.

    DuckDB's own SHA-256 is 1.5 times as slow as hashlib's.
    """
    values = texts.cast(pa.binary()).to_pylist()
    hashes = [None if value is None else xxh3_128_digest(value) for value in values]
    digests = [None if value is None else sha256(value).digest() for value in values]
    return pa.array(hashes, pa.binary(HASH_BYTES)), pa.array(digests, pa.binary(DIGEST_BYTES))
