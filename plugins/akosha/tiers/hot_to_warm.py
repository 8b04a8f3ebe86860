"""Hot to warm: vectors become INT8 with a scale per vector, text and codes go to the archive, one commit per shard.

plan (which rows are due) -> transform once -> stage (written, read back, compared) -> recall gate over the whole batch of
shards -> publish. Nothing is committed before the gate has passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from akosha.errors import CommitConflictError, IntegrityError, RecallGateError, ShardHeldError
from akosha.lake.columns import codes_column, digests_of, only_rows, packed_codes, vectors_of
from akosha.lake.edit import edit_shard
from akosha.lake.files import ROW, keep, verify_content
from akosha.lake.lake import Lake
from akosha.lake.policy import Policy
from akosha.lake.provenance import about
from akosha.lake.schemas import ARCHIVE, DIMENSION, KEY, WARM
from akosha.lake.shard_log import Writer
from akosha.tiers.due import Due
from akosha.tiers.moves import MAX_REPLANS, ShardMove, StagedMove, concerned, due_rows, held_shards
from akosha.transforms.quantization import BLOCK_ROWS, dequantize, quantize
from akosha.transforms.recall import GATE_CORPUS, GATE_QUERIES, RecallMeasure, measure_gate

OPERATION: Final = "hot-to-warm"
GATE_ROWS: Final = GATE_QUERIES + GATE_CORPUS
FREE: Final = np.uint64(2**64 - 1)  # the rank of a place without a row
ROUNDING: Final = 1.001


class GateSample:
    """Vectors of a batch before and after, for the recall gate: those of the `GATE_ROWS` smallest content digests.

    So a batch of any size gives one even sample, the same whatever the order of its shards, in bounded memory. A row is
    copied only when it enters, into the place of one that leaves.
    """

    def __init__(self) -> None:
        self._ranks = np.full(GATE_ROWS, FREE, np.uint64)
        self._vectors = np.empty((GATE_ROWS, DIMENSION), np.float32)
        self._codes = np.empty((GATE_ROWS, DIMENSION), np.int8)
        self._scales = np.empty(GATE_ROWS, np.float32)
        self._digests = np.empty((GATE_ROWS, 32), np.uint8)

    def add(
        self,
        vectors: NDArray[np.float32],
        codes: NDArray[np.int8],
        scales: NDArray[np.float32],
        digests: NDArray[np.uint8],
    ) -> None:
        """Take in what belongs to the sample. Shapes ``(n, 384)``, ``(n, 384)``, ``(n,)`` and ``(n, 32)``."""
        ranks, rows = np.unique(_ranks(digests), return_index=True)
        unknown = ~np.isin(ranks, self._ranks)
        ranks, rows = ranks[unknown], rows[unknown]
        smallest = np.argsort(np.concatenate([self._ranks, ranks]), kind="stable")[:GATE_ROWS]
        entering = smallest[smallest >= GATE_ROWS] - GATE_ROWS
        places = np.setdiff1d(np.arange(GATE_ROWS), smallest)
        self._ranks[places] = ranks[entering]
        chosen = rows[entering]
        self._vectors[places] = vectors[chosen]
        self._codes[places] = codes[chosen]
        self._scales[places] = scales[chosen]
        self._digests[places] = digests[chosen]

    def measure(self) -> RecallMeasure:
        """Recall@10 of the decoded vectors against exact search on FLOAT."""
        taken = self._ranks != FREE
        held = slice(None) if taken.all() else np.flatnonzero(taken)  # a full sample is not copied
        digests = [digest.tobytes() for digest in self._digests[held]]
        return measure_gate(self._vectors[held], dequantize(self._codes[held], self._scales[held]), digests)


def _ranks(digests: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The first 8 bytes of the digests as numbers: equal texts have one rank, and two texts never do."""
    return np.ascontiguousarray(digests[:, :8]).view(">u8").ravel().astype(np.uint64)


def move_batch(  # noqa: PLR0913 - what, by which policy, as of when
    lake: Lake,
    shards: Sequence[int],
    policy: Policy,
    writer: Writer,
    *,
    as_of: datetime,
    until: datetime | None = None,
    dry_run: bool = False,
) -> tuple[list[ShardMove], RecallMeasure]:
    """Move what is due in some shards; with `until` only records created before it.

    Returns:
        one outcome for each shard, and the recall measured over all of them.

    Raises:
        RecallGateError: recall@10 is below AKOSHA_RECALL_FLOOR; nothing of the batch was committed.
        IntegrityError: a source or a read-back does not match; nothing of the shard was committed.
    """
    sample = GateSample()
    with ExitStack() as stack:
        mover = _Mover(lake, as_of, until, policy, stack, dry_run)
        held, free = held_shards(lake, shards)
        staged = []
        for shard in free:
            try:
                staged.append(mover.stage(shard, sample))
            except ShardHeldError as since:
                held.append(ShardMove(shard, waits_for=since.message))
        measure = mover.judge(sample, free)
        outcomes = [*held, *(mover.publish(move, writer) for move in staged)]
    return outcomes, measure


