"""The demo's last words: what was found, where it lies now, what was checked, and whether it is found again.

Every number comes from the lake (`akosha status`, `akosha quarantine list`, `akosha search`) or from the summaries that
the runs wrote.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Json = dict[str, Any]
_WIDTH = 110
_TIERS = {
    "hot": "full text and vector",
    "warm": "8-bit codes and a three-sentence summary",
    "cold": "one sentence, fingerprint and sign bits",
    "archive": "full text and codes of what is warm or cold; not a tier",
}
_HITS = 5


def size(count: float) -> str:
    """Bytes in a unit that leaves one to three digits."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def discovered(ingest: Json) -> Iterator[str]:
    """Systems and uploads of this run."""
    plan, counts = ingest["plan"], ingest["counts"]
    yield f"Discovered  {plan['due']} new uploads among {plan['manifests_listed']} listed of {plan['systems_listed']} systems"
    yield (
        f"Ingested    {counts.get('new', 0):,} new records, {counts.get('changed', 0):,} changed; "
        f"{counts.get('applied', 0)} uploads applied, {counts.get('unchanged', 0)} held nothing new, "
        f"{counts.get('quarantined', 0)} quarantined"
    )


def moved(summaries: Mapping[str, Json]) -> Iterator[str]:
    """What embedding and the moves did."""
    for dag_id, word in (
        ("akosha_embed", "Embedded"),
        ("akosha_hot_to_warm", "Moved"),
        ("akosha_warm_to_cold", "Moved"),
    ):
        if dag_id in summaries:
            yield from wrapped(word, summaries[dag_id]["message"])


def tiers(status: Json) -> Iterator[str]:
    """Records and bytes per tier."""
    yield f"The lake    {status['records']:,} records of {status['systems']} systems in {status['shards']} shards"
    for tier, what in _TIERS.items():
        figures = status["tiers"][tier]
        yield f"    {tier:<8}{figures['records']:>7,} records {size(figures['bytes']):>9}   {what}"
    if status["without_vector"]:
        yield f"    {status['without_vector']:,} records wait for a vector; they are stored and exportable"


def verified(validate: Json) -> Iterator[str]:
    """What was checked, and recall."""
    yield from wrapped("Verified", validate["message"])
    yield "            (recall@10: of the ten texts nearest by the original vectors, the share that 8-bit codes find too)"
    if validate.get("report"):
        yield f"            report: {validate['report']}"


def quarantined(found: Sequence[Json]) -> Iterator[str]:
    """What was set aside and why."""
    if not found:
        yield "Quarantined nothing"
        return
    yield f"Quarantined {len(found)} uploads; the others were not affected"
    for memo in found:
        yield f"    {memo['upload_id']}"
        yield from textwrap.wrap(memo["message"], _WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)


def search(question: str, answer: Json) -> Iterator[str]:
    """The example search."""
    yield f'Search      akosha search "{question}": the best {min(_HITS, len(answer["hits"]))} of {answer["scanned"]:,}'
    for hit in answer["hits"][:_HITS]:
        place = hit["place"]
        text = textwrap.shorten(hit["summary"], _WIDTH - 28, placeholder=" …")
        yield f"    {hit['score']:.3f}  {place['tier']:<5} {str(hit['created_at'])[:10]}  {text}"
        yield f"                              {place['system_id']} / {place['record_id']}"


def wrapped(word: str, text: str) -> Iterator[str]:
    """A sentence under a heading, folded."""
    yield from textwrap.wrap(text, _WIDTH, initial_indent=f"{word:<12}", subsequent_indent=" " * 12)
