"""Filling missing vectors in hot: a lane of its own, so that ingestion never waits for the model.

A record found without a vector is rewritten with one; everything else about it stays. Each shard commits what is done
at every `COMMIT_TEXTS` texts, so that a run that is stopped, or out of budget, resumes where it was.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from akosha.embedding.cache import EmbeddingCache
from akosha.embedding.model import Encoder
from akosha.errors import CommitConflictError
from akosha.lake.columns import vectors_column
from akosha.lake.commits import FileEntry
from akosha.lake.edit import edit_shard
from akosha.lake.files import ROW
from akosha.lake.lake import Lake
from akosha.lake.provenance import about
from akosha.lake.shard_log import Writer
from akosha.transforms.cleaning import clean

log = logging.getLogger(__name__)

OPERATION: Final = "embed"
COMMIT_TEXTS: Final = 1_024
ENCODE_TEXTS: Final = 128
MAX_REPLANS: Final = 5


@dataclass(slots=True)
class ShardEmbedding:
    """What was done in one shard: vectors filled, how many of them came from the cache, and what is left."""

    shard: int
    embedded: int = 0
    from_cache: int = 0
    left: int = 0


class VectorSource:
    """Vectors for texts: from the cache by content digest, else from the model, which is loaded when first needed."""

    def __init__(
        self, cache: EmbeddingCache, load: Callable[[], Encoder], model_id: str, deadline: float | None
    ) -> None:
        self._cache = cache
        self._load = load
        self._encoder: Encoder | None = None
        self._deadline = deadline
        self.model_id = model_id

    @property
    def exhausted(self) -> bool:
        """Whether the budget is spent."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def vectors(self, texts: Sequence[str], digests: Sequence[bytes]) -> tuple[dict[bytes, NDArray[np.float32]], int]:
        """Vectors by digest, and how many came from the cache. Fewer than asked when the budget runs out."""
        found = dict(self._cache.get_many(self.model_id, digests))
        cached = len(found)
        missing = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in found}
        by_length = sorted(missing.items(), key=lambda item: (len(item[1]), item[0]))
        for start in range(0, len(by_length), ENCODE_TEXTS):
            if self.exhausted:
                break
            chunk = by_length[start : start + ENCODE_TEXTS]
            encoded = self._model().encode([clean(text) for _, text in chunk])
            fresh = {digest: vector for (digest, _), vector in zip(chunk, encoded, strict=True)}
            self._cache.put_many(self.model_id, fresh)
            found.update(fresh)
            log.info("embedded texts=%d of=%d", start + len(chunk), len(by_length))
        return found, cached

    def _model(self) -> Encoder:
        if self._encoder is None:
            self._encoder = self._load()
        return self._encoder


def embed_shard(lake: Lake, shard: int, source: VectorSource, writer: Writer) -> ShardEmbedding:
    """Fill what is missing in one shard while the budget lasts.

    Raises:
        CommitConflictError: other writers made the plan obsolete `MAX_REPLANS` times in a row.
    """
    outcome = ShardEmbedding(shard)
    conflicts = 0
    while True:
        head = lake.shard(shard).head()
        lacking = [entry for entry in head.of_tier("hot") if entry.without_vector]
        outcome.left = sum(entry.without_vector for entry in lacking)
        if not lacking or source.exhausted:
            return outcome
        try:
            with edit_shard(lake, head, about()) as edit:
                rows = _missing_rows(lake, lacking)
                filled, cached = _filled(rows, source)
                if not filled.num_rows:
                    return outcome
                edit.put("hot", filled.drop_columns([ROW, "path"]))
                for entry in lacking:
                    ours = filled.filter(pc.equal(filled.column("path"), entry.path))
                    edit.drop(entry, ours.column(ROW).to_numpy())
                edit.publish(OPERATION, writer, counts={"embedded": filled.num_rows})
        except CommitConflictError:
            conflicts += 1
            if conflicts == MAX_REPLANS:
                raise
        else:
            conflicts = 0
            outcome.embedded += filled.num_rows
            outcome.from_cache += cached


def _missing_rows(lake: Lake, entries: Sequence[FileEntry]) -> pa.Table:
    """Up to `COMMIT_TEXTS` hot rows without a vector, with the path of their file."""
    found: list[pa.Table] = []
    room = COMMIT_TEXTS
    for entry in entries:
        if room <= 0:
            break
        rows = lake.rows(entry)
        rows = rows.filter(rows.column("embedding").is_null()).slice(0, room)
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
    stacked = np.stack([vectors[digest] for digest, has in zip(digests, have, strict=True) if has])
    present = np.ones(rows.num_rows, dtype=bool)
    for name, column in (
        ("embedding", vectors_column(stacked, present)),
        ("embedding_model", pa.repeat(pa.scalar(source.model_id, pa.string()), rows.num_rows)),
    ):
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, rows.schema.field(name), column.cast(rows.schema.field(name).type))
    return rows, cached
