"""A bucket prefix as an object store."""

from __future__ import annotations

import errno
import hashlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from akosha import __version__
from akosha.errors import (
    AkoshaError,
    CommitUnknownError,
    ConfigurationError,
    DiskFullError,
    ObjectMissingError,
    StoreUnavailableError,
)
from akosha.lake.failpoints import around
from akosha.lake.objects import ObjectInfo, Requests
from akosha.lake.s3_listing import parse_listing

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

    from botocore.client import BaseClient

CREDENTIAL_CODES = frozenset(
    {
        "AccessDenied",
        "AllAccessDisabled",
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "403",
    }
)
MISSING_CODES = frozenset({"NoSuchKey", "404", "NotFound"})
CONFLICT_STATUS = 409
PRECONDITION_FAILED = 412
UNSUPPORTED = frozenset({"InvalidArgument", "InvalidRequest", "MethodNotAllowed", "NotImplemented"})

READ_TIMEOUT_SECONDS = 60
READ_ATTEMPTS = 4
_Read = TypeVar("_Read")
_Take = Callable[[Any, ObjectInfo, "Hash | None"], _Read]  # body, what it is, the digest to feed
_md5 = partial(hashlib.md5, usedforsecurity=False)


def make_client(endpoint_url: str) -> BaseClient:
    """An S3 client: short timeouts, bounded retries; for other endpoints than AWS, path style and no CRC trailers.

    Pages of a listing are parsed by `s3_listing`, all other answers by botocore.
    """
    import boto3
    from botocore import exceptions
    from botocore.config import Config

    own: dict[str, Any] = {}
    if endpoint_url:
        own = {
            "s3": {"addressing_style": "path"},
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        }
    config = Config(
        connect_timeout=5,
        read_timeout=READ_TIMEOUT_SECONDS,
        retries={"mode": "standard", "total_max_attempts": 4},
        user_agent=f"akosha/{__version__}",  # botocore's own has forty parts, put together anew for every request
        **own,
    )
    try:
        client = boto3.client("s3", endpoint_url=endpoint_url or None, config=config)
    except exceptions.InvalidRegionError as error:
        message = f"AWS_DEFAULT_REGION is no region: {error}"
        raise ConfigurationError(message, setting="AWS_DEFAULT_REGION") from error
    except exceptions.BotoCoreError as error:
        message = f"S3 cannot be used: {error}; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_PROFILE"
        raise ConfigurationError(message, setting="AWS_ACCESS_KEY_ID") from error
    except ValueError as error:
        message = f"AKOSHA_S3_ENDPOINT_URL must be a URL such as http://127.0.0.1:8333, found {endpoint_url!r}"
        raise ConfigurationError(message, setting="AKOSHA_S3_ENDPOINT_URL") from error
    client.meta.events.register("before-parse.s3.ListObjectsV2", parse_listing)
    return client


