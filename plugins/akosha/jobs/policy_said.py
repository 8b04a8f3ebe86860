"""A policy, and a change to it, as lines for a person: the command line, Airflow's log, the page of an approval. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from akosha.jobs.estimates import lines as estimate_lines


def shown(answer: Mapping[str, Any]) -> Iterator[str]:
    """A policy."""
    force = "in force" if answer["in_force"] else "no longer in force"
    yield f"policy {answer['number']}, {force}" + (f", made {answer['made_at'][:19]}" if answer["made_at"] else "")
    for name, value in answer["rules"].items():
        origin = answer["from_settings"].get(name, "")
        yield f"  {name:22}{_said(value)}" + (f"   (from {origin})" if origin else "")
    for system, own in sorted(answer["systems"].items()):
        yield f"  only {system}: " + ", ".join(f"{name} {_said(value)}" for name, value in sorted(own.items()))
    for key in answer["pinned"]:
        yield f"  pinned {' / '.join(key)}"


def lines(answer: Mapping[str, Any]) -> Iterator[str]:
    """A change to the policy, made or only looked at."""
    if not answer["changes"]:
        yield answer["message"]
        return
    yield f"policy {answer['on']} -> {answer['number']}" + (" (dry run)" if answer["dry_run"] else "")
    for one in answer["changes"]:
        yield f"  {_change(one)}"
    for move, found in answer["moves"].items():
        yield (
            f"next night {move.replace('-', ' ')}: {found['after']:,} records leave, {found['before']:,} under policy "
            f"{answer['on']}; {found['more']:,} more, {found['fewer']:,} fewer"
        )
        if found["without_text"]:
            yield f"  {found['without_text']:,} of them lose their full text for good: the archive is off for their system"
    for key in answer["unknown"]:
        yield f"no such record lives in the lake now, the pin waits for it: {' / '.join(key)}"
    for system in answer["unknown_systems"]:
        yield f"no system {system!r} has a record in the lake now: check its name, or the rule waits for it"
    if answer["absent"]:
        yield f"next upload: {answer['absent']:,} records that their system's newest upload lacks go away"
    yield from _cost(answer)


def _cost(answer: Mapping[str, Any]) -> Iterator[str]:
    if answer["estimate"]["rows"] or answer["estimate"]["first_records"]:
        yield from estimate_lines(answer["estimate"])


def _change(one: Mapping[str, Any]) -> str:
    if "record" in one:
        return f"{one['field']} {' / '.join(one['record'])}"
    whose = f"only {one['system']}: " if one["system"] else ""
    field = one["field"]
    return f"{whose}{field} {_said(one['before'], field)} -> {_said(one['after'], field)}"


def _said(value: object, field: str = "") -> str:
    if value is None and field in {"hot_days", "warm_days"}:
        return f"as AKOSHA_{field.upper()}"
    return ("on" if value else "off") if value is None or isinstance(value, bool) else str(value)
