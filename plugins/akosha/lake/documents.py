"""Sealed JSON documents: every document carries the SHA-256 of its own canonical bytes.

The bytes on disk are the one canonical rendering of the document (sorted keys, one space of indentation, UTF-8), so
a single changed bit is found: inside a value by the digest, outside of one because the rendering no longer matches.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from akosha.errors import FormatVersionError, IntegrityError

Document = dict[str, Any]

NEWEST: Final = {"policy": 2, "commit": 2}  # versions of formats; 1 for the others


def render(document: Document) -> bytes:
    """The canonical bytes of a document."""
    return (json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def seal(document: Document) -> bytes:
    """Canonical bytes of `document` with its own SHA-256 under ``sha256``."""
    bare = {key: value for key, value in document.items() if key != "sha256"}
    return render({**bare, "sha256": hashlib.sha256(render(bare)).hexdigest()})


def digest_of(sealed: bytes) -> str:
    """The SHA-256 a sealed document carries, without verifying it."""
    return str(json.loads(sealed)["sha256"])


def unseal(data: bytes, *, kind: str, key: str) -> Document:
    """Parse a sealed document and verify it.

    Args:
        data: bytes as stored.
        kind: what the document must be, for example ``commit``; its ``format`` reads ``akosha-<kind>/<version>``.
        key: where it was read, for the error message.

    Raises:
        IntegrityError: not JSON, not canonical, of another kind, or the digest does not match.
        FormatVersionError: written by a newer Akosha.
    """
    try:
        document = json.loads(data)
        bare = {name: value for name, value in document.items() if name != "sha256"}
        intact = render(document) == data and document["sha256"] == hashlib.sha256(render(bare)).hexdigest()
    except (ValueError, KeyError, AttributeError, TypeError):
        intact = False
    if not intact:
        message = "the document is damaged: its bytes do not match the digest inside; run `akosha fsck`"
        raise IntegrityError(message, key=key)
    name, _, version = str(document.get("format", "")).rpartition("/")
    if name != f"akosha-{kind}" or not version.isdigit():
        message = f"expected a document of format akosha-{kind}/1, found {document.get('format')!r}"
        raise IntegrityError(message, key=key)
    newest = NEWEST.get(kind, 1)
    if int(version) > newest:
        message = f"written by a newer Akosha: expected format akosha-{kind}/{newest}, found /{version}; upgrade Akosha"
        raise FormatVersionError(message, key=key)
    return dict(document)
