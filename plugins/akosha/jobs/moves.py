"""The two moves as jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from akosha.errors import UsageError
from akosha.jobs.plans import (
    ROWS,
    Plan,
    Result,
    Summary,
    Work,
    chosen_shards,
    held_said,
    open_lake,
    parse_as_of,
    write_plan,
    writer_of,
)
from akosha.lake.commits import Tier
from akosha.lake.documents import Document
from akosha.lake.lake import Lake
from akosha.tiers import hot_to_warm, warm_to_cold
from akosha.tiers.moves import concerned

HOT_TO_WARM: Final = hot_to_warm.OPERATION
WARM_TO_COLD: Final = warm_to_cold.OPERATION
COUNTS: Final = ("rows", "waiting", "without_vector", "placed_by_guess", "kept_by_guess", "files", "bytes_read")
SOURCE: Final[dict[str, Tier]] = {HOT_TO_WARM: "hot", WARM_TO_COLD: "warm"}


def plan_move(  # noqa: PLR0913 - the parameters of the form
    run_id: str,
    kind: str,
    *,
    as_of: str | None = None,
    system: str = "",
    shard: int | None = None,
    dry_run: bool = False,
    force: bool = False,
) -> Plan:
    """Find shards with files that may hold records past their line. No data file is opened.

    Args:
        run_id: the run.
        kind: ``hot-to-warm`` or ``warm-to-cold``.
        as_of: the instant that decides, ISO 8601; None = now.
        system: only this system's shard.
        shard: only this shard, 0-255.
        dry_run: say what would move, commit nothing.
        force: accept an `as_of` more than a day ahead of the clock.

    Raises:
        UsageError: an argument is out of range.
    """
    if kind not in SOURCE:
        message = f"a move is {HOT_TO_WARM} or {WARM_TO_COLD}, found {kind!r}"
        raise UsageError(message)
    instant = parse_as_of(as_of, force=force)
    only = chosen_shards(system, shard)
    lake = open_lake(to_write=not dry_run)
    policy = lake.policy()
    cutoff = policy.hot_cutoff(instant) if kind == HOT_TO_WARM else policy.warm_cutoff(instant)
    work = []
    for head in lake.heads():
        rows = sum(entry.live_rows for entry in concerned(head, SOURCE[kind], cutoff))
        if rows and (only is None or head.shard in only):
            work.append(Work(head.shard, rows))
    message = (
        f"{kind} as of {instant.isoformat(timespec='seconds')}: {len(work)} shards hold files with records created before "
        f"{cutoff.isoformat(timespec='seconds')}" + (" (dry run)" if dry_run else "")
    )
    return write_plan(lake, kind, run_id, work, unit=ROWS, message=message, as_of=instant.isoformat(), dry_run=dry_run)


def run_batch(lake: Lake, plan: Document, batch: int) -> Result:
    """Move what is due in the shards of one batch."""
    shards = [part["shard"] for part in plan["batches"][batch]]
    instant = datetime.fromisoformat(plan["parameters"]["as_of"])
    dry_run = bool(plan["parameters"]["dry_run"])
    policy, writer = lake.policy(), writer_of(lake, plan)
    recall: dict[str, Any] | None = None
    if plan["job"] == HOT_TO_WARM:
        outcomes, measure = hot_to_warm.move_batch(lake, shards, policy, writer, as_of=instant, dry_run=dry_run)
        recall = {"recall": measure.recall, "queries": measure.queries, "judged": measure.judged}
    else:
        outcomes = warm_to_cold.move_batch(lake, shards, policy, writer, as_of=instant, dry_run=dry_run)
    return {"batch": batch, "shards": [asdict(outcome) for outcome in outcomes], "recall": recall}


def summarise(lake: Lake, plan: Document, results: Sequence[Result]) -> Summary:
    """Add up the outcomes of all batches."""
    del lake
    outcomes = [outcome for result in results for outcome in result["shards"]]
    counts = {name: sum(outcome[name] for outcome in outcomes) for name in COUNTS}
    recalls = [result["recall"] for result in results if result.get("recall") and result["recall"]["queries"]]
    dry_run = bool(plan["parameters"]["dry_run"])
    message = f"{counts['rows']:,} records {'would move' if dry_run else 'moved'} {plan['job'].replace('-', ' ')}"
    if counts["waiting"]:
        message += f", {counts['waiting']:,} wait for a vector"
    message += _guesses(counts, dry_run=dry_run)
    message += held_said(outcomes)
    if recalls:
        message += f"; recall@10 at the gate {min(recall['recall'] for recall in recalls):.3f} at least"
        message += "" if all(recall["judged"] for recall in recalls) else " (a small batch is reported, not judged)"
    return {
        "message": message,
        "counts": counts,
        "rows_changed": 0 if dry_run else counts["rows"],
        "dry_run": dry_run,
        "recall": recalls,
        "first_records": [key for outcome in outcomes for key in outcome["first_records"]][:10],
        "guess_examples": [key for outcome in outcomes for key in outcome["guess_examples"]][:10],
    }


def _guesses(counts: dict[str, int], *, dry_run: bool) -> str:
    """What was decided near the line by a time that nothing in the upload had shown."""
    said = ""
    if counts["placed_by_guess"]:
        verb = "would be" if dry_run else "were"
        said += f"; {counts['placed_by_guess']:,} records near the line {verb} placed by a guessed time"
    if counts["kept_by_guess"]:
        said += f"; {counts['kept_by_guess']:,} records near the line stay by a guessed time"
    return said
