"""From a URL to a store, and the probe every store must pass before it is written to."""

from __future__ import annotations

import uuid
from pathlib import Path
from urllib.parse import unquote

from akosha.errors import ConfigurationError
from akosha.lake.local_store import LocalStore
from akosha.lake.objects import ObjectStore
from akosha.lake.s3_store import S3Store, make_client
from akosha.settings import Settings

PROBE = "probe/"


def open_store(url: str, settings: Settings, *, setting: str) -> ObjectStore:
    """The store behind a ``file://`` or ``s3://`` URL.

    Args:
        url: checked by `Settings`.
        settings: for the S3 endpoint.
        setting: the environment variable the URL came from, named in errors.
    """
    # Not urllib.parse: "?" and "#" are letters like any other in a path and in an S3 prefix.
    scheme, _, rest = url.partition("://")
    if scheme == "file":
        return LocalStore(Path(unquote(rest)), setting=setting)
    bucket, _, prefix = rest.partition("/")
    if not bucket:
        message = f"{setting} names no bucket: expected s3://bucket/prefix, found {url!r}"
        raise ConfigurationError(message, setting=setting)
    return S3Store(make_client(settings.s3_endpoint_url), bucket, prefix, setting=setting)


def probe(store: ObjectStore, *, setting: str) -> None:
    """Check that the store creates conditionally: a second create must be refused and must change nothing.

    Raises:
        ConfigurationError: it does not, so two writers could overwrite each other's commits. Nothing is left behind.
    """
    key = f"{PROBE}{uuid.uuid4().hex}"
    try:
        first = store.put_if_absent(key, b"first")
        second = store.put_if_absent(key, b"second")
        kept = store.get(key)
    finally:
        store.delete(key)
    if not (first and not second and kept == b"first"):
        message = (
            f"{store.url} does not honour conditional create (If-None-Match: *), so it cannot hold a lake: "
            f"point {setting} at AWS S3, SeaweedFS 4.41 or newer, Ceph RGW, R2 or a local file:// path"
        )
        raise ConfigurationError(message, setting=setting)
