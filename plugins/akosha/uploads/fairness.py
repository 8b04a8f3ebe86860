"""Which of the due uploads a run takes, so that no system waits behind another's flood. Pure."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from akosha.uploads.memos import UploadRef
from akosha.uploads.schedule import second_of

# What an upload costs before its first row, as much as so many of its bytes.
UPLOAD_BYTES: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Share:
    """What one run may take at most; 0 = no limit. Bytes are packed ones, as listed."""

    system_uploads: int = 0
    system_bytes: int = 0
    run_uploads: int = 0
    run_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Backlog:
    """Uploads that are due and not taken: their number, packed bytes and systems, and the age of the oldest in seconds."""

    uploads: int = 0
    bytes: int = 0
    systems: int = 0
    oldest_seconds: int = 0


def share_out(due: Iterable[UploadRef], share: Share) -> tuple[list[UploadRef], list[UploadRef]]:
    """Deal the run out among systems: the one that has had least so far is next, and gives its oldest upload.

    Of several that have had nothing, the one whose oldest upload is oldest goes first: whoever has waited through one run
    comes before what is newer in the next. A system takes one upload at least, however large, and so does the run.

    Returns:
        Uploads to take, in the order they were dealt, and the rest, each system's oldest first. A system's rest is newer
        than what was taken of it.
    """
    waiting: dict[str, list[UploadRef]] = defaultdict(list)
    for ref in sorted(due, key=lambda ref: (ref.upload_id, ref.manifest_key), reverse=True):
        waiting[ref.system_id].append(ref)
    turns = [(0, refs[-1].upload_id, system_id) for system_id, refs in waiting.items()]
    heapq.heapify(turns)
    taken: list[UploadRef] = []
    had: dict[str, tuple[int, int]] = {}
    run_bytes = 0
    while turns:
        cost, _, system_id = heapq.heappop(turns)
        ref = waiting[system_id][-1]
        uploads, size = had.get(system_id, (0, 0))
        if taken and _beyond(len(taken), run_bytes + ref.packed_bytes, share.run_uploads, share.run_bytes):
            break
        if uploads and _beyond(uploads, size + ref.packed_bytes, share.system_uploads, share.system_bytes):
            continue
        taken.append(waiting[system_id].pop())
        run_bytes += ref.packed_bytes
        had[system_id] = (uploads + 1, size + ref.packed_bytes)
        if waiting[system_id]:
            next_cost = cost + UPLOAD_BYTES + ref.packed_bytes
            heapq.heappush(turns, (next_cost, waiting[system_id][-1].upload_id, system_id))
    return taken, [ref for refs in waiting.values() for ref in reversed(refs)]


def backlog_of(refs: Iterable[UploadRef], now: datetime) -> Backlog:
    """Add up what waits. An upload whose id names no second has no age, one dated in the future has waited 0 seconds."""
    refs = list(refs)
    seconds = [second for second in (second_of(ref.upload_id) for ref in refs) if second is not None]
    oldest = max(0, int((now - min(seconds)).total_seconds())) if seconds else 0
    return Backlog(len(refs), sum(ref.packed_bytes for ref in refs), len({ref.system_id for ref in refs}), oldest)


def _beyond(uploads: int, size: int, most_uploads: int, most_bytes: int) -> bool:
    return bool((most_uploads and uploads >= most_uploads) or (most_bytes and size > most_bytes))
