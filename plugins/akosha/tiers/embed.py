"""Filling missing vectors in hot: a lane of its own, so that ingestion never waits for the model.

A record found without a vector is rewritten with one; everything else about it stays. Each shard commits what is done
at every `COMMIT_TEXTS` texts, so that a run that is stopped, or out of budget, resumes where it was. Vectors that came
with uploads and are of another model are replaced in the same way (`akosha.tiers.strangers` says whose).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from akosha.embedding.source import Embedded, VectorSource
from akosha.errors import CommitConflictError, ShardHeldError
from akosha.lake.columns import vectors_column
from akosha.lake.commits import Commit, FileEntry, held_sentence
from akosha.lake.edit import edit_shard
from akosha.lake.files import ROW
from akosha.lake.lake import Lake
from akosha.lake.provenance import about
from akosha.lake.schemas import CLIENT_MODEL
from akosha.lake.shard_log import Writer

OPERATION: Final = "embed"
COMMIT_TEXTS: Final = 1_024
MAX_REPLANS: Final = 5


@dataclass(slots=True)
class ShardEmbedding:
    """What was done in one shard: vectors written, how many of them came from the cache, what is left, and why it waits."""

    shard: int
    embedded: int = 0
    from_cache: int = 0
    left: int = 0
    waits_for: str = ""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which rows get a vector of ours: those without one, or, with `systems`, those with a client's vector of them."""

    systems: tuple[str, ...] = ()

    def entries(self, head: Commit) -> list[FileEntry]:
        """Files that may hold such rows."""
        return [entry for entry in head.of_tier("hot") if self.systems or entry.without_vector]

    def left(self, lake: Lake, head: Commit) -> int:
        """How many there are."""
        if not self.systems:
            return sum(entry.without_vector for entry in head.of_tier("hot"))
        return sum(client_vectors(lake, head, self.systems).values())

    def chosen(self, rows: pa.Table) -> pa.Table:
        """Those of `rows`."""
        if not self.systems:
            return rows.filter(pc.is_null(rows.column("embedding")))
        return rows.filter(_of_clients(rows, self.systems))


def embed_shard(lake: Lake, shard: int, source: VectorSource, writer: Writer) -> ShardEmbedding:
    """Fill what is missing in one shard while the budget lasts.

    Raises:
        CommitConflictError: other writers made the plan obsolete `MAX_REPLANS` times in a row.
    """
    return _fill(lake, shard, source, writer, _Wanted())


def replace_vectors(
    lake: Lake, shard: int, systems: Collection[str], source: VectorSource, writer: Writer
) -> ShardEmbedding:
    """Put vectors of ours in the place of those that came with the uploads of these systems, while the budget lasts.

    Raises:
        CommitConflictError: as `embed_shard`.
    """
    return _fill(lake, shard, source, writer, _Wanted(tuple(sorted(systems)))) if systems else ShardEmbedding(shard)


def client_vectors(lake: Lake, head: Commit, systems: Collection[str]) -> dict[str, int]:
    """How many vectors in hot came with the uploads of each of these systems; systems with none are left out."""
    counts: dict[str, int] = {}
    for entry in head.of_tier("hot"):
        rows = lake.rows(entry, ["system_id", "embedding_model"])
        for found in pc.value_counts(rows.filter(_of_clients(rows, systems)).column("system_id")).to_pylist():
            counts[found["values"]] = counts.get(found["values"], 0) + found["counts"]
    return counts


def _of_clients(rows: pa.Table, systems: Collection[str]) -> pa.Array:
    theirs = pc.is_in(rows.column("system_id"), pa.array(sorted(systems), pa.string()))
    return pc.and_(theirs, pc.fill_null(pc.equal(rows.column("embedding_model"), CLIENT_MODEL), fill_value=False))


def _fill(lake: Lake, shard: int, source: VectorSource, writer: Writer, wanted: _Wanted) -> ShardEmbedding:
    outcome = ShardEmbedding(shard)
    conflicts = 0
    while True:
        head = lake.shard(shard).head()
        outcome.left = wanted.left(lake, head)
        if not outcome.left or source.exhausted:
            return outcome
        if head.held_by:
            outcome.waits_for = held_sentence(head)
            return outcome
        try:
            written, cached = _commit_some(lake, head, source, writer, wanted)
        except ShardHeldError as held:
            outcome.waits_for = held.message
            return outcome
        except CommitConflictError:
            conflicts += 1
            if conflicts == MAX_REPLANS:
                raise
            continue
        if not written:
            return outcome
        conflicts = 0
        outcome.embedded += written
        outcome.from_cache += cached


def _commit_some(lake: Lake, head: Commit, source: VectorSource, writer: Writer, wanted: _Wanted) -> tuple[int, int]:
    """One commit of up to `COMMIT_TEXTS` records: how many it wrote, how many vectors came from the cache."""
    with edit_shard(lake, head, about()) as edit:
        rows = _rows(lake, head, wanted)
        filled, cached = _filled(rows, source)
        if not filled.num_rows:
            return 0, 0
        edit.put("hot", filled.drop_columns([ROW, "path"]))
        for entry in wanted.entries(head):
            ours = filled.filter(pc.equal(filled.column("path"), entry.path))
            edit.drop(entry, ours.column(ROW).to_numpy())
        edit.publish(OPERATION, writer, counts={"replaced" if wanted.systems else "embedded": filled.num_rows})
    return filled.num_rows, cached


def _rows(lake: Lake, head: Commit, wanted: _Wanted) -> pa.Table:
    """Up to `COMMIT_TEXTS` hot rows that are wanted, with the path of their file."""
    found: list[pa.Table] = []
    room = COMMIT_TEXTS
    for entry in wanted.entries(head):
        if room <= 0:
            break
        rows = wanted.chosen(lake.rows(entry)).slice(0, room)
        room -= rows.num_rows
        found.append(rows.append_column("path", pa.repeat(pa.scalar(entry.path, pa.string()), rows.num_rows)))
    return pa.concat_tables(found)


def _filled(rows: pa.Table, source: VectorSource) -> tuple[pa.Table, int]:
    digests = rows.column("content_sha256").to_pylist()
    vectors, cached = source.vectors(rows.column("content").to_pylist(), digests)
    have = [digest in vectors for digest in digests]
    rows = rows.filter(pa.array(have, pa.bool_()))
    if not rows.num_rows:
        return rows, 0
    return _with_vectors(rows, [digest for digest, has in zip(digests, have, strict=True) if has], vectors), cached


def _with_vectors(rows: pa.Table, digests: Sequence[bytes], vectors: Mapping[bytes, Embedded]) -> pa.Table:
    stacked = np.stack([vectors[digest].vector for digest in digests])
    models = pa.array([vectors[digest].model_id for digest in digests], pa.string())
    present = np.ones(rows.num_rows, dtype=bool)
    for name, column in (("embedding", vectors_column(stacked, present)), ("embedding_model", models)):
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, rows.schema.field(name), column.cast(rows.schema.field(name).type))
    return rows
