"""DuckDB files that come out byte for byte equal however often they are built.

Four things differ between two builds of the same rows, all measured with DuckDB 2.0.0:

* parallel inserts: one thread;
* FSST, the string compression of 1.x storage, draws a random sample: switched off, other compressions remain;
* unused bytes inside blocks are whatever malloc returned: a block allocator of its own hands out fresh, zeroed pages;
* 2.0 storage keeps 16 random bytes that identify the file: replaced, with the checksums of the headers that hold them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

import duckdb
import numpy as np

from akosha.lake.sql import statement

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

Storage = Literal["1.x", "2.0"]

BLOCK_BYTES = 262_144
HEADER_BYTES = 4_096
BLOCKS_START = 3 * HEADER_BYTES
_IDENTIFIER_AT = 124
_IDENTIFIER_BYTES = 16
_ATTACH: dict[Storage, str] = {"1.x": " (STORAGE_VERSION 'v1.0.0')", "2.0": ""}
_CHECKSUM_FACTOR = np.uint64(0xBF58476D1CE4E5B9)
_CHECKSUM_START = np.uint64(5381)
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "threads": 1,
    "preserve_insertion_order": True,
    "block_allocator_memory": "512MB",  # address space; only what a file fills is ever touched
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}


def build_database(
    schema: tuple[str, ...], rows: Mapping[str, pa.Table], storage: Storage, *, damage: str | None = None
) -> bytes:
    """A DuckDB file: the tables of `schema` (names of SQL files, run in order), then `rows` by column name.

    Args:
        schema: statements that create tables; empty gives a valid file without tables.
        rows: Arrow tables by table name, inserted in this order; columns left out take their defaults.
        storage: ``1.x`` writes storage version 64, ``2.0`` version 999.
        damage: a table whose first data block gets one flipped bit, or None.
    """
    with TemporaryDirectory(prefix="akosha-demo-") as folder:
        path = Path(folder) / "upload.duckdb"
        blocks = _write(path, schema, rows, storage, damage)
        data = normalised(path.read_bytes())
    if damage is not None:
        data = with_flipped_bit(data, blocks[0])
    return data


def _write(
    path: Path, schema: tuple[str, ...], rows: Mapping[str, pa.Table], storage: Storage, table: str | None
) -> list[int]:
    """Write the file; returns the numbers of the blocks that hold the contents of `table`."""
    blocks: list[int] = []
    with duckdb.connect(config=_CONFIG) as con:
        con.execute(statement("demo_same_bytes"))
        con.execute(f"ATTACH '{path}' AS upload{_ATTACH[storage]}")
        con.execute("USE upload")
        con.execute("BEGIN")  # one transaction: the log is written and synced once, not after each of 80 statements
        for name in schema:
            con.execute(statement(name))
        for name, batch in rows.items():
            con.register("incoming", batch)
            con.execute(f'INSERT INTO "{name}" BY NAME SELECT * FROM incoming')  # noqa: S608 - the name is ours
            con.unregister("incoming")
        con.execute("COMMIT")
        con.execute("CHECKPOINT upload")
        if table is not None:
            found = con.execute(statement("demo_blocks"), [table]).fetchall()
            blocks = [block for (block,) in found]
        con.execute("USE memory")
        con.execute("DETACH upload")
    return blocks


def normalised(data: bytes) -> bytes:
    """The same file with its random identifier replaced by one derived from everything else in it."""
    identifier = data[_IDENTIFIER_AT : _IDENTIFIER_AT + _IDENTIFIER_BYTES]
    if not any(identifier):  # 1.x storage has none
        return data
    headers = [data[start : start + HEADER_BYTES] for start in range(0, BLOCKS_START, HEADER_BYTES)]
    blank = bytes(_IDENTIFIER_BYTES)
    bare = b"".join(header[8:].replace(identifier, blank) for header in headers)
    chosen = hashlib.sha256(bare + data[BLOCKS_START:]).digest()[:_IDENTIFIER_BYTES]
    renamed = [header[8:].replace(identifier, chosen) for header in headers]
    return b"".join(checksum(body) + body for body in renamed) + data[BLOCKS_START:]


def with_flipped_bit(data: bytes, block: int) -> bytes:
    """The same file with one bit of a block flipped in its middle: opening succeeds, scanning says corrupt."""
    place = BLOCKS_START + block * BLOCK_BYTES + BLOCK_BYTES // 2
    return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]


def checksum(body: bytes) -> bytes:
    """DuckDB's checksum of a block: 8 bytes, little-endian. The length of `body` is a multiple of eight."""
    words = np.frombuffer(body, dtype="<u8")
    return int(np.bitwise_xor.reduce(words * _CHECKSUM_FACTOR, initial=_CHECKSUM_START)).to_bytes(8, "little")
