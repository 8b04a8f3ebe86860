"""Finding uploads that have no memo yet. The listing is the truth; a stale one only delays.

A manifest is the commit marker of an upload, so only manifests are looked for. What is listed is decided by `schedule`;
here it is read, within a budget of requests, and compared with the memos of the days that came up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import partial
from itertools import chain
from typing import Final

from akosha.errors import InvalidUploadError
from akosha.lake import layout
from akosha.lake.objects import ObjectInfo, ObjectStore
from akosha.uploads.manifest import split_upload_key
from akosha.uploads.memos import UNDATED, KnownMemos, UploadRef, quarantined_names
from akosha.uploads.memos import known_memos as memos_of_days
from akosha.uploads.schedule import UPLOADS, Scope, second_of
from akosha.uploads.together import together

SYSTEMS: Final = "systems/"
MANIFEST: Final = "/manifest.json"
MAX_DEPTH: Final = 8
# So many uploads are held before their memos are looked up: it bounds memory, and comes to few listings of a shard.
CHUNK: Final = 20_000
LISTED_AT_ONCE: Final = 8  # scopes: a listing waits for its store far longer than it computes
# Days without uploads that a listing of memos reads past rather than start again.
DAY_GAP: Final = timedelta(days=3)


@dataclass(slots=True)
class Discovery:
    """What a listing found.

    Attributes:
        scopes: parts of the root that were listed.
        systems: systems with uploads among them, by id.
        manifests: manifests seen.
        known: of these, how many have a memo.
        due: uploads that are wanted, in order of listing.
        unusable: manifests under keys that cannot be one.
        newest: for each system the second of the newest upload seen that has a memo.
        left: scopes that the budget left over, in order.
    """

    scopes: int = 0
    systems: set[str] = field(default_factory=set)
    manifests: int = 0
    known: int = 0
    due: list[UploadRef] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    newest: dict[str, datetime] = field(default_factory=dict)
    left: list[Scope] = field(default_factory=list)


def discover(
    uploads: ObjectStore,
    lake: ObjectStore,
    scopes: Sequence[Scope],
    *,
    budget: int = 0,
    wanted: Callable[[UploadRef], bool] | None = None,
    again: bool = False,
) -> Discovery:
    """List parts of the uploads root and keep what has no memo.

    Args:
        uploads: the uploads root.
        lake: where memos lie.
        scopes: what to list, the most urgent first.
        budget: LIST requests to spend, 0 = no limit. At least one scope is listed, and one that was begun is listed to
            its end, so that every scope has its turn however small the budget is.
        wanted: leaves out what it refuses; None = everything.
        again: also keep what has a memo.
    """
    found = Discovery()
    spent = _Spent(uploads, lake)
    seen: dict[str, UploadRef] = {}
    at_once = 1 if budget else LISTED_AT_ONCE  # under a budget the next one depends on what is left
    for number in range(0, len(scopes), at_once):
        if budget and number and spent.lists + len({ref.shard for ref in seen.values()}) >= budget:
            found.left = list(scopes[number:])
            break
        for future in together(partial(list_manifests, uploads), scopes[number : number + at_once], at_once):
            listed = future.result()
            found.scopes += 1
            found.unusable += listed.unusable
            seen |= {ref.manifest_key: ref for ref in listed.refs if wanted is None or wanted(ref)}
        if len(seen) >= CHUNK:
            _take(found, lake, seen.values(), again=again)
            seen.clear()
    _take(found, lake, seen.values(), again=again)
    return found


def find_systems(uploads: ObjectStore, known: Collection[str]) -> list[str]:
    """System ids that have uploads: one listing of the first folders, and one of each folder that is not known.

    An id may hold slashes, so a folder is followed until one is named ``uploads``. A system that is known is taken as it
    is; a new one nested below it is found by the next full listing.
    """
    parents = {"/".join(parts[:at]) for parts in (name.split("/") for name in known) for at in range(1, len(parts))}
    return sorted(set(_systems_below(uploads, known, parents, "", 0)))


def first_folders(uploads: ObjectStore) -> list[Scope]:
    """Everything, as one scope for each first folder; by shard, so that the memos of a shard are looked at once."""
    names = sorted(uploads.list_folders(SYSTEMS), key=lambda name: (layout.shard_of(name), name))
    return [Scope(f"{name}/") for name in names]


def _systems_below(
    uploads: ObjectStore, known: Collection[str], parents: set[str], below: str, depth: int
) -> Iterator[str]:
    unknown: list[str] = []
    for name in uploads.list_folders(f"{SYSTEMS}{below}"):
        folder = below + name
        if name == UPLOADS and below:
            yield below[:-1]
        elif folder in known and folder not in parents:
            yield folder
        elif depth < MAX_DEPTH:
            unknown.append(f"{folder}/")

    def look_into(folder: str) -> list[str]:
        return list(_systems_below(uploads, known, parents, folder, depth + 1))

    if depth:  # within a thread of the first level
        yield from chain.from_iterable(map(look_into, unknown))
    else:
        yield from chain.from_iterable(future.result() for future in together(look_into, unknown, LISTED_AT_ONCE))


@dataclass(frozen=True, slots=True)
class Manifests:
    """Uploads of one scope in order of their keys, and manifests whose keys cannot be one (control characters, too long)."""

    refs: list[UploadRef] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)


def list_manifests(uploads: ObjectStore, scope: Scope) -> Manifests:
    """List one scope."""
    result = Manifests()
    prefix = f"{SYSTEMS}{scope.prefix}"
    manifests: dict[str, ObjectInfo] = {}
    others: dict[str, _Others] = defaultdict(_Others)
    for listed in uploads.list(prefix, start_after=f"{prefix}{scope.since}" if scope.since else ""):
        if scope.until and listed.key[len(prefix) :] >= scope.until:
            break
        folder = listed.key.rpartition("/")[0]
        if listed.key.endswith(MANIFEST):
            manifests[folder] = listed
        else:
            others[folder].add(listed)
    for folder, listed in manifests.items():
        try:
            key = split_upload_key(listed.key)
        except InvalidUploadError:
            if f"/{UPLOADS}/" in listed.key:
                result.unusable.append(listed.key)
            continue
        found = others[folder]
        beside = found.name if found.count == 1 else ""
        result.refs.append(UploadRef(listed.key, listed.etag, key.system_id, key.upload_id, found.bytes, beside=beside))
    return result


@dataclass(slots=True)
class _Others:
    """What lies beside a manifest: how many objects, how large together, and the name of one of them."""

    count: int = 0
    bytes: int = 0
    name: str = ""

    def add(self, listed: ObjectInfo) -> None:
        self.count += 1
        self.bytes += listed.size_bytes
        self.name = listed.key.rpartition("/")[2]


class _Spent:
    """LIST requests of two stores since it was made."""

    def __init__(self, *stores: ObjectStore) -> None:
        self._counts = {id(store.requests): store.requests for store in stores}.values()
        self._before = sum(count.lists for count in self._counts)

    @property
    def lists(self) -> int:
        return sum(count.lists for count in self._counts) - self._before


def _take(found: Discovery, lake: ObjectStore, refs: Iterable[UploadRef], *, again: bool) -> None:
    refs = list(refs)
    memos = known_memos(lake, refs)
    for ref in refs:
        found.manifests += 1
        found.systems.add(ref.system_id)
        known = ref.memo_key in memos.names
        found.known += known
        if known:
            _later(found.newest, ref)
        if again or not known:
            undone = memos.undone.get(ref.memo_key, 0)
            found.due.append(replace(ref, undone=undone) if undone else ref)


def _later(newest: dict[str, datetime], ref: UploadRef) -> None:
    second = second_of(ref.upload_id)
    if second is not None and (ref.system_id not in newest or newest[ref.system_id] < second):
        newest[ref.system_id] = second


def known_memos(lake: ObjectStore, refs: Iterable[UploadRef]) -> KnownMemos:
    """The memos there are, of the shards and days of some uploads: one LIST for each run of days of a shard."""
    days: dict[int, set[str]] = defaultdict(set)
    for ref in refs:
        days[ref.shard].add(ref.day)
    found = KnownMemos(quarantined_names(lake) if days else set())
    for shard in days:
        for run in _day_runs(days[shard]):
            memos = memos_of_days(lake, shard, *run)
            found.names |= memos.names
            found.undone |= memos.undone
    return found


def _day_runs(days: set[str]) -> list[tuple[str, str]]:
    """First and last of each run of days; `UNDATED` stands alone."""
    runs = [(UNDATED, UNDATED)] if UNDATED in days else []
    for day in sorted(days - {UNDATED}):
        last = runs[-1][1] if runs else UNDATED
        if last != UNDATED and date.fromisoformat(day) - date.fromisoformat(last) <= DAY_GAP:
            runs[-1] = (runs[-1][0], day)
        else:
            runs.append((day, day))
    return runs


def oldest_of_each(refs: Iterable[UploadRef]) -> Mapping[str, str]:
    """For each system the first upload id among its uploads."""
    oldest: dict[str, str] = {}
    for ref in refs:
        oldest[ref.system_id] = min(ref.upload_id, oldest.get(ref.system_id, ref.upload_id))
    return oldest
