"""Which rows of a tier are due, and why others stay: what a shard knows of its records, put before `akosha.tiers.stay`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from akosha.lake import duck
from akosha.lake.commits import Commit
from akosha.lake.files import keep
from akosha.lake.holds import holds
from akosha.lake.lake import Lake
from akosha.lake.policy import Key, Policy, Rules, Source
from akosha.lake.provenance import INGESTED_ON, marked_unarchived, provenance_facts
from akosha.lake.schemas import KEY
from akosha.lake.sql import statement
from akosha.tiers.stay import (
    AGE,
    DAY_US,
    DUE,
    NEVER,
    REASONS,
    Facts,
    Ints,
    Terms,
    first_reason,
    stays_until,
)

# What a decision reads of a row. `embedding_model` is NULL exactly where there is no vector.
NEEDED: Final = (*KEY, "created_at", "time_evidence", "embedding_model", "provenance")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UTC: Final = pa.timestamp("us", tz="UTC")
# A record leaves hot one residence after it arrived and warm after two, so that no night takes it through both.
_RESIDENCES: Final = {"hot": 1, "warm": 2}


@dataclass(frozen=True, slots=True)
class DueRows:
    """`due`: the rows that leave, all their columns. `staying`: rows past their line that stay, by their first reason."""

    due: pa.Table
    staying: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Archiving:
    """Rows on their way out of hot: which get a row in the archive, and the share of them that keeps its FLOAT vector.

    `rows` are the rows that were given; the provenance of those that the archive does not take says so.
    """

    rows: pa.Table
    kept: NDArray[np.bool_]
    audit_share: float | NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Judgement:
    """Of each row until when each reason keeps it, ``(len(REASONS), n)`` UTC microseconds, and the first that does."""

    until: Ints
    reason: NDArray[np.int8]


class Due:
    """What leaves one tier of one shard at an instant. Reads of the shard only what the policy asks about.

    `until` bounds a slice of a large move: whatever is due, only records created before it leave.
    """

    def __init__(
        self, lake: Lake, head: Commit, policy: Policy, tier: Source, as_of: datetime, until: datetime | None = None
    ) -> None:
        self.tier: Source = tier
        self.policy = policy
        self.as_of = as_of
        widest = policy.cutoff(tier, as_of, head.keys)
        self.cutoff = widest if until is None else min(widest, until)
        self._lake = lake
        self._head = head
        self._as_of_us = microseconds(as_of)
        self._held: dict[Key, int] | None = None
        self._pinned = {key for key in policy.pinned if key[0] in head.keys}

    def select(self, rows: pa.Table) -> DueRows:
        """Split rows of the tier, which need the columns `NEEDED`. None of theirs is read that is younger than its line."""
        old = pc.less(rows.column("created_at"), self.lines(rows))
        past = keep(rows, old.to_numpy())
        reason = self.judge(past).reason
        counted = Counter(reason.tolist())
        return DueRows(
            keep(past, reason == DUE), {REASONS[index]: counted[index] for index in sorted(counted.keys() - {DUE})}
        )

    def judge(self, rows: pa.Table) -> Judgement:
        """Why each row stays, and until when."""
        rules = _RulesOfRows(rows, self.policy)
        facts = self._facts(rows, rules)
        until = stays_until(facts, self._terms(rules), self._as_of_us)
        return Judgement(until, first_reason(until, self._as_of_us))

    def lines(self, rows: pa.Table) -> pa.Array | pa.Scalar:
        """The instant before which each row is past its line; one for all of them where no system has its own."""
        if not self.policy.systems:
            return pa.scalar(self.cutoff, _UTC)
        days = _RulesOfRows(rows, self.policy).ints(lambda rules: rules.days(self.tier))
        lines = np.minimum(self._as_of_us - days * DAY_US, microseconds(self.cutoff))
        return pa.array(lines, pa.int64()).cast(_UTC)

    def archiving(self, rows: pa.Table) -> Archiving:
        """What the archive takes of rows that leave hot, by the policy of their systems."""
        rules = _RulesOfRows(rows, self.policy)
        kept = rules.ints(lambda own: own.archive).astype(bool)
        share = rules.floats(lambda own: own.audit_share) if self.policy.systems else self.policy.audit_share
        if not kept.all():
            at = rows.schema.get_field_index("provenance")
            provenance = rows.column("provenance").combine_chunks()
            marked = pc.if_else(pa.array(kept), provenance, marked_unarchived(provenance))
            rows = rows.set_column(at, rows.schema.field(at), marked)
        return Archiving(rows, kept, share)

    def _terms(self, rules: _RulesOfRows) -> Terms:
        hot = self.tier == "hot"
        residences = _RESIDENCES[self.tier]
        return Terms(
            line_days=rules.ints(lambda own: own.days(self.tier)),
            residence_days=rules.ints(lambda own: own.min_residence_days * residences),
            importance_at_least=rules.floats(
                lambda own: np.nan if own.importance_at_least is None else own.importance_at_least
            ),
            importance_days=rules.ints(lambda own: own.importance_days if hot else 0),
            access_days=rules.ints(lambda own: own.access_days),
            vector_days=rules.ints(lambda _: self.policy.vector_wait_days),
        )

    def _facts(self, rows: pa.Table, rules: _RulesOfRows) -> Facts:
        count = rows.num_rows
        importance, accessed = self._attention(rows, rules)
        return Facts(
            created=rows.column("created_at").cast(pa.int64()).to_numpy(),
            arrived=_arrivals(rows)
            if rules.any(lambda own: own.min_residence_days)
            else np.full(count, NEVER, np.int64),
            held=self._holds(rows),
            accessed=accessed,
            importance=importance,
            pinned=_where(rows, dict.fromkeys(self._pinned, 1), 0) == 1,
            # Only hot waits: what moved without a vector goes on without one.
            has_vector=rows.column("embedding_model").is_valid().to_numpy() | (self.tier != "hot"),
        )

    def _holds(self, rows: pa.Table) -> Ints:
        if self._held is None:
            table = holds(self._lake, self._head)
            keys = zip(*(table.column(name).to_pylist() for name in KEY), strict=True)
            self._held = dict(zip(keys, table.column("hold_until").cast(pa.int64()).to_pylist(), strict=True))
        return _where(rows, self._held, NEVER)

    def _attention(self, rows: pa.Table, rules: _RulesOfRows) -> tuple[NDArray[np.float64], Ints]:
        """Importance and last access of each row, from the key files of systems whose rules ask for them."""
        importance = np.full(rows.num_rows, np.nan)
        accessed = np.full(rows.num_rows, NEVER, np.int64)
        for system in rules.systems(_asks_for_attention):
            entry = self._head.keys.get(system)
            if entry is None:
                continue
            at = np.flatnonzero(pc.equal(rows.column("system_id"), system).to_numpy())
            wanted = rows.select(["source_table", "record_id"]).take(pa.array(at)).append_column("place", pa.array(at))
            path = self._lake.cache.path_of(self._lake.store, entry)
            with duck.connection(path) as con:
                con.register("wanted", wanted)
                found = con.sql(statement("due_attention"), params={"keys": str(path)}).to_arrow_table()
            places = found.column("place").to_numpy()
            importance[places] = found.column("importance").fill_null(np.nan).to_numpy()
            accessed[places] = found.column("accessed").cast(pa.timestamp("us")).cast(pa.int64()).fill_null(NEVER)
        return importance, accessed


class _RulesOfRows:
    """The rules of each row's system, looked up once for each system."""

    def __init__(self, rows: pa.Table, policy: Policy) -> None:
        names = rows.column("system_id")
        if not policy.systems:
            self._systems: list[str] = pc.unique(names).to_pylist()
            self._codes = np.zeros(rows.num_rows, np.int64)
            self._rules = [policy.rules()]
            return
        self._systems = pc.unique(names).to_pylist()
        self._codes = pc.index_in(names, value_set=pa.array(self._systems, pa.string())).to_numpy().astype(np.int64)
        self._rules = [policy.rules(system) for system in self._systems] or [policy.rules()]

    def ints(self, read: Callable[[Rules], int]) -> Ints:
        return np.array([read(rules) for rules in self._rules], np.int64)[self._codes]

    def floats(self, read: Callable[[Rules], float]) -> NDArray[np.float64]:
        return np.array([read(rules) for rules in self._rules], np.float64)[self._codes]

    def any(self, read: Callable[[Rules], object]) -> bool:
        return any(bool(read(rules)) for rules in self._rules)

    def systems(self, read: Callable[[Rules], object]) -> list[str]:
        if len(self._rules) == 1:
            return self._systems if read(self._rules[0]) else []
        return [system for system, rules in zip(self._systems, self._rules, strict=True) if read(rules)]


