"""Explaining one record: where it is, what put it there, when it moves next and why not earlier."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from akosha.errors import ObjectMissingError, UsageError
from akosha.jobs.plans import NEAR_MISSES, open_lake, parse_as_of, unknown_system
from akosha.lake.commits import TIERS, Commit
from akosha.lake.documents import unseal
from akosha.lake.files import ROW
from akosha.lake.history import Life, Place, Step, find, full_row, life, uploads_of
from akosha.lake.lake import Lake
from akosha.lake.layout import shard_of
from akosha.lake.policy import Key, Policy, Rules
from akosha.lake.provenance import ARCHIVE, INGESTED_ON, OFF
from akosha.tiers.due import Due, instant_of, microseconds
from akosha.tiers.stay import DUE, FOREVER, NEVER, REASONS

MOVES: Final = {"hot": "hot-to-warm", "warm": "warm-to-cold"}
# What a time is worth, by its evidence: docs/format.md, Times.
EVIDENCE: Final = {
    "id": "the time inside its id",
    "extracted_at": "a UTC time that its client wrote beside it",
    "offset": "local time less the client's UTC offset, which other rows of its upload have shown",
    "manifest": "local time less an offset guessed from the upload's manifest: up to 14 hours off",
    "none": "no time of its own: that of its upload",
}
# What each job has checked when it commits; a failure commits nothing.
_ABOUT_VECTORS: Final = (
    "its codes decode to within half a step of its vector; the batch passed the recall gate; ",
    "its sign bits were made of its verified codes; ",
)
_READ_BACK: Final = "its new file was read back and compared value by value, then hashed again in the store"
VERIFIED: Final = {
    "ingest": f"its text has its digest; {_READ_BACK}",
    "embed": f"its text has its digest; {_READ_BACK}",
    "hot-to-warm": f"its text has its digest; {_ABOUT_VECTORS[0]}{_READ_BACK}, its row in the archive as well",
    "promote": f"its text in the archive has its digest; {_READ_BACK}",
    "undo": "every file of the version that was returned to is there; nothing was written anew",
    "warm-to-cold": f"{_ABOUT_VECTORS[1]}{_READ_BACK}; the archive stayed as it was",
}


def explain(system: str, table: str, record: str, *, as_of: str | None = None, history: bool = True) -> dict[str, Any]:
    """All that the lake knows of one record.

    Args:
        system: system id.
        table: source table, for example conversations_v2.
        record: record id.
        as_of: the instant that decides whether it is due, ISO 8601; None = now.
        history: also walk the retained versions of its shard.

    Raises:
        UsageError: no retained version knows it; names what comes near.
    """
    instant = parse_as_of(as_of, force=True)
    return explain_key(open_lake(), (system, table, record), instant, history=history)


def explain_key(lake: Lake, key: Key, as_of: datetime, *, history: bool) -> dict[str, Any]:
    """`explain` in an open lake."""
    head = lake.shard(shard_of(key[0])).head()
    place = find(lake, head.of_tier(*TIERS), key)
    told = life(lake, head, key) if history or place is None else Life((), head.version)
    if place is None and not told.steps:
        raise UsageError(_unknown(lake, head, key, told))
    policy = lake.policy()
    answer: dict[str, Any] = {
        "key": list(key),
        "as_of": as_of.isoformat(),
        "policy": policy.number,
        "shard": head.shard,
        "version": head.version,
        "held_by": head.held_by,
        "place": None,
        "history": [_step(lake, step, key) for step in told.steps],
        "history_since": told.since,
    }
    return {**answer, **_live(lake, head, place, policy, as_of)} if place is not None else answer


def _live(lake: Lake, head: Commit, place: Place, policy: Policy, as_of: datetime) -> dict[str, Any]:
    """What is known of a record that is in a tier."""
    row = full_row(lake, place)
    values = row.drop_columns(
        [name for name in ("embedding", "codes", "signs") if name in row.column_names]
    ).to_pylist()[0]
    provenance = json.loads(values["provenance"])
    listed = _listed(lake, head, (values["system_id"], values["source_table"], values["record_id"]))
    entry = place.entry
    return {
        "place": {"tier": entry.tier, "root": entry.root, "path": entry.path, "row": place.row, "rows": entry.rows},
        "revision": {
            "content_sha256": place.digest,
            "created_at": values["created_at"].isoformat(),
            "time_evidence": values["time_evidence"],
            "time_means": EVIDENCE.get(values["time_evidence"], "evidence that this Akosha does not know"),
            "text": values["summary"],
            "embedding_model": values["embedding_model"],
            "project": values["project"],
        },
        "upload": {
            "manifest": provenance.get("upload", ""),
            "manifest_time": provenance.get("manifest_time", ""),
            "ingested_on": provenance.get(INGESTED_ON, ""),
            "first_manifest": listed["first_manifest"].isoformat() if listed else "",
            "in_newest": listed.get("in_newest"),
            "newest_manifest": head.keys[values["system_id"]].newest_manifest if listed else "",
        },
        "bookkeeping": json.loads(listed["bookkeeping"]) if listed else {},
        "archive": _archive(lake, head, place, values, archived=provenance.get(ARCHIVE) != OFF),
        "next": _next(Due(lake, head, policy, "hot" if entry.tier == "hot" else "warm", as_of), entry.tier, row),
    }


def _listed(lake: Lake, head: Commit, key: Key) -> dict[str, Any]:
    """The record's row in its system's key file."""
    keys = lake.keys(head.keys.get(key[0]))
    found = keys.filter(
        pc.and_(pc.equal(keys.column("source_table"), key[1]), pc.equal(keys.column("record_id"), key[2]))
    )
    rows = found.to_pylist()
    return dict(rows[0]) if rows else {}


def _archive(lake: Lake, head: Commit, place: Place, values: dict[str, Any], *, archived: bool) -> dict[str, Any]:
    """What the archive has of a record: nothing of hot ones, which have their text beside them."""
    if place.tier == "hot":
        return {"state": "in hot", "text": True, "codes": False, "vector": values["embedding_model"] is not None}
    if not archived:
        return {"state": "off", "text": False, "codes": False, "vector": False}
    kept = find(lake, head.of_tier("archive"), (values["system_id"], values["source_table"], values["record_id"]))
    if kept is None:
        return {"state": "missing", "text": False, "codes": False, "vector": False}
    rows = lake.rows(kept.entry, ["codes", "embedding"])
    row = rows.filter(pc.equal(rows.column(ROW), pa.scalar(kept.row, pa.uint32())))
    codes, vector = (row.column(name).null_count == 0 for name in ("codes", "embedding"))
    return {"state": "kept", "text": True, "codes": codes, "vector": vector, "path": kept.entry.path, "row": kept.row}


def _next(due: Due, tier: str, row: pa.Table) -> dict[str, Any]:
    """When a record moves next, and every reason why not earlier."""
    if tier not in MOVES:
        return {"move": "", "due": False, "not_before": "", "reasons": []}
    judged = due.judge(row)
    rules = due.policy.rules(row.column("system_id")[0].as_py())
    reasons = [
        {
            "reason": reason,
            "until": _instant(until),
            "holds": until >= microseconds(due.as_of),
            "rule": _rule(reason, due, rules),
        }
        for reason, until in zip(REASONS, judged.until[:, 0].tolist(), strict=True)
        if until != NEVER
    ]
    latest = int(judged.until[:, 0].max())
    return {
        "move": MOVES[tier],
        "due": int(judged.reason[0]) == DUE,
        "not_before": _instant(latest),
        "reasons": reasons,
    }


def _rule(reason: str, due: Due, rules: Rules) -> str:
    """The rule behind a reason, with its numbers."""
    number = due.policy.number
    return {
        "age": f"{due.tier}_days is {rules.days(due.tier)} (policy {number})",
        "pinned": f"policy {number} pins it",
        "held": "a promotion holds it",
        "residence": f"min_residence_days is {rules.min_residence_days} (policy {number})"
        + ("" if due.tier == "hot" else ", once for hot and once for warm"),
        "importance": f"importance of {rules.importance_at_least} or more stays {rules.importance_days} days longer (policy {number})",
        "access": f"access_days is {rules.access_days} (policy {number})",
        "vector": f"it has no vector yet and waits up to {due.policy.vector_wait_days} days for one (AKOSHA_VECTOR_WAIT_DAYS)",
    }[reason]


def _instant(microsecond: int) -> str:
    return "" if microsecond == FOREVER else instant_of(microsecond).isoformat(timespec="seconds")


def _step(lake: Lake, step: Step, key: Key) -> dict[str, Any]:
    commit = step.commit
    return {
        "version": commit.version,
        "committed_at": commit.committed_at,
        "operation": commit.operation,
        "run_id": commit.run_id,
        "policy": commit.policy,
        "what": _what(step),
        "content_sha256": step.after.digest if step.after else step.before.digest if step.before else "",
        "uploads": [upload["manifest"] for upload in uploads_of(commit, key[0])],
        "verified": _verified(lake, step),
        "recall": _recall(lake, commit) if step.after and _arrives(step) and _has_vector(lake, step.after) else None,
    }


def _what(step: Step) -> str:
    before, after = step.before, step.after
    if after is None:
        return f"left {before.tier if before else 'the lake'}"
    if before is None:
        return f"came into {after.tier}"
    if before.digest != after.digest:
        return f"its text was replaced: {before.tier} -> {after.tier}"
    if before.tier != after.tier:
        return f"moved {before.tier} -> {after.tier}"
    return f"stayed in {after.tier}, its file was written anew"


def _arrives(step: Step) -> bool:
    """Whether a step put the record, or this revision of it, where it was not before."""
    before, after = step.before, step.after
    return after is not None and (before is None or (before.tier, before.digest) != (after.tier, after.digest))


def _verified(lake: Lake, step: Step) -> str:
    if step.after is None:
        return ""
    said = VERIFIED.get(step.commit.operation, _READ_BACK) if _arrives(step) else _READ_BACK
    if _has_vector(lake, step.after):
        return said
    for about_vector in _ABOUT_VECTORS:
        said = said.replace(about_vector, "it had no vector; ")
    return said


def _has_vector(lake: Lake, place: Place) -> bool:
    if not place.entry.without_vector:
        return True
    rows = lake.rows(replace(place.entry, removal=None), ["embedding_model"])
    return bool(rows.column("embedding_model")[place.row].is_valid)


def _recall(lake: Lake, commit: Commit) -> float | None:
    """Recall at the gate of the run that made a commit, where its summary is still there and says so."""
    if commit.operation != "hot-to-warm":
        return None
    key = f"runs/{commit.run_id}/summary-{commit.operation}.json"
    try:
        summary = unseal(lake.store.get(key), kind="summary", key=key)
    except ObjectMissingError:
        return None
    return min((recall["recall"] for recall in summary.get("recall", [])), default=None)


def _unknown(lake: Lake, head: Commit, key: Key, told: Life) -> str:
    """Why there is nothing to explain, and what comes near."""
    system, table, record = key
    if system not in head.keys:
        return unknown_system(lake, system)
    keys = lake.keys(head.keys[system]).select(["source_table", "record_id"])
    ids = keys.column("record_id")
    same = keys.filter(pc.or_(pc.equal(ids, record), pc.starts_with(ids, f"{record}~"))).slice(0, NEAR_MISSES)
    near_keys = same if same.num_rows else keys.filter(pc.starts_with(ids, record)).slice(0, NEAR_MISSES)
    near = [f"{row['source_table']} / {row['record_id']}" for row in near_keys.to_pylist()]
    tables = sorted(pc.unique(keys.column("source_table")).to_pylist())
    said = f"no retained version of shard {head.shard:03d} (from {told.since} on) knows {' / '.join(key)}"
    if near:
        return f"{said}; {system!r} has {', '.join(near)}"
    if table not in tables:
        return f"{said}; {system!r} has no table {table!r}, but {', '.join(tables)}"
    return (
        f"{said}; `akosha export --out exported` lists every id, `akosha quarantine list` uploads that were set aside"
    )
