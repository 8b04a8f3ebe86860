"""An explanation as lines for a person, the same on the command line and in Airflow's log. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

Answer = dict[str, Any]
WIDTH: Final = 100
_LAST_TIER: Final = "cold is the last tier: it stays"


def lines(answer: Answer) -> Iterator[str]:
    """Everything."""
    yield " / ".join(answer["key"])
    yield from (f"  {line}" for line in facts(answer))
    yield from _history(answer)


def facts(answer: Answer) -> Iterator[str]:
    """What holds now."""
    place = answer["place"]
    if place is None:
        gone = answer["history"][0]
        yield f"where      in no tier: {gone['what']} in version {gone['version']} of shard {answer['shard']:03d}, by {gone['operation']}"
        yield f"revision   the last one had the digest {gone['content_sha256']}"
        yield f"what to do if it should be there, ingest an upload that holds it: `akosha backfill --system {answer['key'][0]} --force`"
        return
    revision, upload = answer["revision"], answer["upload"]
    yield f"where      {place['tier']}: row {place['row']} of {place['rows']:,} in {place['path']}, version {answer['version']} of shard {answer['shard']:03d}"
    yield f"text       {_shortened(revision['text'])}"
    yield f"revision   digest {revision['content_sha256']}"
    yield f"created    {_second(revision['created_at'])} ({revision['time_evidence']}: {revision['time_means']})"
    yield f"came with  {upload['manifest']}" + (
        f", taken in on {upload['ingested_on']}" if upload["ingested_on"] else ""
    )
    if upload["first_manifest"]:
        held = (
            "its system's newest upload still has it" if upload["in_newest"] else "its system's newest upload lacks it"
        )
        yield f"           first seen in the upload of {_second(upload['first_manifest'])}; {held}"
    yield f"vector     {_vector(answer)}"
    yield f"archive    {_archive(answer['archive'])}"
    yield from _next(answer)


def one_line(answer: Answer) -> str:
    """The shortest form, for a log."""
    where = answer["place"]["tier"] if answer["place"] else "in no tier"
    return (
        f"{' / '.join(answer['key'])}: {where}; created {_second(answer['revision']['created_at'])} ({answer['revision']['time_evidence']}); "
        + "; ".join(line.split(maxsplit=1)[1] for line in _next(answer))
    )


def _next(answer: Answer) -> Iterator[str]:
    """When it moves, and why not earlier."""
    following = answer["next"]
    if answer["held_by"]:
        yield f"next       its shard is held ({answer['held_by']}): nothing moves until `akosha release`"
    if not following["move"]:
        yield f"next       {_LAST_TIER}"
        return
    move = following["move"].replace("-", " ")
    if following["due"]:
        yield f"next       due: the next run of {move} takes it"
    elif following["not_before"]:
        yield f"next       {move}, in the first run after {_second(following['not_before'])}"
    else:
        yield f"next       no move {move}, as long as it is pinned"
    for reason in following["reasons"]:
        until = f"until {_second(reason['until'])}" if reason["until"] else "for good"
        tense = "stays" if reason["holds"] else "stayed"
        yield f"{'why' if reason['holds'] else 'over':11}{reason['reason']}: {tense} {until}; {reason['rule']}"


def _vector(answer: Answer) -> str:
    model = answer["revision"]["embedding_model"]
    if model is None:
        return "none" + (
            " yet: `akosha embed` makes it" if answer["place"]["tier"] == "hot" else ": it moved without one"
        )
    whose = "came with its upload" if model == "client" else f"made by {model}"
    kind = {"hot": "as received or made (FLOAT)", "warm": "8-bit codes and a scale", "cold": "sign bits"}
    return f"{kind[answer['place']['tier']]}; {whose}"


def _archive(archive: Answer) -> str:
    if archive["state"] == "in hot":
        return "nothing yet: hot has the full text and the vector itself"
    if archive["state"] == "off":
        return "nothing: the policy was off for its system when it left hot. Its full text is in its uploads only"
    if archive["state"] == "missing":
        return "MISSING: its full text should be there and is not; run `akosha fsck --read-data`"
    vector = "the original vector (audit sample)" if archive["vector"] else "no original vector"
    codes = "8-bit codes" if archive["codes"] else "no codes"
    return f"full text, {codes}, {vector}; row {archive['row']} of {archive['path']}"


def _history(answer: Answer) -> Iterator[str]:
    since = answer["history_since"]
    if since == 1:
        kept = "all versions of its shard are retained"
    else:
        kept = f"versions from {since} on are retained; what happened before is not known any more"
    yield f"  history    {kept}"
    for step in answer["history"]:
        yield (
            f"    version {step['version']}, {_second(step['committed_at'])}, {step['operation']}: {step['what']} "
            f"(run {step['run_id']}, policy {step['policy']})"
        )
        for manifest in step["uploads"]:
            yield f"      upload {manifest}"
        if step["verified"]:
            recall = f"; recall@10 at the gate {step['recall']:.3f}" if step["recall"] is not None else ""
            yield f"      verified: {step['verified']}{recall}"


def _second(instant: str) -> str:
    return instant[:19].replace("T", " ")


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"
