"""Warm to cold: one sentence, the fingerprint and 48 bytes of mean-centred sign bits in Parquet; one commit per shard.

Full text and INT8 codes stay in the archive, which this move does not touch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import numpy as np
import pyarrow as pa

from akosha.declared import sign_mean
from akosha.errors import CommitConflictError, ShardHeldError
from akosha.lake.columns import codes_of, nullable_binary
from akosha.lake.commits import Commit
from akosha.lake.edit import edit_shard
from akosha.lake.files import ROW
from akosha.lake.lake import Lake
from akosha.lake.policy import Policy
from akosha.lake.provenance import about
from akosha.lake.schemas import COLD, SIGN_BYTES
from akosha.lake.shard_log import Writer
from akosha.tiers.due import Due
from akosha.tiers.moves import MAX_REPLANS, ShardMove, concerned, due_rows
from akosha.transforms.quantization import dequantize
from akosha.transforms.signs import sign_bits

OPERATION: Final = "warm-to-cold"


def move_batch(  # noqa: PLR0913 - what, by which policy, as of when
    lake: Lake,
    shards: Sequence[int],
    policy: Policy,
    writer: Writer,
    *,
    as_of: datetime,
    until: datetime | None = None,
    dry_run: bool = False,
) -> list[ShardMove]:
    """Move what is due in some shards, with `until` only records created before it; one outcome for each.

    Raises:
        IntegrityError: a source or a read-back does not match; nothing of the shard was committed.
        CommitConflictError: other writers made the plan obsolete `MAX_REPLANS` times in a row.
    """

    def due(head: Commit) -> Due:
        return Due(lake, head, policy, "warm", as_of, until)

    return [_move_shard(lake, shard, due, writer, dry_run=dry_run) for shard in shards]


def _move_shard(lake: Lake, shard: int, due: Callable[[Commit], Due], writer: Writer, *, dry_run: bool) -> ShardMove:
    attempt = 1
    while True:
        try:
            head = lake.shard(shard).head()
            return _try_shard(lake, head, due(head), writer, dry_run=dry_run)
        except ShardHeldError as held:
            return ShardMove(shard, waits_for=held.message)
        except CommitConflictError:
            if attempt == MAX_REPLANS:
                raise
            attempt += 1


def _try_shard(lake: Lake, head: Commit, leaving: Due, writer: Writer, *, dry_run: bool) -> ShardMove:
    outcome = ShardMove(head.shard, head.version)
    with edit_shard(lake, head, about()) as edit:
        edit.heed_holds()
        for entry in concerned(head, "warm", leaving.cutoff):
            found = due_rows(lake, entry, leaving)
            outcome.stay(found.staying)
            due = found.due
            if not due.num_rows:
                continue
            outcome.add(entry, due, leaving, without_vector=due.column("codes").null_count)
            if not dry_run:
                edit.put("cold", transform(due))
                edit.drop(entry, due.column(ROW).to_numpy())
        outcome.count_kept(lake, head, leaving)
        outcome.version = edit.publish(OPERATION, writer, counts=outcome.counts()).version
    return outcome


def transform(due: pa.Table) -> pa.Table:
    """Cold rows (schema ``COLD``) of warm rows, in their order."""
    codes, scales, present = codes_of(due.column("codes"), due.column("scale"))
    bits = sign_bits(dequantize(codes, scales), sign_mean())
    signs = nullable_binary(np.ascontiguousarray(bits), present, SIGN_BYTES)
    return (
        due.drop_columns(["summary"])
        .rename_columns({"sentence": "summary"})
        .append_column("signs", signs)
        .select(COLD.names)
    )
