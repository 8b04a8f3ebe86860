"""The state of a lake in numbers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from akosha.jobs.ingest import due_uploads
from akosha.jobs.listing import read_remembered
from akosha.jobs.plans import open_lake
from akosha.lake.commits import TIERS, Commit, Tier
from akosha.lake.documents import unseal
from akosha.lake.lake import Lake
from akosha.tiers.strangers import read_verdicts
from akosha.uploads.quarantine import count_by_reason
from akosha.uploads.refused_rows import refused_rows_keys

KINDS: Final[tuple[Tier, ...]] = (*TIERS, "archive")


def status() -> dict[str, Any]:
    """Records, bytes and files per tier, systems, knowledge graphs, missing vectors, quarantine, backlog, last runs. Opens no data file."""
    lake = open_lake()
    heads = lake.heads()
    due = due_uploads(lake) if lake.settings.uploads_url else None
    reasons = count_by_reason(lake.store)
    return {
        "lake": lake.settings.lake_url,
        "policy": lake.policy().number,
        "shards": len(heads),
        "systems": sum(len(head.keys) for head in heads),
        "records": sum(entry.rows for head in heads for entry in head.keys.values()),
        "graphs": _graphs(heads),
        "tiers": {kind: _figures(heads, kind) for kind in KINDS},
        "without_vector": sum(e.without_vector for head in heads for e in head.of_tier("hot")),
        "foreign_vectors": {
            verdict.system_id: verdict.left for verdict in read_verdicts(lake).values() if verdict.finding == "foreign"
        },
        "quarantined": sum(reasons.values()),
        "quarantine_reasons": reasons,
        "refused_rows_documents": sum(1 for _ in refused_rows_keys(lake.store)),
        "held_shards": [head.shard for head in heads if head.held_by],
        "due_uploads": due.uploads if due else None,
        "due": asdict(due) if due else None,
        "backlog": dict(read_remembered(lake.store).backlog),
        "last_runs": _last_runs(lake),
    }


def _graphs(heads: list[Commit]) -> dict[str, int]:
    entries = [entry for head in heads for entry in head.graphs.values()]
    return {
        "systems": len(entries),
        "entities": sum(entry.entities for entry in entries),
        "relations": sum(entry.relations for entry in entries),
        "observations": sum(entry.observations for entry in entries),
        "bytes": sum(entry.bytes for entry in entries),
    }


def _figures(heads: list[Commit], kind: Tier) -> dict[str, int]:
    entries = [entry for head in heads for entry in head.of_tier(kind)]
    return {
        "records": sum(entry.live_rows for entry in entries),
        "bytes": sum(entry.bytes for entry in entries),
        "files": len(entries),
    }


def _last_runs(lake: Lake) -> dict[str, dict[str, Any]]:
    """For each job the newest summary: when it finished, whether it was ok, its one line."""
    newest: dict[str, Any] = {}
    for found in lake.store.list("runs/"):
        name = found.key.rsplit("/", 1)[-1]
        if name.startswith("summary-"):
            job = name.removeprefix("summary-").removesuffix(".json")
            if job not in newest or found.modified > newest[job].modified:
                newest[job] = found
    last = {}
    for job, found in sorted(newest.items()):
        summary = unseal(lake.store.get(found.key), kind="summary", key=found.key)
        last[job] = {name: summary[name] for name in ("finished_at", "ok", "message", "run_id")}
    return last
