"""Jobs that only read: search, export, fsck, quarantine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from akosha.embedding.model import load_encoder
from akosha.errors import ObjectMissingError, UsageError
from akosha.jobs.plans import open_lake
from akosha.jobs.repair import open_damaged, uploads_of
from akosha.lake import layout
from akosha.lake.export import export
from akosha.quality.fsck import fsck
from akosha.search.engine import search
from akosha.search.query import SearchQuery
from akosha.transforms.cleaning import clean
from akosha.uploads import quarantine
from akosha.uploads.refused_rows import read_refused_rows, refused_rows_keys


def export_lake(folder: Path) -> dict[str, Any]:
    """Write every live record to Parquet files in a new folder."""
    done = export(open_lake(), folder)
    return {"out": str(folder), **asdict(done)}


def quarantine_list(*, system: str = "", reason: str = "") -> list[dict[str, Any]]:
    """What is in quarantine: memo key, memo and what to do, by shard, system and upload day.

    Args:
        system: only of this system.
        reason: only with this reason code.
    """
    found = quarantine.entries(open_lake().store, system=system, reason=reason)
    return [{**memo, "what_to_do": quarantine.WHAT_TO_DO.get(memo["reason"], "")} for memo in found]


def quarantine_choose(memos: Sequence[str], *, system: str = "", reason: str = "") -> list[str]:
    """Memo keys to be replayed: the given ones, or those of a system and reason.

    Raises:
        UsageError: both are given, or there is nothing of that system and reason.
    """
    return quarantine.chosen(open_lake().store, memos, system=system, reason=reason)


def quarantine_show(key: str) -> dict[str, Any]:
    """All that is known of one: the memo of an upload that is or was in quarantine, or an upload's refused rows.

    Raises:
        UsageError: there is nothing under that key.
    """
    store = open_lake().store
    if key.endswith(layout.REFUSED_ROWS_MARK):
        try:
            return {"refused_rows": key, **read_refused_rows(store, key)}
        except ObjectMissingError:
            message = f"there are no refused rows under {key}; `akosha quarantine list --rows` shows what there is"
            raise UsageError(message) from None
    memo = quarantine.find(store, key)
    return {**memo, "what_to_do": quarantine.WHAT_TO_DO.get(memo["reason"], "")}


def refused_rows_list(*, system: str = "", reason: str = "") -> list[dict[str, Any]]:
    """Uploads of which rows were refused: key, upload, totals by reason; the rows themselves are in each document.

    Args:
        system: only of this system.
        reason: only where rows were refused for this reason.
    """
    store = open_lake().store
    found = []
    for key in refused_rows_keys(store):
        document = read_refused_rows(store, key)
        if system in {"", document["system_id"]} and (not reason or reason in document["totals"]):
            found.append({"refused_rows": key, **{name: value for name, value in document.items() if name != "rows"}})
    return found


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
    """Verify every commit, file and invariant; with `read_data` every byte. A damaged lake.json is a finding."""
    lake = open_damaged()
    return fsck(lake, read_data=read_data, uploads=uploads_of(lake.settings)).document()
