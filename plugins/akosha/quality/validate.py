"""Validation of a lake: recall of warm and conservation of records, judged by Great Expectations, with Data Docs.

A red verdict is an answer, not an error: the caller decides what it means for the run.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from akosha.errors import IntegrityError, ObjectMissingError
from akosha.lake.commits import Commit
from akosha.lake.lake import Lake
from akosha.quality.conservation import PROBLEMS, ShardFigures, measure_shard
from akosha.quality.expectations import Verdict, judge
from akosha.quality.recall_audit import ENOUGH, audit_recall
from akosha.quality.report_page import report_page
from akosha.transforms.recall import RecallMeasure

log = logging.getLogger(__name__)

REPORTS: Final = "reports/validate"
ENTRY: Final = "report.html"
# Pictures of a tutorial that the pages refer to only where its buttons are shown: 3.3 of 4.1 MB a run.
_UNUSED: Final = frozenset({".gif"})
_TOTALS: Final = ("keys", "hot", "warm", "cold", "archive")


def validate(lake: Lake, run_id: str, as_of: datetime) -> dict[str, Any]:
    """`measure` and `conclude` in one go."""
    return conclude(lake, run_id, as_of, measure(lake))


def measure(lake: Lake) -> dict[str, Any]:
    """Measure one snapshot of a lake; JSON for `conclude`.

    Raises:
        IntegrityError: a file of a head is damaged, or missing in the newest head as well.
    """
    heads, recall, figures = _measured(lake)
    return {
        "versions": {str(head.shard): head.version for head in heads},
        "recall": asdict(recall),
        "figures": [asdict(shard) for shard in figures],
    }


def conclude(lake: Lake, run_id: str, as_of: datetime, measured: dict[str, Any]) -> dict[str, Any]:
    """Judge what was measured and publish the report. The only place that imports Great Expectations.

    Args:
        lake: which.
        run_id: names the report: ``reports/validate/<run_id>/report.html``, beside the Data Docs.
        as_of: the instant of the run, kept in the answer.
        measured: as `measure` returned it.

    Returns:
        JSON-able: ``success``, one ``message`` for operators, ``recall`` and ``conservation`` figures, every expectation,
        ``report`` (URL; empty for an empty lake), and the shard versions measured.
    """
    recall = RecallMeasure(**measured["recall"])
    figures = [ShardFigures(**shard) for shard in measured["figures"]]
    about: dict[str, Any] = {
        "run_id": run_id,
        "as_of": as_of.isoformat(),
        "versions": measured["versions"],
        "recall": {"floor": lake.settings.recall_floor, "enough": ENOUGH, **asdict(recall)},
        "conservation": _totals(figures),
    }
    if not figures:
        return {"success": True, "message": "the lake is empty: nothing to validate", "report": "",
                "expectations": [], **about}  # fmt: skip
    with lake.cache.scratch() as docs:
        verdict = judge(recall, figures, floor=lake.settings.recall_floor, run_id=run_id, docs=docs)
        message = _message(verdict, recall, figures)
        pages = [path.relative_to(docs).as_posix() for path in sorted(docs.rglob("*.html"))]
        facts = {"run": run_id, "as of": as_of.isoformat(), **_shown(recall), **_totals(figures)}
        page = report_page(
            message=message, success=verdict.success, facts=facts, expectations=verdict.expectations, pages=pages
        )
        (docs / ENTRY).write_text(page, encoding="utf-8")
        report = _publish(lake, docs, run_id)
    log.info(
        "validated success=%s shards=%d recall=%.4f report=%s", verdict.success, len(figures), recall.recall, report
    )
    return {
        "success": verdict.success,
        "message": message,
        "report": report,
        "expectations": [asdict(expectation) for expectation in verdict.expectations],
        **about,
    }


def _measured(lake: Lake) -> tuple[list[Commit], RecallMeasure, list[ShardFigures]]:
    """Figures of one snapshot; of a newer one if files of the first were swept meanwhile."""
    try:
        return _measure(lake, lake.heads())
    except ObjectMissingError:
        try:
            return _measure(lake, lake.heads())
        except ObjectMissingError as error:
            message = "a file named by the current head is missing: run `akosha fsck`"
            raise IntegrityError(message, **error.context) from error


def _measure(lake: Lake, heads: list[Commit]) -> tuple[list[Commit], RecallMeasure, list[ShardFigures]]:
    return heads, audit_recall(lake, heads), [measure_shard(lake, head)[0] for head in heads]


def _totals(figures: Sequence[ShardFigures]) -> dict[str, int]:
    return {name: sum(getattr(shard, name) for shard in figures) for name in (*_TOTALS, *PROBLEMS)}


def _publish(lake: Lake, docs: Path, run_id: str) -> str:
    """Upload the site, its entry last. Returns the URL of the entry."""
    prefix = f"{REPORTS}/{run_id}/"
    pages = [path for path in sorted(docs.rglob("*")) if path.is_file() and path.suffix not in _UNUSED]
    entry = docs / ENTRY
    for path in [*(page for page in pages if page != entry), entry]:
        lake.store.put(f"{prefix}{path.relative_to(docs).as_posix()}", path.read_bytes())
    return f"{lake.store.url}/{prefix}{ENTRY}"


def _shown(recall: RecallMeasure) -> dict[str, object]:
    return {
        "recall@10": f"{recall.recall:.4f}" if recall.queries else "not measured",
        "overlap@10": f"{recall.overlap:.4f}" if recall.queries else "not measured",
        "audited records": recall.queries,
        "judged": recall.judged,
    }


def _message(verdict: Verdict, recall: RecallMeasure, figures: Sequence[ShardFigures]) -> str:
    asked = f"recall@10 {recall.recall:.4f} over {recall.queries} audited records"
    if not recall.judged:
        asked = f"recall not judged ({recall.queries} audited records, {ENOUGH} needed)"
    totals = _totals(figures)
    broken = {problem: totals[problem] for problem in PROBLEMS if totals[problem]}
    kept = f"{totals['keys']} records conserved in {len(figures)} shards"
    if broken:
        kept = "conservation broken: " + ", ".join(f"{count} {PROBLEMS[problem]}" for problem, count in broken.items())
    return f"{'passed' if verdict.success else 'FAILED'}: {asked}; {kept}"
