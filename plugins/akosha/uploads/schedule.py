"""Which systems a run lists, and from where. Pure.

A listing only ever costs requests or delays: whatever no recent listing reaches, the nightly full one does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from akosha.lake import layout

LOOK_BACK: Final = timedelta(hours=48)
ACTIVE: Final = timedelta(days=2)
SLOT: Final = timedelta(minutes=15)
SLOTS: Final = timedelta(days=1) // SLOT
UPLOADS: Final = "uploads"


@dataclass(frozen=True, slots=True)
class Scope:
    """A part of the uploads root to list.

    Attributes:
        prefix: below ``systems/``, with its last slash: ``laptop-7/uploads/`` for a system, ``laptop-7/`` for everything
            under a first folder, nested systems included.
        since: the first upload id wanted, or the beginning of one; empty = all. Only for the prefix of a system.
        until: the upload id to stop before; empty = none.
    """

    prefix: str
    since: str = ""
    until: str = ""

    @property
    def first_folder(self) -> str:
        """The scope that holds this one whole."""
        return self.prefix.split("/", 1)[0] + "/"


def scope_of(system_id: str, since: str = "", until: str = "") -> Scope:
    """The uploads of one system."""
    return Scope(f"{system_id}/{UPLOADS}/", since, until)


def upload_second(instant: datetime) -> str:
    """An instant as the beginning of an upload id: ``YYYYMMDD_HHMMSS``, UTC."""
    return f"{instant.astimezone(UTC):%Y%m%d_%H%M%S}"


def second_of(upload_id: str) -> datetime | None:
    """The instant that an upload id begins with, or None if it does not."""
    try:
        return datetime.strptime(upload_id[:15], "%Y%m%d_%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def slot_of(system_id: str) -> int:
    """The quarter of an hour of the day, 0-95, in which an idle system is listed: spread by a hash of its id.

    The shard is the last byte of the same digest, so other bytes are taken: the systems of a shard are spread as well.
    """
    return int.from_bytes(hashlib.sha256(system_id.encode("utf-8", "surrogatepass")).digest()[:8]) % SLOTS


def slots_passed(previous: datetime | None, at: datetime) -> frozenset[int]:
    """The slots that have begun after the run at `previous`, that of `at` included.

    A run that never took place leaves its slots to the next; one in the slot of its predecessor has none to serve.
    Without a predecessor it is the slot of `at` alone: whoever has never listed lists in full.
    """
    last = _slot_number(at)
    first = last if previous is None else max(_slot_number(previous) + 1, last - SLOTS + 1)
    return frozenset(number % SLOTS for number in range(first, last + 1))


def is_due(system_id: str, newest: datetime | None, at: datetime, slots: frozenset[int]) -> bool:
    """Whether a system is listed by the run at `at`: never seen, active within two days, or in one of its slots."""
    return newest is None or newest >= at - ACTIVE or slot_of(system_id) in slots


def start_of(newest: datetime | None, at: datetime) -> str:
    """Where the listing of a system starts: `LOOK_BACK` before its newest upload; from the beginning if it has none.

    A newest upload that is dated in the future counts as one of now: it must not hide what comes until then.
    """
    return upload_second(min(newest, at) - LOOK_BACK) if newest is not None else ""


def due_scopes(
    systems: Iterable[str], newest: Mapping[str, datetime], at: datetime, slots: frozenset[int]
) -> list[Scope]:
    """What a recent listing reads, by shard, so that the memos of a shard are looked at once."""
    due = [system_id for system_id in systems if is_due(system_id, newest.get(system_id), at, slots)]
    return [
        scope_of(system_id, start_of(newest.get(system_id), at))
        for system_id in sorted(due, key=lambda system_id: (layout.shard_of(system_id), system_id))
    ]


def queued(waiting: Sequence[Scope], due: Iterable[Scope]) -> list[Scope]:
    """First what waits, in its order, then what is newly due; each part once, from the earlier of two beginnings."""
    scopes: dict[str, Scope] = {}
    for scope in (*waiting, *due):
        seen = scopes.get(scope.prefix)
        scopes[scope.prefix] = scope if seen is None else replace(seen, since=min(seen.since, scope.since))
    return [
        scope for scope in scopes.values() if scope.prefix == scope.first_folder or scope.first_folder not in scopes
    ]


def _slot_number(instant: datetime) -> int:
    return int(instant.timestamp()) // int(SLOT.total_seconds())
