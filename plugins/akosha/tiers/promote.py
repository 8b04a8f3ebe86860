"""Promotion: aged records come back to hot with their full text, by one verified commit, and stay there for a while.

The text comes from the archive, and so does the vector where the archive kept it as FLOAT; other records get a vector of
the embedding model, at once or by the embedding lane.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from akosha.embedding.source import VectorSource
from akosha.errors import CommitConflictError, IntegrityError, ShardHeldError
from akosha.lake.columns import vectors_column
from akosha.lake.commits import Commit, FileEntry
from akosha.lake.edit import ShardEdit, edit_shard
from akosha.lake.files import ROW, keep, verify_content
from akosha.lake.holds import holds, with_holds
from akosha.lake.lake import Lake
from akosha.lake.locate import locate
from akosha.lake.provenance import about, is_unarchived
from akosha.lake.schemas import ARCHIVE, HOT, KEY
from akosha.lake.shard_log import Writer
from akosha.transforms.cleaning import clean
from akosha.transforms.summaries import summarise

OPERATION: Final = "promote"
MAX_REPLANS: Final = 5
EXAMPLES: Final = 10
_Places = list[tuple[FileEntry, NDArray[np.uint32]]]
_NO_KEYS: Final = pa.schema([pa.field(name, pa.string()) for name in KEY]).empty_table()


@dataclass(slots=True)
class PromoteOutcome:
    """What a promotion did, or would do, in one shard.

    Attributes:
        wanted: keys that were asked for.
        rows: records that came back, of them from warm and from cold.
        original_vector: got back the vector that they had in hot.
        embedded: got a new one at once.
        left_to_lane: have none now; the embedding lane makes it.
        in_hot: were there already, and are held there now.
        unarchived: stay where they are: the archive was off when they left hot, so only their uploads have the full text.
        unknown: keys of no live record.
        bytes: of the texts that came back.
        first_records: some keys of records that came back.
        first_unarchived: some keys of those that stay.
        waits_for: why nothing was done: the shard is held after an undo.
    """

    shard: int
    version: int = 0
    wanted: int = 0
    rows: int = 0
    from_warm: int = 0
    from_cold: int = 0
    original_vector: int = 0
    embedded: int = 0
    left_to_lane: int = 0
    in_hot: int = 0
    unarchived: int = 0
    unknown: int = 0
    bytes: int = 0
    files: int = 0
    first_records: list[list[str]] = field(default_factory=list)
    first_unarchived: list[list[str]] = field(default_factory=list)
    waits_for: str = ""

    def counts(self) -> dict[str, int]:
        """The numbers a commit holds."""
        names = ("rows", "original_vector", "embedded", "left_to_lane", "in_hot", "unarchived")
        return {"promoted" if name == "rows" else name: getattr(self, name) for name in names}


def promote_shard(  # noqa: PLR0913 - what is brought back, by whom, until when, and how
    lake: Lake,
    shard: int,
    keys: pa.Table,
    writer: Writer,
    *,
    hold_until: datetime,
    source: VectorSource | None = None,
    dry_run: bool = False,
) -> PromoteOutcome:
    """Bring records of one shard back to hot and hold them there.

    Args:
        lake: the lake.
        shard: which.
        keys: columns system_id, source_table, record_id; keys of other shards or of no live record are counted as unknown.
        writer: who commits.
        hold_until: no move takes them down before, UTC.
        source: for vectors that the archive did not keep; None = they are left to the embedding lane.
        dry_run: only say what would be done.

    Raises:
        IntegrityError: the archive lacks the text of a record, or holds another one; nothing was committed.
        CommitConflictError: other writers made the plan obsolete `MAX_REPLANS` times in a row.
    """
    attempt = 1
    while True:
        try:
            return _Promotion(lake, lake.shard(shard).head(), keys, hold_until, source).done(writer, dry_run=dry_run)
        except ShardHeldError as held:
            return PromoteOutcome(shard, wanted=keys.num_rows, waits_for=held.message)
        except CommitConflictError:
            if attempt == MAX_REPLANS:
                raise
            attempt += 1


class _Promotion:
    """One attempt, on one head."""

    def __init__(
        self, lake: Lake, head: Commit, keys: pa.Table, hold_until: datetime, source: VectorSource | None
    ) -> None:
        self._lake = lake
        self._head = head
        self._hold_until = hold_until
        self._source = source
        unique = keys.select(KEY).group_by(list(KEY)).aggregate([])
        self._wanted = _with_times(lake, head, unique)
        self.outcome = PromoteOutcome(
            head.shard, head.version, wanted=unique.num_rows, unknown=unique.num_rows - self._wanted.num_rows
        )

    def done(self, writer: Writer, *, dry_run: bool) -> PromoteOutcome:
        """Stage, verify, publish."""
        with edit_shard(self._lake, self._head, about()) as edit:
            stay = []
            archive_of = self._archive()
            for entry, numbers in locate(self._lake, self._head, self._wanted, "warm", "cold"):
                there = self._rows(entry, numbers)
                archived, archive = self._archived(there, archive_of)
                rows, unarchived = _parted(there, archive, shard=self._head.shard)
                stay.append(unarchived.select(KEY).cast(_NO_KEYS.schema))
                if not rows.num_rows:
                    continue
                self.outcome.from_warm += rows.num_rows * (entry.tier == "warm")
                self.outcome.from_cold += rows.num_rows * (entry.tier == "cold")
                self.outcome.files += 1
                hot = self._with_vectors(restored(rows, archive, shard=self._head.shard), dry_run=dry_run)
                self._count(hot)
                if not dry_run:
                    edit.put("hot", hot)
                    edit.drop(entry, rows.column(ROW).to_numpy())
                    for file, places in archived:
                        edit.drop(file, places)
            left = pa.concat_tables([_NO_KEYS, *stay])
            self._count_unarchived(left)
            self.outcome.in_hot = self._wanted.num_rows - self.outcome.rows - self.outcome.unarchived
            if self._wanted.num_rows and not dry_run:
                self._hold(edit, left, writer)
                self.outcome.version = edit.publish(OPERATION, writer, counts=self.outcome.counts()).version
        return self.outcome

    def _rows(self, entry: FileEntry, numbers: NDArray[np.uint32]) -> pa.Table:
        """Rows of a file by their numbers, these among the columns."""
        return _numbered(self._lake.rows(entry), numbers)

    def _archive(self) -> list[tuple[FileEntry, pa.Table]]:
        """Files of the archive that have wanted records, with their keys and row numbers."""
        found = locate(self._lake, self._head, self._wanted, "archive")
        return [(entry, _numbered(self._lake.rows(entry, list(KEY)), numbers)) for entry, numbers in found]

    def _archived(self, rows: pa.Table, archive: Sequence[tuple[FileEntry, pa.Table]]) -> tuple[_Places, pa.Table]:
        """Where `archive` has records, and its rows of them: no more at once than one file of a tier has."""
        places, parts = [], [ARCHIVE.empty_table()]
        for entry, keys in archive:
            numbers = keys.join(rows.select(KEY), list(KEY), join_type="left semi").column(ROW).to_numpy()
            if len(numbers):
                places.append((entry, np.sort(numbers)))
                parts.append(self._rows(entry, numbers).drop_columns([ROW]))
        return places, pa.concat_tables(parts)

    def _hold(self, edit: ShardEdit, stay: pa.Table, writer: Writer) -> None:
        """Put what is in hot now on hold."""
        in_hot = self._wanted.join(stay, list(KEY), join_type="left anti")
        held = holds(self._lake, self._head)
        after = with_holds(held, in_hot, until=self._hold_until, now=writer.now)
        if not after.equals(held):
            edit.set_holds(after)

    def _count_unarchived(self, stay: pa.Table) -> None:
        self.outcome.unarchived = stay.num_rows
        self.outcome.first_unarchived = [list(row.values()) for row in stay.slice(0, EXAMPLES).to_pylist()]

    def _with_vectors(self, hot: pa.Table, *, dry_run: bool) -> pa.Table:
        """`hot` with vectors for those that lack one, as far as a source is there and its budget lasts."""
        lacking = pc.is_null(hot.column("embedding"))
        self.outcome.original_vector += hot.num_rows - pc.sum(lacking).as_py()
        missing = hot.filter(lacking)
        if self._source is None or not missing.num_rows or dry_run:
            self.outcome.left_to_lane += missing.num_rows
            return hot
        digests = hot.column("content_sha256").to_pylist()
        found, _ = self._source.vectors(
            missing.column("content").to_pylist(), missing.column("content_sha256").to_pylist()
        )
        fills = np.array(
            [one and digest in found for one, digest in zip(lacking.to_pylist(), digests, strict=True)], bool
        )
        embedded = int(fills.sum())
        self.outcome.embedded += embedded
        self.outcome.left_to_lane += missing.num_rows - embedded
        if not embedded:
            return hot
        chosen = [found[digest] for digest, fill in zip(digests, fills, strict=True) if fill]
        vectors = vectors_column(np.stack([one.vector for one in chosen]), fills)
        models = pa.array(_spread([one.model_id for one in chosen], fills), pa.string())
        return _replaced(hot, {"embedding": (fills, vectors), "embedding_model": (fills, models)})

    def _count(self, hot: pa.Table) -> None:
        self.outcome.rows += hot.num_rows
        self.outcome.bytes += pc.sum(pc.binary_length(hot.column("content")), min_count=0).as_py()
        room = EXAMPLES - len(self.outcome.first_records)
        self.outcome.first_records += [list(row.values()) for row in hot.select(KEY).slice(0, room).to_pylist()]


def _numbered(rows: pa.Table, numbers: NDArray[np.uint32]) -> pa.Table:
    return keep(rows, np.isin(rows.column(ROW).to_numpy(), numbers))


def restored(rows: pa.Table, archive: pa.Table, *, shard: int) -> pa.Table:
    """Hot rows (schema ``HOT``) of warm or cold ones, in their order; those without a FLOAT in the archive have no vector.

    A cold record has kept one sentence: the summary is made again from the text, by the declared method.

    Args:
        rows: of one tier.
        archive: at least the archive rows of these records (schema ``ARCHIVE``).
        shard: named in errors.

    Raises:
        IntegrityError: the archive lacks a record, or has another text under its key.
    """
    places = _places(rows, archive, shard)
    _require_archived(rows.filter(pc.is_null(places)), shard)
    kept = archive.take(places)
    if kept.column("content_sha256").to_pylist() != rows.column("content_sha256").to_pylist():
        message = "the archive has another text than the tier for a record; nothing was promoted; run `akosha fsck --read-data`"
        raise IntegrityError(message, shard=shard)
    verify_content(kept, where="archive")
    has_vector = kept.column("embedding").is_valid()
    columns = {
        **{name: rows.column(name) for name in rows.column_names if name in HOT.names},
        "content": kept.column("content"),
        "embedding": kept.column("embedding"),
        "embedding_model": pc.if_else(has_vector, kept.column("embedding_model"), pa.scalar(None, pa.string())),
    }
    if "sentence" not in rows.column_names:
        columns["sentence"] = rows.column("summary")
        columns["summary"] = _summaries(kept.column("content").to_pylist())
    return pa.table({name: columns[name] for name in HOT.names}).cast(HOT)


def _summaries(texts: Sequence[str]) -> pa.Array:
    return pa.array([summary.text for summary in summarise([clean(text) for text in texts])], pa.string())


def _with_times(lake: Lake, head: Commit, keys: pa.Table) -> pa.Table:
    """Those of `keys` that are live, with `created_live`, as their system's key file has it."""
    parts = [
        pa.table(
            {
                **{name: pa.array([], pa.string()) for name in KEY},
                "created_live": pa.array([], HOT.field("created_at").type),
            }
        )
    ]
    for system_id in pc.unique(keys.column("system_id")).to_pylist():
        if system_id not in head.keys:
            continue
        mine = keys.filter(pc.equal(keys.column("system_id"), system_id))
        live = lake.keys(head.keys[system_id]).select(["source_table", "record_id", "created_at"])
        found = mine.join(live, ["source_table", "record_id"], join_type="inner").rename_columns(
            {"created_at": "created_live"}
        )
        parts.append(found.select(parts[0].column_names).cast(parts[0].schema))
    return pa.concat_tables(parts)


