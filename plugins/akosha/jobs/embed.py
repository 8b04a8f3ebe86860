"""The embedding job: fill missing vectors in hot, and replace clients' vectors of other models, within a budget."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, Final

import pyarrow.compute as pc

from akosha.embedding.cache import EmbeddingCache
from akosha.embedding.model import load_lane_encoder
from akosha.embedding.source import VectorSource
from akosha.errors import UsageError
from akosha.jobs.estimates import FIRST_RECORDS, Estimate, estimate
from akosha.jobs.plans import (
    TEXTS,
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
from akosha.lake.commits import FileEntry
from akosha.lake.documents import Document
from akosha.lake.lake import Lake
from akosha.lake.schemas import KEY
from akosha.lake.shard_log import Writer
from akosha.tiers.embed import ShardEmbedding, client_vectors, embed_shard, replace_vectors
from akosha.tiers.strangers import SAMPLE_RECORDS, Verdict, due_systems, judge, read_verdicts, remember

JOB: Final = "embed"
CACHE_FILE: Final = "embeddings.sqlite"
NAMED_SYSTEMS: Final = 20


def plan_embed(
    run_id: str,
    *,
    system: str = "",
    shard: int | None = None,
    budget_seconds: float | None = None,
    dry_run: bool = False,
) -> Plan:
    """Find shards with records that lack a vector, and systems whose own vectors are not yet judged.

    No model is loaded when there is neither.

    Args:
        run_id: the run.
        system: only this system's shard.
        shard: only this shard, 0-255.
        budget_seconds: for all batches of the run, from now on; None = AKOSHA_EMBED_BUDGET_SECONDS, 0 = no limit.
        dry_run: only say how many vectors are missing and what filling them would take.
    """
    if budget_seconds is not None and not (math.isfinite(budget_seconds) and budget_seconds >= 0):
        message = f"the budget is a number of seconds, 0 = no limit, found {budget_seconds}"
        raise UsageError(message)
    only = chosen_shards(system, shard)
    lake = open_lake(to_write=not dry_run)
    policy = lake.settings.client_vectors
    verdicts = {} if policy == "keep" else read_verdicts(lake)
    work = []
    concerned: list[FileEntry] = []
    for head in lake.heads():
        if only is not None and head.shard not in only:
            continue
        lacking = [entry for entry in head.of_tier("hot") if entry.without_vector]
        missing = sum(entry.without_vector for entry in lacking)
        concerned += lacking
        due = due_systems(head, verdicts, policy, now())
        if missing or due:
            pending = sum(verdicts[name].left for name in due if name in verdicts)
            work.append(Work(head.shard, missing, missing + pending + SAMPLE_RECORDS * len(due), due))
    budget = lake.settings.embed_budget_seconds if budget_seconds is None else budget_seconds
    about: dict[str, Any] = {"budget_seconds": budget, "dry_run": dry_run}
    if dry_run:
        return write_plan(
            lake, JOB, run_id, (), unit=TEXTS, message=f"dry run: {_said(work)}",
            estimate=_estimate(lake, concerned), **about,
        )  # fmt: skip
    return write_plan(lake, JOB, run_id, work, unit=TEXTS, message=_said(work), **about)


def run_batch(lake: Lake, plan: Document, batch: int) -> Result:
    """Embed what is missing in the shards of one batch; then judge clients' vectors, and replace those of other models."""
    parts = plan["batches"][batch]
    writer = writer_of(lake, plan)
    missing = sum(entry.without_vector for part in parts for entry in lake.shard(part["shard"]).head().of_tier("hot"))
    with EmbeddingCache(lake.settings.cache / CACHE_FILE) as cache:
        source = VectorSource(cache, load_lane_encoder, deadline=_deadline(plan), expected=missing)
        filled = [embed_shard(lake, part["shard"], source, writer) for part in parts]
        outcomes = [
            asdict(done) | _strangers(lake, done, part["items"] or [], source, writer)
            for done, part in zip(filled, parts, strict=True)
        ]
    return {"batch": batch, "shards": outcomes}


