"""What files and records say of where they come from."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from akosha.declared import SIGNS_ID
from akosha.transforms.cleaning import CLEANING_ID
from akosha.transforms.fingerprints import FINGERPRINT_ID
from akosha.transforms.quantization import CODEC_ID
from akosha.transforms.summaries import SUMMARY_ID

PIPELINE_ID: Final = "akosha-ingest/1"
INGESTED_ON: Final = "ingested_on"
ARCHIVE: Final = "archive"
OFF: Final = "off"
T = TypeVar("T")


def about() -> dict[str, str]:
    """The codecs a file was written with, by kind."""
    return {
        "pipeline": PIPELINE_ID,
        "cleaning": CLEANING_ID,
        "fingerprint": FINGERPRINT_ID,
        "summary": SUMMARY_ID,
        "codec": CODEC_ID,
        "signs": SIGNS_ID,
    }


def record_provenance(*, upload: str, etag: str, file_sha256: str, manifest_time: str, ingested_on: str = "") -> str:
    """The provenance column of every record of one upload, as JSON with sorted keys.

    `ingested_on` is the UTC day on which the revision came into the lake. A day and no instant: policies count residence
    in days, and the rows of one day's uploads share more of their bytes.
    """
    facts = {"upload": upload, "etag": etag, "file_sha256": file_sha256, "manifest_time": manifest_time, **about()}
    if ingested_on:
        facts[INGESTED_ON] = ingested_on
    return json.dumps(facts, sort_keys=True, ensure_ascii=False)


def provenance_facts(texts: pa.ChunkedArray | pa.Array, read: Callable[[dict[str, Any]], T]) -> list[T]:
    """One value for each row of a provenance column: what `read` makes of its facts; equal texts are parsed once."""
    encoded = pc.dictionary_encode(texts)
    chunk = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    if isinstance(chunk, pa.ChunkedArray):  # an empty column has no chunk to combine
        return []
    values = [read(json.loads(text)) for text in chunk.dictionary.to_pylist()]
    return [values[index] for index in chunk.indices.to_pylist()]


def marked_unarchived(texts: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Provenance of rows that went to warm without a row in the archive: the only place where that is told (I11)."""
    marked = provenance_facts(
        texts, lambda facts: json.dumps({**facts, ARCHIVE: OFF}, sort_keys=True, ensure_ascii=False)
    )
    return pa.array(marked, pa.string())


def is_unarchived(texts: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Which rows went to warm without a row in the archive."""
    return pa.array(provenance_facts(texts, lambda facts: facts.get(ARCHIVE) == OFF), pa.bool_())
