"""How well warm still finds what it holds: recall@10 of its INT8 codes against the FLOAT kept in the archive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from akosha.embedding.model import OUR_MODELS
from akosha.lake.columns import codes_of, vectors_of
from akosha.lake.commits import Commit, FileEntry
from akosha.lake.files import ROW
from akosha.lake.lake import Lake
from akosha.lake.schemas import CLIENT_MODEL, KEY
from akosha.transforms.quantization import dequantize
from akosha.transforms.recall import RecallMeasure, leave_one_out

ENOUGH: Final = 50
QUERIES: Final = 1_000
# 20,000 vectors are 31 MB in each of the two forms.
SAMPLE_ROWS: Final = 20_000


def audit_recall(lake: Lake, heads: Sequence[Commit], *, k: int = 10) -> RecallMeasure:
    """Ask the audit sample of live warm records: each by its FLOAT vector, against all others of the sample.

    The truth is exact on FLOAT, the answer exact on the codes read from warm itself. Equal texts count once; the sample
    and its queries are chosen by content digest, so the same lake is asked the same questions.

    Args:
        lake: whose warm tier.
        heads: the snapshot to audit.
        k: neighbours.

    Returns:
        `judged` is False below 50 records: too few for a verdict.

    Raises:
        IntegrityError, ObjectMissingError: a file of the snapshot is damaged or missing.
    """
    samples = [sample for head in heads for sample in _sample(lake, head) if sample.num_rows]
    if not samples:
        return RecallMeasure(recall=1.0, overlap=1.0, queries=0, corpus=0, judged=False)
    sample = _chosen(pa.concat_tables(samples))
    vectors, _ = vectors_of(sample.column("embedding"))
    codes, scales, _ = codes_of(sample.column("codes"), sample.column("scale"))
    return leave_one_out(vectors, dequantize(codes, scales), k=k, queries=QUERIES, enough=ENOUGH)


def _sample(lake: Lake, head: Commit) -> list[pa.Table]:
    """Audit rows of one shard, in pieces: content_sha256, embedding, codes, scale, embedding_model."""
    kept = [_with_value(lake.rows(entry, [*KEY, "embedding"]), "embedding") for entry in head.of_tier("archive")]
    kept = [table for table in kept if table.num_rows]
    if not kept:
        return []
    floats = pa.concat_tables(kept)
    numbered = floats.select(KEY).append_column("position", pa.array(np.arange(floats.num_rows)))
    return [_paired(lake, entry, floats, numbered) for entry in head.of_tier("warm")]


def _paired(lake: Lake, entry: FileEntry, floats: pa.Table, numbered: pa.Table) -> pa.Table:
    """Rows of one warm file beside their FLOAT vectors. Arrow cannot join lists, so row numbers are joined instead."""
    rows = _with_value(lake.rows(entry, [*KEY, "content_sha256", "codes", "scale", "embedding_model"]), "codes")
    keys = rows.select(KEY).append_column("warm", pa.array(np.arange(rows.num_rows)))
    pairs = keys.join(numbered, list(KEY), join_type="inner").sort_by("warm")
    found = rows.take(pairs.column("warm")).select(["content_sha256", "codes", "scale", "embedding_model"])
    return found.append_column("embedding", floats.column("embedding").take(pairs.column("position")))


def _with_value(table: pa.Table, name: str) -> pa.Table:
    return table.drop_columns([ROW]).filter(table.column(name).is_valid())


def _chosen(sample: pa.Table) -> pa.Table:
    """One row for each text with a comparable vector, in order of digests, up to the limit."""
    comparable = pc.is_in(sample.column("embedding_model"), pa.array([CLIENT_MODEL, *OUR_MODELS]))
    ours = sample.filter(comparable)
    digests = ours.column("content_sha256").to_pylist()
    first = dict(zip(reversed(digests), range(len(digests) - 1, -1, -1), strict=True))
    rows = [first[digest] for digest in sorted(first)][:SAMPLE_ROWS]
    return ours.take(pa.array(rows, pa.int64())).combine_chunks()
