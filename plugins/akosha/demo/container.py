"""The outside of an upload: its keys, its manifest and its gzip member, byte for byte as the client writes them."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

Compression = Literal["gzip", "none"]

REFLECTION = "reflection.duckdb"
KNOWLEDGE_GRAPH = "knowledge_graph.duckdb"
MANIFEST = "manifest.json"
_GZIP_HEAD = b"\x1f\x8b\x08\x00"  # deflate, no name, no comment
_GZIP_TAIL_OF_HEAD = b"\x02\xff"  # level 9, unknown operating system: what Python's gzip module writes


@dataclass(frozen=True, slots=True)
class UploadName:
    """Where one upload lies. `moment` is UTC; its whole second is part of every key."""

    system_id: str
    moment: datetime

    @property
    def upload_id(self) -> str:
        """``YYYYMMDD_HHMMSS_{system_id}`` in UTC."""
        return f"{self.moment.astimezone(UTC):%Y%m%d_%H%M%S}_{self.system_id}"

    @property
    def folder(self) -> str:
        """The common start of its keys, ending in a slash. Nothing is escaped, as in the client."""
        return f"systems/{self.system_id}/uploads/{self.upload_id}/"

    def key(self, name: str) -> str:
        """The key of one of its objects."""
        return self.folder + name


def gzip_member(data: bytes, moment: datetime) -> bytes:
    """One gzip member of level 9 without a name, whose modification time is the whole second of `moment`."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL)
    body = deflate.compress(data) + deflate.flush()
    seconds = int(moment.timestamp()).to_bytes(4, "little")
    tail = zlib.crc32(data).to_bytes(4, "little") + (len(data) & 0xFFFFFFFF).to_bytes(4, "little")
    return _GZIP_HEAD + seconds + _GZIP_TAIL_OF_HEAD + body + tail


def packed(data: bytes, compression: Compression, moment: datetime) -> bytes:
    """The object that holds a database file."""
    return gzip_member(data, moment) if compression == "gzip" else data


def manifest(name: UploadName, written: datetime, files: list[str], compression: Compression) -> dict[str, Any]:
    """The manifest as a document, keys in the client's order.

    Args:
        name: the upload.
        written: when the manifest was built, UTC, at or after the upload's second.
        files: names of the databases beside it, in the order they were written.
        compression: the label of each of them.
    """
    return {
        "upload_id": name.upload_id,
        "system_id": name.system_id,
        "timestamp": written.astimezone(UTC).isoformat(),
        "files": [
            {"name": file, "path": name.key(file), "size_bytes": 0, "compression": compression, "checksum": ""}
            for file in files
        ],
        "metadata": {"uploader": "session-buddy", "version": "1.0.0"},
    }


def manifest_bytes(document: dict[str, Any]) -> bytes:
    """UTF-8, indent 2, ASCII-escaped."""
    return json.dumps(document, indent=2).encode()
