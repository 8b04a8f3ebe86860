"""The local side of a lake: fetched files, named by their SHA-256. Everything here may be deleted at any time."""

from __future__ import annotations

import errno
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Protocol

from akosha.errors import ConfigurationError, DiskFullError, IntegrityError, ObjectMissingError
from akosha.lake.failpoints import around
from akosha.lake.files import sha256_of, xxh128_of
from akosha.lake.objects import ObjectStore


class Promised(Protocol):
    """What a commit says of a file that it names."""

    @property
    def path(self) -> str:
        """Its key."""

    @property
    def sha256(self) -> str:
        """SHA-256 of its bytes, hex."""

    @property
    def xxh128(self) -> str:
        """XXH3 of its bytes, 128 bits, hex; "" in commits made before there was one."""


class FileCache:
    """Lake files by content. A file of a local store is used where it lies.

    Every file is hashed the first time this object hands it out, so that nothing is decided from changed bytes: by XXH3,
    which finds damage as surely as SHA-256 does; `akosha fsck --read-data` and the scrub compare both (ADR 0024).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._verified: set[Path] = set()

    def path_of(self, store: ObjectStore, file: Promised) -> Path:
        """A local path with the bytes of a file.

        Raises:
            ObjectMissingError: the store has no such object.
            IntegrityError: its bytes are not those that were promised.
        """
        local = store.local_path(file.path)
        path = self._kept(file.path, file.sha256) if local is None else local
        # Looked at each time: a sweep deletes what a writer that stood still has read before.
        there = path.exists()
        if there and path in self._verified:
            return path
        if local is None:
            if not (there and _intact(path, file)):
                self._fetch(store, file, path)
        elif there:
            _check(path, file)
        else:
            message = "a file named by a commit is missing; run `akosha fsck`"
            raise ObjectMissingError(message, path=file.path, store=store.url)
        self._verified.add(path)
        return path

    def copy_of(self, key: str, sha256: str) -> Path | None:
        """The local copy of a file of a remote store, if there is one with exactly these bytes; the store is not asked."""
        kept = self._kept(key, sha256)
        return kept if kept.exists() and sha256_of(kept) == sha256 else None

    def _fetch(self, store: ObjectStore, file: Promised, kept: Path) -> None:
        with self._writing():
            kept.parent.mkdir(parents=True, exist_ok=True)
        fetched = kept.with_name(f".{uuid.uuid4().hex}{kept.suffix}")
        try:
            store.download(file.path, fetched)
            _check(fetched, file)
            with around("keep"):
                fetched.replace(kept)
        finally:
            fetched.unlink(missing_ok=True)

    def adopt(self, store: ObjectStore, key: str, sha256: str, path: Path) -> None:
        """Keep a file just uploaded, so that it need not be fetched again. `path` is gone afterwards."""
        if store.local_path(key) is None:
            kept = self._kept(key, sha256)
            with self._writing(), around("adopt"):
                kept.parent.mkdir(parents=True, exist_ok=True)
                path.replace(kept)
        else:
            with around("adopt"):
                path.unlink()

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A private folder for work in progress, removed at the end; a thread that still works there finds it gone."""
        parent = self._folder / "scratch"
        with self._writing(), around("scratch"):
            parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=parent))
        try:
            yield folder
        finally:
            with around("scratch removal"):
                shutil.rmtree(folder.rename(folder.with_name(f"{folder.name}.gone")))

    def clear_scratch(self, *, before: datetime) -> int:
        """Remove private folders in which nothing has been written since an instant: those of killed processes.

        Returns:
            how many.
        """
        cleared = 0
        for folder in sorted((self._folder / "scratch").glob("*")):
            if folder.is_dir() and _last_written(folder) < before.timestamp():
                shutil.rmtree(folder, ignore_errors=True)  # another process may be at it, too
                cleared += 1
        return cleared

    def _kept(self, key: str, sha256: str) -> Path:
        return self._folder / "files" / sha256[:2] / f"{sha256}{Path(key).suffix}"

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                message = "no room left on the disk behind AKOSHA_CACHE_DIR; free space or point the setting elsewhere"
                raise DiskFullError(message, setting="AKOSHA_CACHE_DIR", path=str(self._folder)) from error
            message = f"cannot write to the cache folder {self._folder} ({error.strerror}): change AKOSHA_CACHE_DIR"
            raise ConfigurationError(message, setting="AKOSHA_CACHE_DIR") from error


def _last_written(folder: Path) -> float:
    """When a folder or something in it was last written, in seconds since 1970; a folder that is gone is new."""
    try:
        return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
    except FileNotFoundError:
        return inf


def _intact(path: Path, file: Promised) -> bool:
    """Whether a file holds the bytes that were promised: by XXH3, and by SHA-256 where that is missing or differs.

    A kept file may not: a power loss can leave it cut short.
    """
    return bool(file.xxh128 and xxh128_of(path) == file.xxh128) or sha256_of(path) == file.sha256


def _check(path: Path, file: Promised) -> None:
    """Compare a file with what a commit promises.

    Raises:
        IntegrityError: they differ.
    """
    if not _intact(path, file):
        message = "a file does not match its SHA-256; run `akosha fsck --read-data`"
        raise IntegrityError(message, key=file.path, expected=file.sha256, found=sha256_of(path))
