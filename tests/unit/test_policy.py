"""Policies: numbered documents that are read strictly, changed one at a time, and never replaced."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from akosha.declared import model
from akosha.errors import CommitConflictError, FormatVersionError, IntegrityError, UsageError
from akosha.lake.documents import seal
from akosha.lake.layout import policy_key
from akosha.lake.local_store import LocalStore
from akosha.lake.policy import Policy, Rules, read_policy
from akosha.lake.policy_documents import (
    DEFAULT,
    OVERRIDABLE,
    PolicyChange,
    changed_document,
    first_document,
    newest_document,
    numbered_document,
    says_the_same,
    turns_archive_off,
    write_first_policy,
    write_policy,
)
from akosha.settings import Settings

NOW = datetime(2026, 11, 20, 2, 30, tzinfo=UTC)
SETTINGS = Settings(lake_url="file:///unused", hot_days=5, warm_days=50, vector_wait_days=2)
KEY = ("laptop-7", "conversations_v2", "a")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path, setting="AKOSHA_LAKE_URL")


def put(store: LocalStore, number: int, *, version: int = 1, **fields: object) -> None:
    """A document as 0.1.0 wrote it, or one of this release."""
    document = {"number": number, "made_at": NOW.isoformat(), "audit_share": 0.1, **fields}
    store.put(policy_key(number), seal({"format": f"akosha-policy/{version}", **document}))


def change(store: LocalStore, **parts: object) -> Policy:
    """Write the next policy, and read it."""
    write_policy(store, changed_document(newest_document(store), PolicyChange(**parts), now=NOW))  # type: ignore[arg-type]
    return read_policy(store, SETTINGS)


def test_cutoffs_count_back_from_as_of():
    policy = Policy(1, 7, 90, 0.1, 7)
    assert policy.hot_cutoff(NOW) == NOW - timedelta(days=7)
    assert policy.warm_cutoff(NOW) == NOW - timedelta(days=90)
    assert policy.patience_cutoff(NOW) == NOW - timedelta(days=14)


def test_the_widest_cutoff_is_that_of_the_most_impatient_system_there():
    policy = Policy(2, 7, 90, 0.1, 7, systems={"fast": {"hot_days": 1}, "slow": {"hot_days": 30, "warm_days": 200}})
    assert policy.hot_cutoff(NOW, ["fast", "slow", "other"]) == NOW - timedelta(days=1)
    assert policy.hot_cutoff(NOW, ["slow", "other"]) == NOW - timedelta(days=7)
    assert policy.cutoff("warm", NOW, ["slow"]) == NOW - timedelta(days=200)
    assert policy.cutoff("hot", NOW, []) == NOW - timedelta(days=7)


def test_the_first_policy_leaves_ages_to_the_settings(store: LocalStore):
    write_first_policy(store, now=NOW)
    assert read_policy(store, SETTINGS) == Policy(1, 5, 50, 0.1, 2)
    assert read_policy(store, SETTINGS).rules() == Rules(5, 50, True, 0.1, 0, None, 0, 0)


def test_the_first_policy_is_written_once(store: LocalStore):
    write_first_policy(store, now=NOW)
    before = store.get(policy_key(1))
    write_first_policy(store, now=NOW + timedelta(days=1))
    assert store.get(policy_key(1)) == before


def test_a_lake_without_a_policy_follows_what_is_declared(store: LocalStore):
    assert read_policy(store, SETTINGS) == Policy(0, 5, 50, 0.1, 2)


def test_the_newest_policy_counts_and_older_ones_stay_readable(store: LocalStore):
    put(store, 1, hot_days=None, warm_days=None)
    put(store, 10, hot_days=1, warm_days=2)
    put(store, 9, hot_days=3, warm_days=4)
    policy = read_policy(store, SETTINGS)
    assert (policy.number, policy.hot_days, policy.warm_days) == (10, 1, 2)
    assert read_policy(store, SETTINGS, 9).hot_days == 3
    with pytest.raises(UsageError, match="no policy 2: this lake has 1 to 10"):
        read_policy(store, SETTINGS, 2)


def test_a_document_of_the_first_release_means_what_it_meant(store: LocalStore):
    put(store, 1, hot_days=None, warm_days=None, systems={"laptop-7": {"delete_absent": True}})
    policy = read_policy(store, SETTINGS)
    assert policy == Policy(1, 5, 50, 0.1, 2, frozenset({"laptop-7"}))
    assert policy.rules("laptop-7") == policy.rules()


def test_a_damaged_policy_stops_the_job(store: LocalStore):
    write_first_policy(store, now=NOW)
    store.put(policy_key(1), store.get(policy_key(1)).replace(b"0.1", b"0.2"))
    with pytest.raises(IntegrityError):
        read_policy(store, SETTINGS)


def test_a_policy_of_a_newer_release_is_refused_and_not_half_followed(store: LocalStore):
    put(store, 1, version=3, hot_days=1, warm_days=2)
    with pytest.raises(FormatVersionError, match="expected format akosha-policy/2, found /3"):
        read_policy(store, SETTINGS)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"hotdays": 3}, "no field 'hotdays'"),
        ({"hot_days": 9, "warm_days": 8}, "warm_days must be at least hot_days, found 8 below 9"),
        ({"systems": {"s": {"pinned": []}}}, "no field 'pinned' of its own, found for 's'"),
        ({"pinned": [["laptop-7", "a"]]}, "a system, a table and an id"),
    ],
)
def test_a_stored_policy_that_cannot_be_followed_is_refused_by_name(store: LocalStore, fields: dict, named: str):
    put(store, 1, version=2, **fields)
    with pytest.raises(IntegrityError, match=named):
        read_policy(store, SETTINGS)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"hot_day": 3}, "no field 'hot_day'"),
        ({"hot_days": 0}, "hot_days must be a whole number in 1-36500, found 0"),
        ({"hot_days": 2.5}, "whole number"),
        ({"hot_days": True}, "whole number"),
        ({"warm_days": 36_501}, "found 36501"),
        ({"audit_share": 1.01}, "audit_share must be a number in 0-1, found 1.01"),
        ({"audit_share": float("nan")}, "found nan"),
        ({"audit_share": None}, "found None"),
        ({"archive": "off"}, "archive is on or off, found 'off'"),
        ({"archive": None}, "archive is on or off"),
        ({"min_residence_days": -1}, "min_residence_days"),
        ({"importance_at_least": 2}, "importance_at_least"),
        ({"importance_days": "3"}, "importance_days"),
        ({"access_days": -1}, "access_days"),
        ({"hot_days": 10, "warm_days": 9}, "found 9 below 10"),
        ({"delete_absent": True}, "no field 'delete_absent'"),
    ],
)
def test_what_no_policy_may_say_is_refused_by_name(fields: dict, named: str):
    with pytest.raises(UsageError, match=named):
        changed_document(first_document(NOW), PolicyChange(fields=fields), now=NOW)


@pytest.mark.parametrize(
    ("own", "named"),
    [
        ({"hot_day": 3}, "no field 'hot_day' of its own"),
        ({"hot_days": 91}, "warm_days of system 's' must be at least hot_days, found 90 below 91"),
        ({"hot_days": None}, "hot_days of system 's' must be a number of days"),
        ({"delete_absent": 1}, "delete_absent of system 's' is on or off"),
    ],
)
def test_what_no_system_may_have_of_its_own_is_refused_by_name(own: dict, named: str):
    before = changed_document(first_document(NOW), PolicyChange(fields={"hot_days": 7, "warm_days": 90}), now=NOW)
    with pytest.raises(UsageError, match=named):
        changed_document(before, PolicyChange(systems={"s": own}), now=NOW)


def test_every_field_can_be_changed_for_the_lake_and_for_a_system_and_returns_to_its_default(store: LocalStore):
    write_first_policy(store, now=NOW)
    values = {"hot_days": 3, "warm_days": 33, "archive": False, "audit_share": 0.5, "min_residence_days": 4,
              "importance_at_least": 0.8, "importance_days": 30, "access_days": 14}  # fmt: skip
    assert set(values) == set(OVERRIDABLE) == set(Rules.__slots__)
    policy = change(store, fields=values)
    assert (policy.number, policy.rules()) == (2, Rules(**values))
    own = {**values, "hot_days": 2, "archive": True}
    policy = change(store, systems={"laptop-7": own})
    assert policy.rules("laptop-7") == Rules(**own)
    assert policy.rules("laptop-8") == policy.rules() == Rules(**values)
    policy = change(store, systems={"laptop-7": dict.fromkeys(values, DEFAULT)})
    assert policy.rules("laptop-7") == Rules(**values)
    assert newest_document(store)["systems"] == {}
    policy = change(store, fields=dict.fromkeys(values, DEFAULT))
    assert policy.rules() == Rules(5, 50, True, 0.1, 0, None, 0, 0)
    assert numbered_document(store, 2)["hot_days"] == 3, "earlier policies stay what they were"


def test_the_next_policy_keeps_all_else_and_says_whose_absent_records_go(store: LocalStore):
    write_first_policy(store, now=NOW)
    change(store, fields={"access_days": 3}, pin=frozenset({KEY}))
    change(store, systems={name: {"delete_absent": True} for name in ("laptop-7", "laptop-8")})
    policy = change(store, systems={"laptop-8": {"delete_absent": False}})
    assert (policy.number, policy.delete_absent) == (4, frozenset({"laptop-7"}))
    assert (policy.access_days, policy.pinned) == (3, frozenset({KEY}))
    assert policy.systems == {}, "deletion by absence is no rule of ageing"


def test_records_are_pinned_and_unpinned(store: LocalStore):
    write_first_policy(store, now=NOW)
    other = ("laptop-7", "conversations_v2", "b / c")
    assert change(store, pin=frozenset({KEY, other})).pinned == {KEY, other}
    assert change(store, unpin=frozenset({KEY})).pinned == {other}
    with pytest.raises(UsageError, match="laptop-7 / conversations_v2 / a is not pinned"):
        change(store, unpin=frozenset({KEY}))
    with pytest.raises(UsageError, match="either pinned or unpinned"):
        change(store, pin=frozenset({KEY}), unpin=frozenset({KEY}))


def test_a_change_that_changes_nothing_is_known_as_such():
    before = changed_document(first_document(NOW), PolicyChange(pin=frozenset({KEY})), now=NOW)
    assert says_the_same(before, changed_document(before, PolicyChange(pin=frozenset({KEY})), now=NOW))
    assert not says_the_same(before, changed_document(before, PolicyChange(unpin=frozenset({KEY})), now=NOW))


def test_the_archive_is_off_when_it_is_for_any_system():
    first = first_document(NOW)
    assert not turns_archive_off(first)
    assert turns_archive_off(changed_document(first, PolicyChange(fields={"archive": False}), now=NOW))
    assert turns_archive_off(changed_document(first, PolicyChange(systems={"s": {"archive": False}}), now=NOW))


def test_a_policy_that_somebody_else_wrote_is_never_replaced(store: LocalStore):
    write_first_policy(store, now=NOW)
    mine = changed_document(newest_document(store), PolicyChange(fields={"hot_days": 3}), now=NOW)
    change(store, fields={"hot_days": 4})
    with pytest.raises(CommitConflictError, match="same moment"):
        write_policy(store, mine)
    assert read_policy(store, SETTINGS).hot_days == 4


def test_the_first_defaults_are_those_of_the_first_release():
    first, second = model("policy-default-v1"), model("policy-default-v2")["defaults"]
    assert {name: second[name] for name in ("hot_days", "warm_days", "audit_share")} == {
        name: first[name] for name in ("hot_days", "warm_days", "audit_share")
    }
    assert set(second) == set(OVERRIDABLE)
