"""The lake's policy: numbered documents, put if absent, so that every commit can name the one it decided under."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from akosha.declared import model
from akosha.errors import CommitConflictError
from akosha.lake import layout
from akosha.lake.documents import Document, seal, unseal
from akosha.lake.objects import ObjectStore
from akosha.settings import Settings

DEFAULT_ID = "policy-default-v1"


@dataclass(frozen=True, slots=True)
class Policy:
    """What ages when, and what uploads may do.

    `audit_share` is the share of archived records whose FLOAT vector is kept, 0-1. `delete_absent` are the systems whose
    records go away when their newest upload lacks them.
    """

    number: int
    hot_days: int
    warm_days: int
    audit_share: float
    vector_wait_days: int
    delete_absent: frozenset[str] = frozenset()

    def hot_cutoff(self, as_of: datetime) -> datetime:
        """Records created before this leave hot."""
        return as_of - timedelta(days=self.hot_days)

    def warm_cutoff(self, as_of: datetime) -> datetime:
        """Records created before this leave warm."""
        return as_of - timedelta(days=self.warm_days)

    def patience_cutoff(self, as_of: datetime) -> datetime:
        """Records created before this leave hot even without a vector."""
        return as_of - timedelta(days=self.hot_days + self.vector_wait_days)


def write_first_policy(store: ObjectStore, *, now: datetime) -> None:
    """Put policy 1, the declared default, unless it is there."""
    document: Document = {"format": "akosha-policy/1", "number": 1, "made_at": now.isoformat(), **_declared_default()}
    store.put_if_absent(layout.policy_key(1), seal(document))


def read_policy(store: ObjectStore, settings: Settings) -> Policy:
    """The newest policy. Ages that it leaves null come from AKOSHA_HOT_DAYS and AKOSHA_WARM_DAYS."""
    document = _newest(store)
    hot, warm = document["hot_days"], document["warm_days"]
    return Policy(
        number=int(document["number"]),
        hot_days=settings.hot_days if hot is None else int(hot),
        warm_days=settings.warm_days if warm is None else int(warm),
        audit_share=float(document["audit_share"]),
        vector_wait_days=settings.vector_wait_days,
        delete_absent=frozenset(
            system_id for system_id, own in document.get("systems", {}).items() if own.get("delete_absent", False)
        ),
    )


def write_next_policy(store: ObjectStore, delete_absent: Mapping[str, bool], *, now: datetime) -> int:
    """Put the next policy: the newest one with what is said of some systems changed. Returns its number.

    Args:
        store: the lake's.
        delete_absent: for some systems, whether their records go away when their newest upload lacks them.
        now: when it is made.

    Raises:
        CommitConflictError: somebody else put a policy at the same moment.
    """
    newest = _newest(store)
    systems = {name: dict(own) for name, own in newest.get("systems", {}).items()}
    for system_id, deletes in delete_absent.items():
        systems.setdefault(system_id, {})["delete_absent"] = deletes
    number = int(newest["number"]) + 1
    kept = {name: value for name, value in newest.items() if name != "sha256"}
    document: Document = {
        **kept,
        "format": "akosha-policy/1",
        "number": number,
        "made_at": now.isoformat(),
        "systems": systems,
    }
    if not store.put_if_absent(layout.policy_key(number), seal(document)):
        message = "another policy was written at the same moment; look at `akosha policy show` and try again"
        raise CommitConflictError(message, number=number)
    return number


def _newest(store: ObjectStore) -> Document:
    newest = max((found.key for found in store.list(layout.POLICY_PREFIX)), default="")
    if not newest:
        return {"number": 0, **_declared_default()}
    return unseal(store.get(newest), kind="policy", key=newest)


def _declared_default() -> Document:
    declared = model(DEFAULT_ID)
    return {name: declared[name] for name in ("hot_days", "warm_days", "audit_share")}
