"""Undo and release as jobs: return shards to a retained version, and let them go again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from akosha.errors import CommitConflictError, ObjectMissingError, UsageError
from akosha.jobs.estimates import Estimate, estimate
from akosha.jobs.listing import look_again
from akosha.jobs.plans import (
    SHARDS,
    Plan,
    Result,
    Summary,
    Work,
    chosen_shards,
    open_lake,
    parse_as_of,
    safe_run_id,
    write_plan,
    writer_of,
)
from akosha.lake import undo as lake_undo
from akosha.lake.commits import TIERS, Commit
from akosha.lake.documents import Document, unseal
from akosha.lake.lake import Lake
from akosha.lake.undo import is_at, plan_undo_of, release_shard, require_told, undo_from, version_at
from akosha.lake.undone import undone_commits, undone_uploads

UNDO: Final = lake_undo.UNDO
RELEASE: Final = lake_undo.RELEASE
LONGEST_TASK: Final = timedelta(days=1)
NAMED: Final = 20  # commits that a message names; all are counted
_ONE_WAY: Final = "say where to go back to in one way: --shard with --to-version, --to-time, or --run"


def plan_undo(  # noqa: PLR0913 - the parameters of the form
    run_id: str,
    *,
    shard: int | None = None,
    system: str = "",
    to_version: int | None = None,
    to_time: str | None = None,
    run: str = "",
    reason: str = "",
    dry_run: bool = True,
) -> Plan:
    """Find the version each shard goes back to, and what that takes back. Nothing is changed.

    Args:
        run_id: the run.
        shard: only this shard, 0-255.
        system: only this system's shard.
        to_version: the version, with a shard or a system.
        to_time: the newest version committed at or before this instant, ISO 8601.
        run: the version before the commits of this run, where they are the newest.
        reason: for whoever finds a shard held.
        dry_run: only say what would be undone.

    Raises:
        UsageError: the target is not named in exactly one way, or cannot be gone back to.
    """
    only = chosen_shards(system, shard)
    if [to_version is not None, bool(to_time), bool(run)].count(True) != 1 or (to_version is not None and only is None):
        raise UsageError(_ONE_WAY)
    lake = open_lake(to_write=not dry_run)
    heads = [head for head in lake.heads() if only is None or head.shard in only]
    passed: list[str] = []
    if to_version is not None:
        targets = {head.shard: to_version for head in heads if not is_at(head, to_version)}
        passed = [
            f"shard {head.shard} is held at version {to_version} already" for head in heads if is_at(head, to_version)
        ]
    elif run:
        targets, passed = _before_run(lake, heads, safe_run_id(run))
    else:
        instant = parse_as_of(to_time, force=True)
        versions = {head.shard: version_at(lake.shard(head.shard), head, instant) for head in heads}
        targets = {
            head.shard: versions[head.shard]
            for head in heads
            if versions[head.shard] != head.version and not is_at(head, versions[head.shard])
        }
    effects = [_effect(lake, head, targets[head.shard]) for head in heads if head.shard in targets]
    work = [
        Work(effect["shard"], 1, items={"to_version": effect["to_version"], "planned": effect["version"]})
        for effect in effects
    ]
    cost = _estimate(lake, effects)
    plan = write_plan(
        lake, UNDO, run_id, work, unit=SHARDS, message=_undo_message(effects, passed, dry_run=dry_run),
        dry_run=dry_run, reason=reason, effects=effects, passed=passed, estimate=cost,
    )  # fmt: skip
    return {**plan, "estimate": cost}


def plan_release(
    run_id: str, *, shard: int | None = None, system: str = "", skip: bool = False, dry_run: bool = False
) -> Plan:
    """Find the shards that are held, or the one that is named.

    Args:
        run_id: the run.
        shard: only this shard, 0-255.
        system: only this system's shard.
        skip: set the undone uploads aside in quarantine; else they count as new again.
        dry_run: only say what would be let go.

    Raises:
        UsageError: the shard that is named is not held, or nobody can say any more which uploads are to be set aside.
    """
    only = chosen_shards(system, shard)
    lake = open_lake(to_write=not dry_run)
    held = [head for head in lake.heads() if head.held_by and (only is None or head.shard in only)]
    if only is not None and not held:
        message = f"shard {min(only)} is not held; `akosha status` names those that are"
        raise UsageError(message, shard=min(only))
    for head in held if skip else ():
        require_told(lake, head)
    named = ", ".join(f"{head.shard:03d} (undone by run {head.held_by})" for head in held[:NAMED])
    message = f"{len(held)} shards are held" + (f": {named}" if held else "")
    work = [Work(head.shard, 1, items={"hold": head.commit_id}) for head in held]
    return write_plan(lake, RELEASE, run_id, work, unit=SHARDS, message=message, dry_run=dry_run, skip=skip)


def run_batch(lake: Lake, plan: Document, batch: int) -> Result:
    """Undo or release the shards of one batch. What is done already is found done."""
    act = _undo_one if plan["job"] == UNDO else _release_one
    return {"batch": batch, "shards": [act(lake, plan, part) for part in plan["batches"][batch]]}


def summarise(lake: Lake, plan: Document, results: Sequence[Result]) -> Summary:
    """Add up what was undone or let go; after a release, have the undone uploads listed first."""
    outcomes = [outcome for result in results for outcome in result["shards"]]
    dry_run = bool(plan["parameters"]["dry_run"])
    if plan["job"] == UNDO:
        return _undo_summary(plan, outcomes, dry_run=dry_run)
    if not dry_run and not plan["parameters"]["skip"]:
        look_again(lake, {system: oldest for outcome in outcomes for system, oldest in outcome["systems"].items()})
    counts = {"shards": len(outcomes), "uploads": sum(outcome["uploads"] for outcome in outcomes)}
    becomes = "set aside in quarantine" if plan["parameters"]["skip"] else "counted as new again"
    verb = "would be" if dry_run else "are"
    message = f"{counts['shards']} shards {verb} let go; {counts['uploads']} undone uploads {verb} {becomes}"
    return {"message": message, "counts": counts, "rows_changed": 0, "dry_run": dry_run}


def _undo_one(lake: Lake, plan: Document, part: Mapping[str, Any]) -> dict[str, Any]:
    shard, items = int(part["shard"]), part["items"]
    head = lake.shard(shard).head()
    outcome = {
        "shard": shard,
        "version": head.version,
        "to_version": items["to_version"],
        "undone": 0,
        "moved_on": False,
    }
    if is_at(head, items["to_version"]):  # by an earlier attempt of this run, or by another one
        return {**outcome, "undone": head.counts["undone_commits"]}
    if items["planned"] != head.version:  # what would be taken back is no longer what was shown, and approved
        return {**outcome, "moved_on": True}
    if plan["parameters"]["dry_run"]:
        _, undo = plan_undo_of(lake, head, items["to_version"])
        return {**outcome, "undone": len(undo.undone)}
    reason = str(plan["parameters"]["reason"])
    try:
        commit = undo_from(lake, head, items["to_version"], writer_of(lake, plan), reason)
    except CommitConflictError:
        return {**outcome, "moved_on": True}
    return {**outcome, "version": commit.version, "undone": commit.counts["undone_commits"]}


def _release_one(lake: Lake, plan: Document, part: Mapping[str, Any]) -> dict[str, Any]:
    shard = int(part["shard"])
    head = lake.shard(shard).head()
    outcome: dict[str, Any] = {"shard": shard, "version": head.version, "uploads": 0, "systems": {}}
    if head.commit_id != part["items"]["hold"]:
        return outcome  # let go by an earlier attempt, or undone once more: then that is another decision
    uploads = undone_uploads(lake, head)
    systems: dict[str, str] = {}
    for upload in uploads.values():
        name, upload_id = upload["system_id"], upload["upload_id"]
        systems[name] = min(upload_id, systems.get(name, upload_id))
    outcome |= {"uploads": len(uploads), "systems": systems}
    if not plan["parameters"]["dry_run"]:
        commit = release_shard(lake, shard, writer_of(lake, plan), skip=bool(plan["parameters"]["skip"]))
        outcome["version"] = commit.version
    return outcome


def _before_run(lake: Lake, heads: Sequence[Commit], run: str) -> tuple[dict[int, int], list[str]]:
    """For each shard whose newest commits are a run's the version before them; and a sentence for each that moved on.

    Raises:
        UsageError: the lake has no plan of that run.
    """
    plans = [found.key for found in lake.store.list(f"runs/{run}/plan-")]
    if not plans:
        message = f"there is no run {run!r} under runs/; `akosha status` names the last run of each job"
        raise UsageError(message)
    documents = [unseal(lake.store.get(key), kind="plan", key=key) for key in plans]
    began = min(document["planned_at"] for document in documents)
    touched = {part["shard"] for document in documents for batch in document["batches"] for part in batch}
    targets: dict[int, int] = {}
    passed: list[str] = []
    for head in heads:
        if head.shard not in touched:
            continue
        commits = list(_since(lake, head, datetime.fromisoformat(began)))
        own = [commit.version for commit in commits if commit.run_id == run]
        later = [commit for commit in commits if own and commit.version > max(own)]
        if own and later:
            named = ", ".join(f"{commit.version} ({commit.operation} by {commit.run_id})" for commit in later[:NAMED])
            passed.append(
                f"shard {head.shard} has moved on, an undo there would also take back {named}; if that is meant: "
                f"`akosha undo --shard {head.shard} --to-version {_first_of_run(own) - 1}`"
            )
        elif own:
            targets[head.shard] = _first_of_run(own) - 1
    return targets, passed


def _first_of_run(versions: Sequence[int]) -> int:
    """The oldest of the newest commits that follow each other, versions newest first."""
    first = versions[0]
    for version in versions[1:]:
        if version != first - 1:
            break
        first = version
    return first


def _since(lake: Lake, head: Commit, began: datetime) -> Iterator[Commit]:
    """Commits of a shard from its head back to the first that was surely made before an instant.

    A commit bears the instant at which its task began to work: one of a long task lies above younger ones.
    """
    commit = head
    while commit.version and datetime.fromisoformat(commit.committed_at) >= began - LONGEST_TASK:
        yield commit
        try:
            commit = lake.shard(head.shard).read(commit.version - 1)
        except ObjectMissingError:
            return


def _effect(lake: Lake, head: Commit, to_version: int) -> dict[str, Any]:
    """What an undo of one shard takes back, by its documents alone."""
    target, undo = plan_undo_of(lake, head, to_version)
    undone = undone_commits(lake, head.shard, undo.undone)
    changed = [entry for path, entry in head.files.items() if target.files.get(path) != entry]
    return {
        "shard": head.shard,
        "version": head.version,
        "to_version": target.version,
        "to_time": target.committed_at,
        "undone": [[one.version, one.operation, one.run_id] for one in undo.undone],
        "uploads": [upload["manifest"] for commit in undone for upload in commit.uploads],
        "records": {tier: [_records(head, tier), _records(target, tier)] for tier in TIERS},
        "rows": sum(entry.live_rows for entry in changed),
        "bytes": sum(entry.bytes for entry in changed),
        "files": len(changed),
    }


def _records(commit: Commit, tier: Any) -> int:  # noqa: ANN401 - a member of TIERS
    return sum(entry.live_rows for entry in commit.of_tier(tier))


def _estimate(lake: Lake, effects: Sequence[Mapping[str, Any]]) -> Estimate:
    counts = {name: sum(effect[name] for effect in effects) for name in ("rows", "bytes", "files")}
    requests = sum(4 + 2 * len(effect["undone"]) for effect in effects)
    first = [
        [f"shard {effect['shard']:03d}", f"version {effect['version']} -> {effect['to_version']}"] for effect in effects
    ]
    document = estimate(lake, UNDO, {**counts, "requests": requests}, first)
    return {**document, "minutes": round(requests / 20 / 60, 2), "basis": "no file is written: documents only"}


def _undo_message(effects: Sequence[Mapping[str, Any]], passed: Sequence[str], *, dry_run: bool) -> str:
    verb = "would go back" if dry_run else "go back"
    commits = sum(len(effect["undone"]) for effect in effects)
    uploads = sum(len(effect["uploads"]) for effect in effects)
    message = f"{len(effects)} shards {verb}: {commits} commits with {uploads} uploads are undone"
    message += ", and the shards held" if effects else ""
    named = [
        f"shard {effect['shard']}: version {effect['version']} to {effect['to_version']} of {effect['to_time'][:19] or 'the beginning'}, "
        + ", ".join(f"{tier} {before:,} -> {after:,}" for tier, (before, after) in effect["records"].items())
        for effect in effects[:NAMED]
    ]
    return "; ".join([message, *named, *passed])


def _undo_summary(plan: Document, outcomes: Sequence[Mapping[str, Any]], *, dry_run: bool) -> Summary:
    done = [outcome for outcome in outcomes if outcome["undone"]]
    counts = {
        "shards": len(done),
        "commits": sum(outcome["undone"] for outcome in done),
        "moved_on": sum(outcome["moved_on"] for outcome in outcomes) + len(plan["parameters"]["passed"]),
    }
    if dry_run:
        message = f"dry run: {plan['message']}"
    else:
        message = f"{counts['commits']} commits of {counts['shards']} shards are undone; the shards are held"
        message += ": look at them, then `akosha release --shard N` lets one go" if done else ""
        message += "".join(f"; {sentence}" for sentence in plan["parameters"]["passed"])
    for outcome in outcomes:
        if outcome["moved_on"]:
            message += f"; shard {outcome['shard']} has moved on since the plan and was left alone: plan again"
    return {
        "message": message,
        "counts": counts,
        "rows_changed": 0,
        "dry_run": dry_run,
        "effects": plan["parameters"]["effects"],
    }
