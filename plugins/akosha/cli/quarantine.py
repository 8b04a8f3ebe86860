"""Quarantine as lines for a person. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from akosha.uploads.quarantine import groups

Entry = Mapping[str, Any]
# What `evidence` says in words of its own, or what says nothing to a person.
_TOLD: Final = frozenset({"format", "sha256", "evidence", "rows", "totals", "message", "what_to_do", "memo"})


def uploads(found: Sequence[Entry]) -> Iterator[str]:
    """Uploads set aside: one block for each system and reason."""
    for system, reason, memos in groups(found):
        first, last = str(memos[0]["first_seen"]), max(str(memo["last_seen"]) for memo in memos)
        yield f"{system}   {reason}   {_uploads(len(memos))}   first seen {_second(first)}   last seen {_second(last)}"
        for message in dict.fromkeys(str(memo["message"]) for memo in memos):
            yield f"    {message}"
        yield f"    do: {memos[0]['what_to_do']}"
        for memo in memos:
            yield f"    {memo['memo']}   {memo['attempts']}x"
    yield f"{_uploads(len(found))} in quarantine"


def refused(found: Sequence[Entry]) -> Iterator[str]:
    """Uploads of which single rows were refused."""
    for document in found:
        totals = ", ".join(f"{count:,} {reason}" for reason, count in sorted(document["totals"].items()))
        yield f"{document['system_id']}   {document['upload_id']}   {totals}"
        yield f"    {document['refused_rows']}"
    rows = sum(sum(document["totals"].values()) for document in found)
    yield f"{rows:,} rows of {_uploads(len(found))} were refused; the other rows of these uploads are in the lake"


def evidence(found: Entry) -> Iterator[str]:
    """All that is known of one upload set aside, or of one upload's refused rows."""
    if "message" in found:
        yield found["message"]
        yield f"do: {found['what_to_do']}"
    named = [(name, value) for name, value in found.items() if name not in _TOLD]
    for name, value in [*named, *found.get("evidence", {}).items(), *found.get("totals", {}).items()]:
        yield f"{name:18} {value}"
    for row in found.get("rows", ()):
        yield f"  {row['reason']:18} {row['table']} row {row['row']}  id {row['record_id']!r}"


def _uploads(count: int) -> str:
    return f"{count:,} upload{'' if count == 1 else 's'}"


def _second(instant: str) -> str:
    return instant[:19]
