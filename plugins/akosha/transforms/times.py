"""When a record was made: UTC from what a client left behind.

Clients store naive local wall-clock time and do not name their zone. Some rows carry better evidence: a time inside the
id, or an explicit UTC time in the metadata. Those rows also tell the zone of their neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

EVIDENCE: Final = ("id", "extracted_at", "offset", "manifest", "none")
ID, EXTRACTED_AT, OFFSET, MANIFEST, NONE = range(len(EVIDENCE))
NAT: Final = int(np.iinfo(np.int64).min)  # numpy's NaT, as an integer
EARLIEST_US: Final = 1_420_070_400_000_000  # 2015-01-01
MINUTE_US: Final = 60_000_000
HOUR_US: Final = 60 * MINUTE_US
FUTURE_US: Final = 48 * HOUR_US  # how far past the manifest a client's clock may be believed
QUARTER_US: Final = 15 * MINUTE_US  # every civil UTC offset is a multiple of 15 minutes
ANCHOR_TOLERANCE_US: Final = 2 * MINUTE_US
GUESS_TOLERANCE_US: Final = 5 * MINUTE_US
SMALLEST_OFFSET_US: Final = -12 * HOUR_US
LARGEST_OFFSET_US: Final = 14 * HOUR_US
RARE: Final = 50  # an offset seen by fewer than one anchor in 50 is a coincidence: a migrated row, a clock being set

_ULID_CHARACTERS = 26
_UUID_CHARACTERS = 32
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_HEX = "0123456789ABCDEF"


@dataclass(frozen=True, slots=True)
class OffsetUsed:
    """A UTC offset of the client, local minus UTC, with what showed it: so many anchors, or a guess by the manifest."""

    offset_us: int
    evidence: str
    support: int


@dataclass(frozen=True, slots=True)
class InferredTimes:
    """UTC microseconds int64 ``(n,)`` and evidence uint8 ``(n,)``, an index into `EVIDENCE`: the smaller the better."""

    created_us: NDArray[np.int64]
    evidence: NDArray[np.uint8]
    offsets: tuple[OffsetUsed, ...]


@dataclass(frozen=True, slots=True)
class IdTimes:
    """What ids say of time.

    Attributes:
        times_us: UTC microseconds, int64 ``(n,)``; `NAT` for an id without one.
        bare: whether the id is 32 characters without dashes, bool ``(n,)``: a digest may look like a time there.
    """

    times_us: NDArray[np.int64]
    bare: NDArray[np.bool_]


def times_in_ids(batches: Iterable[list[str]]) -> IdTimes:
    """The times inside ids that come in batches, so that the ids need never be in memory at once."""
    times, bare = [np.empty(0, np.int64)], [np.empty(0, np.bool_)]
    for ids in batches:
        times.append(time_in_id(ids))
        bare.append(np.fromiter((len(text) == _UUID_CHARACTERS for text in ids), np.bool_, len(ids)))
    return IdTimes(np.concatenate(times), np.concatenate(bare))


def time_in_id(ids: list[str]) -> NDArray[np.int64]:
    """The time inside ULIDs (26 Crockford characters) and UUIDv7s (hex, with or without dashes).

    Args:
        ids: record ids of any form.

    Returns:
        UTC microseconds (whole milliseconds), int64 ``(n,)``; `NAT` for every other id and for times before 2015.
    """
    times = np.full(len(ids), NAT, dtype=np.int64)
    lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
    ulids = np.flatnonzero(lengths == _ULID_CHARACTERS)
    times[ulids] = _ulid_times([ids[i] for i in ulids])
    uuids = np.flatnonzero((lengths == _UUID_CHARACTERS) | (lengths == _UUID_CHARACTERS + 4))
    times[uuids] = _uuid7_times([ids[i].replace("-", "") for i in uuids])
    times[times < EARLIEST_US] = NAT
    return times


def infer_times(
    in_ids: IdTimes,
    local_us: NDArray[np.int64],
    extracted_us: NDArray[np.int64],
    manifest_us: int,
    checkpoint_us: NDArray[np.int64] | None = None,
) -> InferredTimes:
    """UTC time of each row of one upload by the best evidence it has.

    In order: the time inside the id; metadata.extracted_at; local time minus the offset of the nearest anchor (a row
    with a local time and a known UTC time), nearest in local time so that a change of daylight saving inside the upload
    is followed; without anchors local time minus an offset guessed from the newest row and the manifest; the manifest's
    time.

    Args:
        in_ids: what the n record ids say.
        local_us: naive local time as microseconds, int64 ``(n,)``; `NAT` = unknown.
        extracted_us: metadata.extracted_at, UTC microseconds, int64 ``(n,)``; `NAT` = unknown.
        manifest_us: manifest time, UTC microseconds; no inferred time lies after it.
        checkpoint_us: further known UTC times that only serve as anchors, like `extracted_us`.
    """
    latest = manifest_us + FUTURE_US
    from_id = _consistent(in_ids, latest, local_us)
    extracted = _believable(extracted_us, latest)
    known = np.where(from_id != NAT, from_id, extracted)
    anchors = known if checkpoint_us is None else np.where(known != NAT, known, _believable(checkpoint_us, latest))

    created = np.full(len(local_us), manifest_us, dtype=np.int64)
    evidence = np.full(len(local_us), NONE, dtype=np.uint8)
    has_local = local_us != NAT
    offsets: tuple[OffsetUsed, ...] = ()
    if has_local.any():
        row_offsets, rank, offsets = _offsets(local_us, anchors, manifest_us)
        created[has_local] = np.minimum(local_us[has_local] - row_offsets[has_local], manifest_us)
        evidence[has_local] = rank
    for rank, times in ((EXTRACTED_AT, extracted), (ID, from_id)):
        created = np.where(times != NAT, times, created)
        evidence[times != NAT] = rank
    return InferredTimes(created, evidence, offsets)


def _offsets(
    local_us: NDArray[np.int64], anchors: NDArray[np.int64], manifest_us: int
) -> tuple[NDArray[np.int64], int, tuple[OffsetUsed, ...]]:
    """The offset of every row (of no meaning where it has no local time), its evidence, and what was used."""
    at, measured = _measured(local_us, anchors)
    if len(at) == 0:
        offset = _guessed(int(local_us.max()), manifest_us)
        return np.full(len(local_us), offset, dtype=np.int64), MANIFEST, (OffsetUsed(offset, EVIDENCE[MANIFEST], 0),)
    right = np.clip(np.searchsorted(at, local_us), 0, len(at) - 1)
    left = np.maximum(right - 1, 0)
    nearest = np.where(np.abs(local_us - at[left]) <= np.abs(at[right] - local_us), left, right)
    values, support = np.unique(measured, return_counts=True)
    used = tuple(OffsetUsed(int(v), EVIDENCE[OFFSET], int(n)) for v, n in zip(values, support, strict=True))
    return measured[nearest], OFFSET, used


def _measured(local_us: NDArray[np.int64], anchors: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Local times of the anchors, ascending, and the offset that each shows, in whole quarters of an hour."""
    rows = np.flatnonzero((local_us != NAT) & (anchors != NAT))
    local = local_us[rows]
    raw = local - anchors[rows]
    offset = _quarters(raw)
    fits = np.abs(raw - offset) <= ANCHOR_TOLERANCE_US
    fits &= (offset >= SMALLEST_OFFSET_US) & (offset <= LARGEST_OFFSET_US)
    local, offset = local[fits], offset[fits]
    values, index, support = np.unique(offset, return_inverse=True, return_counts=True)
    common = (support * RARE >= len(offset))[index] if len(values) else np.empty(0, dtype=bool)
    local, offset = local[common], offset[common]
    order = np.lexsort((offset, local))
    return local[order], offset[order]


