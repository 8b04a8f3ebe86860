"""Building a change: rows leave files, rows come in new files, small files merge. The one way a lake is written.

Nothing here is visible before `publish`. Files are written to a scratch folder, read back and compared, uploaded, and
only then named by the one commit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from akosha.errors import CommitConflictError, CommitVoidError, IntegrityError, ShardHeldError
from akosha.lake import files, layout, removals
from akosha.lake.commits import Change, Commit, FileEntry, GraphFile, HoldFile, KeyFile, Removal, Tier, held_sentence
from akosha.lake.files import MAX_ROWS, ROW, Digests
from akosha.lake.graph_schema import GRAPH, KINDS
from akosha.lake.graph_schema import ORDER as GRAPH_ORDER
from akosha.lake.lake import Lake
from akosha.lake.objects import ObjectStore
from akosha.lake.schemas import BY_TIER, HOLDS, KEYS
from akosha.lake.shard_log import Writer

FAN_IN: Final = 8
MAX_PENDING_BYTES: Final = 128 << 20  # Arrow bytes that wait for their file: a task stays below 1 GiB
MAX_MERGED_BYTES: Final = 64 << 20
MODEL: Final = "embedding_model"
ORDER: Final = [(name, "ascending") for name in ("system_id", "created_at", "source_table", "record_id")]


@dataclass(slots=True)
class _TierEdit:
    pending: list[pa.Table] = field(default_factory=list)
    pending_rows: int = 0
    pending_bytes: int = 0
    drops: dict[str, tuple[FileEntry, list[NDArray[np.uint32]]]] = field(default_factory=dict)


class ShardEdit:
    """Collects what one commit changes in one shard. Make one with `edit_shard`."""

    def __init__(self, lake: Lake, head: Commit, scratch: Path, about: Mapping[str, str]) -> None:
        self.head = head
        self._lake = lake
        self._scratch = scratch
        self._about = dict(about)
        self._tiers: dict[Tier, _TierEdit] = {}
        self._added: list[FileEntry] = []
        self._keys: list[tuple[KeyFile | None, KeyFile]] = []
        self._graphs: list[tuple[GraphFile | None, GraphFile]] = []
        self._holds: tuple[HoldFile | None, HoldFile | None] | None = None
        self._uploaded: list[tuple[ObjectStore, str]] = []
        self._staged: Change | None = None
        self._safe_to_discard = True

    def put(self, tier: Tier, table: pa.Table) -> None:
        """Add rows (columns of the tier's schema) to a tier. Full files are written at once, the rest at `publish`."""
        if not table.num_rows:
            return
        edit = self._tiers.setdefault(tier, _TierEdit())
        edit.pending.append(table.select(BY_TIER[tier].names).cast(BY_TIER[tier]))
        edit.pending_rows += table.num_rows
        edit.pending_bytes += table.nbytes
        if edit.pending_rows > MAX_ROWS or edit.pending_bytes > MAX_PENDING_BYTES:
            *full, rest = files.pieces(pa.concat_tables(edit.pending))
            self._added += [self._write(tier, rows) for rows in full]
            edit.pending, edit.pending_rows, edit.pending_bytes = [rest], rest.num_rows, rest.nbytes

    def drop(self, entry: FileEntry, rows: NDArray[np.uint32]) -> None:
        """Take rows, by number, out of a file of the head."""
        if len(rows):
            edit = self._tiers.setdefault(entry.tier, _TierEdit())
            edit.drops.setdefault(entry.path, (entry, []))[1].append(rows)

    def set_keys(self, system_id: str, table: pa.Table, *, newest: datetime, file_xxh128: str = "") -> None:
        """Replace the key file of a system by `table` (schema ``KEYS``, sorted by source_table, record_id).

        Args:
            system_id: whose.
            table: may be memory-mapped: it is written and verified piece by piece.
            newest: manifest time of the upload that is applied, UTC; an earlier one leaves the key file's own.
            file_xxh128: hex hash of that upload's database file.
        """
        path, size, digests = self._stage("keys", table.cast(KEYS), self._lake.store)
        after = KeyFile(
            system_id=system_id,
            path=path,
            rows=table.num_rows,
            bytes=size,
            sha256=digests.sha256,
            xxh128=digests.xxh128,
            newest_manifest=newest.isoformat(),
            newest_file_xxh128=file_xxh128,
        )
        self._replace_keys(after)

    def restore_keys(self, system_id: str, table: pa.Table) -> None:
        """Replace the key file of a system after damage: as `set_keys`, but its newest upload is read again when it comes."""
        before = self.head.keys[system_id]
        path, size, digests = self._stage("keys", table.cast(KEYS), self._lake.store)
        restored = {"path": path, "rows": table.num_rows, "bytes": size, **asdict(digests)}
        self._keys.append((before, replace(before, newest_file_xxh128="", **restored)))

    def confirm_keys(self, system_id: str, *, newest: datetime, file_xxh128: str = "") -> None:
        """Note that a newer upload of a system holds the keys that its newest one held: the key file stays."""
        before = self.head.keys[system_id]
        self._replace_keys(replace(before, newest_manifest=newest.isoformat(), newest_file_xxh128=file_xxh128))

    def _replace_keys(self, after: KeyFile) -> None:
        before = self.head.keys.get(after.system_id)
        if before is not None and before.newest_manifest > after.newest_manifest:
            after = replace(after, newest_manifest=before.newest_manifest, newest_file_xxh128=before.newest_file_xxh128)
        elif before is not None and before.newest_manifest == after.newest_manifest:
            # Two uploads of one instant: a rule that does not depend on their order.
            after = replace(after, newest_file_xxh128=max(before.newest_file_xxh128, after.newest_file_xxh128))
        if after != before:
            self._keys.append((before, after))

    def set_graph(self, system_id: str, table: pa.Table, *, newest: datetime) -> None:
        """Replace the knowledge graph of a system by `table` (schema ``GRAPH``, any order); `newest` as in `set_keys`."""
        ordered = table.sort_by(GRAPH_ORDER).cast(GRAPH)
        path, size, digests = self._stage("graph", ordered.combine_chunks(), self._lake.store)
        kinds = ordered.column("kind")
        entities, relations, notes = (pc.sum(pc.equal(kinds, kind), min_count=0).as_py() for kind in KINDS)
        before = self.head.graphs.get(system_id)
        newest_manifest = max(newest.isoformat(), before.newest_manifest if before else "")
        after = GraphFile(
            system_id=system_id,
            path=path,
            entities=entities,
            relations=relations,
            observations=notes,
            bytes=size,
            sha256=digests.sha256,
            xxh128=digests.xxh128,
            newest_manifest=newest_manifest,
        )
        self._graphs.append((before, after))

    def set_holds(self, table: pa.Table) -> None:
        """Replace the records on hold by `table` (schema ``HOLDS``, sorted by key); an empty one leaves no file."""
        after = None
        if table.num_rows:
            path, size, digests = self._stage("holds", table.combine_chunks().cast(HOLDS), self._lake.store)
            after = HoldFile(path, table.num_rows, size, digests.sha256, digests.xxh128)
        self._holds = None if after == self.head.holds else (self.head.holds, after)

    def heed_holds(self) -> None:
        """Publish only while the records on hold are those of the head: for moves, which decide by them."""
        self._holds = self._holds or (self.head.holds, self.head.holds)

    def stage(self) -> None:
        """Write, verify and upload everything that is pending; nothing is visible yet."""
        remove: list[FileEntry] = []
        mask: list[tuple[FileEntry, FileEntry]] = []
        for tier, edit in self._tiers.items():
            self._settle(tier, edit, remove, mask)
        self._tiers.clear()
        self._staged = Change(
            "",
            tuple(self._added),
            tuple(remove),
            tuple(mask),
            tuple(self._keys),
            graphs=tuple(self._graphs),
            holds=self._holds,
        )

    def publish(
        self,
        operation: str,
        writer: Writer,
        *,
        counts: Mapping[str, int],
        uploads: tuple[Mapping[str, Any], ...] = (),
    ) -> Commit:
        """Stage what is not staged yet and commit everything at once. An edit that changes nothing publishes nothing.

        Returns:
            the new head, or the head this edit was planned on when there is nothing to do.

        Raises:
            CommitConflictError, CommitUnknownError: see `ShardLog.publish`.
        """
        if self._staged is None:
            self.stage()
        change = replace(cast("Change", self._staged), operation=operation, counts=counts, uploads=uploads)
        if change.empty:
            return self.head
        self._safe_to_discard = False
        try:
            return self._lake.shard(self.head.shard).publish(self.head, change, writer)
        except CommitVoidError:
            raise  # frozen for days: if the commit was part of the chain after all, the chain names what was staged
        except CommitConflictError:
            self._safe_to_discard = True
            raise

    def discard(self) -> None:
        """Delete what was uploaded, while it is certain that no commit names it; else leave it to the sweep."""
        if self._safe_to_discard:
            for store, key in self._uploaded:
                store.delete(key)
            self._uploaded.clear()

    def _settle(
        self, tier: Tier, edit: _TierEdit, remove: list[FileEntry], mask: list[tuple[FileEntry, FileEntry]]
    ) -> None:
        """Turn drops into removed, rewritten or masked files, and pending rows into files, merging small ones."""
        for entry, drops in edit.drops.values():
            gone = np.unique(np.concatenate(drops))
            if len(gone) == entry.rows:  # as a whole: neither it nor its removal list need be readable
                remove.append(entry)
                continue
            before = self._lake.removed(entry)
            gone = gone if before is None else np.union1d(gone, before)
            if len(gone) == entry.rows:
                remove.append(entry)
            elif removals.worth_rewriting(entry.rows, len(gone)):
                remove.append(entry)
                edit.pending.append(self._survivors(entry, gone))
            else:
                mask.append((entry, self._masked(entry, gone)))
        rows = sum(table.num_rows for table in edit.pending)
        if not rows:
            return
        untouched = [entry for entry in self.head.of_tier(tier) if entry.path not in edit.drops]
        for entry in files_to_absorb(untouched, rows):
            remove.append(entry)
            edit.pending.append(self._live(entry))
        self._added += [self._write(tier, part) for part in files.pieces(pa.concat_tables(edit.pending))]

    def _masked(self, entry: FileEntry, gone: NDArray[np.uint32]) -> FileEntry:
        masked = replace(entry, removal=self._stage_removal(gone))
        if not entry.without_vector:
            return masked
        models = files.without_rows(self._lake.rows(entry, [MODEL]), gone).column(MODEL)
        return replace(masked, without_vector=models.null_count)

    def _live(self, entry: FileEntry) -> pa.Table:
        return self._lake.rows(entry).drop_columns([ROW])

    def _survivors(self, entry: FileEntry, gone: NDArray[np.uint32]) -> pa.Table:
        return files.without_rows(self._lake.rows(entry), gone).drop_columns([ROW])

    def _write(self, tier: Tier, table: pa.Table) -> FileEntry:
        ordered = files.in_order(table, ORDER)
        store = self._lake.cold if tier == "cold" else self._lake.store
        if "content" in ordered.column_names:
            files.verify_content(ordered, where=f"rows to be written to {tier}")
        path, size, digests = self._stage(tier, ordered, store)
        bounds = pc.min_max(ordered.column("created_at")).as_py()
        return FileEntry(
            tier=tier,
            root="cold" if tier == "cold" else "lake",
            path=path,
            rows=ordered.num_rows,
            bytes=size,
            sha256=digests.sha256,
            xxh128=digests.xxh128,
            first=bounds["min"].isoformat(),
            last=bounds["max"].isoformat(),
            without_vector=ordered.column(MODEL).null_count,
        )

    def _stage(self, kind: str, table: pa.Table, store: ObjectStore) -> tuple[str, int, Digests]:
        """Write, reopen, compare, upload. Returns key, size in bytes and digests."""
        key = layout.new_file_key(self.head.shard, kind)
        local = self._scratch / Path(key).name
        files.write(table, local, kind=kind, about=self._about)
        files.verify_written(table, local, kind=kind)
        digests, size = files.digests_of(local), local.stat().st_size
        self._uploaded.append((store, key))
        store.upload(key, local)
        _check_arrived(store, key, local, digests.sha256)
        self._lake.cache.adopt(store, key, digests.sha256, local)
        return key, size, digests

    def _stage_removal(self, gone: NDArray[np.uint32]) -> Removal:
        key = layout.new_file_key(self.head.shard, "removals")
        data = removals.encode(gone)
        removal = removals.describe(key, data)
        self._uploaded.append((self._lake.store, key))
        self._lake.store.put(key, data)
        removals.decode(self._lake.store.get(key), removal)
        return removal


@contextmanager
def edit_shard(lake: Lake, head: Commit, about: Mapping[str, str]) -> Iterator[ShardEdit]:
    """A `ShardEdit` on top of `head`; what it staged is deleted when the block fails before anything was published.

    Args:
        lake: the lake.
        head: the version the edit is planned against.
        about: names of codecs and models, written into every file.

    Raises:
        ShardHeldError: the shard is held after an undo; nothing is staged.
    """
    if head.held_by:
        raise ShardHeldError(held_sentence(head), shard=head.shard, found_version=head.version)
    with lake.cache.scratch() as scratch:
        edit = ShardEdit(lake, head, scratch, about)
        try:
            yield edit
        except BaseException:  # SIGTERM and Airflow's timeouts are no `Exception`
            edit.discard()
            raise


def files_to_absorb(entries: list[FileEntry], rows: int) -> list[FileEntry]:
    """Which small files a new file of `rows` rows takes in (size-tiered merging, fan-in 8, up to `MAX_ROWS`).

    When the tier would hold 8 files of one size class (classes are powers of 8 in rows), they become one; that one may
    complete the next class. So every row is rewritten about once per class.
    """
    absorbed: list[FileEntry] = []
    left = list(entries)
    while True:
        size_class = _size_class(rows)
        peers = [entry for entry in left if _size_class(entry.live_rows) == size_class]
        total = rows + sum(entry.live_rows for entry in peers)
        if len(peers) < FAN_IN - 1 or total > MAX_ROWS or sum(entry.bytes for entry in peers) > MAX_MERGED_BYTES:
            return absorbed
        absorbed += peers
        left = [entry for entry in left if entry not in peers]
        rows = total


def _size_class(rows: int) -> int:
    return (max(rows, 1).bit_length() - 1) // 3


def _check_arrived(store: ObjectStore, key: str, sent: Path, sha256: str) -> None:
    """Compare what the store holds with what was sent: stores that accept wrong checksums exist."""
    stored = store.local_path(key)
    if stored is not None and stored.samefile(sent):
        return  # linked, not copied: these are the bytes that were verified
    found = files.sha256_of(stored) if stored is not None else hashlib.sha256(store.get(key)).hexdigest()
    if found != sha256:
        message = "the store holds other bytes than were sent; nothing was committed"
        raise IntegrityError(message, key=key, expected=sha256, found=found)
