"""The state machine of `tests.support.storm_machine`, by seeds: 10,000 steps with STORM=1; STORM_SEED draws the same again."""

from __future__ import annotations

import os
import sys

import pytest
from tests.support.cases import Pool
from tests.support.scoreboard import BOARD, LONG, SEED

pytestmark = [pytest.mark.integration, pytest.mark.slow]

STEPS = int(os.environ.get("STORM_STEPS") or (10_000 if LONG else 200))
LAKES, STEPS_OF_A_LAKE = 4, 50
FAILED_ONCE: list[int] = []  # seeds of failures that were found and mended


def _request(seed: int) -> dict[str, object]:
    return {"do": "machine", "seed": seed, "lakes": LAKES, "steps": STEPS_OF_A_LAKE}


def test_nothing_that_can_be_done_to_a_lake_loses_or_doubles_a_record(pool: Pool, capsys: pytest.CaptureFixture[str]):
    """I1, I2, I4, I5, I17, I18."""
    seeds = list(FAILED_ONCE)
    turn = 0
    while BOARD.steps.total() < STEPS:
        seeds += [SEED * 1_000 + turn + number for number in range(2)]
        turn += 2
        with capsys.disabled():
            sys.stdout.write(f"\nstate machine seeds {seeds}, {BOARD.steps.total():,} steps so far")
        for steps in pool.map(pool.ask, [_request(seed) for seed in seeds]):
            BOARD.steps.update(steps)
            BOARD.records["compared"] += sum(steps.values())
        seeds.clear()
