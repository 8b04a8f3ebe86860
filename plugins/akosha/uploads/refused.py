"""Rows of an upload that the quality rules refused, quarantined as rows: one sealed document per upload.

The commit that holds the upload's accepted rows names the document, so that an upload is never applied in part unsaid.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any, Final

from akosha.lake import layout
from akosha.lake.documents import Document, seal
from akosha.lake.objects import ObjectStore
from akosha.uploads.prepare import PreparedUpload
from akosha.uploads.reader import RULES_ID

FORMAT: Final = "akosha-refused-rows/1"


@dataclass(frozen=True, slots=True)
class RefusedRows:
    """Where the refused rows of an upload are listed: key, SHA-256 of the document, and how many rows there are."""

    path: str
    sha256: str
    rows: int

    def document(self) -> dict[str, Any]:
        """As a commit names it."""
        return asdict(self)


def write_refused_rows(store: ObjectStore, upload: PreparedUpload) -> RefusedRows | None:
    """Write the document of an upload's refused rows; None when there are none.

    The same upload gives the same bytes, so writing it again changes nothing.
    """
    faults, fetched = upload.faults, upload.fetched
    if not faults.refused:
        return None
    ref = fetched.ref
    document: Document = {
        "format": FORMAT,
        "manifest_key": ref.manifest_key,
        "etag": ref.etag,
        "system_id": ref.system_id,
        "upload_id": ref.upload_id,
        "shard": ref.shard,
        "file_sha256": fetched.file_sha256,
        "rules": RULES_ID,
        "totals": faults.refused,
        "listed": len(faults.rows),
        "rows": faults.rows,
    }
    path, data = layout.refused_rows_key(ref.memo_key), seal(document)
    store.put(path, data)
    return RefusedRows(path, hashlib.sha256(data).hexdigest(), sum(faults.refused.values()))
