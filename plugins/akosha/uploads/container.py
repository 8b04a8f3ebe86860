"""Unpacking: from the object as uploaded to a DuckDB file, or a JSON document, on the local disk.

Bounded by absolute size, not by ratio: a fresh client database is mostly empty blocks and shrinks by 200:1 and more.
"""

from __future__ import annotations

import errno
import os
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from akosha.errors import DiskFullError, InvalidUploadError
from akosha.lake.files import sha256_of, xxh128_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from akosha.uploads.manifest import Compression

CHUNK_BYTES: Final = 1 << 20
SMALLEST_DATABASE_BYTES: Final = 12_288  # main header and two database headers of 4,096 bytes each
_GZIP_WINDOW = 31  # zlib: a gzip member, largest window
_GZIP_MAGIC = b"\x1f\x8b"
_DUCKDB_MAGIC = b"DUCK"
_MAGIC_AT = 8
_VERSION_AT = 12
_HEAD_BYTES = 20
_AGAIN = "Have the system upload again"


@dataclass(frozen=True, slots=True)
class Unpacked:
    """The unpacked file: hex XXH3 of 128 bits, size, DuckDB's storage version (64 from 1.x clients, 999 from 2.0; 0 = JSON).

    The hash tells a file that was uploaded before, at a thirtieth of what SHA-256 costs; it proves nothing.
    """

    xxh128: str
    size_bytes: int
    storage_version: int


def unpack(
    source: Path,
    target: Path,
    *,
    compression: Compression,
    max_bytes: int,
    size_bytes: int | None = None,
    checksum: str | None = None,
) -> Unpacked:
    """Unpack `source` into the new file `target` (mode 0600), streaming; on any refusal `target` is gone.

    What is not packed is not copied: `target` becomes another name of the same file.

    Args:
        source: the object as downloaded.
        target: path to write; must not exist.
        compression: what the manifest says.
        max_bytes: largest unpacked size accepted.
        size_bytes: size of the packed or the unpacked bytes, where the manifest gives one.
        checksum: hex SHA-256 of the packed or the unpacked bytes, where the manifest gives one.

    Raises:
        InvalidUploadError: ``truncated``, ``damaged``, ``wrong-label``, ``too-large``, ``not-a-database``,
            ``size-mismatch`` or ``checksum-mismatch``.
        DiskFullError: no room for `target`.
    """
    return _unpack(source, target, _Promise(compression, size_bytes, checksum), max_bytes, _DATABASE)


def unpack_json(
    source: Path, target: Path, *, compression: Compression, max_bytes: int, checksum: str | None = None
) -> Unpacked:
    """Unpack a JSON document in the same way; whether it is JSON is seen when it is read.

    Raises:
        InvalidUploadError: ``truncated``, ``damaged``, ``wrong-label``, ``too-large`` or ``checksum-mismatch``.
        DiskFullError: no room for `target`.
    """
    return _unpack(source, target, _Promise(compression, None, checksum), max_bytes, _DOCUMENT)


@dataclass(frozen=True, slots=True)
class _Promise:
    compression: Compression
    size_bytes: int | None
    checksum: str | None


@dataclass(frozen=True, slots=True)
class _Form:
    """What is expected inside: `name` it for people, `begins` tells it by its head, `check` refuses another one."""

    name: str
    begins: Callable[[bytes], bool]
    check: Callable[[bytes, int], int]


def _unpack(source: Path, target: Path, promise: _Promise, max_bytes: int, form: _Form) -> Unpacked:
    with source.open("rb") as packed:
        _check_label(packed, promise.compression, form)
    packed_bytes = source.stat().st_size
    packed_sha256 = sha256_of(source) if promise.checksum else ""
    try:
        if promise.compression == "gzip":
            with source.open("rb") as packed:
                _write(_bounded(_inflate(_chunks(packed)), max_bytes, form), target)
        else:
            _check_size(packed_bytes, max_bytes, form)
            source.chmod(0o600)
            _link(source, target)
        unpacked = _described(target, form)
        _check_promises(unpacked, target, packed_bytes, packed_sha256, promise)
    except FileExistsError:
        raise  # somebody else's file: left alone
    except OSError as error:
        target.unlink(missing_ok=True)
        raise _disk_full(target) if error.errno in {errno.ENOSPC, errno.EDQUOT} else error from error
    except InvalidUploadError:
        target.unlink(missing_ok=True)
        raise
    return unpacked


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, where the file system has such; else copy it."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS}:
            raise
        with source.open("rb") as packed:
            _write(_chunks(packed), target)


def _check_label(packed: BinaryIO, compression: Compression, form: _Form) -> None:
    head = packed.read(_HEAD_BYTES)
    packed.seek(0)
    if not head:
        raise _refused(reason="truncated", message=f"the object is empty, expected {form.name}. {_AGAIN}")
    is_plain = form.begins(head)
    is_gzip = head.startswith(_GZIP_MAGIC) and not is_plain
    if compression == "gzip" and is_plain:
        raise _refused(reason="wrong-label", message=f"the manifest says gzip, found plain: {form.name}. {_AGAIN}")
    if compression == "none" and is_gzip:
        raise _refused(reason="wrong-label", message=f"the manifest says none, found gzip. {_AGAIN}")
    if compression == "gzip" and not is_gzip:
        raise _refused(
            reason="damaged",
            message=f"the manifest says gzip, found an object that starts with {head[:8].hex()}. {_AGAIN}",
        )


