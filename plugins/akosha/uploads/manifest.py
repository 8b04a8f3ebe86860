"""Keys and manifests of uploads, in both dialects: Session-Buddy's, and that of the older Akosha.

A manifest is written last, so it is the commit marker of its upload. It comes from a machine nobody checked: what would
let one upload name another one's objects is refused, what is merely written differently is accepted and noted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import from_json

from akosha.errors import InvalidUploadError

MANIFEST_NAME: Final = "manifest.json"
REFLECTION: Final = "reflection.duckdb"
KNOWLEDGE_GRAPH: Final = "knowledge_graph.duckdb"
MEMORIES: Final = "memories.json"
MAX_MANIFEST_BYTES: Final = 1 << 20
MAX_FILES: Final = 64
MAX_KEY_BYTES: Final = 1_024  # the longest key S3 knows
MAX_NAME_BYTES: Final = 255  # the longest name a file system knows
EARLIEST: Final = datetime(2015, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2100, 1, 1, tzinfo=UTC)

Compression = Literal["gzip", "none"]
Dialect = Literal["session-buddy", "akosha"]

KNOWN_VERSIONS: Final = frozenset({"1", "1.0", "1.0.0"})

_ROOT = "systems/"
_UPLOADS = "/uploads/"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SHA256 = re.compile(r"(?:sha-?256[:=])?([0-9a-f]{64})", re.IGNORECASE)
_SECOND = re.compile(r"\d{8}_\d{6}_")


@dataclass(frozen=True, slots=True)
class UploadKey:
    """Whose upload a key belongs to. Both ids are free text: dots, spaces, slashes and non-ASCII letters occur."""

    system_id: str
    upload_id: str


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One data object. `path` is its full key in the bucket; None means the manifest does not say."""

    name: str
    path: str
    size_bytes: int | None
    compression: Compression
    checksum: str | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checked manifest. `timestamp` is UTC; `notes` says in what it differed from the usual form.

    `conversation_count` is what the older Akosha promises of ``memories.json``; None means that nothing is promised.
    """

    key: str
    system_id: str
    upload_id: str
    timestamp: datetime
    files: tuple[ManifestFile, ...]
    notes: tuple[str, ...] = ()
    dialect: Dialect = "session-buddy"
    conversation_count: int | None = None

    @property
    def reflection(self) -> ManifestFile | None:
        """The database of conversations and reflections, if the upload has one."""
        return self._named(REFLECTION)

    @property
    def knowledge_graph(self) -> ManifestFile | None:
        """The knowledge graph beside it, if the upload has one."""
        return self._named(KNOWLEDGE_GRAPH)

    @property
    def memories(self) -> ManifestFile | None:
        """The conversations of an upload in the older Akosha's dialect, as JSON."""
        return self._named(MEMORIES) if self.dialect == "akosha" else None

    def _named(self, name: str) -> ManifestFile | None:
        return next((file for file in self.files if file.name == name), None)


class FileDocument(BaseModel):
    """One entry of ``files`` as written by the client."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=255)]
    path: Annotated[str, Field(min_length=1, max_length=MAX_KEY_BYTES)]
    size_bytes: Annotated[int | None, Field(ge=0, lt=1 << 50, description="0 or null = unknown")] = None
    compression: Compression
    checksum: Annotated[str | None, Field(max_length=256, description="SHA-256; empty or null = unknown")] = None

    @field_validator("compression", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value


class ManifestDocument(BaseModel):
    """manifest.json as written by the client; keys that are not named here are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, title="Session-Buddy upload manifest")

    upload_id: Annotated[str, Field(min_length=1, max_length=MAX_KEY_BYTES)]
    system_id: Annotated[str, Field(min_length=1, max_length=MAX_KEY_BYTES)]
    timestamp: datetime
    files: Annotated[tuple[FileDocument, ...], Field(max_length=MAX_FILES)]