def _asks_for_attention(rules: Rules) -> bool:
    return rules.access_days > 0 or (rules.importance_days > 0 and rules.importance_at_least is not None)


def _where(rows: pa.Table, values: Mapping[Key, int], missing: int) -> Ints:
    """The value of each row's key, of a few keys; ids narrow the rows down before any key is compared."""
    found = np.full(rows.num_rows, missing, np.int64)
    if values:
        ids = pa.array(sorted({key[2] for key in values}), pa.string())
        at = np.flatnonzero(pc.is_in(rows.column("record_id"), value_set=ids).to_numpy())
        keys = rows.select(KEY).take(pa.array(at)).to_pylist()
        found[at] = [values.get((key["system_id"], key["source_table"], key["record_id"]), missing) for key in keys]
    return found


def _arrivals(rows: pa.Table) -> Ints:
    """The end of the day on which each row's revision came into the lake; `NEVER` for rows from before that was noted."""
    return np.array(provenance_facts(rows.column("provenance"), _arrival), np.int64)


def _arrival(facts: Mapping[str, Any]) -> int:
    day = facts.get(INGESTED_ON)
    if not day:
        return NEVER
    midnight = datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC)
    return microseconds(midnight + timedelta(days=1)) - 1


def microseconds(instant: datetime) -> int:
    """UTC microseconds since 1970."""
    return (instant - _EPOCH) // timedelta(microseconds=1)


def instant_of(microsecond: int) -> datetime:
    """The instant behind `microseconds`."""
    return _EPOCH + timedelta(microseconds=microsecond)


__all__ = ["AGE", "NEEDED", "REASONS", "Due", "DueRows", "Judgement", "instant_of", "microseconds"]
