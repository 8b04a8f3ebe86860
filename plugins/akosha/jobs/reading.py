"""Jobs that only read: search, export, fsck, quarantine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from akosha.embedding.model import load_encoder
from akosha.errors import UsageError
from akosha.jobs.plans import open_lake
from akosha.lake.export import export
from akosha.quality.fsck import fsck
from akosha.search.engine import search
from akosha.search.query import SearchQuery
from akosha.transforms.cleaning import clean
from akosha.uploads.memos import quarantined, read_memo


def export_lake(folder: Path) -> dict[str, Any]:
    """Write every live record to Parquet files in a new folder."""
    done = export(open_lake(), folder)
    return {"out": str(folder), **asdict(done)}


def quarantine_list() -> Iterator[dict[str, Any]]:
    """What is in quarantine: memo key and memo, by shard and upload day."""
    lake = open_lake()
    for key in quarantined(lake.store):
        yield {"memo": key, **read_memo(lake.store, key)}


def policy_show() -> dict[str, Any]:
    """The policy in force, with the ages of the settings where it names none."""
    return asdict(open_lake().policy())


def search_lake(text: str, query: SearchQuery) -> dict[str, Any]:
    """The texts nearest in meaning to `text`, exactly, over hot and warm.

    Raises:
        UsageError: the text is empty or the query cannot be answered.
    """
    if not text.strip():
        message = "the text to search for is empty"
        raise UsageError(message)
    query.check()
    lake = open_lake()
    vector = load_encoder().encode([clean(text)])[0]
    return search(lake, vector, query).document()


def fsck_lake(*, read_data: bool) -> dict[str, Any]:
    """Verify every commit, file and invariant; with `read_data` every byte."""
    return fsck(open_lake(), read_data=read_data).document()
