"""Which records stay and why, against the same rules written for one record in plain Python."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from akosha.tiers.due import instant_of, microseconds
from akosha.tiers.stay import DUE, FOREVER, NEVER, REASONS, Facts, Terms, first_reason, stays_until

NOW = datetime(2026, 11, 20, 2, 30, tzinfo=UTC)
DAY = timedelta(days=1)


@dataclass
class Record:
    """One record and the policy of its system, as a person would say it."""

    created: datetime
    arrived: datetime | None
    held: datetime | None
    accessed: datetime | None
    importance: float | None
    pinned: bool
    has_vector: bool
    line_days: int
    residence_days: int
    importance_at_least: float | None
    importance_days: int
    access_days: int
    vector_days: int

    def why_it_stays(self, as_of: datetime) -> str:  # noqa: C901 - one line for each reason
        """The rule of docs/format.md, a sentence at a time."""
        if as_of - self.created <= self.line_days * DAY:
            return "age"
        if self.pinned:
            return "pinned"
        if self.held is not None and as_of < self.held:
            return "held"
        if self.residence_days and self.arrived is not None and as_of - self.arrived <= self.residence_days * DAY:
            return "residence"
        if (
            self.importance_days
            and self.is_important
            and as_of - self.created <= (self.line_days + self.importance_days) * DAY
        ):
            return "importance"
        if self.access_days and self.accessed is not None and self.accessed <= as_of + DAY:  # noqa: SIM102
            if as_of - self.accessed <= self.access_days * DAY:
                return "access"
        if not self.has_vector and as_of - self.created <= (self.line_days + self.vector_days) * DAY:
            return "vector"
        return ""

    @property
    def is_important(self) -> bool:
        return (
            self.importance is not None
            and self.importance_at_least is not None
            and self.importance >= self.importance_at_least
        )


# Whole days and hours around the lines, so that instants often meet them exactly.
moments = st.integers(-40 * 24, 4 * 24).map(lambda hours: NOW + timedelta(hours=hours))
days = st.integers(0, 20)
shares = st.sampled_from([0.0, 0.25, 0.5, 1.0])
records = st.builds(
    Record,
    created=moments,
    arrived=st.none() | moments,
    held=st.none() | moments,
    accessed=st.none() | moments,
    importance=st.none() | shares,
    pinned=st.sampled_from([False, False, False, True]),
    has_vector=st.booleans(),
    line_days=st.integers(1, 20),
    residence_days=days,
    importance_at_least=st.none() | shares,
    importance_days=days,
    access_days=days,
    vector_days=days,
)


def facts_of(rows: list[Record]) -> Facts:
    def moments_of(name: str) -> np.ndarray:
        found = [getattr(row, name) for row in rows]
        return np.array([NEVER if moment is None else microseconds(moment) for moment in found], np.int64)

    importance = [np.nan if row.importance is None else row.importance for row in rows]
    return Facts(
        created=moments_of("created"),
        arrived=moments_of("arrived"),
        held=moments_of("held"),
        accessed=moments_of("accessed"),
        importance=np.array(importance, np.float64),
        pinned=np.array([row.pinned for row in rows], bool),
        has_vector=np.array([row.has_vector for row in rows], bool),
    )


def terms_of(rows: list[Record]) -> Terms:
    def ints(name: str) -> np.ndarray:
        return np.array([getattr(row, name) for row in rows], np.int64)

    least = [np.nan if row.importance_at_least is None else row.importance_at_least for row in rows]
    return Terms(
        line_days=ints("line_days"),
        residence_days=ints("residence_days"),
        importance_at_least=np.array(least, np.float64),
        importance_days=ints("importance_days"),
        access_days=ints("access_days"),
        vector_days=ints("vector_days"),
    )


def reasons(rows: list[Record], as_of: datetime = NOW) -> list[str]:
    instant = microseconds(as_of)
    found = first_reason(stays_until(facts_of(rows), terms_of(rows), instant), instant)
    return ["" if index == DUE else REASONS[index] for index in found.tolist()]


@given(st.lists(records, max_size=20))
def test_arrays_decide_as_the_plain_rule_does(rows: list[Record]):
    assert reasons(rows) == [row.why_it_stays(NOW) for row in rows]


@given(records)
def test_a_record_leaves_when_its_last_reason_has_passed_and_not_before(row: Record):
    until = stays_until(facts_of([row]), terms_of([row]), microseconds(NOW))
    last = int(until.max())
    if last == FOREVER:
        assert row.pinned
        return
    for moment, leaves in ((last, False), (last + 1, True)):
        assert (first_reason(until, moment)[0] == DUE) == leaves


@given(records)
def test_a_later_instant_never_makes_a_record_stay_that_left_but_for_an_access_since(row: Record):
    row.accessed = None
    left = [row.why_it_stays(NOW + hour * timedelta(hours=6)) == "" for hour in range(40)]
    assert left == sorted(left)


def plain(**other: object) -> Record:
    """An old record that nothing keeps."""
    values = {"created": NOW - 30 * DAY, "arrived": None, "held": None, "accessed": None, "importance": None,
              "pinned": False, "has_vector": True, "line_days": 7, "residence_days": 0, "importance_at_least": None,
              "importance_days": 0, "access_days": 0, "vector_days": 7}  # fmt: skip
    return Record(**{**values, **other})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({}, ""),
        ({"created": NOW - 7 * DAY}, "age"),
        ({"created": NOW - 7 * DAY - timedelta(microseconds=1)}, ""),
        ({"pinned": True}, "pinned"),
        ({"held": NOW}, ""),
        ({"held": NOW + timedelta(microseconds=1)}, "held"),
        ({"residence_days": 3, "arrived": NOW - 3 * DAY}, "residence"),
        ({"residence_days": 3, "arrived": NOW - 4 * DAY}, ""),
        ({"residence_days": 3}, ""),
        ({"importance_days": 30, "importance_at_least": 0.5, "importance": 0.5}, "importance"),
        ({"importance_days": 30, "importance_at_least": 0.5, "importance": 0.4}, ""),
        ({"importance_days": 30, "importance": 1.0}, ""),
        ({"access_days": 3, "accessed": NOW - 2 * DAY}, "access"),
        ({"access_days": 3, "accessed": NOW - 4 * DAY}, ""),
        ({"access_days": 3, "accessed": NOW + 400 * DAY}, ""),
        ({"has_vector": False, "vector_days": 23}, "vector"),
        ({"has_vector": False, "vector_days": 22}, ""),
    ],
)
def test_each_reason_has_its_line(other: dict, reason: str):
    assert reasons([plain(**other)]) == [reason]
    assert plain(**other).why_it_stays(NOW) == reason


def test_instants_survive_the_way_through_microseconds():
    assert instant_of(microseconds(NOW)) == NOW
    assert reasons([]) == []
