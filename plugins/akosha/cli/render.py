"""Answers as lines for a person. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from akosha.errors import runbook_of

Answer = dict[str, Any]
WIDTH: Final = 100
_SCALE: Final = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def size(count: float) -> str:
    """Bytes in the largest unit that leaves a number above one."""
    for unit, factor in _SCALE:
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} B"


def status(answer: Answer) -> Iterator[str]:
    """The state of a lake."""
    yield f"lake      {answer['lake']}   policy {answer['policy']}"
    yield f"records   {answer['records']:,} of {answer['systems']} systems in {answer['shards']} shards"
    for tier, figures in answer["tiers"].items():
        yield f"  {tier:8}{figures['records']:>12,} records {size(figures['bytes']):>10} in {figures['files']} files"
    yield from _graphs(answer["graphs"])
    yield f"without a vector yet: {answer['without_vector']:,}   uploads in quarantine: {answer['quarantined']}"
    if answer["quarantine_reasons"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in answer["quarantine_reasons"].items())
        yield f"  in quarantine for: {reasons}"
    if answer["refused_rows_documents"]:
        yield f"  uploads with single rows refused: {answer['refused_rows_documents']}"
    yield from _strangers(answer["foreign_vectors"])
    yield from _uploads_waiting(answer)
    if answer["held_shards"]:
        yield f"HELD shards, written by nobody until they are released: {answer['held_shards']}"
    for job, last in answer["last_runs"].items():
        yield f"last {job:13} {last['finished_at'][:19]}  {'ok' if last['ok'] else 'FAILED'}  {last['message']}"


def doctor(answer: Answer) -> Iterator[str]:
    """Settings and checks."""
    for setting in answer["settings"]:
        yield f"{setting['setting']:28} {setting['value'] or '(empty)'}  [{setting['origin']}]"
    yield ""
    for check in answer["checks"]:
        yield f"{check['result']:8} {check['check']:8} {check['found']}"


def summary(answer: Answer) -> Iterator[str]:
    """What a run did."""
    yield answer["message"]
    for reason in answer.get("quarantined", ()):
        yield f"  quarantined {reason['upload']}: {reason['message']}"
    for key in answer.get("would_take", ()):
        yield f"  would take in {key}"
    for key in answer.get("unusable", ()):
        yield f"  left alone, an unusable key: {key!r}"
    for key in answer.get("first_records", ()) if answer.get("dry_run") else ():
        yield f"  would move {' / '.join(key)}"
    if answer.get("dry_run") and "estimate" in answer:
        yield from (f"  {line}" for line in _cost(answer["estimate"]))
    if answer.get("report"):
        yield f"report: {answer['report']}"


def _cost(estimate: Answer) -> Iterator[str]:
    """An estimate without its records, which the lines above name."""
    from akosha.jobs.estimates import lines

    yield from lines({**estimate, "first_records": []})


def hits(answer: Answer) -> Iterator[str]:
    """What a search found."""
    for number, hit in enumerate(answer["hits"], 1):
        place = hit["place"]
        yield f"{number:2}. {hit['score']:.3f}  {place['tier']:4}  {str(hit['created_at'])[:10]}  {place['system_id']}"
        yield f"      {_shortened(hit['summary'])}"
        also = f"   also under {len(hit['also'])} other keys" if hit.get("also") else ""
        yield f"      {place['source_table']}/{place['record_id']}  shard {place['shard']:03d}{also}"
    yield f"{len(answer['hits'])} hits out of {answer['scanned']:,} vectors compared"


def fsck(answer: Answer) -> Iterator[str]:
    """Findings with what is recoverable and how, and what was checked."""
    yield from _findings(answer["findings"])
    checked = ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in answer["checked"].items())
    yield f"{'clean' if answer['ok'] else 'DAMAGE FOUND'}: checked {checked}"
    if not answer["ok"]:
        yield f"see {runbook_of('damage-found-by-fsck')}"


def scrub(answer: Answer) -> Iterator[str]:
    """What was read again, and what was found."""
    yield from _findings(answer["findings"])
    yield answer["message"]


def repair(answer: Answer) -> Iterator[str]:
    """What was brought back, or would be, what is still to be done, what is left."""
    for item in answer["repaired"]:
        where = f"shard {item['shard']:03d} " if item["shard"] is not None else ""
        told = ", ".join(_repaired_facts(item))
        about = f"{where}{item['key']}".strip() + (f" ({told})" if told else "")
        yield f"  {'to do: ' if answer['dry_run'] else ''}{item['what']}: {about}"
    yield from _findings(answer["findings"])
    yield answer["message"]
    for command in answer["commands"]:
        yield f"  then: {command}"


def _repaired_facts(item: Answer) -> Iterator[str]:
    for source, count in item.get("records", {}).items():
        yield f"{count:,} from {source}"
    for name, value in item.items():
        if name not in {"what", "key", "shard", "records"} and value:
            yield f"{name} {value}"


def rebuild_proof(answer: Answer) -> Iterator[str]:
    """What was replayed and how the two lakes compare."""
    for key in answer["uploads"]["gone"][:20]:
        yield f"  upload that no longer exists: {key}"
    for difference in answer["differences"]:
        yield f"  {difference['what']}: {' / '.join(difference['key'])}: {difference['found']}"
    yield answer["message"]
    if answer["out"]:
        yield f"the rebuilt lake is at {answer['out']}"


def _findings(findings: list[Answer]) -> Iterator[str]:
    for finding in findings:
        where = f"shard {finding['shard']:03d} " if finding["shard"] is not None else ""
        kind = f"{finding['kind']} " if finding["kind"] else ""
        yield f"{finding['severity'].upper():8} {where}{kind}{finding['key']}: {finding['message']}"
        if finding["sources"]:
            told = ", ".join(f"{count:,} from {name}" for name, count in finding["sources"].items())
            yield f"         {finding['records']:,} live records concerned; recoverable: {told}"
        elif finding["severity"] == "damage":
            yield f"         recoverable from {finding['recoverable_from']}"
        for command in finding["commands"]:
            yield f"         run: {command}"
        for command in finding["alternatives"]:
            yield f"         or: {command}"


def _strangers(systems: dict[str, int]) -> Iterator[str]:
    if systems:
        left = sum(systems.values())
        yield f"send vectors of another model, which are replaced ({left:,} left): {', '.join(sorted(systems)[:20])}"


def _graphs(graphs: Answer) -> Iterator[str]:
    if graphs["systems"]:
        rows = ", ".join(f"{graphs[kind]:,} {kind}" for kind in ("entities", "relations", "observations"))
        yield f"knowledge graphs of {graphs['systems']} systems: {rows}"


def _uploads_waiting(answer: Answer) -> Iterator[str]:
    if answer["due_uploads"] is not None:
        yield f"uploads due: {_waiting(answer['due'])}"
    if answer["backlog"].get("uploads"):
        yield f"backlog that the last plan left: {_waiting(answer['backlog'])}"


def _waiting(figures: Answer) -> str:
    if not figures["uploads"]:
        return "0"
    hours = figures["oldest_seconds"] / 3600
    return f"{figures['uploads']:,} of {figures['systems']} systems, {size(figures['bytes'])}, the oldest {hours:,.1f} h old"


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"
