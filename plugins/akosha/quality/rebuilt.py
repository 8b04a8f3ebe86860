"""Comparing a live lake with one that was rebuilt from the uploads, record by record. Pure.

Equal means: key, tier at the same as_of, created_at, content and its digest, summary, fingerprint, project, metadata;
vectors at cosine `COSINE` or more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from akosha.lake.columns import vectors_of
from akosha.lake.schemas import CLIENT_MODEL, DIMENSION, KEY
from akosha.transforms.quantization import dequantize, quantize

Key = tuple[str, str, str]
Vector = NDArray[np.float32]
COSINE: Final = 0.9999
NAMED: Final = 20
AGES: Final = {"hot": 0, "warm": 1, "cold": 2}
_EQUAL: Final = ("created_at", "content_sha256", "content", "fingerprint", "project", "metadata")
_READ: Final = (*KEY, "tier", *_EQUAL, "summary", "embedding_model")


@dataclass(frozen=True, slots=True)
class Allowed:
    """What may differ, and why, in one shard.

    Attributes:
        excluded: live records of which an upload that decided something no longer exists.
        late: records that were taken in after the last move of their shard: they are younger in the live lake.
        held: records on hold: no move touches them for a while.
        incomplete: systems of which records may be in the rebuilt lake only, since uploads that took them away are gone.
    """

    excluded: Set[Key] = frozenset()
    late: Set[Key] = frozenset()
    held: Set[Key] = frozenset()
    incomplete: Set[str] = frozenset()


@dataclass(slots=True)
class Comparison:
    """Counts by outcome, the first differences, and the smallest cosine seen (1 = no vector compared)."""

    counts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    differences: list[dict[str, Any]] = field(default_factory=list)
    least_cosine: float = 1.0

    def differ(self, what: str, key: Key, found: str) -> None:
        """Note a difference."""
        self.kinds[what] += 1
        if len(self.differences) < NAMED:
            self.differences.append({"what": what, "key": list(key), "found": found})


def compare(
    live: pa.Table, rebuilt: pa.Table, allowed: Allowed, made: Mapping[Key, Vector | None], into: Comparison
) -> None:
    """Compare one shard.

    Args:
        live: its export, schema ``EXPORT``.
        rebuilt: that of the rebuilt lake, after the same moves.
        allowed: what may differ.
        made: vectors of the records of which the live one has a vector of our own, made anew; None = that model is not here.
        into: takes the outcome.
    """
    ours, theirs = _rows(live), _rows(rebuilt)
    for key, row in ours.items():
        into.counts["records"] += 1
        if key in allowed.excluded:
            into.counts["excluded"] += 1
        elif key not in theirs:
            into.differ("missing", key, "no upload brings it: it is in the live lake only")
        else:
            before = into.kinds.total()
            _compare_row(key, row, theirs[key], allowed, into)
            _compare_vectors(key, row, theirs[key], made, into)
            into.counts["equal"] += into.kinds.total() == before
    for key in theirs.keys() - ours.keys():
        if key[0] in allowed.incomplete:
            into.counts["not judged, since uploads that took records away are gone"] += 1
        else:
            into.differ("unknown to the live lake", key, f"the uploads bring it, {theirs[key]['tier']}")


def _rows(table: pa.Table) -> dict[Key, dict[str, Any]]:
    rows = table.select(_READ).to_pylist()
    vectors, present = vectors_of(table.column("embedding"))
    places = iter(range(len(vectors)))
    packed, scales = table.column("codes").to_pylist(), table.column("scale").to_pylist()
    for row, has, codes, scale in zip(rows, present, packed, scales, strict=True):
        row["float"] = vectors[next(places)] if has else None
        row["decoded"] = None if codes is None else _decoded(codes, scale)
    return {(row["system_id"], row["source_table"], row["record_id"]): row for row in rows}


def _decoded(codes: bytes, scale: float) -> Vector:
    quantised = np.frombuffer(codes, np.int8).reshape(1, DIMENSION)
    decoded: Vector = dequantize(quantised, np.array([scale], np.float32))[0]
    return decoded


def _compare_row(key: Key, live: dict[str, Any], rebuilt: dict[str, Any], allowed: Allowed, into: Comparison) -> None:
    younger = AGES[live["tier"]] < AGES[rebuilt["tier"]]
    if live["tier"] == rebuilt["tier"]:
        if live["summary"] != rebuilt["summary"]:
            into.differ("summary", key, f"{live['summary']!r}, rebuilt {rebuilt['summary']!r}")
    elif key in allowed.held:
        into.counts["on hold, tier not compared"] += 1
    elif younger and key in allowed.late:
        into.counts["taken in after the last move"] += 1
    else:
        into.differ("tier", key, f"{live['tier']}, rebuilt {rebuilt['tier']}")
    for name in _EQUAL:
        if live[name] != rebuilt[name]:
            into.differ(name, key, f"{_shown(live[name])}, rebuilt {_shown(rebuilt[name])}")


def _compare_vectors(
    key: Key, live: dict[str, Any], rebuilt: dict[str, Any], made: Mapping[Key, Vector | None], into: Comparison
) -> None:
    mine = live["decoded"] if live["float"] is None else live["float"]
    if mine is None:
        into.counts["without a vector"] += 1
        if rebuilt["embedding_model"] == CLIENT_MODEL:
            into.differ("vector", key, "none, but its upload has one")
        return
    other = made[key] if key in made else rebuilt["float"] if rebuilt["float"] is not None else rebuilt["decoded"]
    if other is None:
        into.counts["vectors of a model that is not here"] += key in made
        if key not in made:
            into.differ("vector", key, f"one of {live['embedding_model']}, rebuilt none")
        return
    if live["float"] is None:
        codes, scales = quantize(other.reshape(1, DIMENSION))
        other = dequantize(codes, scales)[0]
    cosine = _cosine(mine, other)
    into.least_cosine = min(into.least_cosine, cosine)
    into.counts["vectors"] += 1
    if cosine < COSINE:
        into.differ("vector", key, f"cosine {cosine:.6f}")


def _cosine(one: Vector, other: Vector) -> float:
    first, second = one.astype(np.float64), other.astype(np.float64)
    length = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / length if length else float(np.array_equal(first, second))


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()[:16]
    return repr(value)[:80]