class S3Store:
    """Objects are keys below ``s3://bucket/prefix/``."""

    def __init__(self, client: BaseClient, bucket: str, prefix: str, *, setting: str) -> None:
        self.requests = Requests()
        self._client: Any = client
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._setting = setting

    @property
    def url(self) -> str:
        """Bucket and prefix as a URL."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """PUT with ``If-None-Match: *``. 412 = something is there; 409, 5xx and lost answers = not known."""
        from botocore.exceptions import ClientError

        self.requests.count_other()
        try:
            with around("conditional put"):
                self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=data, IfNoneMatch="*")
        except Exception as error:
            if isinstance(error, ClientError):
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                if status == PRECONDITION_FAILED:
                    return False
                if status == CONFLICT_STATUS:
                    message = "two conditional writes met; the outcome is not known yet"
                    raise CommitUnknownError(message, key=key, store=self.url) from error
            translated = self._translate(error, key)
            if isinstance(translated, StoreUnavailableError):
                message = "the answer to a conditional write was lost; the outcome is not known yet"
                raise CommitUnknownError(message, key=key, store=self.url) from error
            raise translated from error
        return True

    def put(self, key: str, data: bytes) -> None:
        """PUT bytes."""
        self._call(key, lambda: self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=data))

    def upload(self, key: str, path: Path) -> None:
        """PUT a file, in parts when it is large."""
        self._call(key, lambda: self._client.upload_file(str(path), self._bucket, self._prefix + key))

    def get(self, key: str) -> bytes:
        """GET the whole object, checked against its ETag."""
        return self.read(key, max_bytes=sys.maxsize)[1]

    def read(self, key: str, *, max_bytes: int) -> tuple[ObjectInfo, bytes]:
        """GET in one request, checked against the ETag."""

        def take(body: Any, found: ObjectInfo, check: Hash | None) -> tuple[ObjectInfo, bytes]:  # noqa: ANN401
            data = b"" if found.size_bytes > max_bytes else bytes(body.read())
            if check is not None:
                check.update(data)
            return found, data

        return self._as_stored(key, take, max_bytes)

    def download(self, key: str, path: Path, *, max_bytes: int = 0) -> ObjectInfo:
        """GET into a file, one stream, checked against its ETag."""
        most = max_bytes or sys.maxsize

        def take(body: Any, found: ObjectInfo, check: Hash | None) -> ObjectInfo:  # noqa: ANN401 - boto3 answers are untyped
            if found.size_bytes > most:
                return found
            with path.open("wb") as file:
                for chunk in body.iter_chunks(1 << 20):
                    with around("write"):
                        file.write(chunk)
                    if check is not None:
                        check.update(chunk)
            return found

        return self._as_stored(key, take, most)

    def stat(self, key: str) -> ObjectInfo | None:
        """HEAD."""
        try:
            found = self._call(key, lambda: self._client.head_object(Bucket=self._bucket, Key=self._prefix + key))
        except ObjectMissingError:
            return None
        return ObjectInfo(key, int(found["ContentLength"]), found["ETag"].strip('"'), found["LastModified"])

    def list(self, prefix: str, *, start_after: str = "", limit: int = 0) -> Iterator[ObjectInfo]:
        """LIST page by page; `limit` bounds the page, so that the first of a folder costs one small request."""
        query: dict[str, Any] = {"Bucket": self._bucket, "Prefix": self._prefix + prefix}
        if start_after:
            query["StartAfter"] = self._prefix + start_after
        if limit:
            query["MaxKeys"] = min(limit, 1000)
        seen = 0
        while True:
            page = self._page(prefix, query)
            for found in page.get("Contents", ()):
                key = found["Key"][len(self._prefix) :]
                yield ObjectInfo(key, int(found["Size"]), found["ETag"].strip('"'), found["LastModified"])
                seen += 1
                if limit and seen >= limit:
                    return
            if not page.get("IsTruncated"):
                return
            query["ContinuationToken"] = page["NextContinuationToken"]

    def list_folders(self, prefix: str) -> Sequence[str]:
        """LIST with a delimiter."""
        names = []
        query: dict[str, Any] = {"Bucket": self._bucket, "Prefix": self._prefix + prefix, "Delimiter": "/"}
        while True:
            page = self._page(prefix, query)
            names += [found["Prefix"][len(self._prefix) + len(prefix) : -1] for found in page.get("CommonPrefixes", ())]
            if not page.get("IsTruncated"):
                return names
            query["ContinuationToken"] = page["NextContinuationToken"]

    def delete(self, key: str) -> None:
        """DELETE."""
        self._call(key, lambda: self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key))

    def local_path(self, key: str) -> Path | None:  # noqa: ARG002 - the contract's parameter
        """S3 objects have no local path."""
        return None

    def _as_stored(self, key: str, take: _Take[_Read], max_bytes: int) -> _Read:
        """GET until the MD5 is the one the ETag promises; when every read gives the same bytes, the store holds these.

        A flipped bit or a body cut short on the way shows itself so; manifests and most uploads carry no digest of their
        own. An ETag that is no MD5 (parts, KMS) promises nothing.
        """
        seen = set()
        for _ in range(READ_ATTEMPTS):
            taken, digest, promised = self._call(key, partial(self._get, key, take, max_bytes))
            if digest == promised:
                return cast("_Read", taken)
            seen.add(digest)
        if len(seen) == 1:
            return cast("_Read", taken)
        message = (
            f"{self.url} gives other bytes at every read of an object: check the network and what stands in between"
        )
        raise StoreUnavailableError(message, key=key, attempts=READ_ATTEMPTS)

    def _get(self, key: str, take: _Take[_Read], max_bytes: int) -> tuple[_Read, str, str]:
        """What `take` makes of an answer, the MD5 of the bytes it took, and the one that was promised; "" = none."""
        answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
        found = ObjectInfo(key, int(answer["ContentLength"]), answer["ETag"].strip('"'), answer["LastModified"])
        promised = _promised(answer) if found.size_bytes <= max_bytes else ""
        check = _md5() if promised else None
        with closing(answer["Body"]) as body:
            taken = take(body, found, check)
        return taken, check.hexdigest() if check else "", promised

    def _call(self, key: str, request: Callable[[], Any]) -> Any:  # noqa: ANN401 - boto3 answers are untyped
        self.requests.count_other()
        return self._ask(key, request)

    def _page(self, prefix: str, query: dict[str, Any]) -> Any:  # noqa: ANN401 - boto3 answers are untyped
        self.requests.count_list()
        return self._ask(prefix, lambda: self._client.list_objects_v2(**query))

    def _ask(self, key: str, request: Callable[[], Any]) -> Any:  # noqa: ANN401 - boto3 answers are untyped
        try:
            with around("request"):
                return request()
        except Exception as error:
            raise self._translate(error, key) from error

    def _translate(self, error: Exception, key: str) -> Exception:
        """The `AkoshaError` that says what an operator can do about a botocore error."""
        from boto3.exceptions import S3UploadFailedError
        from botocore import exceptions as botocore

        if isinstance(error, AkoshaError):
            return error
        if isinstance(error, OSError) and (ours := _local_fault(error, key)) is not None:
            return ours
        wrong = self._wrong_setting(error, key)
        if wrong is not None:
            return wrong
        if isinstance(error, botocore.ClientError):
            return self._translate_answer(error, key)
        if isinstance(error, S3UploadFailedError) and isinstance(error.__context__, Exception):
            return self._translate(error.__context__, key)
        if isinstance(error, (botocore.BotoCoreError, OSError)):
            message = f"{self.url} did not answer: check AKOSHA_S3_ENDPOINT_URL and that the store is up"
            return StoreUnavailableError(message, setting="AKOSHA_S3_ENDPOINT_URL", key=key, cause=str(error)[:200])
        # Botocore over XML or headers that say nothing it knows.
        if isinstance(error, (ValueError, LookupError, TypeError)):
            message = (
                f"{self.url} gave an answer that cannot be read: try again; if it stays, check the network in between"
            )
            return StoreUnavailableError(message, setting=self._setting, key=key, cause=str(error)[:200])
        return error

    def _wrong_setting(self, error: Exception, key: str) -> ConfigurationError | None:
        """The complaint of a client that could not even ask."""
        from botocore import exceptions as botocore

        if isinstance(error, (botocore.NoCredentialsError, botocore.PartialCredentialsError)):
            message = f"no S3 credentials for {self.url}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            return ConfigurationError(message, setting="AWS_ACCESS_KEY_ID")
        if isinstance(error, botocore.NoRegionError):
            return ConfigurationError("no S3 region: set AWS_DEFAULT_REGION", setting="AWS_DEFAULT_REGION")
        if isinstance(error, botocore.ParamValidationError):
            message = f"{self.url} cannot be asked for ({str(error).splitlines()[-1][:120]}): check {self._setting}"
            return ConfigurationError(message, setting=self._setting, key=key)
        return None

    def _translate_answer(self, error: Any, key: str) -> AkoshaError:  # noqa: ANN401 - botocore is untyped
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code == "NoSuchBucket":
            message = f"there is no bucket {self._bucket!r}: create it, or change {self._setting}"
            return ConfigurationError(message, setting=self._setting)
        if code in MISSING_CODES:
            return ObjectMissingError("the object is not in the store", key=key, store=self.url)
        if status == PRECONDITION_FAILED:
            message = "the object changed while it was read; it is read again in the next run"
            return ObjectMissingError(message, key=key, store=self.url)
        if code in CREDENTIAL_CODES:
            message = f"{self.url} refuses these credentials ({code}): check AWS_ACCESS_KEY_ID and its rights"
            return ConfigurationError(message, setting="AWS_ACCESS_KEY_ID")
        if code in UNSUPPORTED:
            message = f"{self.url} does not know a request that a lake needs ({status} {code}): change {self._setting}"
            return ConfigurationError(message, setting=self._setting, key=key)
        message = f"{self.url} answered {status} {code}: try again; if it stays, check the store behind {self._setting}"
        return StoreUnavailableError(message, key=key, setting=self._setting)


def _promised(answer: Mapping[str, Any]) -> str:
    """The MD5 that an answer's ETag promises, "" where it promises none."""
    etag = str(answer.get("ETag", "")).strip('"')
    encrypted = str(answer.get("ServerSideEncryption", "")).startswith("aws:kms") or "SSECustomerAlgorithm" in answer
    return "" if encrypted or re.fullmatch("[0-9a-f]{32}", etag) is None else etag


def _local_fault(error: OSError, key: str) -> AkoshaError | None:
    """What is wrong with a local file, where that is what failed."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        message = "no room left on the disk behind AKOSHA_CACHE_DIR; free space or point the setting elsewhere"
        return DiskFullError(message, setting="AKOSHA_CACHE_DIR")
    if error.filename is not None:  # only calls on local files name one
        message = (
            f"a local file cannot be used ({error.strerror}: {error.filename}): check the rights and the disk behind "
            "AKOSHA_CACHE_DIR"
        )
        return ConfigurationError(message, setting="AKOSHA_CACHE_DIR", key=key)
    return None
