"""Several things at a time that wait for a store, in threads that nobody has to wait for.

Not an executor of the standard library: leaving one, or the process, joins its threads, and a job that is stopped would
wait for whole downloads, or for the retries of a store that hangs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")


def together(do: Callable[[Item], Found], items: Sequence[Item], at_once: int) -> Generator[Future[Found], None, None]:
    """Do something with every item, `at_once` of them at a time.

    When the iterator is left early, by an error or a signal, no more is begun; what runs is left to itself.

    Args:
        do: for several threads at a time.
        items: what with.
        at_once: how many threads.

    Returns:
        for each item in order what comes of it, when that is there: its result, or its error.
    """
    futures: list[Future[Found]] = [Future() for _ in items]
    left = deque(zip(futures, items, strict=True))
    try:
        for _ in range(min(at_once, len(items))):
            Thread(target=_work, args=(do, left), daemon=True).start()
        for future in futures:
            future.exception()  # waits
            yield future
    finally:
        left.clear()


def _work(do: Callable[[Item], Found], left: deque[tuple[Future[Found], Item]]) -> None:
    while True:
        try:
            future, item = left.popleft()
        except IndexError:
            return
        try:
            future.set_result(do(item))
        except BaseException as error:
            future.set_exception(error)
