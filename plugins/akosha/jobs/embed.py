"""The embedding job: fill missing vectors in hot, within a budget."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from akosha.embedding.cache import EmbeddingCache
from akosha.embedding.model import MODEL_ID, load_encoder
from akosha.errors import UsageError
from akosha.jobs.plans import TEXTS, Plan, Result, Summary, Work, chosen_shards, open_lake, write_plan, writer_of
from akosha.lake.documents import Document
from akosha.lake.lake import Lake
from akosha.tiers.embed import VectorSource, embed_shard

JOB: Final = "embed"
CACHE_FILE: Final = "embeddings.sqlite"


def plan_embed(run_id: str, *, system: str = "", shard: int | None = None, budget_seconds: float | None = None) -> Plan:
    """Find shards with records that lack a vector. No model is loaded when there is none.

    Args:
        run_id: the run.
        system: only this system's shard.
        shard: only this shard, 0-255.
        budget_seconds: for each batch; None = AKOSHA_EMBED_BUDGET_SECONDS, 0 = no limit.
    """
    if budget_seconds is not None and not (math.isfinite(budget_seconds) and budget_seconds >= 0):
        message = f"the budget is a number of seconds, 0 = no limit, found {budget_seconds}"
        raise UsageError(message)
    only = chosen_shards(system, shard)
    lake = open_lake(to_write=True)
    work = []
    for head in lake.heads():
        missing = sum(entry.without_vector for entry in head.of_tier("hot"))
        if missing and (only is None or head.shard in only):
            work.append(Work(head.shard, missing))
    budget = lake.settings.embed_budget_seconds if budget_seconds is None else budget_seconds
    total = sum(part.count for part in work)
    message = f"{total:,} records in {len(work)} shards have no vector yet"
    return write_plan(lake, JOB, run_id, work, unit=TEXTS, message=message, budget_seconds=budget)


def run_batch(lake: Lake, plan: Document, batch: int) -> Result:
    """Embed what is missing in the shards of one batch."""
    budget = float(plan["parameters"]["budget_seconds"])
    deadline = time.monotonic() + budget if budget else None
    writer = writer_of(lake, plan)
    with EmbeddingCache(lake.settings.cache / CACHE_FILE) as cache:
        source = VectorSource(cache, load_encoder, MODEL_ID, deadline)
        outcomes = [asdict(embed_shard(lake, part["shard"], source, writer)) for part in plan["batches"][batch]]
    return {"batch": batch, "shards": outcomes}


def summarise(lake: Lake, plan: Document, results: Sequence[Result]) -> Summary:
    """Add up the outcomes of all batches."""
    del lake, plan
    outcomes = [outcome for result in results for outcome in result["shards"]]
    counts = {name: sum(outcome[name] for outcome in outcomes) for name in ("embedded", "from_cache", "left")}
    message = (
        f"{counts['embedded']:,} vectors filled ({counts['from_cache']:,} from the cache), {counts['left']:,} left"
    )
    return {"message": message, "counts": counts, "rows_changed": counts["embedded"]}
