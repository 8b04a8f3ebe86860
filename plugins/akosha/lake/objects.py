"""The object store under a lake: one small contract, kept by a folder and by S3.

The one primitive everything leans on is `put_if_absent`. A store is probed for it before the first write.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One listed object: key below the store's root, size in bytes, ETag without quotes, time of last change."""

    key: str
    size_bytes: int
    etag: str
    modified: datetime


class Requests:
    """Requests made of a store since it was opened, by any thread: listings, of which each page is one, and all others."""

    def __init__(self) -> None:
        self.lists = 0
        self.others = 0
        self._lock = Lock()

    def count_list(self) -> None:
        """One more page of a listing."""
        with self._lock:
            self.lists += 1

    def count_other(self) -> None:
        """One more of the others."""
        with self._lock:
            self.others += 1

    @property
    def total(self) -> int:
        """All of them."""
        return self.lists + self.others


class ObjectStore(Protocol):
    """What a lake needs of a store. Keys are relative to `url`; every error is an `AkoshaError`."""

    @property
    def requests(self) -> Requests:
        """Counted as they are made, for people; retries inside a client are not seen."""

    @property
    def url(self) -> str:
        """Where the store lives, for people."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Create an object that must not exist. True = created, False = something is there.

        Raises:
            CommitUnknownError: the answer was lost; call again with the same bytes, then compare what is there.
        """

    def put(self, key: str, data: bytes) -> None:
        """Write an object, replacing what is there."""

    def upload(self, key: str, path: Path) -> None:
        """Copy a local file to a new key, durable on return."""

    def get(self, key: str) -> bytes:
        """Read a whole object.

        Raises:
            ObjectMissingError: it is not there.
        """

    def read(self, key: str, *, max_bytes: int) -> tuple[ObjectInfo, bytes]:
        """What is known of an object and, unless it has more than `max_bytes`, all of it.

        Raises:
            ObjectMissingError: it is not there, or changed while it was read.
        """

    def download(self, key: str, path: Path, *, max_bytes: int = 0) -> ObjectInfo:
        """Copy an object to a local path, unless it has more than `max_bytes` (0 = any); what it is, in either case.

        Raises:
            ObjectMissingError: it is not there, or changed while it was read.
        """

    def stat(self, key: str) -> ObjectInfo | None:
        """What is known of an object, or None if it is not there."""

    def list(self, prefix: str, *, start_after: str = "", limit: int = 0) -> Iterator[ObjectInfo]:
        """Objects below `prefix` in order of their keys; `limit` 0 = all."""

    def list_folders(self, prefix: str) -> Sequence[str]:
        """Names directly below `prefix` that have something below them, without slashes, in order."""

    def delete(self, key: str) -> None:
        """Remove an object; removing nothing is no error."""

    def local_path(self, key: str) -> Path | None:
        """The object's own path if it is a local file, else None."""