def _places(rows: pa.Table, archive: pa.Table, shard: int) -> pa.Array:
    """For each row the number of its archive row, null where there is none."""
    mine = rows.select(KEY).append_column("at", pa.array(np.arange(rows.num_rows)))
    theirs = archive.select(KEY).append_column("place", pa.array(np.arange(archive.num_rows)))
    found = mine.join(theirs, list(KEY), join_type="left outer").sort_by("at").column("place").combine_chunks()
    if len(found) != rows.num_rows:
        message = "the archive has a record twice; nothing was promoted; run `akosha fsck --read-data`"
        raise IntegrityError(message, shard=shard)
    return found


def _parted(rows: pa.Table, archive: pa.Table, *, shard: int) -> tuple[pa.Table, pa.Table]:
    """Rows whose text the archive has, and rows that went to warm without one, by policy.

    Raises:
        IntegrityError: the archive should have a row and has not.
    """
    lacking = pc.is_null(_places(rows, archive, shard))
    without = rows.filter(lacking)
    never = is_unarchived(without.column("provenance"))
    _require_archived(without.filter(pc.invert(never)), shard)
    return rows.filter(pc.invert(lacking)), without


def _require_archived(lost: pa.Table, shard: int) -> None:
    if lost.num_rows:
        names = "; ".join(" / ".join(row.values()) for row in lost.select(KEY).slice(0, EXAMPLES).to_pylist())
        message = (
            f"the archive has no text of {lost.num_rows} records: {names}. Run `akosha fsck --read-data`: it names the command "
            "that brings back what was archived. Or promote the others by name: --keys with a file that leaves these out; "
            "nothing was promoted"
        )
        raise IntegrityError(message, shard=shard)


def _replaced(table: pa.Table, columns: dict[str, tuple[np.ndarray, pa.Array]]) -> pa.Table:
    for name, (fills, values) in columns.items():
        at = table.schema.get_field_index(name)
        merged = pc.if_else(pa.array(fills), values, table.column(name).combine_chunks())
        table = table.set_column(at, table.schema.field(name), merged.cast(table.schema.field(name).type))
    return table


def _spread(values: Sequence[str], fills: np.ndarray) -> list[str | None]:
    left = iter(values)
    return [next(left) if fill else None for fill in fills]
