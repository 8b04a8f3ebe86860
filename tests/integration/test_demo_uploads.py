"""The demo world in a real S3 store."""

from __future__ import annotations

from datetime import UTC, datetime

import boto3
import pytest

from akosha.demo.texts import harvest
from akosha.demo.vectors import Corpus, unit_vectors
from akosha.demo.world import build_world, publish_world
from akosha.lake.stores import open_store
from akosha.settings import Settings

pytestmark = pytest.mark.integration


def test_second_run_puts_equal_objects_under_equal_keys(s3_server: str, bucket: str) -> None:
    corpus = Corpus(tuple(harvest(("flask", "alembic"))), unit_vectors)
    settings = Settings.from_environment(
        {"AKOSHA_LAKE_URL": f"s3://{bucket}/lake", "AKOSHA_S3_ENDPOINT_URL": s3_server}
    )
    store = open_store(f"s3://{bucket}", settings, setting="AKOSHA_UPLOADS_URL")
    client = boto3.client("s3", endpoint_url=s3_server)
    world = build_world(datetime(2026, 11, 21, tzinfo=UTC), corpus, scale=0.02)
    listings = []
    for _ in range(2):
        publish_world(world, store)
        listed = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        listings.append({found["Key"]: found["ETag"] for page in listed for found in page["Contents"]})
    assert listings[0].keys() == world.objects.keys()
    assert listings[0] == listings[1]
    assert "systems/team/ci-runner/uploads/" in "".join(listings[0])
    assert any(key.startswith("systems/東京-ws.example/") for key in listings[0])
