"""Figures of an ingest run: every declared expectation can fail, says where and what, and is silent when all is well."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from akosha import declared
from akosha.quality.ingest_figures import FIGURES_ID, judge_figures, said

DECLARED = declared.model(FIGURES_ID)
SOUND = {
    "shard": 17, "uploads": 20, "applied": 17, "unchanged": 1, "quarantined": 1, "deferred": 1, "held": 0, "rows_read": 20_000,
    "accepted_rows": 19_990, "refused_rows": 10, "new": 9_000, "changed": 30, "unchanged_rows": 10_952, "older": 8,
    "written_rows": 9_030, "seconds": 10.0, "commits": 1, "reasons": [{"reason": "truncated"}],
}  # fmt: skip
PLANNED = {17: 20, 18: 20}


def judged(**changed: Any) -> dict[str, Any]:
    """Two shards, of which the second has other figures."""
    return judge_figures([SOUND, {**SOUND, "shard": 18, **changed}], run_id="run-1", planned=PLANNED)


def test_sound_figures_pass_and_every_declared_expectation_was_checked():
    answer = judged()
    assert (answer["success"], answer["failures"], answer["warnings"]) == (True, [], [])
    assert answer["not_checked"] == []
    assert answer["ratios"]["refused_share"] == pytest.approx(0.0005)
    assert answer["ratios"]["rows_per_second"] == pytest.approx(2_000)
    assert answer["checked"] > len(DECLARED["balances"]) + len(DECLARED["ratios"])
    assert said(answer) == ""


UNBALANCED: dict[str, dict[str, Any]] = {
    "uploads_unplanned": {"uploads": 19, "applied": 16},
    "uploads_unaccounted": {"applied": 16},
    "reasons_unaccounted": {"reasons": []},
    "rows_unaccounted": {"refused_rows": 9},
    "accepted_unaccounted": {"older": 7},
    "written_unaccounted": {"written_rows": 9_031},
}


@pytest.mark.parametrize("name", [entry["name"] for entry in DECLARED["balances"]])
def test_every_balance_that_is_not_zero_fails_the_run(name: str):
    answer = judged(**UNBALANCED[name])
    meaning = next(entry["meaning"] for entry in DECLARED["balances"] if entry["name"] == name)
    assert answer["failures"] == [f"+1 {meaning} (shard 018)"]
    assert (answer["success"], answer["warnings"]) == (False, [])
    assert said(answer) == f"; NOT CONSERVED: +1 {meaning} (shard 018)"


def test_shards_whose_errors_cancel_out_are_both_found():
    outcomes = [{**SOUND, "applied": 16}, {**SOUND, "shard": 18, "applied": 18}]
    (failure,) = judge_figures(outcomes, run_id="run-1")["failures"]
    assert "(shard 017, shard 018)" in failure


OUTSIDE: dict[str, dict[str, Any]] = {
    "refused_share": {"refused_rows": 1_000, "unchanged_rows": 9_962, "accepted_rows": 19_000},
    "quarantined_share": {"quarantined": 10, "applied": 8, "reasons": [{}] * 10},
    "deferred_share": {"deferred": 9, "applied": 9},
    "changed_share": {"changed": 10_982, "unchanged_rows": 0, "written_rows": 19_982},
    "rows_per_second": {"seconds": 200},
}


@pytest.mark.parametrize("name", [entry["name"] for entry in DECLARED["ratios"]])
def test_every_ratio_outside_of_its_limit_is_a_warning_and_no_failure(name: str):
    answer = judged(**OUTSIDE[name])
    meaning = next(entry["meaning"] for entry in DECLARED["ratios"] if entry["name"] == name)
    assert (answer["success"], answer["failures"]) == (True, [])
    (warning,) = answer["warnings"]
    assert meaning in warning
    assert "shard 018" in warning
    assert "expected at " in warning


def test_a_negative_count_fails_the_run():
    answer = judged(commits=-1)
    assert answer["failures"] == ["-1 commits: a count below zero (shard 018)"]


@pytest.mark.parametrize("name", ["refused_share", "quarantined_share", "deferred_share", "rows_per_second"])
def test_a_ratio_of_too_few_is_not_judged(name: str):
    one = {"shard": 3, "uploads": 3, "applied": 1, "unchanged": 0, "quarantined": 1, "deferred": 1, "held": 0, "rows_read": 10,
           "refused_rows": 5, "seconds": 10.0}  # fmt: skip
    answer = judge_figures([one], run_id="run-1")
    assert (answer["warnings"], answer["ratios"][name]) == ([], None)


def test_many_shards_that_are_each_too_small_to_judge_are_judged_together():
    one = {**SOUND, "uploads": 5, "applied": 2, "unchanged": 0, "quarantined": 2, "reasons": [{}, {}]}
    answer = judge_figures([{**one, "shard": number} for number in range(10)], run_id="run-1")
    assert answer["warnings"] == ["40.0% of the uploads were quarantined (the run, expected at most 20.0%)"]


def test_what_cannot_be_checked_is_named():
    outcome = {name: value for name, value in SOUND.items() if name not in {"written_rows", "seconds"}}
    assert judge_figures([outcome], run_id="run-1")["not_checked"] == [
        "uploads_unplanned", "written_unaccounted", "rows_per_second",
    ]  # fmt: skip


def test_nothing_is_imported_when_nothing_was_taken_in(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "great_expectations", None)  # importing it raises
    for outcomes in ([], [{**SOUND, "applied": 0}]):
        assert judge_figures(outcomes, run_id="run-1")["judged"] is False
    with pytest.raises(ImportError):
        judge_figures([SOUND], run_id="run-1")
