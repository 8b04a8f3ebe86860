"""Which systems a run lists: active ones always, idle ones once a day, and nobody is forgotten however small the budget."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from akosha.uploads.schedule import (
    SLOT,
    SLOTS,
    Scope,
    due_scopes,
    is_due,
    queued,
    scope_of,
    second_of,
    slot_of,
    slots_passed,
    start_of,
    upload_second,
)

NOW = datetime(2026, 11, 20, 12, 7, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=40)
SYSTEMS = [f"machine-{number}/ü" for number in range(2_000)]
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
moments = st.integers(1_600_000_000, 2_200_000_000).map(lambda second: datetime.fromtimestamp(second, UTC))


@given(names, moments)
def test_every_idle_system_is_listed_exactly_once_in_24_hours_of_runs(name: str, start: datetime):
    runs = [start + number * SLOT for number in range(SLOTS + 1)]
    idle = start - timedelta(days=3)
    served = [at for previous, at in pairwise(runs) if is_due(name, idle, at, slots_passed(previous, at))]
    assert len(served) == 1


@given(names, moments, st.timedeltas(timedelta(0), timedelta(days=2)))
def test_a_system_active_within_two_days_is_in_every_run(name: str, at: datetime, age: timedelta):
    assert is_due(name, at - age, at, frozenset())
    assert is_due(name, at + age, at, frozenset())


@given(names, moments)
def test_a_system_never_seen_is_in_every_run_and_listed_from_its_beginning(name: str, at: datetime):
    assert is_due(name, None, at, frozenset())
    assert start_of(None, at) == ""


@given(moments, st.lists(st.integers(1, 30), min_size=1, max_size=60))
def test_slots_are_served_once_whatever_runs_are_missed(start: datetime, steps: list[int]):
    """Runs at any distance: together they serve what every run would have served."""
    instants = [start]
    for step in steps:
        instants.append(instants[-1] + step * timedelta(minutes=5))
    served = Counter[int]()
    for previous, at in pairwise(instants):
        served.update(slots_passed(previous, at))
    passed = int(instants[-1].timestamp()) // 900 - int(start.timestamp()) // 900
    assert sum(served.values()) == passed
    assert not served or max(served.values()) - min(served.values()) <= 1


def test_a_second_run_in_the_same_slot_serves_no_slot_and_a_long_gap_serves_each_once():
    assert slots_passed(NOW, NOW + timedelta(minutes=2)) == frozenset()
    assert slots_passed(NOW, NOW - timedelta(days=3)) == frozenset()
    assert slots_passed(NOW - timedelta(days=9), NOW) == frozenset(range(SLOTS))
    assert slots_passed(None, NOW) == {48}


def test_idle_systems_are_spread_evenly_over_the_day():
    load = Counter(slot_of(name) for name in SYSTEMS)
    assert len(load) == SLOTS
    assert max(load.values()) < 3 * len(SYSTEMS) / SLOTS


def test_a_listing_starts_48_hours_before_the_newest_and_the_future_counts_as_now():
    assert start_of(NOW - timedelta(hours=1), NOW) == "20261118_110700"
    assert start_of(datetime(2099, 1, 1, tzinfo=UTC), NOW) == upload_second(NOW - timedelta(hours=48))


@given(moments)
def test_the_second_of_an_upload_id_is_read_back(at: datetime):
    assert second_of(f"{upload_second(at)}_laptop-7") == at.replace(microsecond=0)
    assert second_of("by-hand") is None
    assert second_of("20261399_000000_x") is None


def test_only_due_systems_are_listed():
    newest = {name: NOW if number % 100 == 0 else LONG_AGO for number, name in enumerate(SYSTEMS)}
    scopes = due_scopes(SYSTEMS, newest, NOW, slots_passed(NOW - SLOT, NOW))
    idle = [name for name in SYSTEMS if slot_of(name) == 48 and newest[name] == LONG_AGO]
    assert len(scopes) == 20 + len(idle)
    assert {scope.prefix for scope in scopes} >= {f"{name}/uploads/" for name in idle}


def test_what_waits_comes_first_and_the_earlier_beginning_counts():
    waiting = [scope_of("b", "20261101_000000"), scope_of("c", "20261119_000000")]
    due = [scope_of("a", "20261118_000000"), scope_of("b", "20261118_000000"), scope_of("c", "20261101_000000")]
    assert queued(waiting, due) == [
        scope_of("b", "20261101_000000"), scope_of("c", "20261101_000000"), scope_of("a", "20261118_000000"),
    ]  # fmt: skip


def test_a_whole_folder_that_waits_covers_the_systems_below_it():
    assert queued([Scope("team/")], [scope_of("team/ci", "2026"), scope_of("team", "2026"), scope_of("teams")]) == [
        Scope("team/"), scope_of("teams"),
    ]  # fmt: skip


@given(st.integers(1, 7), st.integers(1, 40))
def test_a_budget_neither_starves_nor_forgets(budget: int, systems: int):
    """Every system is due in every run: each is listed once in as many runs as the budget needs for all."""
    due = [scope_of(f"s{number}") for number in range(systems)]
    waiting: list[Scope] = []
    listed = Counter[str]()
    rounds = -(-systems // budget)
    for _ in range(3 * rounds):
        scopes = queued(waiting, due)
        listed.update(scope.prefix for scope in scopes[:budget])
        waiting = scopes[budget:]
    assert len(listed) == systems
    assert min(listed.values()) >= 2
