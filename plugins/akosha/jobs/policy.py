"""Showing and changing the policy. A change says first what it would do; it is one numbered document, and never code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

import pyarrow.compute as pc

from akosha.errors import CommitConflictError, UsageError
from akosha.jobs.estimates import estimate
from akosha.jobs.plans import now, open_lake, parse_as_of
from akosha.lake.documents import Document
from akosha.lake.lake import Lake
from akosha.lake.layout import shard_of
from akosha.lake.policy import Key, Policy, Rules, policy_of
from akosha.lake.policy_documents import (
    DEFAULT,
    OVERRIDABLE,
    PolicyChange,
    changed_document,
    newest_document,
    numbered_document,
    says_the_same,
    write_policy,
)
from akosha.lake.schemas import KEY
from akosha.tiers.policy_effects import MoveEffects, absent_records, policy_effects

MOVES: Final = {"hot": "hot-to-warm", "warm": "warm-to-cold"}
FROM_SETTINGS: Final = {"hot_days": "AKOSHA_HOT_DAYS", "warm_days": "AKOSHA_WARM_DAYS"}


def policy_show(number: int | None = None) -> dict[str, Any]:
    """A policy, by default the one in force: every field, and where its value comes from.

    Raises:
        UsageError: there is none of that number.
    """
    lake = open_lake()
    newest = newest_document(lake.store)
    document = newest if number is None else numbered_document(lake.store, number)
    policy = policy_of(document, lake.settings)
    return {
        "number": policy.number,
        "made_at": document["made_at"],
        "in_force": document["number"] == newest["number"],
        "rules": asdict(policy.rules()),
        "from_settings": {name: origin for name, origin in FROM_SETTINGS.items() if document[name] is None},
        "systems": document["systems"],
        "pinned": document["pinned"],
    }


def policy_set(
    change: PolicyChange, *, dry_run: bool = True, on: int | None = None, as_of: str | None = None
) -> dict[str, Any]:
    """Say what a changed policy would do on the next night, and, unless it is a dry run, write it as the next one.

    Args:
        change: to the policy in force.
        dry_run: only say it. The default: which records lose their text or leave early is for a person to know before.
        on: the number of the policy it must be a change of, as an earlier dry run said it; None = whichever is in force.
        as_of: the instant for which the effects are counted, ISO 8601; None = now.

    Returns:
        ``number`` of the next policy, ``on``, ``changes``, ``moves`` (effects by move), ``absent``, ``estimate``,
        ``unknown`` (pinned records that do not live), ``unknown_systems`` (named, without a record),
        ``dry_run``, ``written`` and ``message``.

    Raises:
        UsageError: no policy may say that.
        CommitConflictError: another policy has been written since.
    """
    instant = parse_as_of(as_of, force=True)
    lake = open_lake(to_write=not dry_run)
    before = newest_document(lake.store)
    if on is not None and before["number"] != on:
        message = f"policy {before['number']} has been written since this was looked at; look again and approve that"
        raise CommitConflictError(message, expected=on, found=before["number"])
    _refuse_shared_deletion(lake, change)
    after = changed_document(before, change, now=now())
    _refuse_reversed_ages(policy_of(after, lake.settings))
    answer: dict[str, Any] = {"on": int(before["number"]), "number": int(after["number"]), "dry_run": dry_run}
    if says_the_same(before, after):
        message = f"policy {before['number']} says so already: there is nothing to write"
        return {**answer, "number": answer["on"], "changes": [], "written": False, "message": message}
    answer |= {"changes": list(_changes(before, after)), **_effects(lake, before, after, instant)}
    answer["unknown"] = [list(key) for key in sorted(change.pin) if not _is_listed(lake, key)]
    answer["unknown_systems"] = sorted(change.systems.keys() - {name for head in lake.heads() for name in head.keys})
    if not dry_run:
        write_policy(lake.store, after)
    return {**answer, "written": not dry_run, "message": _message(answer)}


def change_of(form: Mapping[str, Any]) -> PolicyChange:
    """The change that a filled form asks for: fields left empty stay as they are, those under ``reset`` become the default.

    Raises:
        UsageError: nothing is asked for, or a record is not written as SYSTEM / TABLE / ID.
    """
    values = {name: form[name] for name in OVERRIDABLE if form.get(name) is not None}
    if "archive" in values:
        values["archive"] = values["archive"] in {True, "on"}
    values |= dict.fromkeys(form.get("reset") or [], DEFAULT)
    system = str(form.get("system") or "").strip()
    systems: dict[str, dict[str, Any]] = {system: values} if system and values else {}
    for name, deletes in (("delete_absent", True), ("keep_absent", False)):
        for other in form.get(name) or []:
            systems.setdefault(other, {})["delete_absent"] = deletes
    pin, unpin = (frozenset(_record(text) for text in form.get(name) or []) for name in ("pin", "unpin"))
    if not (values or systems or pin or unpin):
        message = "the form is empty: fill in what is to change"
        raise UsageError(message)
    return PolicyChange({} if system else values, systems, pin, unpin)


def _record(text: str) -> Key:
    parts = [part.strip() for part in text.split(" / ")]
    if len(parts) != len(KEY) or not all(parts):
        message = f"a record is written as SYSTEM / TABLE / ID, found {text!r}"
        raise UsageError(message)
    return parts[0], parts[1], parts[2]


def _effects(lake: Lake, before: Document, after: Document, as_of: datetime) -> dict[str, Any]:
    policies = policy_of(before, lake.settings), policy_of(after, lake.settings)
    effects = policy_effects(lake, *policies, as_of)
    deletes = policies[1].delete_absent - policies[0].delete_absent
    first = [key for found in effects.values() for key in found.first_records]
    counts = {
        "rows": sum(found.more for found in effects.values()),
        "bytes": sum(found.bytes for found in effects.values()),
        "files": sum(found.files for found in effects.values()),
    }
    return {
        "moves": {MOVES[tier]: asdict(found) for tier, found in effects.items()},
        "absent": absent_records(lake, deletes),
        "estimate": estimate(lake, MOVES["hot"], counts, first),
    }


def _changes(before: Document, after: Document) -> list[dict[str, Any]]:
    """Every field that differs: system ("" = the whole lake), field, value before and after (None = as declared)."""
    found = [
        {"system": "", "field": name, "before": before[name], "after": after[name]}
        for name in OVERRIDABLE
        if before[name] != after[name]
    ]
    for system in sorted({*before["systems"], *after["systems"]}):
        was, will = (document["systems"].get(system, {}) for document in (before, after))
        for name in (*OVERRIDABLE, "delete_absent"):
            if was.get(name, "") != will.get(name, ""):
                values = {"before": was.get(name, "as the lake"), "after": will.get(name, "as the lake")}
                found.append({"system": system, "field": name, **values})
    was_pinned, will_be = ({tuple(key) for key in document["pinned"]} for document in (before, after))
    for word, keys in (("pin", will_be - was_pinned), ("unpin", was_pinned - will_be)):
        found += [{"system": key[0], "field": word, "record": list(key)} for key in sorted(keys)]
    return found


def _message(answer: Mapping[str, Any]) -> str:
    said = f"policy {answer['number']}" + (" would follow" if answer["dry_run"] else " is in force and follows")
    said += f" policy {answer['on']}; on the next night "
    said += " and ".join(_move_said(move, MoveEffects(**found)) for move, found in answer["moves"].items())
    lost = sum(found["without_text"] for found in answer["moves"].values())
    said += f"; {lost:,} of them lose their full text, because the archive is off for their system" if lost else ""
    if answer["absent"]:
        said += f"; {answer['absent']:,} records that their system's newest upload lacks go away with its next upload"
    return said


def _move_said(move: str, found: MoveEffects) -> str:
    more = f"{found.more:,} more" if found.more else ""
    fewer = f"{found.fewer:,} fewer" if found.fewer else ""
    difference = ", ".join(part for part in (more, fewer) if part) or "as many as now"
    return f"{found.after:,} records move {move.replace('-', ' ')} ({difference})"


def _is_listed(lake: Lake, key: Key) -> bool:
    """Whether a record lives: a pin with a slip of the pen holds nothing."""
    keys = lake.keys(lake.shard(shard_of(key[0])).head().keys.get(key[0]))
    same = pc.and_(pc.equal(keys.column("source_table"), key[1]), pc.equal(keys.column("record_id"), key[2]))
    return bool(pc.any(same, min_count=0).as_py())


def _refuse_shared_deletion(lake: Lake, change: PolicyChange) -> None:
    deleting = {system for system, values in change.systems.items() if values.get("delete_absent") is True}
    shared = sorted(deleting & lake.settings.ambiguous)
    if shared:
        message = f"{shared[0]} is shared by unrelated machines (AKOSHA_AMBIGUOUS_SYSTEMS): its records are never deleted by absence"
        raise UsageError(message)


def _refuse_reversed_ages(policy: Policy) -> None:
    """Ages of the settings included: a document alone does not know them."""
    for system in ("", *policy.systems):
        rules: Rules = policy.rules(system)
        if rules.warm_days < rules.hot_days:
            whose = f" of system {system!r}" if system else ""
            message = (
                f"warm_days{whose} must be at least hot_days, found {rules.warm_days} below {rules.hot_days} "
                "(ages that a policy leaves open come from AKOSHA_HOT_DAYS and AKOSHA_WARM_DAYS)"
            )
            raise UsageError(message)