def _chunks(packed: BinaryIO) -> Iterator[bytes]:
    while chunk := packed.read(CHUNK_BYTES):
        yield chunk


def _inflate(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The unpacked bytes in pieces of at most `CHUNK_BYTES`, so that a bomb is seen before it is in memory."""
    member = zlib.decompressobj(_GZIP_WINDOW)
    taken = 0  # packed bytes given to zlib
    try:
        for chunk in chunks:
            if member.eof:
                raise _trailing(taken)
            rest = chunk
            while rest and not member.eof:
                yield member.decompress(rest, CHUNK_BYTES)
                rest = member.unconsumed_tail
            taken += len(chunk)
            if member.unused_data:
                raise _trailing(taken - len(member.unused_data))
        while not member.eof and (piece := member.decompress(b"", CHUNK_BYTES)):
            yield piece
    except zlib.error as error:
        message = f"the gzip data do not unpack ({error}). {_AGAIN}"
        raise _refused(reason="damaged", message=message, packed_offset_at_least=taken) from error
    if not member.eof:
        message = f"the gzip data end in the middle; the upload was cut off. {_AGAIN}"
        raise _refused(reason="truncated", message=message, packed_offset=taken)


def _bounded(pieces: Iterator[bytes], max_bytes: int, form: _Form) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        _check_size(size, max_bytes, form)
        yield piece


def _write(pieces: Iterator[bytes], target: Path) -> None:
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        for piece in pieces:
            file.write(piece)


def _check_size(size: int, max_bytes: int, form: _Form) -> None:
    if size > max_bytes:
        message = (
            f"{form.name} of more than {max_bytes:,} bytes unpacked. If the system is trusted, "
            "raise AKOSHA_SANDBOX_MAX_BYTES and replay it"
        )
        raise _refused(reason="too-large", message=message, max_bytes=max_bytes)


def _described(target: Path, form: _Form) -> Unpacked:
    """What lies in `target`, after a look at whether it is what was expected."""
    size = target.stat().st_size
    with target.open("rb") as file:
        version = form.check(file.read(_HEAD_BYTES), size)
    return Unpacked(xxh128_of(target), size, version)


def _is_database(head: bytes) -> bool:
    return head[_MAGIC_AT:_VERSION_AT] == _DUCKDB_MAGIC


def _is_json(head: bytes) -> bool:
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b"{", b"["))


def _storage_version(head: bytes, size: int) -> int:
    """The version of a database's storage, after a look at whether it is one."""
    found = head[_MAGIC_AT:_VERSION_AT]
    if found != _DUCKDB_MAGIC:
        message = f"expected a DuckDB file (DUCK at byte {_MAGIC_AT}), found {found!r} in {size:,} bytes. {_AGAIN}"
        raise _refused(reason="not-a-database", message=message)
    if size < SMALLEST_DATABASE_BYTES:
        message = f"expected at least {SMALLEST_DATABASE_BYTES:,} bytes of database, found {size:,}. {_AGAIN}"
        raise _refused(reason="truncated", message=message)
    return int.from_bytes(head[_VERSION_AT:_HEAD_BYTES], "little")


def _no_version(head: bytes, size: int) -> int:  # noqa: ARG001 - a document may begin with anything, and be short
    return 0


_DATABASE: Final = _Form("a DuckDB database", _is_database, _storage_version)
_DOCUMENT: Final = _Form("a JSON document", _is_json, _no_version)


def _check_promises(unpacked: Unpacked, target: Path, packed_bytes: int, packed_sha256: str, promise: _Promise) -> None:
    if promise.size_bytes and promise.size_bytes not in {packed_bytes, unpacked.size_bytes}:
        message = (
            f"the manifest promises {promise.size_bytes:,} bytes, found {packed_bytes:,} packed and "
            f"{unpacked.size_bytes:,} unpacked. {_AGAIN}"
        )
        raise _refused(reason="size-mismatch", message=message)
    if not promise.checksum or promise.checksum == packed_sha256:
        return
    sha256 = packed_sha256 if promise.compression == "none" else sha256_of(target)
    if promise.checksum != sha256:
        message = (
            f"the manifest promises SHA-256 {promise.checksum}, found {packed_sha256} packed and {sha256} "
            f"unpacked. {_AGAIN}"
        )
        raise _refused(reason="checksum-mismatch", message=message)


def _trailing(offset: int) -> InvalidUploadError:
    message = f"there are bytes behind the end of the gzip data, expected one member. {_AGAIN}"
    return _refused(reason="damaged", message=message, packed_offset=offset)


def _refused(*, reason: str, message: str, **context: object) -> InvalidUploadError:
    return InvalidUploadError(message, reason=reason, **context)


def _disk_full(target: Path) -> DiskFullError:
    message = "no room left for an unpacked upload; free space or point AKOSHA_CACHE_DIR at a larger disk"
    return DiskFullError(message, setting="AKOSHA_CACHE_DIR", path=str(target))
