"""Texts that the lake knows already: their SHA-256 by a hash that costs a tenth, so that a repeated text is not digested again.

The hash (XXH3, 128 bits; xxhash.com, frozen since 0.8.0) only decides that a digest may be looked up instead of made. A text
that becomes a record is digested whatever it says (`akosha.uploads.texts`).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from akosha.transforms.digests import DIGEST_BYTES, HASH_BYTES

KNOWN: Final = pa.schema(
    [pa.field("content_xxh128", pa.binary(HASH_BYTES)), pa.field("content_sha256", pa.binary(DIGEST_BYTES))]
)


def write_known(keys: pa.Table, target: Path) -> None:
    """Write the texts of a key file (columns of `KNOWN`) to an Arrow IPC file, sorted by the first half of the hash."""
    table = keys.select(KNOWN.names).cast(KNOWN).combine_chunks()
    order = np.argsort(_words(table.column("content_xxh128").combine_chunks())[:, 0], kind="stable")
    table = table.take(pa.array(order)).combine_chunks()
    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, KNOWN) as writer:
        writer.write_table(table)


class KnownTexts:
    """Digests of texts by their hash."""

    def __init__(self, table: pa.Table) -> None:
        hashes = table.column("content_xxh128").combine_chunks()
        digests = table.column("content_sha256").combine_chunks()
        self._hashes = _words(hashes)
        self._first = np.ascontiguousarray(self._hashes[:, 0])
        self._digests = np.frombuffer(digests.buffers()[1] or b"", np.uint8).reshape(-1, DIGEST_BYTES)
        self._digests = self._digests[digests.offset : digests.offset + len(digests)]

    @classmethod
    def open(cls, path: Path) -> KnownTexts:
        """Map a file of `write_known`."""
        return cls(pa.ipc.open_file(pa.memory_map(str(path))).read_all())

    def digests(self, texts: pa.Array) -> tuple[pa.Array, pa.Array]:
        """As `akosha.transforms.digests.hashes_and_digests`."""
        values = texts.cast(pa.binary()).to_pylist()
        hash_of = xxhash.xxh3_128_digest
        hashes = pa.array([None if value is None else hash_of(value) for value in values], pa.binary(HASH_BYTES))
        places, found = self._find(_words(hashes))
        digests = np.zeros((len(values), DIGEST_BYTES), np.uint8)
        digests[found] = self._digests[places[found]]
        for row in np.flatnonzero(~found).tolist():
            if values[row] is not None:
                digests[row] = np.frombuffer(hashlib.sha256(values[row]).digest(), np.uint8)
        whole = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(DIGEST_BYTES), len(values), [hashes.buffers()[0], pa.py_buffer(digests)]
        )
        return hashes, whole

    def _find(self, wanted: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Where each hash ``(n, 2)`` is known, and whether it is."""
        if not len(self._first):
            return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.bool_)
        places = np.minimum(np.searchsorted(self._first, wanted[:, 0]), len(self._first) - 1)
        return places, (self._hashes[places] == wanted).all(axis=1)


def _words(hashes: pa.FixedSizeBinaryArray) -> NDArray[np.uint64]:
    """Hashes as two numbers each, uint64 ``(n, 2)``; of no meaning where one is NULL."""
    words = np.frombuffer(hashes.buffers()[1] or b"", np.uint64).reshape(-1, 2)
    return words[hashes.offset : hashes.offset + len(hashes)]
