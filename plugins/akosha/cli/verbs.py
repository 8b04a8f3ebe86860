"""What each verb does: call the job, print its answer for a person or as JSON. Heavy imports happen inside."""

from __future__ import annotations

import argparse
import json
import sys
import uuid
from collections.abc import Iterable
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any, Final

from akosha.cli import quarantine, render

OK: Final = 0
FAILED: Final = 1
DAMAGED: Final = 3


def init(options: argparse.Namespace) -> int:
    """Create the lake, or say that it is there."""
    from akosha.lake.lake import Lake
    from akosha.settings import Settings

    settings = Settings.from_environment()
    lake = Lake.create(settings, now=datetime.now(UTC))
    answer = {"lake": settings.lake_url, "lake_id": lake.identity.lake_id, "created_at": lake.identity.created_at}
    return _print(
        options, answer, [f"lake {lake.identity.lake_id} at {settings.lake_url}, made {answer['created_at']}"]
    )


def status(options: argparse.Namespace) -> int:
    """The state of the lake."""
    from akosha import jobs

    answer = jobs.status()
    return _print(options, answer, render.status(answer))


def doctor(options: argparse.Namespace) -> int:
    """Check the installation."""
    from akosha import jobs

    answer = jobs.doctor()
    _print(options, answer, render.doctor(answer))
    return OK if answer["ok"] else FAILED


def ingest(options: argparse.Namespace) -> int:
    """Take in what is due."""
    from akosha import jobs

    return _run(
        options,
        jobs.plan_ingest(
            _run_id(), system=options.system, shard=options.shard, listing=options.listing, dry_run=options.dry_run
        ),
    )


def backfill(options: argparse.Namespace) -> int:
    """Take in chosen systems and dates once more."""
    from akosha import jobs

    plan = jobs.plan_backfill(
        _run_id(),
        systems=options.system,
        shard=options.shard,
        between=(options.since, options.until),
        force=options.force,
        dry_run=options.dry_run,
    )
    return _run(options, plan)


def embed(options: argparse.Namespace) -> int:
    """Fill missing vectors."""
    from akosha import jobs

    return _run(
        options,
        jobs.plan_embed(
            _run_id(),
            system=options.system,
            shard=options.shard,
            budget_seconds=options.budget_seconds,
            dry_run=options.dry_run,
        ),
    )


def migrate(options: argparse.Namespace) -> int:
    """Move what is past its line."""
    from akosha import jobs

    plan = jobs.plan_move(
        _run_id(),
        options.kind,
        as_of=options.as_of,
        system=options.system,
        shard=options.shard,
        dry_run=options.dry_run,
        force=options.force,
        limit_bytes=0,
    )
    return _run(options, plan)


def promote(options: argparse.Namespace) -> int:
    """Bring records back to hot."""
    from akosha import jobs
    from akosha.jobs.promote import read_keys

    keys = [list(options.key)] if options.key else []
    if options.keys:
        keys += read_keys(options.keys)
    plan = jobs.plan_promote(
        _run_id(),
        keys=keys,
        system=options.system,
        between=(options.since, options.until),
        hold_days=options.hold_days,
        dry_run=options.dry_run,
    )
    return _run(options, plan)


def undo(options: argparse.Namespace) -> int:
    """Return shards to a retained version, or say what that would take back."""
    from akosha import jobs

    plan = jobs.plan_undo(
        _run_id(),
        shard=options.shard,
        system=options.system,
        to_version=options.to_version,
        to_time=options.to_time,
        run=options.undo_run,
        reason=options.reason,
        dry_run=options.dry_run,
    )
    return _run(options, plan)


def release(options: argparse.Namespace) -> int:
    """Let held shards go."""
    from akosha import jobs

    plan = jobs.plan_release(
        _run_id(), shard=options.shard, system=options.system, skip=options.skip, dry_run=options.dry_run
    )
    return _run(options, plan)


def maintain(options: argparse.Namespace) -> int:
    """Sweep."""
    from akosha import jobs

    plan = jobs.plan_maintain(_run_id(), system=options.system, shard=options.shard, dry_run=options.dry_run)
    return _run(options, plan)


def validate(options: argparse.Namespace) -> int:
    """Prove recall and conservation."""
    from akosha import jobs

    return _run(options, jobs.plan_validate(_run_id(), as_of=options.as_of))


def search(options: argparse.Namespace) -> int:
    """Find the nearest texts."""
    from akosha.jobs import reading
    from akosha.search.query import SearchQuery

    query = SearchQuery(
        k=options.k,
        systems=tuple(options.system),
        since=options.since,
        until=options.until,
        projects=tuple(options.project),
        tiers=tuple(options.tier),
    )
    answer = reading.search_lake(options.text, query)
    return _print(options, answer, render.hits(answer))


def explain(options: argparse.Namespace) -> int:
    """Tell the life of one record."""
    from akosha import jobs
    from akosha.jobs import explained

    answer = jobs.explain(options.system, options.table, options.record, as_of=options.as_of)
    return _print(options, answer, explained.lines(answer))


