"""A store whose process dies at the n-th call: nothing it would have done after that happens, cleaning up included."""

from __future__ import annotations

from threading import Lock
from typing import Any

from akosha.lake.objects import ObjectStore

CALLS = frozenset({"put_if_absent", "put", "upload", "get", "download", "stat", "list", "list_folders", "delete"})


class DiedError(BaseException):
    """The process is gone; nobody can catch that."""


class Fuse:
    """Counts the calls of all stores of one process.

    Args:
        calls: it dies at this one, counted from 1; 0 = never.
        done: whether that call has still taken effect.
    """

    def __init__(self, calls: int = 0, *, done: bool = False) -> None:
        self._left = calls or 1 << 60
        self._done = done
        self._counting = Lock()

    def call(self, act: Any, *given: Any, **options: Any) -> Any:
        """Do a call, or die."""
        with self._counting:
            self._left -= 1
            left = self._left
        if left > 0:
            return act(*given, **options)
        if left == 0 and self._done:
            act(*given, **options)
        raise DiedError


class DyingStore:
    """A real store behind a fuse."""

    def __init__(self, store: ObjectStore, fuse: Fuse) -> None:
        self._store = store
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in CALLS:
            return found
        return lambda *given, **options: self._fuse.call(found, *given, **options)
