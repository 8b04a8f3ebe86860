"""Checking a whole lake: every document, every file that a retained version names, every rule of the heads.

The fast check reads documents only. With the data every byte is read: a single changed bit in any object of the lake is
found, reports and the local cache aside.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from akosha.errors import IntegrityError, ObjectMissingError
from akosha.lake import layout
from akosha.lake.commits import Commit
from akosha.lake.lake import Lake
from akosha.lake.objects import ObjectStore
from akosha.quality import documents, invariants
from akosha.quality.findings import DamagedShard, FsckReport
from akosha.quality.graph_files import check_graphs
from akosha.quality.recovery import advise
from akosha.quality.stored_files import Inventory, NamedFile, named_files

log = logging.getLogger(__name__)

KNOWN: Final = (layout.LAKE, layout.POLICY_PREFIX, "shards/", *documents.MEMOS, documents.RUNS)


def fsck(lake: Lake, *, read_data: bool, uploads: ObjectStore | None = None) -> FsckReport:
    """Verify a lake; nothing is changed.

    Args:
        lake: which. Jobs may run meanwhile.
        read_data: also read every tier, key, archive and removal file of every retained version, once each, and check
            the records of every head against each other.
        uploads: where uploads come from, to say what can be had from them; None = not known.

    Raises:
        StoreUnavailableError, ConfigurationError: the store does not answer. Whatever is wrong with the lake itself is
            a finding.
    """
    report = FsckReport()
    inventory = Inventory.of(lake)
    keys = sorted(inventory.lake_objects)
    documents.check_lake_document(lake.store, keys, report)
    documents.check_policies(lake.store, keys, report)
    published = documents.Published()
    documents.check_memos(lake.store, keys, report, published)
    documents.check_runs(lake.store, keys, report, published)
    named: dict[tuple[str, str], NamedFile] = {}
    policies: dict[int, str] = {}
    commit_keys = _commit_keys(keys)
    for shard in sorted({*commit_keys, *published.versions}):
        commits = documents.read_commits(lake.store, shard, commit_keys.get(shard, []), report)
        policies |= {commit.policy: layout.commit_key(shard, commit.version) for commit in commits if commit.policy}
        published.check(lake.store, shard, commits, report)
        documents.check_refused_rows(lake.store, commits, report)
        files = named_files(commits, report)
        named |= files
        bad = _check_shard(lake, inventory, commits, files, report, read_data=read_data)
        if bad or any(found.shard == shard and found.severity == "damage" for found in report.findings):
            spoken_of = [*published.versions.get(shard, ()), *_numbers(commit_keys.get(shard, []))]
            report.shards[shard] = DamagedShard(
                tuple(commits), frozenset(bad), tuple(commit_keys.get(shard, ())), max(spoken_of, default=0)
            )
    documents.check_policy_numbers(keys, policies, report)
    advise(lake, report, uploads)
    inventory.report_strangers(named, KNOWN, report)
    log.info("fsck ok=%s findings=%d checked=%s", report.ok, len(report.findings), dict(report.checked))
    return report


def _commit_keys(keys: Sequence[str]) -> dict[int, list[str]]:
    by_shard: dict[int, list[str]] = defaultdict(list)
    for key in keys:
        parts = key.split("/")
        if len(parts) > 2 and parts[0] == "shards" and parts[2] == "commits" and parts[1].isdigit():
            by_shard[int(parts[1])].append(key)
    return by_shard


def _check_shard(
    lake: Lake,
    inventory: Inventory,
    commits: Sequence[Commit],
    files: dict[tuple[str, str], NamedFile],
    report: FsckReport,
    *,
    read_data: bool,
) -> set[tuple[str, str]]:
    """Check the files of a shard and the records of its head; the places of the files that are not sound."""
    sound = inventory.check_present(lake, files, report)
    if read_data:
        sound &= {place for place in sorted(sound) if inventory.check_bytes(lake, files[place], report)}
    bad = set(files) - sound
    if not commits:
        return bad
    head = commits[0]
    invariants.check_counts(head, report)
    if read_data and all(place in sound for place in named_files([head], FsckReport())):
        _check_records(lake, head, report)
    return bad


def _numbers(keys: Sequence[str]) -> list[int]:
    return [parsed[1] for parsed in map(layout.parse_commit_key, keys) if parsed is not None]


def _check_records(lake: Lake, head: Commit, report: FsckReport) -> None:
    """The rules of one head. Left out when one of its files is damaged: what is missing then is already said."""
    try:
        invariants.check_files(lake, head, report)
        check_graphs(lake, head, report)
        invariants.check_conservation(lake, head, report)
        report.checked["heads"] += 1
    except ObjectMissingError:
        if lake.shard(head.shard).head().sha256 == head.sha256:
            message = "a file of the head vanished while it was read; run `akosha fsck` again"
            report.damage("file_missing", message, shard=head.shard)
    except IntegrityError as error:
        key = str(error.context.get("path", ""))
        report.damage("file_unreadable", error.message, key=key, shard=head.shard)