def _guessed(newest_local_us: int, manifest_us: int) -> int:
    """The offset that puts the newest row just before the manifest; else UTC, unless that is in the future."""
    raw = newest_local_us - manifest_us
    offset = -(-raw // QUARTER_US) * QUARTER_US  # rounded up: the newest row is not after the manifest
    if SMALLEST_OFFSET_US <= offset <= LARGEST_OFFSET_US and offset - raw <= GUESS_TOLERANCE_US:
        return offset
    return min(max(offset, 0), LARGEST_OFFSET_US)


def _quarters(raw: NDArray[np.int64]) -> NDArray[np.int64]:
    return (raw + QUARTER_US // 2) // QUARTER_US * QUARTER_US


def _believable(times: NDArray[np.int64], latest_us: int) -> NDArray[np.int64]:
    return np.where((times >= EARLIEST_US) & (times <= latest_us), times, NAT)


def _consistent(in_ids: IdTimes, latest_us: int, local_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Times inside ids up to `latest_us`, without those of bare hex ids that no zone can reconcile with the row's local time.

    Older clients use MD5 digests as ids; one in 64 looks like a UUIDv7.
    """
    times = in_ids.times_us
    offset = local_us - times  # of no meaning where either is unknown
    wrong = (offset < SMALLEST_OFFSET_US - HOUR_US) | (offset > LARGEST_OFFSET_US + HOUR_US)
    wrong &= in_ids.bare & (local_us != NAT)
    return np.where(wrong | (times > latest_us), NAT, times)


def _ulid_times(ids: list[str]) -> NDArray[np.int64]:
    digits = _digits(ids, _ULID_CHARACTERS, _CROCKFORD)
    valid = (digits >= 0).all(axis=1) & (digits[:, 0] <= 7)  # 26 x 5 bits are two more than 128
    return np.where(valid, _number(digits[:, :10], 5) * 1_000, NAT)


def _uuid7_times(ids: list[str]) -> NDArray[np.int64]:
    digits = _digits([text if len(text) == _UUID_CHARACTERS else "" for text in ids], _UUID_CHARACTERS, _HEX)
    variant = digits[:, 16] >> 2
    valid = (digits >= 0).all(axis=1) & (digits[:, 12] == 7) & (variant == 2)  # RFC 9562
    return np.where(valid, _number(digits[:, :12], 4) * 1_000, NAT)


def _digits(ids: list[str], width: int, alphabet: str) -> NDArray[np.int64]:
    """Values of the characters, int64 ``(n, width)``; -1 for one that is not in `alphabet`, in either case."""
    table = np.full(129, -1, dtype=np.int64)
    for value, letter in enumerate(alphabet):
        table[[ord(letter), ord(letter.lower())]] = value
    letters = np.array(ids, dtype=f"U{width}").view(np.uint32).reshape(len(ids), width)
    return table[np.minimum(letters, 128)]


def _number(digits: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Each row as one number, most significant digit first, `bits` per digit."""
    weights = np.int64(1) << (bits * np.arange(digits.shape[1] - 1, -1, -1, dtype=np.int64))
    return digits @ weights