def export(options: argparse.Namespace) -> int:
    """Write every live record to Parquet."""
    from akosha.jobs import reading

    answer = reading.export_lake(options.out)
    rows = ", ".join(f"{count:,} {tier}" for tier, count in answer["rows"].items())
    lines = [f"{rows} records in {len(answer['files'])} files below {answer['out']}"]
    if answer["graph_files"]:
        rows = ", ".join(f"{count:,} {kind}" for kind, count in answer["graph_rows"].items())
        lines.append(f"{rows} of knowledge graphs in {len(answer['graph_files'])} files below {answer['out']}/graph")
    return _print(options, answer, lines)


def fsck(options: argparse.Namespace) -> int:
    """Verify the lake."""
    from akosha.jobs import reading

    answer = reading.fsck_lake(read_data=options.read_data)
    _print(options, answer, render.fsck(answer))
    return OK if answer["ok"] else DAMAGED


def scrub(options: argparse.Namespace) -> int:
    """Read this day's share of all bytes again."""
    from akosha.jobs import repair

    answer = repair.scrub_lake(cycle_days=options.cycle_days)
    _print(options, answer, render.scrub(answer))
    return OK if answer["ok"] else DAMAGED


def repair(options: argparse.Namespace) -> int:
    """Bring back what is damaged."""
    from akosha.jobs.repair import repair_lake

    answer = repair_lake(
        _run_id(),
        shard=options.shard,
        copy_url=options.copy_url,
        dry_run=options.dry_run,
        accept_loss=options.accept_loss,
    )
    _print(options, answer, render.repair(answer))
    return OK if answer["ok"] else DAMAGED


def rebuild_proof(options: argparse.Namespace) -> int:
    """Replay all uploads into an empty lake and compare."""
    from akosha.jobs.rebuild import prove_rebuild

    answer = prove_rebuild(options.out, system=options.system, shard=options.shard)
    _print(options, answer, render.rebuild_proof(answer))
    return OK if answer["ok"] else DAMAGED


def quarantine_list(options: argparse.Namespace) -> int:
    """What was set aside, by system and reason."""
    from akosha.jobs import reading

    narrowed = {"system": options.system, "reason": options.reason}
    if options.rows:
        refused = reading.refused_rows_list(**narrowed)
        return _print(options, {"refused_rows": refused}, quarantine.refused(refused))
    found = reading.quarantine_list(**narrowed)
    return _print(options, {"quarantined": found}, quarantine.uploads(found))


def quarantine_show(options: argparse.Namespace) -> int:
    """All evidence of one."""
    from akosha.jobs import reading

    found = reading.quarantine_show(options.memo)
    return _print(options, found, quarantine.evidence(found))


def quarantine_replay(options: argparse.Namespace) -> int:
    """Take quarantined uploads in again."""
    from akosha import jobs
    from akosha.jobs import reading

    memos = reading.quarantine_choose(options.memo, system=options.system, reason=options.reason)
    return _run(options, jobs.plan_replay(_run_id(), memos))


def demo_uploads(options: argparse.Namespace) -> int:
    """Write the demo's world."""
    from akosha.jobs import demo

    answer = demo.demo_uploads(options.anchor)
    lines = [
        f"{answer['uploads']} uploads of {answer['systems']} systems, {answer['records']:,} records "
        f"({answer['without_vector']:,} without a vector), {answer['size_bytes'] / 1e6:.1f} MB"
    ]
    return _print(options, answer, lines)


def demo_vectors(options: argparse.Namespace) -> int:
    """Make the demo's vectors."""
    from akosha.jobs import demo

    answer = demo.demo_vectors()
    return _print(options, answer, [f"{answer['encoded']:,} vectors made, {answer['kept']:,} kept: {answer['path']}"])


def _run(options: argparse.Namespace, plan: dict[str, Any]) -> int:
    from akosha import jobs

    def progress(line: str) -> None:
        if not options.json:
            sys.stderr.write(f"  {line}\n")

    if not options.json:
        sys.stderr.write(f"{plan['message']}\n")
    # With --verbose the log shows the progress lines.
    with jobs.progress_shown() if not (options.json or options.verbose) else nullcontext():
        summary = jobs.run_all(plan, progress=progress)
    return _print(options, summary, render.summary(summary))


def _run_id() -> str:
    return f"cli-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"


def show(options: argparse.Namespace, answer: dict[str, Any], lines: Iterable[str]) -> int:
    """Print an answer, for a person or as JSON."""
    return _print(options, answer, lines)


def _print(options: argparse.Namespace, answer: dict[str, Any], lines: Iterable[str]) -> int:
    if options.json:
        sys.stdout.write(json.dumps(answer, indent=1, ensure_ascii=False, default=str) + "\n")
    else:
        sys.stdout.write("\n".join(lines) + "\n")
    return OK
