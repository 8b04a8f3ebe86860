"""From new texts to rows of the hot tier: fingerprint and summary are made here, once, from the full text."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from akosha.lake.provenance import record_provenance
from akosha.lake.schemas import CLIENT_MODEL, FINGERPRINT_BYTES, HOT
from akosha.transforms.cleaning import clean
from akosha.transforms.fingerprints import fingerprints
from akosha.transforms.summaries import summarise
from akosha.uploads.prepare import FetchedUpload
from akosha.uploads.texts import WantedRows


def provenance_of(upload: FetchedUpload, ingested: datetime) -> str:
    """The provenance of every record of an upload that is taken in at `ingested`."""
    return record_provenance(
        upload=upload.ref.manifest_key,
        etag=upload.ref.etag,
        file_sha256=upload.file_sha256,
        manifest_time=upload.manifest.timestamp.isoformat(),
        ingested_on=ingested.astimezone(UTC).date().isoformat(),
    )


def hot_rows(system_id: str, rows: WantedRows, provenance: str) -> pa.Table:
    """Hot rows (schema ``HOT``) of rows of an upload.

    Args:
        system_id: whose.
        rows: texts, and as `wanted` the columns record_id, created_at, time_evidence.
        provenance: of the upload.
    """
    texts, keys, count = rows.texts, rows.wanted, rows.texts.num_rows
    cleaned = [clean(text) for text in texts.column("content").to_pylist()]
    summaries = summarise(cleaned)
    prints = np.ascontiguousarray(fingerprints(cleaned).astype("<u4", copy=False))
    fixed = pa.FixedSizeBinaryArray.from_buffers(pa.binary(FINGERPRINT_BYTES), count, [None, pa.py_buffer(prints)])
    embedding = texts.column("embedding")
    columns = {
        "system_id": pa.repeat(pa.scalar(system_id, pa.string()), count),
        "source_table": pa.repeat(pa.scalar(rows.table, pa.string()), count),
        "record_id": keys.column("record_id"),
        "created_at": keys.column("created_at"),
        "time_evidence": keys.column("time_evidence"),
        "content_sha256": texts.column("content_sha256"),
        "content": texts.column("content"),
        "summary": pa.array([summary.text for summary in summaries], pa.string()),
        "sentence": pa.array([summary.sentence for summary in summaries], pa.string()),
        "fingerprint": fixed.cast(pa.binary()),
        "embedding": embedding,
        "embedding_model": pc.if_else(embedding.is_valid(), pa.scalar(CLIENT_MODEL), pa.scalar(None, pa.string())),
        "project": texts.column("project"),
        "metadata": texts.column("metadata"),
        "attributes": texts.column("attributes"),
        "provenance": pa.repeat(pa.scalar(provenance, pa.string()), count),
    }
    return pa.table([columns[name] for name in HOT.names], schema=HOT)
