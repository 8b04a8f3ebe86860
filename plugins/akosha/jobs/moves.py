"""The two moves as jobs."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from akosha.errors import UsageError
from akosha.jobs.estimates import estimate
from akosha.jobs.explain import explain_key
from akosha.jobs.explained import one_line
from akosha.jobs.plans import (
    ROWS,
    Plan,
    Result,
    Summary,
    Work,
    chosen_shards,
    open_lake,
    parse_as_of,
    policy_of_parameters,
    policy_of_plan,
    read_plan,
    write_plan,
    writer_of,
)
from akosha.jobs.slices import Slice, done_after, part_of, take
from akosha.lake.documents import Document
from akosha.lake.lake import Lake
from akosha.lake.policy import Source
from akosha.tiers import hot_to_warm, warm_to_cold
from akosha.tiers.moves import ShardMove, concerned

log = logging.getLogger(__name__)

LOGGED: Final = 3
HOT_TO_WARM: Final = hot_to_warm.OPERATION
WARM_TO_COLD: Final = warm_to_cold.OPERATION
COUNTS: Final = (
    "rows", "waiting", "without_vector", "placed_by_guess", "kept_by_guess", "unarchived", "files", "bytes_read",
)  # fmt: skip
STAYING: Final = {
    "pinned": "pinned",
    "held": "held by a promotion",
    "residence": "in the lake for too short a time",
    "importance": "important",
    "access": "accessed lately",
}
SOURCE: Final[dict[str, Source]] = {HOT_TO_WARM: "hot", WARM_TO_COLD: "warm"}


def plan_move(  # noqa: PLR0913 - the parameters of the form
    run_id: str,
    kind: str,
    *,
    as_of: str | None = None,
    system: str = "",
    shard: int | None = None,
    dry_run: bool = False,
    force: bool = False,
    continues: str = "",
    limit_bytes: int | None = None,
) -> Plan:
    """Find shards with files that may hold records past their line, and take a slice of them. No data file is opened.

    Args:
        run_id: the run.
        kind: ``hot-to-warm`` or ``warm-to-cold``.
        as_of: the instant that decides, ISO 8601; None = now.
        system: only this system's shard.
        shard: only this shard, 0-255.
        dry_run: say what would move, all of it; commit nothing.
        force: accept an `as_of` more than a day ahead of the clock.
        continues: key of the plan whose rest this run takes; its `as_of` decides.
        limit_bytes: bytes of files the run may take, the oldest first; None = AKOSHA_MOVE_BYTES_PER_RUN, 0 = no limit.

    Returns:
        the plan; ``left`` says what the slice leaves, and is empty when it takes everything.

    Raises:
        UsageError: an argument is out of range.
    """
    if kind not in SOURCE:
        message = f"a move is {HOT_TO_WARM} or {WARM_TO_COLD}, found {kind!r}"
        raise UsageError(message)
    asked = parse_as_of(as_of, force=force)
    only = chosen_shards(system, shard)
    lake = open_lake(to_write=not dry_run)
    before = _parameters_of(lake, kind, continues)
    instant = datetime.fromisoformat(before["as_of"]) if before else asked
    done: dict[str, str] = before.get("done", {})
    policy, tier = policy_of_parameters(lake, before), SOURCE[kind]
    heads = [head for head in lake.heads() if only is None or head.shard in only]
    held = [head.shard for head in heads if head.held_by]
    parts = [
        part_of(head.shard, concerned(head, tier, policy.cutoff(tier, instant, head.keys)), done)
        for head in heads
        if not head.held_by
    ]
    limit = 0 if dry_run else lake.settings.move_bytes_per_run if limit_bytes is None else limit_bytes
    piece = take([part for part in parts if part], limit, done)
    work = [
        Work(one.part.shard, one.part.rows, items=one.until.isoformat() if one.until else None) for one in piece.taken
    ]
    left = _left(piece, number=int(before.get("slice", 0)) + 1)
    cutoff = policy.cutoff(tier, instant).isoformat(timespec="seconds")
    message = (
        f"{kind} as of {instant.isoformat(timespec='seconds')} under policy {policy.number}: {len(work)} shards hold files "
        f"with records created before {cutoff}"
        + (", or before the line of a system with its own" if policy.systems else "")
        + (" (dry run)" if dry_run else "")
        + _said_of_rest(left, held)
    )
    plan = write_plan(
        lake, kind, run_id, work, unit=ROWS, message=message, as_of=instant.isoformat(), dry_run=dry_run, left=left,
        held=held, slice=int(before.get("slice", 0)) + 1, done=done_after(done, piece.taken), policy=policy.number,
    )  # fmt: skip
    return {**plan, "left": left}


def _parameters_of(lake: Lake, kind: str, plan_key: str) -> dict[str, Any]:
    """The parameters of the plan that is continued.

    Raises:
        UsageError: it is that of another job.
    """
    if not plan_key:
        return {}
    plan = read_plan(lake, plan_key)
    if plan["job"] != kind:
        message = f"a {kind} continues a {kind}, found a plan of {plan['job']}: {plan_key}"
        raise UsageError(message)
    return dict(plan["parameters"])


def _left(piece: Slice, number: int) -> dict[str, int]:
    if not piece.left:
        return {}
    entries = [entry for part in piece.left for entry in part.entries]
    return {
        "slice": number,
        "shards": len(piece.left),
        "files": len(entries),
        "bytes": sum(entry.bytes for entry in entries),
    }


def _said_of_rest(left: Mapping[str, int], held: Sequence[int]) -> str:
    said = ""
    if left:
        said += (
            f"; slice {left['slice']}, {left['shards']} shards with {left['files']:,} files of {left['bytes'] / 1e6:,.1f} MB "
            "are left to the next run (AKOSHA_MOVE_BYTES_PER_RUN)"
        )
    if held:
        said += f"; held after an undo and left alone: shards {_listed(held)}. `akosha release` lets them go"
    return said


def _listed(shards: Sequence[int]) -> str:
    return ", ".join(f"{shard:03d}" for shard in shards)


def run_batch(lake: Lake, plan: Document, batch: int) -> Result:
    """Move what is due in the shards of one batch. A shard that is held by now is left alone and says so."""
    by_instant: dict[str, list[int]] = defaultdict(list)
    for part in plan["batches"][batch]:
        by_instant[part["items"] or ""].append(part["shard"])
    outcomes: list[ShardMove] = []
    recalls = []
    for until, shards in sorted(by_instant.items()):
        moved, recall = _move(lake, plan, shards, datetime.fromisoformat(until) if until else None)
        outcomes += moved
        recalls += [recall] if recall else []
    _log_first(lake, plan, outcomes)
    return {"batch": batch, "shards": [asdict(outcome) for outcome in outcomes], "recalls": recalls}


def _log_first(lake: Lake, plan: Document, outcomes: Sequence[ShardMove]) -> None:
    """Say of the first records concerned what `akosha explain` says, where an operator reads the log of the task."""
    keys = [key for outcome in outcomes for key in outcome.first_records][:LOGGED]
    for system, table, record in keys:
        answer = explain_key(
            lake, (system, table, record), datetime.fromisoformat(plan["parameters"]["as_of"]), history=False
        )
        log.info("first record: %s", one_line(answer))


def _move(
    lake: Lake, plan: Document, shards: Sequence[int], until: datetime | None
) -> tuple[list[ShardMove], dict[str, Any] | None]:
    instant, dry_run = datetime.fromisoformat(plan["parameters"]["as_of"]), bool(plan["parameters"]["dry_run"])
    policy, writer = policy_of_plan(lake, plan), writer_of(lake, plan)
    if plan["job"] == WARM_TO_COLD:
        return warm_to_cold.move_batch(lake, shards, policy, writer, as_of=instant, until=until, dry_run=dry_run), None
    outcomes, measure = hot_to_warm.move_batch(
        lake, shards, policy, writer, as_of=instant, until=until, dry_run=dry_run
    )
    return outcomes, {"recall": measure.recall, "queries": measure.queries, "judged": measure.judged}


def summarise(lake: Lake, plan: Document, results: Sequence[Result]) -> Summary:
    """Add up the outcomes of all batches."""
    outcomes = [outcome for result in results for outcome in result["shards"]]
    counts = {name: sum(outcome[name] for outcome in outcomes) for name in COUNTS}
    staying = {name: sum(outcome["staying"].get(name, 0) for outcome in outcomes) for name in STAYING}
    counts |= {f"stay_{name}": rows for name, rows in staying.items() if rows}
    recalls = [recall for result in results for recall in result["recalls"] if recall["queries"]]
    parameters = plan["parameters"]
    held = sorted({*parameters["held"], *(outcome["shard"] for outcome in outcomes if outcome["waits_for"])})
    dry_run = bool(parameters["dry_run"])
    message = f"{counts['rows']:,} records {'would move' if dry_run else 'moved'} {plan['job'].replace('-', ' ')}"
    if counts["waiting"]:
        message += f", {counts['waiting']:,} wait for a vector"
    for name, rows in staying.items():
        message += f", {rows:,} stay: {STAYING[name]}" if rows else ""
    if counts["unarchived"]:
        message += f", {counts['unarchived']:,} of them without their full text: the archive is off for their system"
    message += _guesses(counts, dry_run=dry_run)
    message += f" (policy {parameters['policy']})" if parameters.get("policy") else ""
    if recalls:
        message += f"; recall@10 at the gate {min(recall['recall'] for recall in recalls):.3f} at least"
        message += "" if all(recall["judged"] for recall in recalls) else " (a small batch is reported, not judged)"
    message += _said_of_rest(parameters["left"], held)
    first = [key for outcome in outcomes for key in outcome["first_records"]][:10]
    estimated = {"rows": counts["rows"], "bytes": counts["bytes_read"], "files": counts["files"]}
    return {
        "message": message,
        "counts": counts,
        "rows_changed": 0 if dry_run else counts["rows"],
        "recall": recalls,
        "held": held,
        "left": parameters["left"],
        "first_records": first,
        **({"estimate": estimate(lake, plan["job"], estimated, first)} if dry_run else {}),
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
