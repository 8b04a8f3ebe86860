"""What the older Akosha's manifest promises of its payload, held against what was read."""

from __future__ import annotations

from akosha.errors import InvalidUploadError
from akosha.uploads.manifest import MEMORIES, Manifest
from akosha.uploads.sandbox import Reading


def check_count(manifest: Manifest, reading: Reading) -> None:
    """The payload holds as many conversations as the manifest promises, refused ones included.

    Raises:
        InvalidUploadError: ``count-mismatch``.
    """
    promised = manifest.conversation_count
    found = sum(table.rows for table in reading.tables)
    if promised is not None and promised != found:
        message = (
            f"the manifest promises {promised:,} conversations, {MEMORIES} holds {found:,}; nothing was applied. "
            "Have the system upload again"
        )
        raise InvalidUploadError(message, reason="count-mismatch", promised=promised, found=found)
