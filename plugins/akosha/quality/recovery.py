"""Where the records of a damaged shard can still be had, and the commands that bring them back.

`assign` decides, for `akosha fsck` which says so and for `akosha repair` which does it: one decision, so that what is
promised is what is done.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, Literal

from akosha.errors import AkoshaError
from akosha.lake.cache import FileCache
from akosha.lake.commits import Commit
from akosha.lake.documents import unseal
from akosha.lake.lake import Lake
from akosha.lake.layout import MEMO_PREFIX, is_memo_key
from akosha.lake.objects import ObjectStore
from akosha.quality.findings import DamagedShard, Finding, FsckReport
from akosha.quality.stored_files import NamedFile, files_of
from akosha.quality.survey import Key, Survey, survey

SourceName = Literal["older version", "archive", "upload", "nothing"]
FILE_CODES: Final = frozenset({"file_missing", "file_size", "file_digest"})
CHAIN_CODES: Final = frozenset({"version_gap", "head_lost", "document_damaged", "document_misplaced"})
# Documents that `akosha repair` makes again, corrects or takes away, without asking for anything else.
REPLACED: Final = frozenset({"memo", "refused-rows", "plan", "summary", "policy", "lake"})


def assign(found: Survey) -> dict[Key, SourceName]:
    """The best source of every record that the head has lost, in part or whole. Pure.

    A record is lost where no readable tier file holds it, and where warm or cold holds it and the archive has not its text
    although it was to have it (I11).
    """
    sources: dict[Key, SourceName] = {}
    for key, listed in found.listed.items():
        if key not in found.placed:
            sources[key] = _source(found, key, listed.digest, listed.held_at)
    for key, spot in found.placed.items():
        text = found.archived.get(key)
        if spot.entry.tier != "hot" and not spot.unarchived and (text is None or text.digest != spot.digest):
            known = found.listed.get(key)
            sources[key] = _source(found, key, spot.digest, known.held_at if known else None)
    return sources


def _source(found: Survey, key: Key, digest: bytes, held_at: datetime | None) -> SourceName:
    older, text = found.older.get(key), found.archived.get(key)
    if older is not None and older.digest == digest:
        return "older version"
    if text is not None and text.digest == digest:
        return "older version" if has_peer(found, key, digest) else "archive"
    return "upload" if held_at in found.uploads.get(key[0], ()) else "nothing"


def has_peer(found: Survey, key: Key, digest: bytes) -> bool:
    """Whether a file of an older version holds the very row of warm or cold that is lost."""
    peer, listed = found.peers.get(key), found.listed.get(key)
    return peer is not None and listed is not None and (peer.digest, peer.created_at) == (digest, listed.created_at)


def advise(lake: Lake, report: FsckReport, uploads: ObjectStore | None) -> None:
    """Complete the findings of damage: how many records each concerns, who still has them, and the commands.

    Args:
        lake: which.
        report: of a check of it.
        uploads: where uploads come from; None = not known, so nothing is said to be there.
    """
    surveys = {
        shard: survey(lake, state.commits, state.bad, uploads_there(lake.store, shard, uploads))
        for shard, state in report.shards.items()
        if state.bad and state.commits
    }
    report.findings = [_advised(lake, finding, report.shards, surveys) for finding in report.findings]


def uploads_there(store: ObjectStore, shard: int, uploads: ObjectStore | None) -> dict[str, frozenset[datetime]]:
    """Manifest times of the uploads of a shard that were taken in and still lie in the uploads bucket, by system."""
    times: dict[str, set[datetime]] = {}
    for listed in store.list(f"{MEMO_PREFIX}{shard:03d}/") if uploads is not None else ():
        if uploads is None or not is_memo_key(listed.key):
            continue
        try:
            memo = unseal(store.get(listed.key), kind="memo", key=listed.key)
        except AkoshaError:
            continue  # a finding of its own; its upload is read again once the memo is gone
        manifest = uploads.stat(str(memo["manifest_key"])) if memo.get("manifest_time") else None
        if manifest is not None and manifest.etag == memo["etag"]:
            times.setdefault(str(memo["system_id"]), set()).add(datetime.fromisoformat(str(memo["manifest_time"])))
    return {system: frozenset(found) for system, found in times.items()}


def copy_in_cache(cache: FileCache, file: NamedFile) -> bool:
    """Whether the local cache has the very bytes of a file of a remote store."""
    return cache.copy_of(file.path, file.digests.sha256) is not None


def sound_version(state: DamagedShard) -> int:
    """The newest version before the head of which every file is sound; 0 = none."""
    for commit in state.commits[1:]:
        if not any(file.place in state.bad for file in files_of(commit)):
            return commit.version
    return 0


def repair_command(shard: int | None) -> str:
    """The command that repairs a shard, or what belongs to none."""
    return "akosha repair --no-dry-run" if shard is None else f"akosha repair --shard {shard} --no-dry-run"


def backfill_commands(systems: Sequence[str]) -> tuple[str, ...]:
    """The command that takes all uploads of some systems in again."""
    named = " ".join(f"--system {shlex.quote(system)}" for system in sorted(set(systems)))
    return (f"akosha backfill {named} --force --no-dry-run",) if named else ()


def _advised(
    lake: Lake, finding: Finding, shards: Mapping[int, DamagedShard], surveys: Mapping[int, Survey]
) -> Finding:
    if finding.severity != "damage":
        return finding
    if finding.kind in REPLACED:
        return replace(finding, commands=(repair_command(finding.shard),))
    state = shards.get(finding.shard) if finding.shard is not None else None
    if state is None or finding.shard is None:
        return finding
    if finding.kind == "commit" and finding.code in CHAIN_CODES:
        sources = {"older version": 1} if state.commits else {"upload": 1}
        return replace(finding, sources=sources, commands=(repair_command(finding.shard), "akosha ingest"))
    found = surveys.get(finding.shard)
    if found is None or finding.code not in FILE_CODES:
        return finding
    return _about_file(lake, finding, state, found)


def _about_file(lake: Lake, finding: Finding, state: DamagedShard, found: Survey) -> Finding:
    file = next((file for commit in state.commits for file in files_of(commit) if file.path == finding.key), None)
    command = repair_command(finding.shard)
    if file is None:
        return finding
    records, systems, sources = _of_file(found, file)
    if copy_in_cache(lake.cache, file):
        sources, systems = {"cache": records}, []
    commands = (command, *backfill_commands(systems))
    back = sound_version(state)
    undo = (f"akosha undo --shard {finding.shard} --to-version {back}",) if back and records else ()
    return replace(finding, records=records, sources=sources, commands=commands, alternatives=undo)


def _of_file(found: Survey, file: NamedFile) -> tuple[int, list[str], dict[str, int]]:
    """Live records of a damaged file, systems whose uploads must be read again, and records by source."""
    live = {other.place for other in files_of(found.head)}
    if file.place not in live:
        return 0, [], {"not needed: only older versions name it": 0}
    if file.kind == "keys":
        system = next(name for name, entry in found.head.keys.items() if entry.path == file.path)
        rows = found.head.keys[system].rows
        return rows, [system], {"tier files": sum(key[0] == system for key in found.placed)}
    if file.kind == "graph":
        return _of_graph(found, file)
    if file.kind == "holds":
        rows = found.head.holds.rows if found.head.holds else 0
        return rows, [], {"older version" if found.old_holds else "nothing (they age like all others)": rows}
    if file.kind == "removals":
        entry = next(e for e in found.head.files.values() if e.removal is not None and e.removal.path == file.path)
        if file.path in found.removals:
            return entry.live_rows, [], {"the other files of the shard": entry.live_rows}
    else:
        entry = found.head.files[file.path]
    assigned = {key: source for key, source in assign(found).items() if _may_be_of(found, key, entry.tier)}
    again = [key[0] for key, source in assigned.items() if source in {"upload", "archive"}]
    return entry.live_rows, again, dict(Counter(assigned.values()))


def _may_be_of(found: Survey, key: Key, tier: str) -> bool:
    """Whether a lost record is one that a file of this tier may have held."""
    return (key in found.placed) == (tier == "archive")


def _of_graph(found: Survey, file: NamedFile) -> tuple[int, list[str], dict[str, int]]:
    entry = next(entry for entry in found.head.graphs.values() if entry.path == file.path)
    older = found.old_graphs.get(entry.system_id)
    sources = {"older version": older.rows} if older is not None else {}
    count = len(found.uploads.get(entry.system_id, ()))
    sources |= {f"{count} uploads": entry.rows} if count else {}
    return entry.rows, [entry.system_id], sources or {"nothing": entry.rows}


def commits_named(commits: Sequence[Commit], bad: frozenset[tuple[str, str]]) -> int:
    """The newest version that names a damaged file, 0 = none."""
    named = [commit.version for commit in commits if any(file.place in bad for file in files_of(commit))]
    return max(named, default=0)
