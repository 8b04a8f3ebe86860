"""What files and records say of where they come from."""

from __future__ import annotations

import json
from typing import Final

from akosha.declared import SIGNS_ID
from akosha.transforms.cleaning import CLEANING_ID
from akosha.transforms.fingerprints import FINGERPRINT_ID
from akosha.transforms.quantization import CODEC_ID
from akosha.transforms.summaries import SUMMARY_ID

PIPELINE_ID: Final = "akosha-ingest/1"


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


def record_provenance(*, upload: str, etag: str, file_sha256: str, manifest_time: str) -> str:
    """The provenance column of every record of one upload, as JSON with sorted keys."""
    facts = {"upload": upload, "etag": etag, "file_sha256": file_sha256, "manifest_time": manifest_time, **about()}
    return json.dumps(facts, sort_keys=True, ensure_ascii=False)
