"""Finding uploads that have no memo yet. The listing is the truth; a stale one only delays.

A manifest is the commit marker of an upload, so only manifests are looked for. A recent listing starts 48 hours before
the newest upload day a system was applied through, and costs what is new; a full listing walks everything and picks
up whatever has no memo, however late it came.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from akosha.errors import InvalidUploadError
from akosha.lake.objects import ObjectInfo, ObjectStore
from akosha.uploads.manifest import split_upload_key
from akosha.uploads.memos import UNDATED, UploadRef, memo_names, quarantined_names

SYSTEMS: Final = "systems/"
UPLOADS: Final = "uploads"
MANIFEST: Final = "/manifest.json"
LOOK_BACK: Final = timedelta(hours=48)
MAX_DEPTH: Final = 8


@dataclass(slots=True)
class Discovery:
    """What a listing found: systems and manifests seen, the uploads that are due, and manifests under unusable keys."""

    systems: int = 0
    manifests: int = 0
    due: list[UploadRef] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)


def discover(
    uploads: ObjectStore,
    lake: ObjectStore,
    *,
    newest: Mapping[str, datetime],
    system: str = "",
    shard: int | None = None,
) -> Discovery:
    """List the uploads bucket and keep what has no memo.

    Args:
        uploads: the uploads root.
        lake: where memos lie.
        newest: for each system, up to when it was applied: listing starts `LOOK_BACK` before. Empty = full listing.
        system: only this system.
        shard: only systems of this shard.
    """
    found = Discovery()
    refs: list[UploadRef] = []
    for system_id in list_systems(uploads):
        if system and system_id != system:
            continue
        listed = [
            ref
            for ref in list_manifests(uploads, system_id, newest.get(system_id), found.unusable)
            if shard is None or ref.shard == shard
        ]
        found.systems += bool(listed)
        found.manifests += len(listed)
        refs += listed
    known = _known_memos(lake, refs)
    found.due = [ref for ref in refs if ref.memo_key not in known]
    return found


def list_systems(uploads: ObjectStore, below: str = "", depth: int = 0) -> Iterator[str]:
    """System ids that have uploads. An id may hold slashes: folders are followed until one is named ``uploads``."""
    for name in uploads.list_folders(f"{SYSTEMS}{below}"):
        if name == UPLOADS and below:
            yield below[:-1]
        elif depth < MAX_DEPTH:
            yield from list_systems(uploads, f"{below}{name}/", depth + 1)


def list_manifests(
    uploads: ObjectStore, system_id: str, newest: datetime | None, unusable: list[str]
) -> Iterator[UploadRef]:
    """Manifests of one system in order of their keys, from `LOOK_BACK` before `newest` on.

    A manifest whose key cannot be one (control characters, too long) goes to `unusable`, for the operator to see.
    """
    prefix = f"{SYSTEMS}{system_id}/{UPLOADS}/"
    after = f"{prefix}{(newest - LOOK_BACK).astimezone(UTC):%Y%m%d_%H%M%S}" if newest else ""
    manifests: dict[str, ObjectInfo] = {}
    sizes: Counter[str] = Counter()
    for listed in uploads.list(prefix, start_after=after):
        folder = listed.key.rpartition("/")[0]
        if listed.key.endswith(MANIFEST):
            manifests[folder] = listed
        else:
            sizes[folder] += listed.size_bytes
    for folder, listed in manifests.items():
        try:
            key = split_upload_key(listed.key)
        except InvalidUploadError:
            unusable.append(listed.key)
            continue
        yield UploadRef(listed.key, listed.etag, key.system_id, key.upload_id, sizes[folder])


def _known_memos(lake: ObjectStore, refs: Iterable[UploadRef]) -> set[str]:
    since: dict[int, str] = {}
    for ref in refs:
        day = ref.day if ref.day != UNDATED else "9999"
        since[ref.shard] = min(since.get(ref.shard, "9999"), day)
    aside = quarantined_names(lake) if since else set()
    return aside.union(*(memo_names(lake, shard, day) for shard, day in since.items()))
