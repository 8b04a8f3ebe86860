"""The back-fill: chosen systems and dates once more. Ingestion is an upsert, so what has not changed is left as it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from akosha.errors import UsageError
from akosha.jobs.ingest import uploads_source, would_take, write_ingest_plan
from akosha.jobs.listing import NOT_NAMED, Narrowing, can_be_listed, known_systems
from akosha.jobs.plans import Plan, chosen_shards, open_lake
from akosha.lake.lake import Lake
from akosha.lake.objects import ObjectStore
from akosha.uploads.discovery import Discovery, discover, find_systems, first_folders
from akosha.uploads.memos import UploadRef
from akosha.uploads.schedule import Scope, scope_of, second_of, upload_second

NAMED: Final = 20  # unusable keys that a plan names; all are counted
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")

Text = str | None


@dataclass(frozen=True, slots=True)
class Interval:
    """Seconds of uploads, from `since` to before `until`; None = open."""

    since: datetime | None = None
    until: datetime | None = None

    @property
    def open(self) -> bool:
        """Whether every upload lies in it, those too whose id names no second."""
        return self.since is None and self.until is None

    def holds(self, ref: UploadRef) -> bool:
        """Whether an upload was made in it, by the second that its id begins with."""
        if self.open:
            return True
        second = second_of(ref.upload_id)
        return second is not None and (
            (self.since is None or self.since <= second) and (self.until is None or second < self.until)
        )

    def __str__(self) -> str:
        since, until = (end.isoformat() if end else "" for end in (self.since, self.until))
        return (
            "of any time"
            if self.open
            else " ".join(filter(None, [since and f"from {since}", until and f"before {until}"]))
        )


def plan_backfill(
    run_id: str,
    *,
    systems: Sequence[str] = (),
    shard: int | None = None,
    between: tuple[Text, Text] = (None, None),
    force: bool = False,
    dry_run: bool | None = None,
) -> Plan:
    """Plan to take in uploads of chosen systems and dates, whatever the schedule and the limits of a run say.

    Args:
        run_id: the run.
        systems: only these; empty = all.
        shard: only systems of this shard, 0-255.
        between: the first and the last moment of upload, ISO 8601, UTC where no zone is given; None = open. A plain date
            counts whole, a time as the end is not included.
        force: also take in what has a memo: what was applied, held nothing new, or is in quarantine.
        dry_run: only say what would be taken. None = when forced.

    Raises:
        UsageError: no such shard, a time that is none, or an end before its beginning.
    """
    if shard is not None:
        chosen_shards("", shard)
    interval = parse_interval(*between)
    dry = force if dry_run is None else dry_run
    lake = open_lake(to_write=not dry)
    uploads = uploads_source(lake.settings).store
    before = lake.store.requests.total + uploads.requests.total
    narrowing = Narrowing(shard=shard, wake=tuple(systems))
    found = _find(lake, uploads, narrowing, interval, force=force)
    said = would_take(lake, found.due)
    about: dict[str, Any] = {
        "requests": lake.store.requests.total + uploads.requests.total - before,
        "parts_listed": found.scopes,
        "systems_listed": len(found.systems),
        "manifests_listed": found.manifests,
        "unusable_keys": len(found.unusable),
        "with_memo": found.known if force else 0,
        "due": len(found.due),
        "planned": 0 if dry else len(found.due),
        "planned_bytes": 0 if dry else sum(ref.packed_bytes for ref in found.due),
        "force": force,
        "dry_run": dry,
        "interval": str(interval),
        "unusable": found.unusable[:NAMED],
        **(said if dry else {"estimate": said["estimate"]}),
    }
    plan = write_ingest_plan(lake, run_id, () if dry else found.due, _message(found, interval, systems, dry=dry), about)
    return {**plan, "estimate": said["estimate"]}


def parse_interval(since: Text, until: Text) -> Interval:
    """The interval between two texts; a date as the end is included whole.

    Raises:
        UsageError: not a time, or nothing lies between them.
    """
    interval = Interval(_moment(since, "the beginning"), _moment(until, "the end", whole_day=True))
    if interval.since and interval.until and interval.since >= interval.until:
        message = f"nothing lies between {since} and {until}: the beginning must come before the end"
        raise UsageError(message)
    return interval


def _moment(text: Text, what: str, *, whole_day: bool = False) -> datetime | None:
    if not text:
        return None
    try:
        instant = datetime.fromisoformat(text)
        instant = instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
        return instant + timedelta(days=1) if whole_day and _DAY.fullmatch(text) else instant
    except (ValueError, OverflowError):
        message = f"{what} must be a date or a time such as 2026-11-20 or 2026-11-20T02:30:00+00:00, found {text!r}"
        raise UsageError(message) from None


def _find(lake: Lake, uploads: ObjectStore, narrowing: Narrowing, interval: Interval, *, force: bool) -> Discovery:
    wanted: Callable[[UploadRef], bool] = lambda ref: narrowing.wants(ref) and interval.holds(ref)  # noqa: E731
    return discover(uploads, lake.store, _scopes(lake, uploads, narrowing, interval), wanted=wanted, again=force)


def _scopes(lake: Lake, uploads: ObjectStore, narrowing: Narrowing, interval: Interval) -> list[Scope]:
    """Each system from the interval's beginning to its end; without an interval everything, whoever it belongs to."""
    if not narrowing.systems and interval.open:
        return first_folders(uploads)
    since, until = (upload_second(end) if end else "" for end in (interval.since, interval.until))
    names = narrowing.systems or find_systems(uploads, known_systems(lake))
    scopes = [scope_of(name, since, until) for name in names]
    if not all(can_be_listed(scope) for scope in scopes):
        raise UsageError(NOT_NAMED)
    return scopes


def _message(found: Discovery, interval: Interval, systems: Sequence[str], *, dry: bool) -> str:
    size = sum(ref.packed_bytes for ref in found.due) / 1e6
    message = (
        f"{len(found.due)} uploads of {len({ref.system_id for ref in found.due})} systems, {size:,.1f} MB, {interval}, "
        f"{'would be' if dry else 'are'} taken in; {found.known} of the {found.manifests} listed have a memo"
    )
    none = sorted(set(systems) - found.systems)
    if none:
        message += f"; nothing was found of {', '.join(map(repr, none[:5]))}"
    return f"dry run: {message}" if dry else message
