"""Ids as Session-Buddy makes them, but from a seed instead of the clock and the system's randomness."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def content_id(content: str) -> str:
    """The first 16 hex digits of SHA-256(content): equal on every system that stored the same text."""
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def md5_id(seed: str) -> str:
    """32 hex digits, as the oldest tables carry them."""
    return hashlib.md5(seed.encode(), usedforsecurity=False).hexdigest()


def ulid(moment: datetime, seed: str) -> str:
    """26 characters: UTC milliseconds of `moment` in the first ten, 80 bits from `seed` in the rest."""
    milliseconds = (moment - _EPOCH) // timedelta(milliseconds=1)
    number = (milliseconds << 80) | int.from_bytes(hashlib.sha256(seed.encode()).digest()[:10], "big")
    return "".join(CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))


def ulid_milliseconds(text: str) -> int:
    """UTC milliseconds since 1970 held by the first ten characters of a ULID."""
    milliseconds = 0
    for character in text[:10]:
        milliseconds = milliseconds * 32 + CROCKFORD.index(character)
    return milliseconds


def uuid4(seed: str) -> str:
    """A UUID of version 4 in text form."""
    digits = list(hashlib.sha256(seed.encode()).hexdigest()[:32])
    digits[12] = "4"
    digits[16] = "89ab"[int(digits[16], 16) % 4]
    text = "".join(digits)
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