class OlderManifestDocument(BaseModel):
    """manifest.json as written by the older Akosha; keys that are not named here are ignored.

    It names neither upload nor paths: both come from its key. Its files lie beside it.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, title="Older Akosha upload manifest")

    system_id: Annotated[str, Field(min_length=1, max_length=MAX_KEY_BYTES)]
    uploaded_at: datetime
    upload_id: Annotated[str | None, Field(max_length=MAX_KEY_BYTES)] = None
    conversation_count: Annotated[int | None, Field(ge=0, lt=1 << 50, description="null = unknown")] = None
    version: Annotated[object, Field(description="any value; one that is not known is noted")] = None
    checksum: Annotated[str | None, Field(max_length=256, description="SHA-256; empty or null = unknown")] = None
    compressed: bool | None = None
    compression_format: Annotated[str | None, Field(max_length=64, description="gzip or none")] = None
    files: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=MAX_KEY_BYTES)], ...], Field(max_length=MAX_FILES)
    ]


def split_upload_key(key: str, prefix: str = "") -> UploadKey:
    """The system and upload that own `key`, any object below ``{prefix}systems/{system_id}/uploads/{upload_id}/``.

    The key is split at its last ``/uploads/``; an earlier one is taken only when the part behind it is, as the client
    writes it, ``YYYYMMDD_HHMMSS_{system_id}``, which happens when a system id itself holds ``/uploads/``.

    Raises:
        InvalidUploadError: ``invalid-key``.
    """
    root = _folder(prefix) + _ROOT
    system_and_upload, _, name = key.removeprefix(root).rpartition("/")
    if not key.startswith(root) or not name or _CONTROL.search(key) or len(key.encode()) > MAX_KEY_BYTES:
        raise _invalid_key(key, root)
    starts = [found.start() for found in re.finditer(f"(?={_UPLOADS})", system_and_upload)]
    splits = [UploadKey(system_and_upload[:at], system_and_upload[at + len(_UPLOADS) :]) for at in starts]
    named = [split for split in splits if split.system_id and split.upload_id]
    if not named:
        raise _invalid_key(key, root)
    return next((split for split in named if _is_usual(split)), named[-1])


def parse_manifest(key: str, data: bytes, prefix: str = "") -> Manifest:
    """Check the manifest stored under `key` in a bucket where all uploads lie below `prefix`.

    Raises:
        InvalidUploadError: ``invalid-key``, ``invalid-manifest``, ``other-system``, ``other-upload`` or
            ``path-outside-prefix``.
    """
    owner = split_upload_key(key, prefix)
    document = _document(key, data)
    _require_owner(key, owner, document)
    notes: list[str] = []
    if isinstance(document, OlderManifestDocument):
        return _older(key, prefix, owner, document, notes)
    timestamp = _utc(key, document.timestamp, notes)
    files = tuple(_file(key, prefix, file, notes) for file in document.files)
    _refuse_repeats(key, files)
    return Manifest(key, owner.system_id, owner.upload_id, timestamp, files, tuple(notes))


def _older(key: str, prefix: str, owner: UploadKey, document: OlderManifestDocument, notes: list[str]) -> Manifest:
    timestamp = _utc(key, document.uploaded_at, notes)
    if document.version is not None and str(document.version) not in KNOWN_VERSIONS:
        notes.append(f"version {str(document.version)[:40]!r} is not known; read like the known ones")
    checksum = _checksum(document.checksum, MEMORIES, notes)
    files = []
    for name in document.files:
        bare = name.removesuffix(".gz")
        if bare.rpartition("/")[2] != MEMORIES:
            notes.append(f"{name[:80]!r} is not read: this kind of manifest brings {MEMORIES}")
            continue
        compression = _older_compression(key, document, name, notes)
        files.append(ManifestFile(MEMORIES, _beside(key, prefix, name), None, compression, checksum))
    _refuse_repeats(key, tuple(files))
    if checksum and not files:
        notes.append(f"the checksum is not checked: there is no {MEMORIES}")
    return Manifest(
        key,
        owner.system_id,
        owner.upload_id,
        timestamp,
        tuple(files),
        tuple(notes),
        "akosha",
        document.conversation_count,
    )


def _older_compression(key: str, document: OlderManifestDocument, name: str, notes: list[str]) -> Compression:
    """What `compressed` and `compression_format` say together; where they say nothing, the name does."""
    told = (document.compression_format or "").strip().lower()
    if told not in {"", "none", "gzip", "gz"}:
        raise _invalid(key, f"compression_format: expected gzip or none, found {told!r}")
    if document.compressed is False:
        if told not in {"", "none"}:
            notes.append(f"compressed is false although compression_format is {told}; read as not compressed")
        return "none"
    if told:
        return "none" if told == "none" else "gzip"
    return "gzip" if document.compressed or name.endswith(".gz") else "none"


def _beside(key: str, prefix: str, name: str) -> str:
    """The full key of a file that the older Akosha calls by its name alone."""
    own = key.removesuffix(MANIFEST_NAME)
    known = name.startswith((own, own.removeprefix(_folder(prefix))))
    return _own_path(key, prefix, name if known else own + name)


def _require_owner(key: str, owner: UploadKey, document: ManifestDocument | OlderManifestDocument) -> None:
    if document.system_id != owner.system_id:
        message = (
            f"the manifest speaks of system {document.system_id!r} but lies under system {owner.system_id!r}; nothing "
            "of it was read. Find out who copied or wrote it, then have the system upload again under its own key"
        )
        raise InvalidUploadError(message, reason="other-system", manifest=key)
    if document.upload_id not in {None, owner.upload_id}:
        message = (
            f"the manifest speaks of upload {document.upload_id!r} but lies under upload {owner.upload_id!r}; nothing "
            "of it was read. Have the system upload again"
        )
        raise InvalidUploadError(message, reason="other-upload", manifest=key)


def _document(key: str, data: bytes) -> ManifestDocument | OlderManifestDocument:
    if len(data) > MAX_MANIFEST_BYTES:
        raise _invalid(key, f"it has {len(data):,} bytes, expected at most {MAX_MANIFEST_BYTES:,}")
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return _dialect_of(data).model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        found = "" if first["type"] in {"json_invalid", "missing"} else f", found {str(first['input'])[:80]!r}"
        raise _invalid(key, f"{where}: {first['msg']}{found}") from None


def _dialect_of(data: bytes) -> type[ManifestDocument | OlderManifestDocument]:
    """The older Akosha writes `uploaded_at` where Session-Buddy writes `timestamp`."""
    try:
        document = from_json(data)
    except ValueError:
        return ManifestDocument  # which says what is wrong
    older = isinstance(document, dict) and "uploaded_at" in document and "timestamp" not in document
    return OlderManifestDocument if older else ManifestDocument


def _utc(key: str, timestamp: datetime, notes: list[str]) -> datetime:
    if timestamp.tzinfo is None:
        notes.append("timestamp has no time zone; read as UTC")
        timestamp = timestamp.replace(tzinfo=UTC)
    if not EARLIEST <= timestamp <= LATEST:
        raise _invalid(key, f"timestamp: expected {EARLIEST.year} to {LATEST.year}, found {timestamp.isoformat()}")
    return timestamp.astimezone(UTC)


def _file(key: str, prefix: str, file: FileDocument, notes: list[str]) -> ManifestFile:
    path = _own_path(key, prefix, file.path)
    checksum = _checksum(file.checksum, file.name, notes)
    return ManifestFile(file.name.removesuffix(".gz"), path, file.size_bytes or None, file.compression, checksum)


def _checksum(text: str | None, name: str, notes: list[str]) -> str | None:
    """The SHA-256 in `text`, lower-case hex; None where there is none to check."""
    if not text or not text.strip():
        return None
    found = _SHA256.fullmatch(text.strip())
    if found is None:
        notes.append(f"checksum of {name} is not a SHA-256; not checked")
        return None
    return found.group(1).lower()


def _own_path(key: str, prefix: str, path: str) -> str:
    """`path` as a full key; a path written without the bucket's prefix is completed."""
    own = key.removesuffix(MANIFEST_NAME)
    short = own.removeprefix(_folder(prefix))
    full = own + path.removeprefix(short) if path.startswith(short) else path
    rest = full.removeprefix(own)
    if not full.startswith(own) or {"", ".", ".."} & set(rest.split("/")) or "\\" in rest or _CONTROL.search(rest):
        message = (
            f"the manifest names {path!r}, which does not lie below its own upload {own!r}; nothing was read. "
            "Have the system upload again; if this repeats, treat the system as compromised"
        )
        raise InvalidUploadError(message, reason="path-outside-prefix", manifest=key)
    if len(full.encode()) > MAX_KEY_BYTES or any(len(part.encode()) > MAX_NAME_BYTES for part in full.split("/")):
        raise _invalid(
            key, f"path: longer than a key of {MAX_KEY_BYTES:,} bytes, or a part longer than {MAX_NAME_BYTES}"
        )
    return full


def _refuse_repeats(key: str, files: tuple[ManifestFile, ...]) -> None:
    for known in (REFLECTION, KNOWLEDGE_GRAPH, MEMORIES):
        count = sum(file.name == known for file in files)
        if count > 1:
            raise _invalid(key, f"files: expected {known} once, found it {count} times")


def _is_usual(split: UploadKey) -> bool:
    second = _SECOND.match(split.upload_id)
    return second is not None and split.upload_id[second.end() :] == split.system_id


def _folder(prefix: str) -> str:
    bare = prefix.strip("/")
    return f"{bare}/" if bare else ""


def _invalid(key: str, what: str) -> InvalidUploadError:
    message = f"the manifest cannot be used: {what}. Nothing of the upload was read; have the system upload again"
    return InvalidUploadError(message, reason="invalid-manifest", manifest=key)


def _invalid_key(key: str, root: str) -> InvalidUploadError:
    message = (
        f"expected a key like {root}SYSTEM/uploads/UPLOAD/{MANIFEST_NAME}, found {key[:200]!r}; "
        "check AKOSHA_UPLOADS_URL and what else writes into the bucket"
    )
    return InvalidUploadError(message, reason="invalid-key", manifest=key[:MAX_KEY_BYTES])
