"""A misbehaving network and a lesser store between the jobs and S3: every run ends well, or says why and ends well the next time.

Each kind of fault spoils a share of all requests of a run, drawn by the seed; the long form draws more runs.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from tests.support.cases import Pool, Request
from tests.support.s3_proxy import ALWAYS, Proxy, Rule, s3_proxy
from tests.support.scoreboard import BOARD, LONG, drawn

pytestmark = [pytest.mark.integration, pytest.mark.slow]

LISTS: Final = {"method": "GET", "path": "list-type=2"}
FAULTS: Final[dict[str, dict[str, Any]]] = {
    "500": {"action": "answer", "status": 500, "code": "InternalError"},
    "503 SlowDown": {"action": "answer", "status": 503, "code": "SlowDown"},
    "timeout": {"action": "timeout", "share": 0.03},
    "connection reset": {"action": "reset"},
    "reset in a request's body": {"action": "reset-request", "method": "PUT"},
    "reset in an answer's body": {"action": "reset-answer", "method": "GET"},
    "truncated answer": {"action": "truncate", "method": "GET", "share": 0.05},
    "flipped answer": {"action": "flip", "method": "GET"},
    "flipped request": {"action": "flip-request", "method": "PUT"},
    "lost answer": {"action": "lose"},
    "stale list": {"action": "stale", "share": 0.5, **LISTS},
    "reordered list": {"action": "reorder", "share": 0.5, **LISTS},
    "expired credentials": {"action": "answer", "status": 403, "code": "ExpiredToken", "first": 25, "share": 1.0},
}
SHARE: Final = 0.15
JOBS: Final = ("second ingest", "hot to warm", "warm to cold")
RUNS: Final = 4 if LONG else 1
ATTEMPTS: Final = 4


@pytest.fixture(scope="module")
def proxy(s3_server: str) -> Iterator[Proxy]:
    with s3_proxy(s3_server) as running:
        yield running


@pytest.fixture(scope="module")
def calm(pool: Pool, stages: Path, s3_server: str) -> dict[str, str]:
    """What each job must end as."""
    return {
        name: pool.ask(_request("calm s3", name, stages, s3_server, s3_server))["export"] for name in JOBS
    }  # fmt: skip


def _request(do: str, name: str, stages: Path, direct: str, proxy: str) -> Request:
    bucket = f"storm-{uuid.uuid4().hex}"
    return {"do": do, "scenario": name, "root": str(stages), "direct": direct, "proxy": proxy, "bucket": bucket}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_network_changes_no_record(
    pool: Pool, stages: Path, s3_server: str, proxy: Proxy, calm: dict[str, str], fault: str
):
    """I1, I3, I5, I17, I18."""
    chance = drawn(fault)
    requests, rules = [], []
    names = [name for name in JOBS for _ in range(RUNS)] if LONG else [chance.choice(JOBS)]
    for name in names:
        request = _request("weather", name, stages, s3_server, proxy.url)
        requests.append({**request, "export": calm[name], "attempts": ATTEMPTS})
        rule = {"share": SHARE, "first": 2, "count": ALWAYS, "chance": drawn(f"{fault} {len(rules)}"), **FAULTS[fault]}
        rule["path"] = f"/{request['bucket']}" + (f"?{LISTS['path']}" if "path" in FAULTS[fault] else "")
        rules.append(Rule(**rule))
    proxy.rules[:] = rules
    for rule, request, outcome in zip(rules, requests, pool.map(pool.crash, requests), strict=True):
        BOARD.faults[f"S3: {fault}"] += rule.spoiled
        BOARD.count_records(lost=outcome.lost, doubled=outcome.doubled, altered=outcome.altered)
        if outcome.wrong:
            BOARD.wrong.append(f"S3: {fault}, {request['scenario']}: {outcome}")
    assert sum(rule.spoiled for rule in rules)
    assert not [line for line in BOARD.wrong if line.startswith(f"S3: {fault},")]
