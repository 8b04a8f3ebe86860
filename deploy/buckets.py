"""Create the buckets that Akosha's lake, cold and uploads URLs name, where they are missing.

For the team stack's own object store. On a store that others administer, buckets exist before Akosha does.
"""

from __future__ import annotations

import os
import sys
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

_URLS = ("AKOSHA_LAKE_URL", "AKOSHA_COLD_URL", "AKOSHA_UPLOADS_URL")
# Stores other than AWS refuse the checksum trailers that boto3 sends by default.
_CONFIG = Config(request_checksum_calculation="when_required", response_checksum_validation="when_required")


def main() -> int:
    """Create what is missing; 0 when every bucket exists, 1 when the store refuses."""
    urls = (urlsplit(os.environ.get(name, "")) for name in _URLS)
    wanted = {url.netloc for url in urls if url.scheme == "s3"}
    try:
        store = boto3.client("s3", endpoint_url=os.environ.get("AKOSHA_S3_ENDPOINT_URL") or None, config=_CONFIG)
        present = {bucket["Name"] for bucket in store.list_buckets()["Buckets"]}
        for name in sorted(wanted - present):
            store.create_bucket(Bucket=name)
            print(f"created bucket {name}")
    except (BotoCoreError, ClientError) as error:
        print(f"the object store refused: {error}; check AKOSHA_S3_ENDPOINT_URL and AWS_ACCESS_KEY_ID", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
