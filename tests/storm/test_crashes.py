"""Every job dies, or a call of it fails, at every point that another process could notice; the next run makes it good.

The short form takes points spread over each job; the long form (STORM=1, `make storm`) kills at every point and fails every
second one.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.cases import Outcome, Pool, Request
from tests.support.scenarios import SCENARIOS
from tests.support.scoreboard import BOARD, LONG, drawn

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SHORT_KILLS, SHORT_FAULTS = 4, 2  # of each job
FAULTS = ("exception", "memory", "ENOSPC", "EIO")


def _chosen(points: int, short: int, name: str, stride: int) -> list[int]:
    """Every point, or some in each stretch of the job, and always the one after the last: the clean run."""
    every = range(1, points + 1)
    chance = drawn(name)
    if LONG:
        return [*every[chance.randrange(stride) :: stride], points + 1]
    width = points / short
    return [1 + int(width * part + chance.random() * width) for part in range(short)] + [points + 1]


def _run(pool: Pool, stages: Path, name: str, kinds: tuple[str, ...], short: int) -> list[tuple[Request, Outcome]]:
    about = {"scenario": name, "root": str(stages)}
    calm = pool.ask({"do": "calm", **about})
    points = _chosen(calm["points"], short, f"{name} {kinds}", stride=1 if kinds == ("kill",) else 2)
    requests = [
        {"do": "crash", **about, "kind": kinds[(at + turn) % len(kinds)], "at": at, "export": calm["export"]}
        for turn, at in enumerate(points)
    ]
    done = list(zip(requests, pool.map(pool.crash, requests), strict=True))
    for request, outcome in done:
        BOARD.count_records(lost=outcome.lost, doubled=outcome.doubled, altered=outcome.altered)
        if outcome.wrong:
            BOARD.wrong.append(f"{name}: {request['kind']} at point {request['at']}: {outcome}")
    assert not [one for one in done if one[1].wrong]
    return done


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_killed_job_loses_nothing_and_the_next_run_does_the_rest(pool: Pool, stages: Path, name: str):
    """I1, I2, I3, I4, I5: kill -9 before and after every call on a file or store."""
    done = _run(pool, stages, name, ("kill",), SHORT_KILLS)
    killed = [outcome for _, outcome in done if outcome.ended == "killed"]
    assert [outcome.ended for _, outcome in done] == ["killed"] * len(killed) + ["done"]
    BOARD.crashes[name] += len(killed)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_failed_call_fails_the_job_and_the_next_run_does_the_rest(pool: Pool, stages: Path, name: str):
    """I1, I2, I3, I4, I5, I7: a job either fails, or has done everything although a call failed."""
    for request, outcome in _run(pool, stages, name, FAULTS, SHORT_FAULTS):
        if outcome.fired:
            BOARD.faults[f"{request['kind']} of a local call"] += 1
            assert outcome.ended == "done" or outcome.said, request
