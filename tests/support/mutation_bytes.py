"""Damage to bytes: of the database file, of the gzip member around it, and members made with tricks."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import zlib
from random import Random

import numpy as np
from tests.support.mutation_attempts import Attempt, Kind, damaged, manifest, objects, refused
from tests.support.mutation_sources import NAMES, REAL, SMALL, Sound, sound

from akosha.demo.database import checksum

CELL = 64
HEADERS = 3 * 4_096
HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


def drawn(random: Random, *, real: float = 0.3) -> Sound:
    """A sound upload: the small ones are quicker to read."""
    return sound(random.choice(REAL if random.random() < real else SMALL))


def flipped(data: bytes, random: Random, *, start: int = 0, end: int = 0, bits: int = 1) -> bytes:
    """`data` with bits flipped, four of five in cells that hold anything."""
    end = end or len(data)
    changed = bytearray(data)
    cells = np.frombuffer(data[start : start + (end - start) // CELL * CELL], "u1").reshape(-1, CELL)
    used = np.flatnonzero(cells.any(axis=1))
    for _ in range(bits):
        at = random.randrange(start, end)
        if len(used) and random.random() < 0.8:
            at = start + int(used[random.randrange(len(used))]) * CELL + random.randrange(CELL)
        changed[at] ^= 1 << random.randrange(8)
    return bytes(changed)


def stored(system: str, source: Sound, data: bytes, random: Random, **judged: object) -> Attempt:
    """An upload of the damaged database `data`, packed or plain."""
    if random.random() < 0.5:
        return damaged(system, source, data, compression="none", **judged)
    return damaged(system, source, gzip.compress(data, 1, mtime=0), **judged)


def flip_database(system: str, random: Random) -> Attempt:
    source = drawn(random)
    return stored(system, source, flipped(source.database, random, bits=random.choice([1, 1, 1, 2, 8])), random)


def flip_header(system: str, random: Random) -> Attempt:
    source = drawn(random, real=0.15)
    return stored(system, source, flipped(source.database, random, end=HEADERS), random)


def flip_packed(system: str, random: Random) -> Attempt:
    source = drawn(random)
    return damaged(system, source, flipped(source.packed, random, bits=random.choice([1, 1, 2])))


def flip_gzip_ends(system: str, random: Random) -> Attempt:
    """In the ten bytes before the data or the eight behind them."""
    source = drawn(random)
    data = bytearray(source.packed)
    at = random.choice([*range(10), *range(len(data) - 8, len(data))])
    data[at] ^= 1 << random.randrange(8)
    return damaged(system, source, bytes(data))


def cut_packed(system: str, random: Random) -> Attempt:
    source = drawn(random)
    data = source.packed
    length = random.choice([0, 1, 9, 10, 11, len(data) - 1, len(data) - 8, len(data) - 9, random.randrange(len(data))])
    return damaged(system, source, data[:length], **refused(["truncated", "damaged", "not-a-database"]))


def cut_database(system: str, random: Random) -> Attempt:
    source = drawn(random)
    data = source.database
    block = 16_384 if len(data) < 1 << 18 else 262_144
    length = random.choice(
        [
            8,
            12,
            4_096,
            8_192,
            HEADERS - 1,
            HEADERS,
            HEADERS + block * random.randrange(len(data) // block),
            random.randrange(len(data)),
        ]
    )
    return stored(system, source, data[:length], random)


def overwrite(system: str, random: Random) -> Attempt:
    """A stretch of the file replaced: zeros, noise, or another stretch of the same file."""
    source = drawn(random)
    data = bytearray(source.database)
    size = min(random.choice([1, 8, 512, 4_096, 16_384, 65_536]), len(data) // 2)
    at, other = (random.randrange(0, len(data) - size, 8) for _ in range(2))
    data[at : at + size] = random.choice([bytes(size), random.randbytes(size), data[other : other + size]])
    return stored(system, source, bytes(data), random)


def resealed(data: bytes, at: int) -> bytes:
    """`data` with the checksum of the header or block that holds byte `at` made right again."""
    block = 4_096 if at < HEADERS else (16_384 if len(data) < 1 << 18 else 262_144)
    start = (at if at < HEADERS else at - HEADERS) // block * block + (0 if at < HEADERS else HEADERS)
    return data[:start] + checksum(data[start + 8 : start + block]) + data[start + 8 :]


def reseal(system: str, random: Random) -> Attempt:
    """Flipped, and the checksum of the block made right again: the work of a hostile hand, not of chance."""
    source = drawn(random, real=0.15)
    data = source.database
    at = random.randrange(8, HEADERS) if random.random() < 0.2 else 0
    if not at:
        cells = np.frombuffer(data[HEADERS:], "u1").reshape(-1, CELL).any(axis=1).nonzero()[0]
        at = HEADERS + int(cells[random.randrange(len(cells))]) * CELL + random.randrange(CELL)
    changed = bytearray(data)
    changed[at] ^= 1 << random.randrange(8)
    return stored(system, source, resealed(bytes(changed), at), random, authored=True)


def grow(system: str, random: Random) -> Attempt:
    """Bytes behind the end, of the file or of the member."""
    source = drawn(random)
    tail = random.choice([b"\0", b"\0" * 512, random.randbytes(random.randrange(1, 5_000)), b"\x1f\x8b"])
    if random.random() < 0.5:
        return stored(system, source, source.database + tail, random)
    return damaged(system, source, source.packed + tail, **refused(["damaged"]))


def _member(
    data: bytes, head: bytes = HEADER, *, level: int = 1, crc: int | None = None, size: int | None = None
) -> bytes:
    deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = deflate.compress(data) + deflate.flush()
    crc = zlib.crc32(data) if crc is None else crc
    return head + body + struct.pack("<II", crc, (len(data) if size is None else size) & 0xFFFFFFFF)


def _flagged(flags: int, extra: bytes) -> bytes:
    return HEADER[:3] + bytes([flags]) + HEADER[4:] + extra


def _flushed(data: bytes) -> bytes:
    deflate = zlib.compressobj(1, zlib.DEFLATED, 31)
    parts = [
        deflate.compress(data[at : at + 9_999]) + deflate.flush(zlib.Z_FULL_FLUSH) for at in range(0, len(data), 9_999)
    ]
    return b"".join(parts) + deflate.flush()


def trick(system: str, random: Random) -> Attempt:
    """Members that are legal but unusual, and others that only look like one."""
    source = sound(random.choice([*SMALL, "unknown"]))
    data, whole = source.database, source.packed
    name = random.randbytes(random.randrange(1, 300)).replace(b"\0", b"x") + b"\0"
    extra = random.randbytes(random.randrange(0, 300))
    legal = {
        "name": lambda: _member(data, _flagged(8, name)),
        "comment": lambda: _member(data, _flagged(16, name)),
        "extra": lambda: _member(data, _flagged(4, struct.pack("<H", len(extra)) + extra)),
        "all-flags": lambda: _member(data, _flagged(28, struct.pack("<H", len(extra)) + extra + name + name)),
        "stored": lambda: _member(data, level=0),
        "best": lambda: _member(data, level=9),
        "flushed": lambda: _flushed(data),
    }
    cut = random.randrange(1, len(data))
    illegal = {
        "two-members": lambda: _member(data[:cut]) + _member(data[cut:]),
        "empty-first": lambda: _member(b"") + whole,
        "twice": lambda: whole + whole,
        "wrong-crc": lambda: _member(data, crc=zlib.crc32(data) ^ 1),
        "wrong-size": lambda: _member(data, size=len(data) + random.choice([-1, 1, 1 << 31])),
        "no-trailer": lambda: whole[:-8],
        "reserved-flag": lambda: _member(data, _flagged(random.choice([32, 64, 128]), b"")),
        "wrong-header-crc": lambda: _member(data, _flagged(2, b"\0\0")),
        "other-method": lambda: whole[:2] + bytes([random.randrange(8)]) + whole[3:],
        "zlib": lambda: zlib.compress(data),
        "bz2": lambda: bz2.compress(data, 1),
        "xz": lambda: lzma.compress(data, preset=0),
        "gzip-of-gzip": lambda: _member(whole),
        "empty": lambda: _member(b""),
        "text": lambda: _member(b"this is no database" * 1_000),
        "bomb": lambda: _member(bytes(40 << 20)),
        "bomb-behind-a-header": lambda: _member(data + bytes(40 << 20)),
    }
    chosen = random.choice([*legal, *illegal])
    if chosen in legal:
        return damaged(system, source, legal[chosen](), must="accept")
    reasons = ["damaged", "truncated", "too-large", "not-a-database"]
    return damaged(system, source, illegal[chosen](), **refused(reasons))


def mislabel(system: str, random: Random) -> Attempt:
    """The label says one thing, the bytes are another."""
    source = drawn(random, real=0.1)
    document = manifest(system, source)
    label = random.choice(["none", "gzip", "zstd", "GZIP", " gzip ", "", "bz2", None, 1, ["gzip"]])
    packed = random.random() < 0.5
    document["files"][0]["compression"] = label
    honest = isinstance(label, str) and label.strip().lower() == ("gzip" if packed else "none")
    made = objects(system, source, stored=source.packed if packed else source.database, document=document)
    if honest:
        return Attempt(made, source.records, control=source.name, must="accept")
    return Attempt(made, source.records, control=source.name, **refused(["wrong-label", "invalid-manifest"]))


KINDS = (
    Kind("flip-database", flip_database, 900),
    Kind("flip-header", flip_header, 300),
    Kind("flip-packed", flip_packed, 450),
    Kind("flip-gzip-ends", flip_gzip_ends, 100),
    Kind("cut-packed", cut_packed, 220),
    Kind("cut-database", cut_database, 220),
    Kind("overwrite", overwrite, 200),
    Kind("reseal", reseal, 350),
    Kind("grow", grow, 80),
    Kind("gzip-trick", trick, 150),
    Kind("mislabel", mislabel, 60),
)
assert set(NAMES) == {*REAL, *SMALL}
