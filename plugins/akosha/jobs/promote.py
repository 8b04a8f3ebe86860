"""Promotion as a job: bring aged records back to hot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from akosha.embedding.cache import EmbeddingCache
from akosha.embedding.model import load_lane_encoder
from akosha.embedding.source import VectorSource
from akosha.errors import UsageError
from akosha.jobs.backfill import parse_interval
from akosha.jobs.embed import CACHE_FILE
from akosha.jobs.estimates import FIRST_RECORDS, estimate
from akosha.jobs.plans import (
    ROWS,
    Plan,
    Result,
    Summary,
    Work,
    held_said,
    now,
    open_lake,
    unknown_system,
    write_plan,
    writer_of,
)
from akosha.lake import layout
from akosha.lake.documents import Document
from akosha.lake.lake import Lake
from akosha.lake.schemas import HOT, KEY
from akosha.tiers import promote
from akosha.tiers.promote import PromoteOutcome, promote_shard

OPERATION: Final = promote.OPERATION
HOLD_DAYS: Final = 30
FIRST_UNARCHIVED: Final = 3  # named in the line
LISTED_MOST: Final = 100_000  # keys that a plan holds one by one
EMBED_AT_ONCE: Final = 2_000  # records, some minutes of one core: more are left to the embedding lane
COUNTS: Final = (
    "wanted", "rows", "from_warm", "from_cold", "original_vector", "embedded", "left_to_lane", "in_hot",
    "unarchived", "unknown", "bytes", "files",
)  # fmt: skip
_UTC: Final = HOT.field("created_at").type


def plan_promote(
    run_id: str,
    *,
    keys: Sequence[Sequence[str]] = (),
    system: str = "",
    between: tuple[str | None, str | None] = (None, None),
    hold_days: int = HOLD_DAYS,
    dry_run: bool = False,
) -> Plan:
    """Plan to bring records back to hot: those named, or those of a system, created in an interval.

    Args:
        run_id: the run.
        keys: ``(system_id, source_table, record_id)`` of each.
        system: instead, all records of this system that are warm or cold.
        between: of these, only those created from the first instant to before the second, ISO 8601; None = open.
        hold_days: how long no move takes them down again.
        dry_run: only say what would come back.

    Raises:
        UsageError: keys and a system are both given or both missing, the keys are too many, a value is out of range, or no
            record of the system is in the lake.
    """
    if bool(keys) == bool(system):
        message = "name records to promote: keys, a file of keys, or a system with --since and --until"
        raise UsageError(message)
    if any(len(key) != len(KEY) for key in keys):
        message = "a record is named by three words: system_id, source_table and record_id"
        raise UsageError(message)
    if len(keys) > LISTED_MOST:
        message = f"{len(keys):,} keys are too many for one run, {LISTED_MOST:,} at most: split the file"
        raise UsageError(message)
    if not 1 <= hold_days <= 36_500:
        message = f"records are held for 1 to 36500 days, found {hold_days}"
        raise UsageError(message)
    interval = parse_interval(*between)
    lake = open_lake(to_write=not dry_run)
    work = _of_keys(keys) if keys else _of_system(lake, system, [_text(interval.since), _text(interval.until)])
    until = now() + timedelta(days=hold_days)
    count = sum(part.count for part in work)
    message = f"{count:,} records are asked for and, where they are not there already, come back to hot until {until:%Y-%m-%d}"
    message = f"dry run: {message}" if dry_run else message
    return write_plan(
        lake, OPERATION, run_id, work, unit=ROWS, message=message, dry_run=dry_run, hold_until=until.isoformat(),
        embed_at_once=count <= EMBED_AT_ONCE,
    )  # fmt: skip


def read_keys(path: Path) -> list[list[str]]:
    """Keys from a file: system_id, source_table and record_id on each line, separated by tabs.

    Raises:
        UsageError: there is no such file, or a line is no key.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        message = f"cannot read the keys in {path}: {error}"
        raise UsageError(message) from error
    keys = [line.split("\t") for line in lines if line.strip()]
    for number, key in enumerate(keys, 1):
        if len(key) != len(KEY):
            message = f"{path}: expected system_id, source_table and record_id, separated by tabs, in key {number}"
            raise UsageError(message, found="\t".join(key)[:200])
    return keys


