"""What a message in the notification queue says: which systems have a new manifest.

A notification only wakes the ingest up; the listing decides what is due. So nothing is trusted and nothing is fetched
here, and a message that cannot be read costs nothing but its wake-up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self
from urllib.parse import unquote_plus

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from akosha.errors import InvalidUploadError
from akosha.uploads.manifest import MANIFEST_NAME, split_upload_key

MAX_ENVELOPES: Final = 2  # SNS around EventBridge is the deepest nesting that AWS builds
EXCERPT: Final = 120


@dataclass(frozen=True, slots=True)
class Notice:
    """One message, read: the systems it names, or in `problem` why it could not be read. Both may be empty."""

    systems: frozenset[str] = frozenset()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Watched:
    """Where uploads arrive. Notifications of other buckets and prefixes name nobody."""

    bucket: str
    prefix: str

    @classmethod
    def of(cls, uploads_url: str) -> Self:
        """From ``s3://bucket/prefix``; any other URL watches nothing."""
        scheme, _, rest = uploads_url.partition("://")
        bucket, _, prefix = rest.partition("/")
        return cls(bucket if scheme == "s3" else "", prefix.strip("/"))


class _Document(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Bucket(_Document):
    name: str


class _Object(_Document):
    key: str


class _Place(_Document):
    bucket: _Bucket
    object: _Object


class _Record(_Document):
    event: Annotated[str, Field(alias="eventName", description="ObjectCreated:Put; s3:ObjectCreated:Put of MinIO")]
    s3: _Place


class _FromS3(_Document):
    """What S3 itself sends. Keys are URL-encoded, a space is ``+``."""

    records: Annotated[tuple[_Record, ...], Field(alias="Records")]


class _FromEventBridge(_Document):
    """The same by way of EventBridge. Keys are written as they are."""

    source: Literal["aws.s3"]
    kind: Annotated[str, Field(alias="detail-type")]
    detail: _Place


class _FromSns(_Document):
    """The envelope of an SNS topic without raw delivery."""

    kind: Annotated[Literal["Notification"], Field(alias="Type")]
    message: Annotated[str, Field(alias="Message")]


class _TestEvent(_Document):
    """What S3 sends once, when notifications are switched on."""

    event: Annotated[Literal["s3:TestEvent"], Field(alias="Event")]


_MESSAGE: Final[TypeAdapter[_FromS3 | _FromEventBridge | _FromSns | _TestEvent]] = TypeAdapter(
    _FromS3 | _FromEventBridge | _FromSns | _TestEvent
)


def read_notice(body: str, watched: Watched) -> Notice:
    """Which systems a message's new manifests belong to.

    Args:
        body: of an SQS message: an S3 notification, bare, in an SNS envelope, or by EventBridge.
        watched: objects elsewhere are passed over, as are other objects than manifests and events other than creation.

    Returns:
        A `Notice`; anything that is none of these forms has a `problem`. Never raises.
    """
    try:
        created = _created(body, MAX_ENVELOPES)
    except ValidationError as error:
        kinds = {"json_invalid", "json_type"}
        what = "no JSON" if error.errors(include_url=False)[0]["type"] in kinds else "another document"
        return Notice(problem=f"expected a notification of S3, found {what}: {body[:EXCERPT]!r}")
    except UnicodeDecodeError:
        return Notice(problem=f"expected a URL-encoded key in UTF-8, found: {body[:EXCERPT]!r}")
    systems = {_system(key, watched.prefix) for bucket, key in created if bucket == watched.bucket}
    return Notice(systems=frozenset(systems - {""}))


def _created(body: str, envelopes: int) -> list[tuple[str, str]]:
    """Bucket and decoded key of every object that was created."""
    message = _MESSAGE.validate_json(body)
    if isinstance(message, _FromSns) and envelopes:
        return _created(message.message, envelopes - 1)
    if isinstance(message, _FromEventBridge) and message.kind == "Object Created":
        return [(message.detail.bucket.name, message.detail.object.key)]
    if isinstance(message, _FromS3):
        return [
            (record.s3.bucket.name, unquote_plus(record.s3.object.key, errors="strict"))
            for record in message.records
            if record.event.removeprefix("s3:").startswith("ObjectCreated:")
        ]
    return []


def _system(key: str, prefix: str) -> str:
    """The system whose manifest `key` is; empty when it is not one."""
    if key.rpartition("/")[2] != MANIFEST_NAME:
        return ""
    try:
        return split_upload_key(key, prefix).system_id
    except InvalidUploadError:
        return ""  # the listing counts and shows unusable keys
