"""The ingest job: list what is due of the uploads bucket, share the run out among systems, take it in."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final

from akosha.errors import ConfigurationError, UsageError
from akosha.jobs.estimates import estimate
from akosha.jobs.listing import Listing, Narrowing, look, remember
from akosha.jobs.plans import (
    UPLOAD_KILOBYTES,
    UPLOADS,
    Plan,
    Result,
    Summary,
    Work,
    chosen_shards,
    held_said,
    now,
    open_lake,
    parse_as_of,
    write_plan,
    writer_of,
)
from akosha.lake.documents import Document
from akosha.lake.lake import Lake
from akosha.lake.stores import open_store
from akosha.quality.ingest_figures import judge_figures, said
from akosha.settings import Settings
from akosha.uploads.fairness import Backlog, Share, backlog_of, share_out
from akosha.uploads.ingest import Ingester, IngestOutcome
from akosha.uploads.memos import REPLACED, UploadRef, quarantined, read_memo, upload_of, write_memo
from akosha.uploads.prepare import Source
from akosha.uploads.sandbox import reading_process

JOB: Final = "ingest"
LISTINGS: Final = ("auto", "recent", "full")
About = Mapping[str, Any]
NAMED_KEYS: Final = 20  # unusable keys that a summary names; all are counted
# Every number of an outcome is summed up, so that a new one cannot be forgotten here.
COUNTS: Final = tuple(field.name for field in fields(IngestOutcome) if field.type == "int" and field.name != "shard")


def plan_ingest(  # noqa: PLR0913 - the parameters of the form
    run_id: str,
    *,
    system: str = "",
    shard: int | None = None,
    listing: str = "auto",
    wake: Sequence[str] = (),
    at: str | None = None,
    dry_run: bool = False,
) -> Plan:
    """List what is due and plan its batches.

    Args:
        run_id: the run.
        system: only this system.
        shard: only systems of this shard, 0-255.
        listing: ``recent`` lists systems that are active, never seen or at their turn, each from 48 hours before its newest
            upload; ``full`` walks everything; ``auto`` is full in the first run of a UTC day and recent otherwise.
        wake: only these systems, at once: an event has named them. With everything that is due when a run for all is overdue.
        at: the run's instant, ISO 8601; it decides whose turn it is. None, or later than now = now.
        dry_run: only say what would be taken; the next run lists as if this one had not been.

    Raises:
        UsageError: the shard is not the system's, the kind of listing is unknown, or `at` is no time.
    """
    chosen_shards(system, shard)
    if listing not in LISTINGS:
        message = f"listing must be one of {', '.join(LISTINGS)}, found {listing!r}"
        raise UsageError(message)
    clock = now()
    instant = min(parse_as_of(at, force=True), clock)
    lake = open_lake(to_write=not dry_run)
    source = uploads_source(lake.settings)
    seen = look(lake, source.store, Narrowing(system, shard, tuple(wake)), listing, instant)
    taken, rest = share_out(seen.found.due, share_of(lake.settings))
    backlog = backlog_of(rest, clock)
    size = sum(ref.packed_bytes for ref in taken)
    counts = {
        **counts_of(seen),
        "planned": 0 if dry_run else len(taken),
        "planned_bytes": 0 if dry_run else size,
        **{f"backlog_{name}": value for name, value in asdict(backlog).items()},
    }
    about = {**counts, "unusable": seen.found.unusable[:NAMED_KEYS], "dry_run": dry_run}
    message = _message(seen, {**counts, "planned": len(taken)}, backlog)
    if dry_run:
        return write_ingest_plan(lake, run_id, (), f"dry run: {message}", {**about, **would_take(lake, taken)})
    plan = write_ingest_plan(lake, run_id, taken, message, about)
    remember(lake, seen, {**asdict(backlog), "systems_left": len(seen.found.left)})
    return plan


def would_take(lake: Lake, refs: Sequence[UploadRef]) -> dict[str, Any]:
    """What a dry run says of uploads: the estimate of taking them in, and the first of them by name."""
    keys = [ref.manifest_key for ref in refs]
    counts = {"bytes": sum(ref.packed_bytes for ref in refs), "files": len(refs)}
    return {"estimate": estimate(lake, JOB, counts, keys), "would_take": keys[:NAMED_KEYS]}


def counts_of(seen: Listing) -> dict[str, int]:
    """What a listing cost and found, as named numbers."""
    found = seen.found
    return {
        **seen.requests,
        "parts_listed": found.scopes,
        "parts_left": len(found.left),
        "systems_listed": len(found.systems),
        "manifests_listed": found.manifests,
        "unusable_keys": len(found.unusable),
        "due": len(found.due),
    }


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
    due: list[UploadRef] = []
    source = uploads_source(lake.settings)
    for key in sorted(set(memos) or keys):
        memo = read_memo(lake.store, key)
        ref = upload_of(memo)
        listed = source.store.stat(ref.manifest_key)
        if listed is not None and listed.etag != ref.etag:
            evidence = {name: value for name, value in memo.items() if name != "outcome"}
            write_memo(lake.store, ref, REPLACED, {**evidence, "replaced_by": listed.etag})
            ref = UploadRef(ref.manifest_key, listed.etag, ref.system_id, ref.upload_id)
        due.append(ref)
    about = {"due": len(due), "planned": len(due)}
    return write_ingest_plan(lake, run_id, due, f"{len(due)} quarantined uploads are tried again", about)


def run_batch(lake: Lake, plan: Document, batch: int) -> Result:
    """Ingest the uploads of one batch, shard by shard."""
    source = uploads_source(lake.settings)
    with reading_process() as sandbox:
        force = bool(plan["parameters"].get("force", False))
        ingester = Ingester(lake, source, sandbox, writer_of(lake, plan), force)
        outcomes = [
            asdict(ingester.ingest_shard(part["shard"], [UploadRef(**item) for item in part["items"]]))
            for part in plan["batches"][batch]
        ]
    return {"batch": batch, "shards": outcomes, "requests": source.store.requests.total}


def summarise(lake: Lake, plan: Document, results: Sequence[Result]) -> Summary:
    """Add up the outcomes of all batches: every number of the plan and of the work, by name."""
    del lake
    outcomes = [outcome for result in results for outcome in result["shards"]]
    planned = {part["shard"]: len(part["items"]) for batch in plan["batches"] for part in batch}
    figures = judge_figures(outcomes, run_id=plan["run_id"], planned=planned)
    totals = Counter[str]()
    for outcome in outcomes:
        totals.update({name: outcome[name] for name in COUNTS})
    counts = {name: totals[name] for name in COUNTS}
    parameters = plan["parameters"]
    systems = {item["system_id"] for batch in plan["batches"] for part in batch for item in part["items"]}
    return {
        "ok": figures["success"],
        "figures": figures,
        "message": _did(plan, counts) + held_said(outcomes) + said(figures),
        "counts": {**_numbers(parameters), **counts, "systems": len(systems)},
        "rows_changed": sum(counts[name] for name in ("new", "changed", "retimed", "amended", "gone")),
        "quarantine_reasons": dict(Counter(entry["reason"] for outcome in outcomes for entry in outcome["reasons"])),
        "quarantined": [reason for outcome in outcomes for reason in outcome["reasons"]],
        **{name: parameters[name] for name in ("unusable", "would_take") if parameters.get(name)},
    }


def _did(plan: Document, counts: Mapping[str, int]) -> str:
    if plan["batches"]:
        return _done(counts)
    return str(plan["message"]) if plan["parameters"].get("dry_run") else f"nothing to do: {plan['message']}"


def _done(counts: Mapping[str, int]) -> str:
    message = (
        f"{counts['applied']} uploads applied, {counts['unchanged']} held nothing new, {counts['quarantined']} quarantined: "
        f"{counts['new']:,} new records, {counts['changed']:,} changed"
    )
    if counts["graph_rows"]:
        message += f"; {counts['graph_rows']:,} new or changed rows of knowledge graphs"
    if counts["older"]:
        message += f"; {counts['older']:,} older texts did not replace newer ones"
    if counts["superseded"]:
        message += f"; {counts['superseded']} left quarantine because a newer upload of their system was taken in"
    if counts["held"]:
        message += f"; {counts['held']} uploads wait for the release of their shard and come again"
    if counts["deferred"]:
        message += f"; {counts['deferred']} uploads changed while being read and come again"
    return message


def uploads_source(settings: Settings) -> Source:
    """The uploads root, and the prefix that manifests may write before their paths.

    Raises:
        ConfigurationError: it is not set, or a folder that is not there. S3 says so itself when it is asked.
    """
    url = settings.require_uploads_url()
    prefix = url.removeprefix("s3://").partition("/")[2].strip("/") if url.startswith("s3://") else ""
    store = open_store(url, settings, setting="AKOSHA_UPLOADS_URL")
    folder = store.local_path("")
    if folder is not None and not Path(folder).is_dir():
        message = f"there is no folder {folder}: create or mount it, or change AKOSHA_UPLOADS_URL"
        raise ConfigurationError(message, setting="AKOSHA_UPLOADS_URL")
    return Source(store, prefix)


def share_of(settings: Settings) -> Share:
    """What a run may take, by the settings."""
    return Share(settings.system_uploads, settings.system_bytes, settings.run_uploads, settings.run_bytes)


def due_uploads(lake: Lake) -> Backlog:
    """What the next recent listing would find due, for `status`; nothing is remembered of it."""
    clock = now()
    seen = look(lake, uploads_source(lake.settings).store, Narrowing(), "recent", clock)
    return backlog_of(seen.found.due, clock)


def write_ingest_plan(lake: Lake, run_id: str, refs: Sequence[UploadRef], message: str, about: About) -> Plan:
    """Group uploads by shard and write the plan of their batches.

    Args:
        lake: where.
        run_id: the run.
        refs: the uploads to take in.
        message: one line for operators.
        about: kept in the plan; its numbers are among the counts of the summary, its lists beside them.
    """
    by_shard: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for ref in refs:
        by_shard[ref.shard].append({name: getattr(ref, name) for name in UploadRef.__slots__})
    work = [
        Work(number, len(items), sum(UPLOAD_KILOBYTES + int(item["packed_bytes"]) // 1_000 for item in items), items)
        for number, items in sorted(by_shard.items())
    ]
    plan = write_plan(lake, JOB, run_id, work, unit=UPLOADS, message=message, **about)
    return {**plan, "counts": _numbers(about)}


def _numbers(about: About) -> dict[str, int]:
    return {name: value for name, value in about.items() if isinstance(value, int) and not isinstance(value, bool)}


def _message(seen: Listing, counts: Mapping[str, int], backlog: Backlog) -> str:
    found = seen.found
    message = (
        f"{counts['due']} uploads are due; {counts['manifests_listed']} manifests of {counts['systems_listed']} systems were "
        f"listed ({'full' if seen.full else 'recent'} listing, {counts['requests']:,} requests, "
        f"{counts['requests_for_heads']} of them for heads)"
    )
    if backlog.uploads:
        message += (
            f"; {counts['planned']} are taken now, the backlog is {backlog.uploads:,} uploads of {backlog.systems} systems, "
            f"{backlog.bytes / 1e6:,.1f} MB, the oldest {backlog.oldest_seconds / 3600:,.1f} h old"
        )
    if found.left:
        message += f"; {len(found.left)} parts of the bucket are left to the next run (AKOSHA_LIST_BUDGET)"
    if found.unusable:
        message += (
            f"; {len(found.unusable)} manifests under unusable keys are left alone, for example {found.unusable[0]!r}"
        )
    return message
