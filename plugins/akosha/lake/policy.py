"""The lake's policy: what ages when, under numbered documents, so that every commit can name the one it decided under."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from akosha.lake.objects import ObjectStore
from akosha.lake.policy_documents import OVERRIDABLE, newest_document, numbered_document
from akosha.settings import Settings

Key = tuple[str, str, str]
Source = Literal["hot", "warm"]
_NO_OVERRIDES: Final[Mapping[str, Mapping[str, Any]]] = {}


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for the records of one system. The fields are those of a policy document."""

    hot_days: int
    warm_days: int
    archive: bool
    audit_share: float
    min_residence_days: int
    importance_at_least: float | None
    importance_days: int
    access_days: int

    def days(self, tier: Source) -> int:
        """Age in days at which a record leaves `tier`."""
        return self.hot_days if tier == "hot" else self.warm_days


@dataclass(frozen=True, slots=True)
class Policy:
    """What ages when, and what uploads may do.

    Attributes:
        number: of its document.
        hot_days, warm_days: age in days at which a record leaves hot, and warm.
        audit_share: share of archived records whose FLOAT vector is kept, 0-1.
        vector_wait_days: days past its line that a record without a vector waits in hot (AKOSHA_VECTOR_WAIT_DAYS).
        delete_absent: systems whose records go away when their newest upload lacks them.
        archive: whether hot to warm keeps text and codes in the archive.
        min_residence_days: a record leaves hot this long after it arrived at the earliest, and warm after twice as long.
        importance_at_least: importance from which a record stays `importance_days` longer in hot; None = never.
        access_days: a record that was accessed within so many days stays in its tier; 0 = off.
        systems: what holds for single systems instead.
        pinned: records that never leave their tier.
    """

    number: int
    hot_days: int
    warm_days: int
    audit_share: float
    vector_wait_days: int
    delete_absent: frozenset[str] = frozenset()
    archive: bool = True
    min_residence_days: int = 0
    importance_at_least: float | None = None
    importance_days: int = 0
    access_days: int = 0
    systems: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: _NO_OVERRIDES)
    pinned: frozenset[Key] = frozenset()

    def rules(self, system_id: str = "") -> Rules:
        """What holds for a system; without one, for systems without a word of their own."""
        values = {name: getattr(self, name) for name in Rules.__slots__}
        return Rules(**{**values, **self.systems.get(system_id, {})})

    def hot_cutoff(self, as_of: datetime, systems: Iterable[str] = ()) -> datetime:
        """Records created before this leave hot; of several systems the latest such instant, for choosing files."""
        return self._cutoff("hot", as_of, systems)

    def warm_cutoff(self, as_of: datetime, systems: Iterable[str] = ()) -> datetime:
        """Records created before this leave warm; of several systems the latest such instant, for choosing files."""
        return self._cutoff("warm", as_of, systems)

    def patience_cutoff(self, as_of: datetime) -> datetime:
        """Records created before this leave hot even without a vector."""
        return as_of - timedelta(days=self.hot_days + self.vector_wait_days)

    def cutoff(self, tier: Source, as_of: datetime, systems: Iterable[str] = ()) -> datetime:
        """`hot_cutoff` or `warm_cutoff`."""
        return self._cutoff(tier, as_of, systems)

    def _cutoff(self, tier: Source, as_of: datetime, systems: Iterable[str]) -> datetime:
        own = {self.rules(system).days(tier) for system in systems} if self.systems else set()
        return as_of - timedelta(days=min(own or {self.rules().days(tier)}))


def read_policy(store: ObjectStore, settings: Settings, number: int | None = None) -> Policy:
    """A policy, by default the newest. Ages that it leaves null come from AKOSHA_HOT_DAYS and AKOSHA_WARM_DAYS.

    Raises:
        UsageError: there is no policy of that number.
        IntegrityError: its document is damaged, or says what no policy may say.
        FormatVersionError: a newer Akosha wrote it.
    """
    return policy_of(newest_document(store) if number is None else numbered_document(store, number), settings)


def policy_of(document: Mapping[str, Any], settings: Settings) -> Policy:
    """The policy behind a complete document, as `policy_documents` returns them."""
    systems = document["systems"]
    ages = {"hot_days": settings.hot_days, "warm_days": settings.warm_days}
    values = {name: document[name] for name in OVERRIDABLE}
    return Policy(
        **{**values, **{name: ages[name] for name in ages if values[name] is None}},
        number=int(document["number"]),
        vector_wait_days=settings.vector_wait_days,
        delete_absent=frozenset(system for system, own in systems.items() if own.get("delete_absent", False)),
        systems={
            system: {name: value for name, value in own.items() if name != "delete_absent"}
            for system, own in systems.items()
            if own.keys() - {"delete_absent"}
        },
        pinned=frozenset((system, table, record) for system, table, record in document["pinned"]),
    )
