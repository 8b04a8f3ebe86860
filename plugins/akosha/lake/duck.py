"""DuckDB connections as a lake uses them: in memory, no extensions, UTC; shard files are attached by path."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb

from akosha.errors import AkoshaError, DiskFullError, IntegrityError, RetryableError

STORAGE_VERSION: Final = "v1.5.0"
SMALL_FILE_ROWS: Final = 2_000
SMALL_BLOCK_BYTES: Final = 16_384
# Rows of a full group go to the file as they come; others wait in memory and are copied once more (22 -> 16 us a warm row).
GROUP_ROWS: Final = 10_240
MEMORY_BYTES: Final = 400 << 20  # beyond this joins and sorts go through the disk: a task stays below 1 GiB
_FULL = ("no space left", "could not write all", "disk quota")


@contextmanager
def connection(path: Path, *, large: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to DuckDB in memory; errors inside speak of `path` and become an `AkoshaError`.

    Making a database costs 25 ms of CPU, so the last one used is kept for the next block of this process; what a block
    attached or registered ends with it. A database that reported an error is not kept, nor one that did `large` work: it would
    hold on to the memory that took, 300 MiB after a join of a million keys.

    Raises:
        DiskFullError: the disk behind AKOSHA_CACHE_DIR is full.
        IntegrityError: anything else DuckDB reports about the file.
    """
    database = _idle.pop().adopt() if _idle else _Database.make()
    session = database.connection.cursor()
    try:
        yield session
        session.execute("DETACH DATABASE IF EXISTS f")
    except duckdb.Error as error:
        database.connection.close()
        raise translate(error, path) from error
    except BaseException:
        database.connection.close()
        raise
    finally:
        session.close()
    if large:
        database.connection.close()
    else:
        _idle[:] = [database]


@dataclass(frozen=True, slots=True)
class _Database:
    connection: duckdb.DuckDBPyConnection
    process: int

    @classmethod
    def make(cls) -> _Database:
        con = duckdb.connect(
            config={
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "allow_community_extensions": False,
                "threads": 1,
                "async_threads": 0,
                "memory_limit": f"{MEMORY_BYTES}B",
                "temp_directory": str(Path(tempfile.gettempdir()) / f"akosha-duckdb-{os.getpid()}"),
            }
        )
        con.execute("SET GLOBAL TimeZone = 'UTC'")
        return cls(con, os.getpid())

    def adopt(self) -> _Database:
        """This database, or a new one in a forked child: threads do not survive a fork."""
        return self if self.process == os.getpid() else self.make()


_idle: list[_Database] = []


def translate(error: duckdb.Error, path: Path) -> AkoshaError:
    """The `AkoshaError` behind a DuckDB error while working on `path`."""
    text = str(error)
    if isinstance(error, duckdb.OutOfMemoryException):
        message = f"DuckDB needs more than its {MEMORY_BYTES >> 20} MiB for this step: {text.splitlines()[0][:200]}"
        return RetryableError(message, path=str(path))
    if any(words in text.lower() for words in _FULL):
        message = "no room left on the disk behind AKOSHA_CACHE_DIR; free space or point the setting elsewhere"
        return DiskFullError(message, setting="AKOSHA_CACHE_DIR", path=str(path))
    message = f"DuckDB cannot work on the file: {text.splitlines()[0][:300]}; run `akosha fsck`"
    return IntegrityError(message, path=str(path))


def is_small(rows: int) -> bool:
    """Whether a file of so many rows is written with small blocks."""
    return rows < SMALL_FILE_ROWS


def attach_new(con: duckdb.DuckDBPyConnection, path: Path, rows: int) -> None:
    """Create a file at `path` as ``f``: storage version v1.5.0, small blocks when it will hold few rows, row groups of 10,240."""
    size = f"BLOCK_SIZE {SMALL_BLOCK_BYTES}" if is_small(rows) else f"ROW_GROUP_SIZE {GROUP_ROWS}"
    con.execute(f"ATTACH {_quoted(path)} AS f (STORAGE_VERSION '{STORAGE_VERSION}', {size})")


def attach_existing(con: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Open a file at `path` as ``f``, read-only."""
    con.execute(f"ATTACH {_quoted(path)} AS f (READ_ONLY)")


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
