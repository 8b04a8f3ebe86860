"""Great Expectations over the figures of an ingest run: once per run, and only when something was taken in.

Its import costs 5 CPU-seconds, so it is imported where it runs. What is expected is declared in
``include/models/ingest-figures-v2.json``; a check whose counters a run does not have is named as not checked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from akosha.declared import model
from akosha.quality.expectations import ephemeral_context, quiet

log = logging.getLogger(__name__)

FIGURES_ID: Final = "ingest-figures-v2"
RUN: Final = "the run"
NAMED_PLACES: Final = 5

Numbers = dict[str, float]


@dataclass(frozen=True, slots=True)
class Check:
    """One expectation: a column with a value for each shard and for the run (None = not judged there), and its limits.

    A breach fails the run, or only warns.
    """

    column: str
    values: tuple[float | None, ...]
    least: float | None
    most: float | None
    fails: bool
    meaning: str


def judge_figures(
    outcomes: Sequence[Mapping[str, Any]], *, run_id: str, planned: Mapping[int, int] | None = None
) -> dict[str, Any]:
    """Check the figures of a run's shards and of the run as a whole.

    Args:
        outcomes: named numbers of each shard; ``shard`` is its number, and a list counts by its length.
        run_id: names the run in the log.
        planned: uploads planned for each shard.

    Returns:
        JSON-able: ``judged`` (False: nothing was taken in), ``success``, ``failures`` and ``warnings`` (sentences), and when
        judged ``expectations`` (the declared id), ``checked`` (how many), ``not_checked`` (names), ``ratios`` of the run.
    """
    numbers = [_numbers(outcome, planned or {}) for outcome in outcomes]
    if not any(shard.get("applied") for shard in numbers):
        return {"judged": False, "success": True, "failures": [], "warnings": []}
    rows = [*numbers, _total(numbers)]
    declared = model(FIGURES_ID)
    checks = [*_counters(rows), *_balances(declared["balances"], rows), *_ratios(declared["ratios"], rows)]
    places = [*(f"shard {int(outcome['shard']):03d}" for outcome in outcomes), RUN]
    breaches = [(check, _sentence(check, at, places)) for check, at in _breaches(checks)]
    failures = [sentence for check, sentence in breaches if check.fails]
    warnings = [sentence for check, sentence in breaches if not check.fails]
    log.info("judged run=%s checked=%d failures=%s warnings=%s", run_id, len(checks), failures, warnings)
    there = {check.column: check.values[-1] for check in checks}
    return {
        "judged": True,
        "expectations": FIGURES_ID,
        "success": not failures,
        "failures": failures,
        "warnings": warnings,
        "checked": len(checks),
        "not_checked": [entry["name"] for kind in _KINDS for entry in declared[kind] if entry["name"] not in there],
        "ratios": {entry["name"]: there[entry["name"]] for entry in declared["ratios"] if entry["name"] in there},
    }


_KINDS: Final = ("balances", "ratios")


def said(figures: Mapping[str, Any]) -> str:
    """What the message of a run adds, with its separator; nothing when all is as expected."""
    failures = [f"; NOT CONSERVED: {sentence}" for sentence in figures["failures"]]
    return "".join([*failures, *(f"; warning: {sentence}" for sentence in figures["warnings"])])


def _numbers(outcome: Mapping[str, Any], planned: Mapping[int, int]) -> Numbers:
    counted = {name: len(value) if isinstance(value, list) else value for name, value in outcome.items()}
    numbers = {name: value for name, value in counted.items() if isinstance(value, (int, float)) and name != "shard"}
    return numbers | ({"planned": planned[outcome["shard"]]} if outcome["shard"] in planned else {})


def _total(numbers: Sequence[Numbers]) -> Numbers:
    """The run as a whole: what every shard counted, added up."""
    shared = set.intersection(*(set(shard) for shard in numbers))
    return {name: sum(shard[name] for shard in numbers) for name in sorted(shared)}


def _counters(rows: Sequence[Numbers]) -> Iterator[Check]:
    for name in rows[-1]:
        yield Check(name, tuple(row[name] for row in rows), 0, None, fails=True, meaning=f"{name}: a count below zero")


def _balances(declared: Sequence[Mapping[str, Any]], rows: Sequence[Numbers]) -> Iterator[Check]:
    for entry in declared:
        if {entry["total"], *entry["parts"]} <= set(rows[-1]):
            values = tuple(row[entry["total"]] - sum(row[part] for part in entry["parts"]) for row in rows)
            yield Check(entry["name"], values, 0, 0, fails=True, meaning=entry["meaning"])


def _ratios(declared: Sequence[Mapping[str, Any]], rows: Sequence[Numbers]) -> Iterator[Check]:
    for entry in declared:
        if {entry["part"], entry["whole"], entry["judged_by"]} <= set(rows[-1]):
            values = tuple(_ratio(entry, row) for row in rows)
            yield Check(
                entry["name"], values, entry.get("least"), entry.get("most"), fails=False, meaning=entry["meaning"]
            )


def _ratio(entry: Mapping[str, Any], row: Numbers) -> float | None:
    enough = row[entry["judged_by"]] >= entry["judged_from"] and row[entry["whole"]] > 0
    return row[entry["part"]] / row[entry["whole"]] if enough else None


def _breaches(checks: Sequence[Check]) -> Iterator[tuple[Check, list[int]]]:
    """Expectations that do not hold, each with the rows that break it."""
    with quiet():
        import great_expectations as gx
        import pandas as pd  # type: ignore[import-untyped]

        frame = pd.DataFrame({check.column: pd.Series(check.values, dtype="float64") for check in checks})
        kinds: Any = gx.expectations
        expected = [
            kinds.ExpectColumnValuesToBeBetween(
                column=check.column, min_value=check.least, max_value=check.most, meta={"notes": check.meaning}
            )
            for check in checks
        ]
        source = ephemeral_context(gx).data_sources.add_pandas("ingest")
        batch = source.add_dataframe_asset("figures").add_batch_definition_whole_dataframe("run")
        answer = batch.get_batch({"dataframe": frame}).validate(gx.ExpectationSuite(FIGURES_ID, expectations=expected))
    by_column = {check.column: check for check in checks}
    for found in answer.results:
        if not found.success:
            yield by_column[found.expectation_config.kwargs["column"]], found.result["partial_unexpected_index_list"]


def _sentence(check: Check, rows: Sequence[int], places: Sequence[str]) -> str:
    """What was found and where: the run's own figure where that is out of its limits, else the first shard's."""
    at = max(rows) if places[max(rows)] == RUN else min(rows)
    value = check.values[at]
    shards = [places[row] for row in rows if places[row] != RUN]
    where = ", ".join(shards[:NAMED_PLACES]) + (" and others" if len(shards) > NAMED_PLACES else "")
    if check.fails:
        return f"{value:+,.0f} {check.meaning} ({where or RUN})"
    limit = f"at most {check.most:.1%}" if check.most is not None else f"at least {check.least:,.0f}"
    shown = f"{value:.1%}" if check.most is not None else f"{value:,.0f}"
    return f"{shown} {check.meaning} ({', '.join(part for part in (where or RUN, f'expected {limit}'))})"
