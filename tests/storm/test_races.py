"""Writers that meet: the same job twice, ingestion beside moves, one that stood still for weeks, one whose clock is wrong.

On a folder, and on S3 behind a lock for each key (moto alone has let two conditional creates win).
"""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.case_races import PAIRS
from tests.support.cases import Outcome, Pool, Request
from tests.support.s3_proxy import Proxy, s3_proxy
from tests.support.scoreboard import BOARD, LONG

pytestmark = [pytest.mark.integration, pytest.mark.slow]

FROZEN_AT = ["before commit", "before upload", "after link", "before descent", "after file write"]
JOBS = ["ingest", "hot to warm"]
BESIDE = ["embed", "ingest", "hot to warm", "warm to cold", "sweep"]


@pytest.fixture(scope="module")
def proxy(s3_server: str) -> Iterator[Proxy]:
    with s3_proxy(s3_server) as running:
        yield running


@pytest.fixture
def about(request: pytest.FixtureRequest, stages: Path) -> dict[str, Any]:
    """Where the lake of a case lies."""
    if request.param == "file":
        return {"root": str(stages)}
    url = request.getfixturevalue("proxy").url
    return {"root": str(stages), "bucket": f"race-{uuid.uuid4().hex}", "proxy": url, "direct": url}


CALM: dict[bool, str] = {}


def _calm(pool: Pool, about: dict[str, Any]) -> str:
    """What everything done in peace comes to, in a folder or on S3: the export is the same for every copy of the lake."""
    on_s3 = "bucket" in about
    if on_s3 not in CALM:
        own = {**about, "bucket": f"calm-{uuid.uuid4().hex}"} if on_s3 else about
        CALM[on_s3] = str(pool.ask({"do": "calm race", **own, "acts": []})["export"])
    return CALM[on_s3]


def _judge(pool: Pool, request: Request, kind: str) -> Outcome:
    outcome = pool.crash(request)
    BOARD.faults[kind] += 1
    BOARD.count_records(lost=outcome.lost, doubled=outcome.doubled, altered=outcome.altered)
    if outcome.wrong:
        BOARD.wrong.append(f"{kind}: {request}: {outcome}")
    assert not outcome.wrong, outcome
    return outcome


@pytest.mark.parametrize(
    ("about", "pair"),
    [*(("file", pair) for pair in PAIRS), *(("s3", pair) for pair in (PAIRS if LONG else PAIRS[1:3]))],
    indirect=["about"],
)
def test_two_at_once_lose_and_double_nothing(pool: Pool, about: dict[str, Any], pair: tuple[str, str]):
    """I1, I17: one winner of each version, the other rebases or plans again."""
    export = _calm(pool, about)
    for turn in range(5 if LONG else 1):
        own = {**about, "bucket": f"{about['bucket']}-{turn}"} if "bucket" in about else about
        _judge(pool, {"do": "together", **own, "acts": pair, "export": export}, "simultaneous writers")


@pytest.mark.parametrize("act", JOBS)
@pytest.mark.parametrize("point", FROZEN_AT if LONG else FROZEN_AT[:1])
def test_a_writer_that_stood_still_for_weeks_spoils_nothing(pool: Pool, stages: Path, act: str, point: str):
    """I17, I18: all others worked and swept meanwhile, deleting what it had staged."""
    about = {"root": str(stages)}
    export = _calm(pool, about)
    request = {"do": "frozen", **about, "act": act, "point": point, "nth": 1, "others": BESIDE, "export": export}
    assert _judge(pool, request, "frozen writers").fired == point


@pytest.mark.parametrize("days", [-400, 400])
def test_a_wrong_clock_changes_no_record(pool: Pool, stages: Path, days: int):
    """I1, I12: what a record is, and where, follows from `as_of` and from the uploads alone."""
    about = {"root": str(stages)}
    acts = ["ingest", "hot to warm", "embed", "warm to cold"]
    request = {"do": "skewed", **about, "days": days, "acts": acts, "export": _calm(pool, about)}
    _judge(pool, request, "wrong clocks")


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A disk of 8 MB."""
    folder = tmp_path_factory.mktemp("disk")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(
            f"a small disk needs the right to mount one ({done.stderr.strip()}); failed calls say ENOSPC anyway"
        )
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("free_kilobytes", [0, 40, 100, 200, 300, 450, 700] if LONG else [100, 300])
def test_a_full_disk_fails_the_job_and_spoils_nothing(
    pool: Pool, stages: Path, small_disk: Path, tmp_path: Path, free_kilobytes: int
):
    """I2, I3: no room to write in is said, and what was committed stays."""
    about = {"root": str(stages)}
    request = {
        "do": "disk full", **about, "disk": str(small_disk), "logs": str(tmp_path), "free_kilobytes": free_kilobytes,
        "acts": ["ingest", "hot to warm"], "export": _calm(pool, about),
    }  # fmt: skip
    outcome = _judge(pool, request, "full disks")
    assert "again" in outcome.ended or free_kilobytes > 100
