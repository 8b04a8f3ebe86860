"""A local cache of embeddings by content digest.

Derived data: deletable at any time, never committed. Several processes may use one file (write-ahead log); a connection
belongs to the process that opened it.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from akosha.declared import include_text
from akosha.errors import ConfigurationError, DiskFullError, RetryableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

DIMENSION = 384
BUSY_SECONDS = 60.0
# Digests of one SELECT: bounds the JSON text it is given, at 67 bytes each.
_SELECT_DIGESTS = 10_000

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class EmbeddingCache:
    """Vectors of declared models by the digest of the content they were made from.

    A file that SQLite finds damaged is deleted and begun anew: `rebuilt` says so, and a warning is logged. A single
    damaged vector is treated as not cached.

    Attributes:
        path: the cache file; its folder is made if needed.
        rebuilt: True once a damaged file had to be thrown away.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rebuilt = False
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection: sqlite3.Connection | None = None
        self._run(lambda _: None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. The cache may be used again: it then opens anew."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def get_many(self, model_id: str, digests: Iterable[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """The cached vectors among those asked for.

        Args:
            model_id: the model whose vectors are wanted.
            digests: content digests, 32 bytes each, in any order, repeats allowed.

        Returns:
            float32 vectors of shape ``(384,)`` by digest; what is missing or damaged is not in it.

        Raises:
            RetryableError: another process held the file for longer than 60 s.
        """
        keys = sorted({digest.hex() for digest in digests})
        sql = include_text("sql", "embedding_cache_select.sql")
        rows: list[tuple[str, bytes, int]] = []
        for start in range(0, len(keys), _SELECT_DIGESTS):
            parameters = (model_id, json.dumps(keys[start : start + _SELECT_DIGESTS]))
            rows += self._run(lambda connection, given=parameters: connection.execute(sql, given).fetchall())  # type: ignore[misc]
        return {
            bytes.fromhex(digest): np.frombuffer(vector, dtype="<f4").astype(np.float32)
            for digest, vector, crc32 in rows
            if len(vector) == DIMENSION * 4 and zlib.crc32(vector) == crc32
        }

    def put_many(self, model_id: str, vectors: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Store vectors by content digest, all or none; vectors that are there already are replaced.

        Args:
            model_id: the model that made them.
            vectors: finite float32 vectors of shape ``(384,)`` by digest.

        Raises:
            ValueError: a vector has another shape or a value that is not finite; nothing is stored.
            RetryableError: another process held the file for longer than 60 s, or the disk is full.
        """
        rows = [(model_id, digest.hex(), *_packed(digest, vector)) for digest, vector in vectors.items()]
        sql = include_text("sql", "embedding_cache_insert.sql")

        def insert(connection: sqlite3.Connection) -> None:
            with connection:
                connection.executemany(sql, rows)

        self._run(insert)

    def _run(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Do the work on the open file; begin a new file, once, if this one turns out to be damaged."""
        try:
            return work(self._open())
        except sqlite3.DatabaseError as error:
            self.close()
            if not _is_damage(error):
                raise _translated(error, self.path) from error
            _log.warning("event=embedding_cache_rebuilt path=%s error=%s", self.path, error)
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        self.rebuilt = True
        try:
            return work(self._open())
        except sqlite3.DatabaseError as error:
            self.close()
            raise _translated(error, self.path) from error

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS)
            self._connection.execute("PRAGMA journal_mode=WAL").fetchone()
            # A vector lost in a power cut is made again; waiting for the disk would buy nothing.
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(include_text("sql", "embedding_cache_create.sql"))
        return self._connection


def _packed(digest: bytes, vector: NDArray[np.float32]) -> tuple[bytes, int]:
    if vector.shape != (DIMENSION,) or not np.isfinite(vector).all():
        message = f"expected a finite vector of {DIMENSION} values, found shape {vector.shape} for {digest.hex()}"
        raise ValueError(message)
    raw = vector.astype("<f4").tobytes()
    return raw, zlib.crc32(raw)


def _primary_code(error: sqlite3.DatabaseError) -> int:
    """SQLite's result code without its extension; -1 if Python raised the error itself."""
    code: Any = getattr(error, "sqlite_errorcode", None)
    return -1 if code is None else int(code) & 0xFF


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return _primary_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _translated(error: sqlite3.DatabaseError, path: Path) -> Exception:
    code = _primary_code(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        message = f"the embedding cache was held by another process for {BUSY_SECONDS:.0f} s; run the job again"
        return RetryableError(message, path=str(path))
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        message = "the embedding cache cannot be written: free some room on its disk, or delete the file"
        return DiskFullError(message, path=str(path), found=str(error))
    message = (
        "the embedding cache cannot be used: set AKOSHA_CACHE_DIR to a folder that can be written, or delete the file"
    )
    return ConfigurationError(message, path=str(path), found=str(error))