@dataclass(frozen=True, slots=True)
class _Mover:
    """One batch at work. `stack` keeps the scratch folders of staged files until the batch is done."""

    lake: Lake
    as_of: datetime
    until: datetime | None
    policy: Policy
    stack: ExitStack
    dry_run: bool

    def stage(self, shard: int, sample: GateSample) -> StagedMove:
        """Write and verify what is due in one shard; nothing is visible yet. A dry run writes nothing."""
        head = self.lake.shard(shard).head()
        edit = self.stack.enter_context(edit_shard(self.lake, head, about()))
        edit.heed_holds()
        outcome = ShardMove(shard, head.version)
        leaving = Due(self.lake, head, self.policy, "hot", self.as_of, self.until)
        for entry in concerned(head, "hot", leaving.cutoff):
            found = due_rows(self.lake, entry, leaving)
            outcome.stay(found.staying)
            if not found.due.num_rows:
                continue
            archived = leaving.archiving(found.due)
            due = archived.rows
            # What is archived is verified as it is written; what is not goes for good.
            texts = due.select([*KEY, "content", "content_sha256"])
            verify_content(texts if self.dry_run else keep(texts, ~archived.kept), where=entry.path)
            warm, archive = transform(due, archived.audit_share, sample)
            outcome.add(entry, due, leaving, without_vector=due.column("embedding").null_count)
            outcome.unarchived += int((~archived.kept).sum())
            if not self.dry_run:
                edit.put("warm", warm)
                edit.put("archive", keep(archive, archived.kept))
                edit.drop(entry, due.column(ROW).to_numpy())
        outcome.count_kept(self.lake, head, leaving)
        edit.stage()
        return StagedMove(edit, outcome)

    def judge(self, sample: GateSample, shards: Sequence[int]) -> RecallMeasure:
        """The recall of a sample.

        Raises:
            RecallGateError: it is large enough to be judged, and below the floor.
        """
        measure = sample.measure()
        floor = self.lake.settings.recall_floor
        if measure.judged and measure.recall < floor:
            message = (
                f"recall@10 after quantisation would be {measure.recall:.3f}, below AKOSHA_RECALL_FLOOR={floor}: "
                "nothing was moved; look at the vectors of these shards"
            )
            raise RecallGateError(message, shards=list(shards), queries=measure.queries)
        return measure

    def publish(self, move: StagedMove, writer: Writer) -> ShardMove:
        """Commit a staged move; when another writer made it obsolete, plan, stage and judge that shard again.

        Raises:
            CommitConflictError: it was obsolete `MAX_REPLANS` times in a row.
        """
        attempt = 1
        while True:
            try:
                commit = move.edit.publish(OPERATION, writer, counts=move.outcome.counts())
            except ShardHeldError as held:
                move.edit.discard()
                return ShardMove(move.outcome.shard, move.outcome.version, waits_for=held.message)
            except CommitConflictError:
                if attempt == MAX_REPLANS:
                    raise
                attempt += 1
                move.edit.discard()
                try:
                    move = self._staged_again(move.outcome.shard)
                except ShardHeldError as held:
                    return ShardMove(move.outcome.shard, waits_for=held.message)
            else:
                move.outcome.version = commit.version
                return move.outcome

    def _staged_again(self, shard: int) -> StagedMove:
        sample = GateSample()
        move = self.stage(shard, sample)
        self.judge(sample, [shard])
        return move


def transform(due: pa.Table, audit_share: float | NDArray[np.float64], sample: GateSample) -> tuple[pa.Table, pa.Table]:
    """Warm and archive rows (schemas ``WARM`` and ``ARCHIVE``) of hot rows, in their order.

    Raises:
        IntegrityError: a decoded value is further from its source than half a quantisation step.
    """
    vectors, present = vectors_of(due.column("embedding"))
    codes, scales = quantize(vectors)
    _check_bound(vectors, codes, scales)
    digests = digests_of(due.column("content_sha256"))
    sample.add(vectors, codes, scales, digests if present.all() else digests[present])
    scale = pa.array(_spread(scales, present), pa.float32(), mask=~present)
    warm = due.append_column("codes", codes_column(codes, present)).append_column("scale", scale)
    audited = present & in_audit_sample(digests, audit_share)
    embedding = only_rows(due.column("embedding"), audited)
    archive = (
        due.drop_columns(["embedding"])
        .append_column("codes", packed_codes(codes, present))
        .append_column("scale", scale)
        .append_column("embedding", embedding)
    )
    return warm.select(WARM.names), archive.select(ARCHIVE.names)


def in_audit_sample(digests: NDArray[np.uint8], share: float | NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which records keep their FLOAT vector: those whose digest, read as a number in 0-1, is below `share`, or theirs of it.

    Digests of shape ``(n, 32)``; answers ``(n,)``.
    """
    leading = np.ascontiguousarray(digests[:, :4]).view(">u4").ravel()
    return np.asarray(leading < share * 2.0**32, dtype=bool)


def _check_bound(vectors: NDArray[np.float32], codes: NDArray[np.int8], scales: NDArray[np.float32]) -> None:
    """Decode every vector again and compare: block by block, so that it stays in the core's cache."""
    for start in range(0, len(vectors), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        off = dequantize(codes[block], scales[block])
        np.subtract(off, vectors[block], out=off)
        np.abs(off, out=off)
        if not (off.max(axis=1) <= scales[block] * (ROUNDING / 2)).all():
            message = "a quantised vector is further from its source than half a step; nothing was committed"
            raise IntegrityError(message)


def _spread(values: NDArray[np.float32], present: NDArray[np.bool_]) -> NDArray[np.float32]:
    spread = np.zeros(len(present), np.float32)
    spread[present] = values
    return spread
