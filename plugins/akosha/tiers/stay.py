"""Which records stay in their tier, and why: arrays in, arrays out. docs/format.md, Policy documents, has it in words.

Each reason gives an instant until which a record stays; it leaves when all of them have passed. Instants are UTC
microseconds, int64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

# In the order in which they are named when several hold.
REASONS: Final = ("age", "pinned", "held", "residence", "importance", "access", "vector")
AGE: Final = 0
VECTOR: Final = REASONS.index("vector")
DUE: Final = -1
NEVER: Final = int(np.iinfo(np.int64).min)  # a reason that does not hold; a fact that is not known
FOREVER: Final = int(np.iinfo(np.int64).max)
DAY_US: Final = 86_400_000_000
# An access more than a day after the instant that decides is a clock gone wrong: it would hold its record for years.
AHEAD_US: Final = DAY_US

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Terms:
    """What the policy says of each row: days, int64 ``(n,)``; 0 and NaN = no reason to stay.

    Attributes:
        line_days: age at which it leaves its tier.
        residence_days: how long after its arrival it leaves at the earliest.
        importance_at_least, importance_days: from which importance it stays how much longer.
        access_days: how long after an access it stays.
        vector_days: how much longer it waits for a vector.
    """

    line_days: Ints
    residence_days: Ints
    importance_at_least: NDArray[np.float64]
    importance_days: Ints
    access_days: Ints
    vector_days: Ints


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of each row ``(n,)``; `NEVER` and NaN = not known.

    Attributes:
        created: when it was made.
        arrived: the end of the day on which its revision came into the lake.
        held: until when a promotion holds it.
        accessed: when its client last used it.
        importance: as its client says.
        pinned: whether the policy pins it.
        has_vector: whether it has one.
    """

    created: Ints
    arrived: Ints
    held: Ints
    accessed: Ints
    importance: NDArray[np.float64]
    pinned: NDArray[np.bool_]
    has_vector: NDArray[np.bool_]


def stays_until(facts: Facts, terms: Terms, as_of: int) -> Ints:
    """Until when each reason keeps each row, inclusive: int64 ``(len(REASONS), n)`` in the order of `REASONS`."""
    line = facts.created + terms.line_days * DAY_US
    known = facts.arrived != NEVER
    important = (facts.importance >= terms.importance_at_least) & (terms.importance_days > 0)
    accessed = (facts.accessed != NEVER) & (facts.accessed <= as_of + AHEAD_US) & (terms.access_days > 0)
    by_reason = {
        "age": line,
        "pinned": np.where(facts.pinned, FOREVER, NEVER),
        "held": np.where(facts.held != NEVER, np.where(facts.held != NEVER, facts.held, 0) - 1, NEVER),
        "residence": _after(facts.arrived, terms.residence_days, where=known & (terms.residence_days > 0)),
        "importance": np.where(important, line + terms.importance_days * DAY_US, NEVER),
        "access": _after(facts.accessed, terms.access_days, where=accessed),
        "vector": np.where(facts.has_vector, NEVER, line + terms.vector_days * DAY_US),
    }
    return np.stack([by_reason[reason].astype(np.int64) for reason in REASONS])


def first_reason(until: Ints, as_of: int) -> NDArray[np.int8]:
    """The first reason of `REASONS` that keeps each row at `as_of`, as its index; `DUE` for rows that leave.

    Args:
        until: as `stays_until` returned it.
        as_of: the instant that decides.
    """
    holds = until >= as_of
    return np.where(holds.any(axis=0), holds.argmax(axis=0), DUE).astype(np.int8)


def _after(start: Ints, days: Ints, *, where: NDArray[np.bool_]) -> Ints:
    moment: Ints = np.where(where, start, 0) + days * DAY_US
    return np.where(where, moment, NEVER)
