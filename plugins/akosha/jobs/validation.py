"""The validation job: recall and conservation as Great Expectations suites, once per run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from akosha.errors import IntegrityError
from akosha.jobs.plans import SHARDS, Plan, Result, Summary, Work, open_lake, parse_as_of, write_plan
from akosha.lake.documents import Document
from akosha.lake.lake import Lake
from akosha.quality.validate import conclude, measure

JOB: Final = "validate"


def plan_validate(run_id: str, *, as_of: str | None = None) -> Plan:
    """Plan one batch that looks at the whole lake."""
    instant = parse_as_of(as_of, force=True)
    lake = open_lake()
    work = [Work(0, max(1, len(lake.shards())))]
    return write_plan(
        lake, JOB, run_id, work, unit=SHARDS, message="recall and conservation of the whole lake",
        as_of=instant.isoformat(),
    )  # fmt: skip


def run_batch(lake: Lake, plan: Document, batch: int) -> Result:
    """Measure; `summarise` judges."""
    del plan
    return {"batch": batch, "shards": [], "measured": measure(lake)}


def summarise(lake: Lake, plan: Document, results: Sequence[Result]) -> Summary:
    """The verdict of the suites, and where their Data Docs are. Great Expectations runs here, once per run."""
    instant = datetime.fromisoformat(plan["parameters"]["as_of"])
    verdict = conclude(lake, plan["run_id"], instant, results[0]["measured"])
    return {"counts": {}, "rows_changed": 0, "ok": bool(verdict["success"]), **verdict}


def require_success(summary: Summary) -> None:
    """Turn a red suite into an error.

    Raises:
        IntegrityError: names the report.
    """
    if not summary["ok"]:
        raise IntegrityError(summary["message"], report=summary.get("report"))
