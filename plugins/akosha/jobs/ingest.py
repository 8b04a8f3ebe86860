"""The ingest job: list the uploads bucket, group what is due by shard, take it in."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, cast

from akosha.errors import ObjectMissingError, UsageError
from akosha.jobs.plans import (
    UPLOAD_KILOBYTES,
    UPLOADS,
    Plan,
    Result,
    Summary,
    Work,
    chosen_shards,
    now,
    open_lake,
    write_plan,
    writer_of,
)
from akosha.lake.documents import Document, seal, unseal
from akosha.lake.lake import Lake
from akosha.lake.stores import open_store
from akosha.settings import Settings
from akosha.uploads.discovery import Discovery, discover
from akosha.uploads.ingest import Ingester
from akosha.uploads.memos import REPLACED, UploadRef, quarantined, read_memo, upload_of, write_memo
from akosha.uploads.prepare import Source
from akosha.uploads.sandbox import Sandbox

JOB: Final = "ingest"
FULL_LISTING: Final = "runs/full-listing.json"
FULL_EVERY: Final = timedelta(hours=24)

Listing = Literal["auto", "recent", "full"]


def plan_ingest(run_id: str, *, system: str = "", shard: int | None = None, listing: str = "auto") -> Plan:
    """List what is due and plan its batches.

    Args:
        run_id: the run.
        system: only this system.
        shard: only systems of this shard, 0-255.
        listing: ``recent`` starts 48 hours before each system's newest applied upload, ``full`` walks everything, ``auto``
            is full once in 24 hours and recent otherwise.
    """
    chosen_shards(system, shard)
    lake = open_lake(to_write=True)
    full = listing == "full" or (listing == "auto" and _full_is_due(lake))
    newest = {} if full else _newest_manifests(lake)
    source = uploads_source(lake.settings)
    found = discover(source.store, lake.store, newest=newest, system=system, shard=shard)
    if full and not system and shard is None:
        lake.store.put(FULL_LISTING, seal({"format": "akosha-summary/1", "listed_at": now().isoformat()}))
    message = (
        f"{len(found.due)} uploads are due; {found.manifests} manifests of {found.systems} systems were listed "
        f"({'full' if full else 'recent'} listing)"
    )
    if found.unusable:
        message += (
            f"; {len(found.unusable)} manifests under unusable keys are left alone, for example {found.unusable[0]!r}"
        )
    return _write(lake, run_id, found, message)


def plan_replay(run_id: str, memos: Sequence[str]) -> Plan:
    """Plan to take quarantined uploads in again: those of the given memo keys, or all when none is given.

    Raises:
        UsageError: a key is not that of an upload in quarantine.
    """
    lake = open_lake(to_write=True)
    keys = set(quarantined(lake.store))
    unknown = sorted(set(memos) - keys)
    if unknown:
        message = f"not in quarantine: {unknown[0]}; `akosha quarantine list` shows what is"
        raise UsageError(message)
    found = Discovery()
    source = uploads_source(lake.settings)
    for key in sorted(set(memos) or keys):
        memo = read_memo(lake.store, key)
        ref = upload_of(memo)
        listed = source.store.stat(ref.manifest_key)
        if listed is not None and listed.etag != ref.etag:
            evidence = {name: value for name, value in memo.items() if name != "outcome"}
            write_memo(lake.store, ref, REPLACED, {**evidence, "replaced_by": listed.etag})
            ref = UploadRef(ref.manifest_key, listed.etag, ref.system_id, ref.upload_id)
        found.due.append(ref)
    return _write(lake, run_id, found, f"{len(found.due)} quarantined uploads are tried again")


def run_batch(lake: Lake, plan: Document, batch: int) -> Result:
    """Ingest the uploads of one batch, shard by shard."""
    with Sandbox() as sandbox:
        ingester = Ingester(lake, uploads_source(lake.settings), sandbox, writer_of(lake, plan))
        outcomes = [
            asdict(ingester.ingest_shard(part["shard"], [UploadRef(**item) for item in part["items"]]))
            for part in plan["batches"][batch]
        ]
    return {"batch": batch, "shards": outcomes}


def summarise(lake: Lake, plan: Document, results: Sequence[Result]) -> Summary:
    """Add up the outcomes of all batches."""
    outcomes = [outcome for result in results for outcome in result["shards"]]
    totals = Counter[str]()
    for outcome in outcomes:
        totals.update({name: value for name, value in outcome.items() if isinstance(value, int) and name != "shard"})
    counts = {name: totals[name] for name in COUNTS}
    reasons = [reason for outcome in outcomes for reason in outcome["reasons"]]
    message = (
        f"{counts['applied']} uploads applied, {counts['unchanged']} held nothing new, {counts['quarantined']} quarantined: "
        f"{counts['new']:,} new records, {counts['changed']:,} changed"
    )
    if counts["graph_rows"]:
        message += f"; {counts['graph_rows']:,} new or changed rows of knowledge graphs"
    if counts["older"]:
        message += f"; {counts['older']:,} older texts did not replace newer ones"
    if counts["deferred"]:
        message += f"; {counts['deferred']} uploads changed while being read and come again"
    changed = counts["new"] + counts["changed"] + counts["retimed"]
    systems = {item["system_id"] for batch in plan["batches"] for part in batch for item in part["items"]}
    del lake
    return {
        "message": message,
        "counts": {**counts, "systems": len(systems)},
        "rows_changed": changed,
        "quarantined": reasons,
    }


COUNTS: Final = (
    "uploads",
    "applied",
    "unchanged",
    "quarantined",
    "deferred",
    "rows_read",
    "refused_rows",
    "new",
    "changed",
    "retimed",
    "older",
    "graph_rows",
    "commits",
)


def uploads_source(settings: Settings) -> Source:
    """The uploads root, and the prefix that manifests may write before their paths."""
    url = settings.require_uploads_url()
    prefix = url.removeprefix("s3://").partition("/")[2].strip("/") if url.startswith("s3://") else ""
    return Source(open_store(url, settings, setting="AKOSHA_UPLOADS_URL"), prefix)


def due_uploads(lake: Lake) -> Discovery:
    """What a recent listing finds due, for `status`."""
    return discover(uploads_source(lake.settings).store, lake.store, newest=_newest_manifests(lake))


def _write(lake: Lake, run_id: str, found: Discovery, message: str) -> Plan:
    by_shard: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for ref in found.due:
        by_shard[ref.shard].append({name: getattr(ref, name) for name in UploadRef.__slots__})
    work = [
        Work(number, len(items), sum(UPLOAD_KILOBYTES + int(item["packed_bytes"]) // 1_000 for item in items), items)
        for number, items in sorted(by_shard.items())
    ]
    counts = {"systems_listed": found.systems, "manifests_listed": found.manifests, "due": len(found.due)}
    plan = write_plan(lake, JOB, run_id, work, unit=UPLOADS, message=message, **counts)
    return {**plan, "counts": counts}


def _newest_manifests(lake: Lake) -> dict[str, datetime]:
    return {
        system_id: datetime.fromisoformat(entry.newest_manifest)
        for head in lake.heads()
        for system_id, entry in head.keys.items()
    }


def _full_is_due(lake: Lake) -> bool:
    try:
        last = unseal(lake.store.get(FULL_LISTING), kind="summary", key=FULL_LISTING)
    except ObjectMissingError:
        return True
    return now() - datetime.fromisoformat(cast("Any", last)["listed_at"]).astimezone(UTC) >= FULL_EVERY
