"""SHA-256 digests of contents, and the digest of a set of them."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DIGEST_BYTES = 32
_MODULUS = 1 << (8 * DIGEST_BYTES)


def content_digest(text: str) -> bytes:
    """SHA-256 of the text's UTF-8 bytes, exactly as received: 32 bytes.

    Raises:
        UnicodeEncodeError: the text holds a lone surrogate; such text cannot be stored and has no digest.
    """
    return sha256(text.encode("utf-8")).digest()


def content_digests(texts: Sequence[str]) -> list[bytes]:
    """`content_digest` of every text, in order."""
    return [sha256(text.encode("utf-8")).digest() for text in texts]


def utf8_digests(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """SHA-256 of each text of a string column, as binary; the bytes are hashed where they lie, nothing is decoded."""
    return pa.array([sha256(text).digest() for text in texts.cast(pa.binary()).to_pylist()], pa.binary())


def set_digest(digests: Iterable[bytes]) -> bytes:
    """The digest of a multiset of digests: their sum modulo 2^256, big-endian.

    Order does not matter, and a digest given twice counts twice (XOR would cancel it).

    Args:
        digests: digests of 32 bytes each; none at all gives 32 zero bytes.

    Raises:
        ValueError: a digest does not have 32 bytes; names its position.
    """
    total = 0
    for position, digest in enumerate(digests):
        if len(digest) != DIGEST_BYTES:
            message = f"expected digests of {DIGEST_BYTES} bytes, found {len(digest)} at position {position}"
            raise ValueError(message)
        total += int.from_bytes(digest, "big")
    return (total % _MODULUS).to_bytes(DIGEST_BYTES, "big")
