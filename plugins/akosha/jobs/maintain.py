"""Maintenance as a job: the sweep, what killed processes left on this machine, and the scrub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Final

from akosha.errors import IntegrityError
from akosha.jobs.estimates import estimate
from akosha.jobs.plans import (
    SHARDS,
    Plan,
    Result,
    Summary,
    Work,
    chosen_shards,
    held_said,
    now,
    open_lake,
    write_plan,
    writer_of,
)
from akosha.jobs.repair import scrub_lake
from akosha.lake.documents import Document
from akosha.lake.lake import Lake
from akosha.lake.shard_log import Writer
from akosha.lake.sweep import SweepOutcome, store_clock, sweep_shard

JOB: Final = "maintain"
NAMED_FINDINGS: Final = 20
LEFT_BEHIND: Final = timedelta(days=1)  # longer than any task may take
COUNTS: Final = (
    "condemned", "condemned_bytes", "deleted", "deleted_bytes", "versions", "strays", "left",
)  # fmt: skip


def plan_maintain(run_id: str, *, system: str = "", shard: int | None = None, dry_run: bool = False) -> Plan:
    """Plan a sweep of every shard in use.

    Args:
        run_id: the run.
        system: only this system's shard.
        shard: only this shard, 0-255.
        dry_run: only say what would be condemned and deleted. Neither this nor a run for one shard scrubs.
    """
    only = chosen_shards(system, shard)
    lake = open_lake(to_write=not dry_run)
    shards = [number for number in lake.shards() if only is None or number in only]
    settings = lake.settings
    message = (
        f"{len(shards)} shards are swept: versions that ended more than {settings.retain_days} days ago, and files that none "
        f"names, {settings.sweep_grace_hours} hours after they were condemned"
    )
    message = f"dry run: {message}" if dry_run else message
    work = [Work(number, 1) for number in shards]
    narrowed = only is not None
    return write_plan(lake, JOB, run_id, work, unit=SHARDS, message=message, dry_run=dry_run, narrowed=narrowed)


def run_batch(lake: Lake, plan: Document, batch: int) -> Result:
    """Sweep the shards of one batch."""
    dry_run = bool(plan["parameters"]["dry_run"])
    writer = writer_of(lake, plan)
    clock = now() if dry_run else store_clock(lake.store)  # a dry run writes nothing, not even to ask the time
    outcomes = [_sweep(lake, part["shard"], writer, clock, dry_run=dry_run) for part in plan["batches"][batch]]
    cleared = 0 if dry_run else lake.cache.clear_scratch(before=now() - LEFT_BEHIND)
    return {"batch": batch, "shards": outcomes, "cleared": cleared}


def _sweep(lake: Lake, shard: int, writer: Writer, clock: datetime, *, dry_run: bool) -> dict[str, Any]:
    """Sweep one shard. A damaged one is left as it is and reported: it must not keep the others from being swept."""
    try:
        return {**asdict(sweep_shard(lake, shard, writer, now=clock, dry_run=dry_run)), "damage": ""}
    except IntegrityError as error:
        return {**asdict(SweepOutcome(shard)), "damage": f"shard {shard} was not swept: {error.message}"}


def summarise(lake: Lake, plan: Document, results: Sequence[Result]) -> Summary:
    """Add up the outcomes of all batches; then read tonight's share of all bytes again."""
    outcomes = [outcome for result in results for outcome in result["shards"]]
    counts = {name: sum(outcome[name] for outcome in outcomes) for name in COUNTS}
    counts["cleared_folders"] = sum(result["cleared"] for result in results)
    dry_run = bool(plan["parameters"]["dry_run"])
    message = (
        f"{counts['deleted']:,} files of {counts['deleted_bytes'] / 1e6:,.1f} MB and {counts['versions']:,} versions "
        f"{'would be' if dry_run else 'were'} deleted; {counts['condemned']:,} files of "
        f"{counts['condemned_bytes'] / 1e6:,.1f} MB {'would be' if dry_run else 'are'} condemned, {counts['left']:,} wait"
    )
    damage = [outcome["damage"] for outcome in outcomes if outcome["damage"]]
    scrubbed = None if dry_run or plan["parameters"]["narrowed"] else scrub_lake()
    if scrubbed is not None:
        counts |= {f"scrubbed_{name}": value for name, value in scrubbed["counts"].items()}
        damage += [] if scrubbed["ok"] else [scrubbed["message"]]
        message += f"; {scrubbed['message']}" if scrubbed["ok"] else ""
    message = "; ".join([*damage, message])
    size = {"rows": 0, "bytes": counts["deleted_bytes"] + counts["condemned_bytes"]}
    files = {"files": counts["deleted"] + counts["condemned"] + counts["versions"]}
    return {
        "ok": not damage,
        "message": message + held_said(outcomes),
        "findings": scrubbed["findings"][:NAMED_FINDINGS] if scrubbed else [],
        "counts": counts,
        "rows_changed": 0,
        "dry_run": dry_run,
        **({"estimate": estimate(lake, JOB, {**size, **files})} if dry_run else {}),
    }
