"""Named points before and after the calls on files and stores that can fail or be the last thing a process does.

Tests arm them to make a call fail, to freeze or to kill the process there, or to let another writer in; nothing in the
product does. Not armed, a point is a look at an empty list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

Hook = Callable[[str], None]

hooks: Final[list[Hook]] = []


def point(name: str) -> None:
    """Tell every hook where the process is; what a hook raises is raised here."""
    for hook in hooks:
        hook(name)


@contextmanager
def around(name: str) -> Iterator[None]:
    """A block, or as a decorator a function, between the points ``before name`` and ``after name``.

    A block that fails has no second point.
    """
    point(f"before {name}")
    yield
    point(f"after {name}")
