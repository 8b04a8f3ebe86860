"""The rules that the records of one head keep: what its documents say of its files, and the files of each other."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from akosha.errors import IntegrityError
from akosha.lake.commits import TIERS, Commit, FileEntry, GraphFile, KeyFile
from akosha.lake.files import verify_content, without_rows
from akosha.lake.lake import Lake
from akosha.lake.layout import shard_of, shard_prefix
from akosha.lake.schemas import KEY
from akosha.quality.conservation import PROBLEMS, measure_shard
from akosha.quality.findings import FsckReport

EXAMPLES: Final = 3
CONTENT_TIERS: Final = frozenset({"hot", "archive"})


def check_counts(head: Commit, report: FsckReport) -> None:
    """What the commit document alone can contradict: counts, and where files and systems lie. No file is read."""
    live = {tier: sum(entry.live_rows for entry in head.of_tier(tier)) for tier in (*TIERS, "archive")}
    keys = sum(entry.rows for entry in head.keys.values())
    if keys != live["hot"] + live["warm"] + live["cold"]:
        message = f"key files list {keys} records, the tiers hold {live}; run `akosha fsck --read-data` to see which"
        report.damage("count_mismatch", message, shard=head.shard, kind="keys")
    aged = live["warm"] + live["cold"]
    if live["archive"] > aged or (live["archive"] < aged and not report.archive_was_off):
        message = (
            f"the archive must hold one row for each of warm and cold, found {live}; run `akosha fsck --read-data`"
        )
        report.damage("count_mismatch", message, shard=head.shard, kind="archive")
    listed: list[tuple[KeyFile | GraphFile, str]] = [(entry, "hot") for entry in head.keys.values()]
    listed += [(entry, "graph") for entry in head.graphs.values()]
    for path in [*head.files, *(entry.path for entry, _ in listed)]:
        if not path.startswith(shard_prefix(head.shard)):
            report.damage("misrouted", "the head names a file of another shard", key=path, shard=head.shard)
    for entry, kind in listed:
        if shard_of(entry.system_id) != head.shard:
            own = shard_of(entry.system_id)
            message = f"system {entry.system_id!r} belongs to shard {own}; ingest it again into its own"
            report.damage("misrouted", message, key=entry.path, shard=head.shard, kind=kind)


def check_files(lake: Lake, head: Commit, report: FsckReport) -> None:
    """Every file of a head holds what its entry says, and every text has its digest.

    Raises:
        IntegrityError: a file is damaged.
        ObjectMissingError: a file is missing.
    """
    for entry in head.of_tier(*TIERS, "archive"):
        _check_file(lake, entry, head.shard, report)


def check_conservation(lake: Lake, head: Commit, report: FsckReport) -> None:
    """Keys, tiers and archive agree record by record. Errors as in `check_files`."""
    figures, breaches = measure_shard(lake, head)
    report.checked["records"] += figures.keys
    for problem, what in PROBLEMS.items():
        found = breaches.filter(pc.equal(breaches.column("problem"), problem))
        if found.num_rows:
            examples = "; ".join(" / ".join(list(row.values())[1:]) for row in found.slice(0, EXAMPLES).to_pylist())
            message = f"{found.num_rows} records are {what}, for example {examples}; the commits of this shard say which run did it"
            kind = "archive" if problem.startswith("archive") else "keys"
            report.damage(f"record_{problem}", message, shard=head.shard, kind=kind)


def _check_file(lake: Lake, entry: FileEntry, shard: int, report: FsckReport) -> None:
    columns = ["created_at", "embedding_model"]
    columns += [*KEY, "content", "content_sha256"] if entry.tier in CONTENT_TIERS else []
    # Removed rows included: they count in the entry's rows, first and last.
    table = lake.rows(replace(entry, removal=None), columns)
    if table.num_rows != entry.rows:
        message = (
            f"its commit says {entry.rows} rows, it has {table.num_rows}; put back the file that its commit describes"
        )
        report.damage("row_count", message, key=entry.path, shard=shard, kind=entry.tier)
        return
    bounds = pc.min_max(table.column("created_at")).as_py()
    if (bounds["min"], bounds["max"]) != (_instant(entry.first), _instant(entry.last)):
        message = (
            f"its commit says records of {entry.first} to {entry.last}, it holds {bounds['min']} to {bounds['max']}"
        )
        report.damage("time_range", message, key=entry.path, shard=shard, kind=entry.tier)
    _check_live(table, entry, lake.removed(entry), shard, report)
    if entry.tier in CONTENT_TIERS:
        _check_texts(table, entry, shard, report)


def _check_live(
    table: pa.Table, entry: FileEntry, removed: NDArray[np.uint32] | None, shard: int, report: FsckReport
) -> None:
    numbers = np.empty(0, np.int64) if removed is None else removed.astype(np.int64)
    if (np.diff(numbers) <= 0).any() or (numbers >= entry.rows).any():
        message = "its removal list is not ascending or names rows that it does not have; put back the one that its commit describes"
        report.damage("removal_list", message, key=entry.path, shard=shard, kind="removals")
    lacking = without_rows(table, removed).column("embedding_model").null_count
    if lacking != entry.without_vector:
        message = f"its commit says {entry.without_vector} live records without a vector, it has {lacking}"
        report.damage("vector_count", message, key=entry.path, shard=shard, kind=entry.tier)


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _check_texts(table: pa.Table, entry: FileEntry, shard: int, report: FsckReport) -> None:
    try:
        verify_content(table, where=entry.path)
    except IntegrityError as error:
        record = " / ".join(str(error.context[name]) for name in KEY)
        message = f"the text of {record} does not have its digest; ingest its upload again"
        report.damage("content_digest", message, key=entry.path, shard=shard, kind=entry.tier)
