"""From accepted rows to rows of the hot tier: fingerprint and summary are made here, once, from the full text."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from akosha.lake.provenance import record_provenance
from akosha.lake.schemas import CLIENT_MODEL, HOT
from akosha.transforms.cleaning import clean
from akosha.transforms.digests import content_digests
from akosha.transforms.fingerprints import fingerprints
from akosha.transforms.summaries import summarise
from akosha.uploads.prepare import PreparedUpload


def hot_rows(upload: PreparedUpload, wanted: pa.Table) -> Iterator[pa.Table]:
    """Hot rows (schema ``HOT``) of the wanted rows of an upload, one table per batch read.

    Args:
        upload: the upload.
        wanted: position in the upload, record_id, created_at, time_evidence, ascending by position.
    """
    provenance = record_provenance(
        upload=upload.ref.manifest_key,
        etag=upload.ref.etag,
        file_sha256=upload.file_sha256,
        manifest_time=upload.manifest.timestamp.isoformat(),
    )
    positions = wanted.column("position").to_numpy()
    start = 0
    for table, batch in upload.batches():
        first, last = np.searchsorted(positions, [start, start + batch.num_rows])
        if last > first:
            rows = batch.take(pa.array(positions[first:last] - start))
            yield _hot(upload.ref.system_id, table.name, rows, wanted.slice(first, last - first), provenance)
        start += batch.num_rows


def _hot(system_id: str, source_table: str, rows: pa.RecordBatch, keys: pa.Table, provenance: str) -> pa.Table:
    texts = rows.column("content").to_pylist()
    cleaned = [clean(text) for text in texts]
    summaries = summarise(cleaned)
    prints = fingerprints(cleaned).astype("<u4", copy=False)
    embedding = rows.column("embedding")
    model = pc.if_else(embedding.is_valid(), pa.scalar(CLIENT_MODEL), pa.scalar(None, pa.string()))
    count = rows.num_rows
    columns = {
        "system_id": pa.repeat(pa.scalar(system_id, pa.string()), count),
        "source_table": pa.repeat(pa.scalar(source_table, pa.string()), count),
        "record_id": keys.column("record_id"),
        "created_at": keys.column("created_at"),
        "time_evidence": keys.column("time_evidence"),
        "content_sha256": pa.array(content_digests(texts), pa.binary()),
        "content": rows.column("content"),
        "summary": pa.array([summary.text for summary in summaries], pa.string()),
        "sentence": pa.array([summary.sentence for summary in summaries], pa.string()),
        "fingerprint": pa.array([row.tobytes() for row in prints], pa.binary()),
        "embedding": embedding,
        "embedding_model": model,
        "project": rows.column("project"),
        "metadata": rows.column("metadata"),
        "attributes": rows.column("attributes"),
        "provenance": pa.repeat(pa.scalar(provenance, pa.string()), count),
    }
    return pa.table([columns[name] for name in HOT.names], schema=HOT)
