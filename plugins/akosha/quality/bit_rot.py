"""One flipped bit in a sealed document: found by trying every bit against the digest inside."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from akosha.errors import AkoshaError
from akosha.lake.documents import unseal

MAX_BYTES: Final = 32_768  # 262,144 bits, a quarter of a minute
_SEAL = re.compile(rb'(\n "sha256": ")([0-9a-f]{64})("[,]?)(?=\n)')


def corrected(data: bytes, *, kind: str, key: str) -> bytes | None:
    """The document that `data` was before one bit of it flipped, or None.

    Args:
        data: the damaged bytes.
        kind: what the document must be, as for `unseal`.
        key: where it lies.
    """
    if len(data) > MAX_BYTES:
        return None
    return _flip_outside(data, kind, key) or _flip_inside(data, kind, key)


def _flip_outside(data: bytes, kind: str, key: str) -> bytes | None:
    """The flip is in what the digest covers: its line is whole."""
    found = list(_SEAL.finditer(data))
    if len(found) != 1:
        return None
    seal = found[0]
    promised = bytes.fromhex(seal[2].decode())
    bare = bytearray(data[: seal.start()] + data[seal.end() :])
    if not seal[3].endswith(b","):  # it was the last entry: the one before it then has no comma when it stands alone
        comma = seal.start() - 1
        bare[comma : comma + 1] = b""
    place = _bit_of(bytes(bare), promised)
    if place is None:
        return None
    at, bit = place
    shift = 0 if at < seal.start() else seal.end() - seal.start()
    whole = bytearray(data)
    whole[at + shift] ^= 1 << bit
    return _intact(bytes(whole), kind, key)


def _bit_of(bare: bytes, promised: bytes) -> tuple[int, int] | None:
    before = hashlib.sha256()
    for at in range(len(bare)):
        rest = bare[at + 1 :]
        for bit in range(8):
            digest = before.copy()
            digest.update(bytes((bare[at] ^ 1 << bit,)))
            digest.update(rest)
            if digest.digest() == promised:
                return at, bit
        before.update(bare[at : at + 1])
    return None


def _flip_inside(data: bytes, kind: str, key: str) -> bytes | None:
    """The flip is in the digest's own line, or in a place that breaks the lines: few bytes, so each is simply tried."""
    start = data.find(b"sha256")
    last = data.rfind(b"sha256")
    for around in {start, last} - {-1}:
        for at in range(max(0, around - 8), min(len(data), around + 84)):
            for bit in range(8):
                whole = bytearray(data)
                whole[at] ^= 1 << bit
                sound = _intact(bytes(whole), kind, key)
                if sound is not None:
                    return sound
    return None


def _intact(data: bytes, kind: str, key: str) -> bytes | None:
    try:
        unseal(data, kind=kind, key=key)
    except AkoshaError:
        return None
    return data
