"""Rows in quarantine: what an upload's commit names as refused, row by row, in a sealed document beside its memo."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from akosha.lake import layout
from akosha.lake.documents import Document, seal, unseal
from akosha.lake.objects import ObjectStore
from akosha.uploads.memos import UploadRef

KIND: Final = "refused-rows"
FORMAT: Final = f"akosha-{KIND}/1"
LISTED_MOST: Final = 10_000  # rows named one by one; the totals count them all


def refused_document(
    upload: UploadRef, *, file_sha256: str, rules: str, totals: Mapping[str, int], rows: Sequence[Mapping[str, Any]]
) -> Document:
    """The document of one upload's refused rows, without its seal. The same upload and rules give the same bytes.

    Args:
        upload: whose rows.
        file_sha256: hex, of the unpacked database.
        rules: id of the rules that refused them.
        totals: reason -> how many rows.
        rows: ``table``, ``row``, ``record_id``, ``reason`` of each, in the order of the file; the first `LISTED_MOST` are kept.
    """
    listed = [dict(row) for row in rows[:LISTED_MOST]]
    return {
        "format": FORMAT,
        "manifest_key": upload.manifest_key,
        "etag": upload.etag,
        "system_id": upload.system_id,
        "upload_id": upload.upload_id,
        "shard": upload.shard,
        "file_sha256": file_sha256,
        "rules": rules,
        "totals": dict(totals),
        "listed": len(listed),
        "rows": listed,
    }


def write_refused_rows(store: ObjectStore, upload: UploadRef, document: Document) -> dict[str, Any]:
    """Write it, before the commit that names it.

    Returns:
        what the upload's entry in the commit says of it: ``path``, ``sha256`` of the object's bytes, and ``rows`` in all.
    """
    path = layout.refused_rows_key(upload.memo_key)
    data = seal(document)
    store.put(path, data)
    return {"path": path, "sha256": hashlib.sha256(data).hexdigest(), "rows": sum(document["totals"].values())}


def refused_rows_keys(store: ObjectStore) -> Iterator[str]:
    """Keys of all such documents, by shard and upload day. Walks the names of all memos: for people, not for jobs."""
    return (found.key for found in store.list(layout.MEMO_PREFIX) if found.key.endswith(layout.REFUSED_ROWS_MARK))


def read_refused_rows(store: ObjectStore, key: str) -> Document:
    """One such document, verified.

    Raises:
        ObjectMissingError: there is none.
        IntegrityError: it is damaged.
    """
    return unseal(store.get(key), kind=KIND, key=key)
