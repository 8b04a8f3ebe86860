"""What discovery remembers between runs, and which part of the bucket a run lists.

What is remembered only saves requests: with it lost, the next listing is a full one. The lake's memos alone decide
whether an upload is due.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from akosha.errors import ObjectMissingError
from akosha.lake import layout
from akosha.lake.documents import seal, unseal
from akosha.lake.lake import Lake
from akosha.lake.objects import ObjectStore
from akosha.uploads.discovery import Discovery, discover, find_systems, first_folders, oldest_of_each
from akosha.uploads.memos import UploadRef
from akosha.uploads.schedule import SLOT, Scope, due_scopes, queued, scope_of, slots_passed, start_of

STATE: Final = "runs/discovery.json"
NOT_NAMED: Final = (
    "a system id has no empty part, '.' or '..' between slashes: name systems as they stand below systems/"
)


@dataclass(frozen=True, slots=True)
class Narrowing:
    """What a run is limited to: one system, one shard, or the systems that woke it. Nothing named = everything."""

    system: str = ""
    shard: int | None = None
    wake: tuple[str, ...] = ()

    @property
    def systems(self) -> tuple[str, ...]:
        """The systems it names."""
        return (self.system,) if self.system else self.wake

    def wants(self, ref: UploadRef) -> bool:
        """Whether an upload belongs to it."""
        return (not self.systems or ref.system_id in self.systems) and self.shard in {None, ref.shard}


@dataclass(frozen=True, slots=True)
class Remembered:
    """Between runs.

    Attributes:
        at: the instant of the last run that was not narrowed.
        full_at: that of the last full listing begun.
        newest: newest upload with a memo of systems for which the heads know none, or an older one.
        queue: what the next run lists first: left over by the budget, or with uploads that were due.
        backlog: as published by the last plan.
    """

    at: datetime | None = None
    full_at: datetime | None = None
    newest: Mapping[str, datetime] = field(default_factory=dict)
    queue: tuple[Scope, ...] = ()
    backlog: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listing:
    """One look at the bucket: what was found, whether everything was asked for, the requests it took, what to remember."""

    found: Discovery
    full: bool
    narrowed: bool
    requests: Mapping[str, int]
    remembered: Remembered


def read_remembered(store: ObjectStore) -> Remembered:
    """What the last run left, or nothing."""
    try:
        document = unseal(store.get(STATE), kind="discovery", key=STATE)
    except ObjectMissingError:
        return Remembered()
    return Remembered(
        at=_instant(document["at"]),
        full_at=_instant(document["full_at"]),
        newest={name: datetime.fromisoformat(second) for name, second in document["newest"].items()},
        queue=tuple(Scope(prefix, since) for prefix, since in document["queue"]),
        backlog=document["backlog"],
    )


def write_remembered(store: ObjectStore, state: Remembered) -> None:
    """For the next run."""
    document: dict[str, Any] = {
        "format": "akosha-discovery/1",
        "at": state.at.isoformat() if state.at else None,
        "full_at": state.full_at.isoformat() if state.full_at else None,
        "newest": {name: second.isoformat() for name, second in state.newest.items()},
        "queue": [[scope.prefix, scope.since] for scope in state.queue],
        "backlog": dict(state.backlog),
    }
    store.put(STATE, seal(document))


def look(lake: Lake, uploads: ObjectStore, narrowing: Narrowing, listing: str, at: datetime) -> Listing:
    """List the part of the bucket that is due at an instant.

    Args:
        lake: for heads, memos, what is remembered, and the budget.
        uploads: the uploads root.
        narrowing: what the run is limited to.
        listing: ``recent``, ``full``, or ``auto``: full when none was begun on the UTC day of `at`, else recent.
        at: the run's instant, not later than now.
    """
    before = _requests(lake.store, uploads)
    state = read_remembered(lake.store)
    if narrowing.wake and _is_overdue(state, at):
        # Wake-ups without end would take the scheduled runs' places: one of them then does what those do, too.
        woken = [scope_of(name, start_of(state.newest.get(name), at)) for name in narrowing.wake]
        state = replace(state, queue=tuple(queued([scope for scope in woken if can_be_listed(scope)], state.queue)))
        narrowing = replace(narrowing, wake=())
    full = listing == "full" or (listing == "auto" and not narrowing.wake and _full_is_due(state, at))
    heads = {} if full else newest_of_heads(lake)
    newest = _latest(heads, state.newest)
    after_heads = _requests(lake.store, uploads)
    scopes = _scopes(uploads, state, narrowing, newest, at=at, full=full)
    found = discover(uploads, lake.store, scopes, budget=lake.settings.list_budget, wanted=narrowing.wants)
    found.unusable += [scope.prefix for scope in map(scope_of, narrowing.systems) if not can_be_listed(scope)]
    after = _requests(lake.store, uploads)
    narrowed = narrowing != Narrowing()
    # What the heads know is not remembered: a full listing, which does not read them, keeps it for one run.
    latest = _latest(state.newest, found.newest)
    state = replace(
        state,
        newest={name: second for name, second in latest.items() if name not in heads or heads[name] < second},
        queue=tuple(queued((*(state.queue if narrowed else ()), *found.left), _with_due_uploads(found))),
    )
    if not narrowed:
        state = replace(state, at=max(at, state.at or at), full_at=at if full else state.full_at)
    requests = {"requests": after - before, "requests_for_heads": after_heads - before}
    return Listing(found, full, narrowed, requests, state)


def _is_overdue(state: Remembered, at: datetime) -> bool:
    return state.at is None or at - state.at >= SLOT


def remember(lake: Lake, listing: Listing, backlog: Mapping[str, int]) -> None:
    """Keep what the next run needs. A narrowed run leaves the backlog that was published for all."""
    state = listing.remembered
    write_remembered(lake.store, state if listing.narrowed else replace(state, backlog=backlog))


def look_again(lake: Lake, oldest: Mapping[str, str]) -> None:
    """Have the next run list some systems first, each from an upload id on, however old that is.

    Lost to a run that remembers at the same moment, it costs a delay: the next full listing finds what is due.
    """
    if oldest:
        state = read_remembered(lake.store)
        scopes = [scope_of(system_id, since) for system_id, since in sorted(oldest.items())]
        write_remembered(lake.store, replace(state, queue=tuple(queued(scopes, state.queue))))


def newest_of_heads(lake: Lake) -> dict[str, datetime]:
    """For each system the time of the newest manifest applied: a LIST and a GET for each shard in use."""
    return {
        system_id: datetime.fromisoformat(entry.newest_manifest)
        for head in lake.heads()
        for system_id, entry in head.keys.items()
    }


def known_systems(lake: Lake) -> set[str]:
    """Systems that heads and memory know."""
    return {*newest_of_heads(lake), *read_remembered(lake.store).newest}


def _scopes(
    uploads: ObjectStore,
    state: Remembered,
    narrowing: Narrowing,
    newest: Mapping[str, datetime],
    *,
    at: datetime,
    full: bool,
) -> list[Scope]:
    if narrowing.systems:
        waiting = {scope.prefix: scope.since for scope in state.queue}
        starts = {name: "" if full else start_of(newest.get(name), at) for name in narrowing.systems}
        named = [scope_of(name, since) for name, since in starts.items()]
        return [
            replace(scope, since=min(scope.since, waiting.get(scope.prefix, scope.since)))
            for scope in named
            if can_be_listed(scope)
        ]
    if full:
        return queued(() if narrowing.shard is not None else state.queue, first_folders(uploads))
    systems = find_systems(uploads, newest.keys())
    slots = slots_passed(state.at, at)
    if narrowing.shard is None:
        return queued(state.queue, due_scopes(systems, newest, at, slots))
    return due_scopes([name for name in systems if layout.shard_of(name) == narrowing.shard], newest, at, slots)


def _with_due_uploads(found: Discovery) -> list[Scope]:
    """Systems with due uploads are looked at again, from the oldest of these on, whatever became of the run."""
    return [scope_of(system_id, since) for system_id, since in oldest_of_each(found.due).items()]


def can_be_listed(scope: Scope) -> bool:
    """Whether a prefix made of a name that somebody gave stays below the root, on a file system too."""
    return not {"", ".", ".."} & set(scope.prefix[:-1].split("/"))


def _latest(*maps: Mapping[str, datetime]) -> dict[str, datetime]:
    latest: dict[str, datetime] = {}
    for newest in maps:
        for name, second in newest.items():
            latest[name] = max(second, latest.get(name, second))
    return latest


def _full_is_due(state: Remembered, at: datetime) -> bool:
    """Once for each day, UTC: the first run after midnight."""
    return state.full_at is None or state.full_at.astimezone(UTC).date() < at.astimezone(UTC).date()


def _requests(*stores: ObjectStore) -> int:
    return sum(store.requests.total for store in stores)


def _instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