def summarise(lake: Lake, plan: Document, results: Sequence[Result]) -> Summary:
    """Add up the outcomes of all batches, and remember what was found of clients' vectors."""
    del plan
    outcomes = [outcome for result in results for outcome in result["shards"]]
    verdicts = [Verdict(**verdict) for outcome in outcomes for verdict in outcome["verdicts"]]
    remember(lake, verdicts)
    foreign = {verdict.system_id: verdict.replaced for verdict in verdicts if verdict.finding == "foreign"}
    names = ("embedded", "from_cache", "left", "replaced", "to_replace")
    counts = {name: sum(outcome[name] for outcome in outcomes) for name in names}
    counts |= {"judged": len(verdicts), "foreign": len(foreign)}
    message = (
        f"{counts['embedded']:,} vectors filled ({counts['from_cache']:,} from the cache), {counts['left']:,} left"
    )
    if foreign:
        message += (
            f"; {counts['replaced']:,} vectors of another model replaced, {counts['to_replace']:,} left, "
            f"sent by {', '.join(sorted(foreign)[:NAMED_SYSTEMS])}"
        )
    message += held_said(outcomes)
    return {
        "message": message,
        "counts": counts,
        "foreign": foreign,
        "rows_changed": counts["embedded"] + counts["replaced"],
    }


def _estimate(lake: Lake, concerned: Sequence[FileEntry]) -> Estimate:
    """What filling the missing vectors of these files would take. Opens a few of them, to name the first records."""
    first: list[list[str]] = []
    for entry in concerned:
        rows = lake.rows(entry, [*KEY, "embedding"])
        keys = rows.filter(pc.is_null(rows.column("embedding"))).select(KEY).slice(0, FIRST_RECORDS - len(first))
        first += [list(row.values()) for row in keys.to_pylist()]
        if len(first) >= FIRST_RECORDS:
            break
    counts = {
        "rows": sum(entry.without_vector for entry in concerned),
        "bytes": sum(entry.bytes for entry in concerned),
        "files": len(concerned),
    }
    return estimate(lake, JOB, counts, first)


def _said(work: Sequence[Work]) -> str:
    missing, due = sum(part.count for part in work), sum(len(part.items) for part in work)
    message = f"{missing:,} records in {sum(1 for part in work if part.count)} shards have no vector yet"
    return message + (f"; {due:,} systems are to be looked at for vectors of another model" if due else "")


def _deadline(plan: Document) -> float | None:
    """When the run's budget ends, on this process's monotonic clock. It runs from the plan, for all batches together."""
    budget = float(plan["parameters"]["budget_seconds"])
    if not budget:
        return None
    spent = (now() - datetime.fromisoformat(plan["planned_at"])).total_seconds()
    return time.monotonic() + budget - spent


def _strangers(
    lake: Lake, done: ShardEmbedding, due: Sequence[str], source: VectorSource, writer: Writer
) -> dict[str, Any]:
    """Judge the systems that are due in a shard and replace what is foreign, as far as the budget lasts."""
    if not due or source.exhausted or done.waits_for:
        return {"replaced": 0, "to_replace": 0, "verdicts": []}
    head = lake.shard(done.shard).head()
    verdicts = judge(lake, head, due, source, policy=lake.settings.client_vectors, now=writer.now)
    foreign = [verdict.system_id for verdict in verdicts if verdict.finding == "foreign"]
    source.expect(sum(verdict.left for verdict in verdicts))
    replaced = replace_vectors(lake, done.shard, foreign, source, writer)
    left = client_vectors(lake, lake.shard(done.shard).head(), foreign) if replaced.left else {}
    settled = [
        replace(verdict, replaced=max(0, verdict.left - left.get(verdict.system_id, 0)),
                left=left.get(verdict.system_id, 0)) if verdict.finding == "foreign" else verdict
        for verdict in verdicts
    ]  # fmt: skip
    return {
        "replaced": replaced.embedded,
        "to_replace": replaced.left,
        "verdicts": [asdict(verdict) for verdict in settled],
    }
