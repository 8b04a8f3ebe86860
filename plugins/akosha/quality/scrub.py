"""The scrub: every night a share of all stored bytes is read again, so that each is read once within a cycle of days.

Which objects are due follows from their names and the date, so that nothing need be remembered between nights and any
machine may do it. The local cache is passed over: what counts is what the store holds.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from akosha.errors import IntegrityError
from akosha.lake import files, layout
from akosha.lake.lake import Lake
from akosha.lake.objects import ObjectStore
from akosha.quality import documents
from akosha.quality.findings import DamagedShard, FsckReport
from akosha.quality.recovery import advise
from akosha.quality.stored_files import Inventory, NamedFile, Place, named_files

log = logging.getLogger(__name__)

DATA_KINDS: Final = frozenset({"hot", "warm", "cold", "archive", "keys", "graph", "holds"})


def is_due(path: str, now: datetime, cycle_days: int) -> bool:
    """Whether an object is read on this day: on one day of every cycle, by the digest of its name. Pure."""
    share = int.from_bytes(hashlib.sha256(path.encode("utf-8", "surrogatepass")).digest()[:8], "big") % cycle_days
    return share == now.date().toordinal() % cycle_days


def scrub(lake: Lake, *, now: datetime, cycle_days: int, uploads: ObjectStore | None = None) -> dict[str, Any]:
    """Read today's share of a lake again: sizes, digests and page checksums of files, seals of documents.

    Args:
        lake: which. Jobs may run meanwhile; nothing is changed.
        now: the night it is, UTC.
        cycle_days: every object is read once in so many consecutive days.
        uploads: where uploads come from, to say what can be had from them; None = not known.

    Returns:
        JSON-able: ``ok``, ``message``, ``counts`` (files, documents, bytes_read, files_in_all, bytes_in_all, findings),
        ``findings`` as of `akosha fsck`, each with what is recoverable and the commands.

    Raises:
        StoreUnavailableError, ConfigurationError: the store does not answer.
    """
    report = FsckReport()
    inventory = Inventory.of(lake)
    keys = sorted(inventory.lake_objects)
    due = [key for key in keys if is_due(key, now, cycle_days)]
    _read_documents(lake, keys, due, report)
    in_all = bytes_in_all = 0
    for shard, commit_keys in _commit_keys(keys).items():
        # Commits say what files must be, so all are read every night; they are a small part of the bytes.
        commits = documents.read_commits(lake.store, shard, commit_keys, report)
        named = named_files(commits, report)
        in_all += len(named)
        bytes_in_all += sum(file.bytes for file in named.values())
        bad = _read_files(lake, inventory, named, now, cycle_days, report)
        if bad or any(found.shard == shard for found in report.findings):
            newest = max((parsed[1] for parsed in map(layout.parse_commit_key, commit_keys) if parsed), default=0)
            report.shards[shard] = DamagedShard(tuple(commits), frozenset(bad), tuple(commit_keys), newest)
    advise(lake, report, uploads)
    return _answer(report, cycle_days, in_all, bytes_in_all)


def _read_documents(lake: Lake, keys: Sequence[str], due: Sequence[str], report: FsckReport) -> None:
    published = documents.Published()
    if layout.LAKE in due or layout.LAKE not in keys:
        documents.check_lake_document(lake.store, keys, report)
    documents.check_policies(lake.store, keys, report)
    documents.check_memos(lake.store, due, report, published)
    documents.check_runs(lake.store, due, report, published)


def _read_files(
    lake: Lake,
    inventory: Inventory,
    named: Mapping[Place, NamedFile],
    now: datetime,
    cycle_days: int,
    report: FsckReport,
) -> set[Place]:
    """Check today's files of one shard; the places of the damaged ones. That files are there is seen of all of them."""
    before = report.checked["files"]
    there = inventory.check_present(lake, named, report)
    report.checked["files"] = before
    bad = set(named) - there
    for place in sorted(there):
        file = named[place]
        if not is_due(file.path, now, cycle_days):
            continue
        report.checked["files"] += 1
        if not inventory.check_bytes(lake, file, report):
            bad.add(place)
        elif file.kind in DATA_KINDS:
            _read_pages(lake, file, report)
    return bad


def _read_pages(lake: Lake, file: NamedFile, report: FsckReport) -> None:
    """Every block and page: a file may have been written wrong and hashed afterwards."""
    store = file.store(lake)
    local = store.local_path(file.path)
    try:
        if local is not None:
            files.read(local, kind=file.kind)
            return
        with lake.cache.scratch() as folder:
            fetched = folder / Path(file.path).name
            store.download(file.path, fetched)
            files.read(fetched, kind=file.kind)
    except IntegrityError as error:
        report.damage("file_unreadable", error.message, key=file.path, shard=file.shard, kind=file.kind)


def _commit_keys(keys: Sequence[str]) -> dict[int, list[str]]:
    by_shard: dict[int, list[str]] = {}
    for key in keys:
        parsed = layout.parse_commit_key(key)
        if parsed is not None:
            by_shard.setdefault(parsed[0], []).append(key)
    return by_shard


def _answer(report: FsckReport, cycle_days: int, in_all: int, bytes_in_all: int) -> dict[str, Any]:
    damage = [asdict(finding) for finding in report.findings if finding.severity == "damage"]
    counts = {
        **{name: report.checked[name] for name in ("files", "documents", "commits", "bytes_read")},
        "files_in_all": in_all,
        "bytes_in_all": bytes_in_all,
        "findings": len(damage),
    }
    message = (
        f"read {counts['bytes_read']:,} bytes again: {counts['files']} of {in_all} files and {counts['documents']} documents, "
        f"the share of this day in a cycle of {cycle_days} days"
    )
    message += f"; DAMAGE FOUND: {len(damage)} findings, run `akosha fsck`" if damage else "; all sound"
    log.info("scrub ok=%s cycle_days=%d %s", report.ok, cycle_days, " ".join(f"{k}={v}" for k, v in counts.items()))
    return {"ok": report.ok, "message": message, "cycle_days": cycle_days, "counts": counts, "findings": damage}
