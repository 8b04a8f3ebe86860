"""Uploads that share a commit: what is wrong with one costs the others nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.support.installation import Installation
from tests.support.uploads import database, memory, put_upload

from akosha.lake.lake import Lake
from akosha.lake.layout import shard_of
from akosha.uploads import ingest
from akosha.uploads.upsert import Arrival, UpsertPlan

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def test_damaged_uploads_do_not_make_the_others_be_planned_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """I15: hostile uploads of one shard must not multiply the work on the sound ones."""
    installation = Installation.local(tmp_path)
    Lake.create(installation.settings, now=NOW)
    systems = [name for name in (f"s{n}" for n in range(9_999)) if shard_of(name) == 7][:8]
    data = database({"conversations_v2": [memory("a", "a text", NOW)]})
    torn = bytearray(data)
    for at in range(3 * 4_096 + 8_000, len(data), 16_384):
        torn[at] ^= 0x10
    for number, system in enumerate(systems):
        put_upload(installation.uploads, system, NOW, bytes(torn) if number % 2 else data)
    planned = 0

    def counted(arrivals: Sequence[Arrival], folder: Path) -> list[UpsertPlan]:
        nonlocal planned
        planned += len(arrivals)
        return plan(arrivals, folder)

    plan = ingest.plan_upserts
    monkeypatch.setattr(ingest, "plan_upserts", counted)
    counts = installation.ingest()["counts"]
    assert (counts["applied"], counts["quarantined"], counts["commits"]) == (4, 4, 1)
    assert planned == 4
