from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from akosha.errors import CommitConflictError, IntegrityError
from akosha.lake.documents import seal
from akosha.lake.layout import policy_key
from akosha.lake.local_store import LocalStore
from akosha.lake.policy import Policy, read_policy, write_first_policy, write_next_policy
from akosha.settings import Settings

NOW = datetime(2026, 11, 20, 2, 30, tzinfo=UTC)
SETTINGS = Settings(lake_url="file:///unused", hot_days=5, warm_days=50, vector_wait_days=2)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path, setting="AKOSHA_LAKE_URL")


def put(store: LocalStore, number: int, **ages: object) -> None:
    document = {"format": "akosha-policy/1", "number": number, "made_at": NOW.isoformat(), "audit_share": 0.1, **ages}
    store.put(policy_key(number), seal(document))


def test_cutoffs_count_back_from_as_of():
    policy = Policy(1, 7, 90, 0.1, 7)
    assert policy.hot_cutoff(NOW) == NOW - timedelta(days=7)
    assert policy.warm_cutoff(NOW) == NOW - timedelta(days=90)
    assert policy.patience_cutoff(NOW) == NOW - timedelta(days=14)


def test_the_first_policy_leaves_ages_to_the_settings(store: LocalStore):
    write_first_policy(store, now=NOW)
    assert read_policy(store, SETTINGS) == Policy(1, 5, 50, 0.1, 2)


def test_the_first_policy_is_written_once(store: LocalStore):
    write_first_policy(store, now=NOW)
    before = store.get(policy_key(1))
    write_first_policy(store, now=NOW + timedelta(days=1))
    assert store.get(policy_key(1)) == before


def test_the_newest_policy_counts(store: LocalStore):
    put(store, 1, hot_days=None, warm_days=None)
    put(store, 10, hot_days=1, warm_days=2)
    put(store, 9, hot_days=3, warm_days=4)
    policy = read_policy(store, SETTINGS)
    assert (policy.number, policy.hot_days, policy.warm_days) == (10, 1, 2)


def test_a_damaged_policy_stops_the_job(store: LocalStore):
    write_first_policy(store, now=NOW)
    store.put(policy_key(1), store.get(policy_key(1)).replace(b"0.1", b"0.2"))
    with pytest.raises(IntegrityError):
        read_policy(store, SETTINGS)


def test_the_next_policy_keeps_the_ages_and_says_whose_absent_records_go(store: LocalStore):
    write_first_policy(store, now=NOW)
    assert write_next_policy(store, {"laptop-7": True, "laptop-8": True}, now=NOW) == 2
    assert write_next_policy(store, {"laptop-8": False}, now=NOW) == 3
    policy = read_policy(store, SETTINGS)
    assert (policy.number, policy.delete_absent) == (3, frozenset({"laptop-7"}))
    assert (policy.hot_days, policy.warm_days) == (5, 50)


def test_a_policy_that_somebody_else_wrote_is_never_replaced(store: LocalStore, monkeypatch: pytest.MonkeyPatch):
    write_first_policy(store, now=NOW)
    monkeypatch.setattr(store, "put_if_absent", lambda key, data: False)
    with pytest.raises(CommitConflictError, match="same moment"):
        write_next_policy(store, {"laptop-7": True}, now=NOW)
    assert read_policy(store, SETTINGS).number == 1