def run_batch(lake: Lake, plan: Document, batch: int) -> Result:
    """Promote the records of one batch, shard by shard."""
    parameters = plan["parameters"]
    until, dry_run = datetime.fromisoformat(parameters["hold_until"]), bool(parameters["dry_run"])
    writer = writer_of(lake, plan)
    outcomes: list[PromoteOutcome] = []
    with EmbeddingCache(lake.settings.cache / CACHE_FILE) as cache:
        source = VectorSource(cache, load_lane_encoder, deadline=None) if parameters["embed_at_once"] else None
        for part in plan["batches"][batch]:
            keys = _keys_of(lake, part)
            outcomes.append(
                promote_shard(lake, part["shard"], keys, writer, hold_until=until, source=source, dry_run=dry_run)
            )
    return {"batch": batch, "shards": [asdict(outcome) for outcome in outcomes]}


def summarise(lake: Lake, plan: Document, results: Sequence[Result]) -> Summary:
    """Add up the outcomes of all batches, and say where the vectors are from."""
    outcomes = [outcome for result in results for outcome in result["shards"]]
    counts = {name: sum(outcome[name] for outcome in outcomes) for name in COUNTS}
    dry_run = bool(plan["parameters"]["dry_run"])
    first = [key for outcome in outcomes for key in outcome["first_records"]][:FIRST_RECORDS]
    message = (
        f"{counts['rows']:,} records {'would come' if dry_run else 'came'} back to hot, {counts['from_warm']:,} from warm and "
        f"{counts['from_cold']:,} from cold: {counts['original_vector']:,} with their original vector, "
        f"{counts['embedded']:,} embedded anew, {counts['left_to_lane']:,} to be re-embedded by the embedding lane"
    )
    message += f"; {counts['in_hot']:,} were in hot already" if counts["in_hot"] else ""
    message += _unarchived_said(outcomes)
    message += f"; {counts['unknown']:,} keys are of no live record" if counts["unknown"] else ""
    return {
        "message": message + held_said(outcomes),
        "counts": counts,
        "rows_changed": 0 if dry_run else counts["rows"],
        "dry_run": dry_run,
        "first_records": first,
        **({"estimate": estimate(lake, OPERATION, counts, first)} if dry_run else {}),
    }


def _unarchived_said(outcomes: Sequence[Mapping[str, Any]]) -> str:
    total = sum(outcome["unarchived"] for outcome in outcomes)
    if not total:
        return ""
    first = [" / ".join(key) for outcome in outcomes for key in outcome["first_unarchived"]][:FIRST_UNARCHIVED]
    more = f" and {total - len(first):,} more" if total > len(first) else ""
    return (
        f"; {total:,} stay where they are, since the archive was off for their system when they left hot and only their "
        f"uploads have the full text: {'; '.join(first)}{more}"
    )


def _of_keys(keys: Sequence[Sequence[str]]) -> list[Work]:
    by_shard: dict[int, list[list[str]]] = defaultdict(list)
    for key in keys:
        by_shard[layout.shard_of(key[0])].append(list(key))
    return [Work(shard, len(wanted), items={"keys": wanted}) for shard, wanted in sorted(by_shard.items())]


def _of_system(lake: Lake, system: str, between: Sequence[str]) -> list[Work]:
    shard = layout.shard_of(system)
    if system not in lake.shard(shard).head().keys:
        raise UsageError(unknown_system(lake, system))
    items = {"system": system, "between": list(between)}
    count = _keys_of(lake, {"shard": shard, "items": items}).num_rows
    return [Work(shard, count, items=items)] if count else []


def _keys_of(lake: Lake, part: Mapping[str, Any]) -> pa.Table:
    """Keys of one part of a plan: those listed, or those of a system's live records in an interval."""
    items = part["items"]
    if "keys" in items:
        columns = list(zip(*items["keys"], strict=True))
        return pa.table({name: pa.array(column, pa.string()) for name, column in zip(KEY, columns, strict=True)})
    head = lake.shard(part["shard"]).head()
    live = lake.keys(head.keys.get(items["system"]))
    since, until = items["between"]
    if since:
        live = live.filter(pc.greater_equal(live.column("created_at"), pa.scalar(datetime.fromisoformat(since), _UTC)))
    if until:
        live = live.filter(pc.less(live.column("created_at"), pa.scalar(datetime.fromisoformat(until), _UTC)))
    system = pa.repeat(pa.scalar(items["system"], pa.string()), live.num_rows)
    return live.select(["source_table", "record_id"]).add_column(0, "system_id", system)


def _text(instant: datetime | None) -> str:
    return instant.isoformat() if instant else ""
