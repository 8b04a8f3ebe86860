"""Estimates: what a run would cost, said by its dry run and shown to whoever approves it.

Rows, bytes and files come from the caller. Minutes, and requests where the caller cannot count them, come from what the
lake's own last runs of the same job took, else from the declared rates; the estimate says which.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from akosha.declared import model
from akosha.lake.documents import unseal
from akosha.lake.lake import Lake

RATES_ID: Final = "rates-v1"
LAST_RUNS: Final = 5
FIRST_RECORDS: Final = 10
# What jobs call the rows, bytes and files they worked on, in the counts of their summaries.
_ROWS: Final = ("rows_read", "embedded", "rows")
_BYTES: Final = ("planned_bytes", "bytes_read", "bytes")
_FILES: Final = ("uploads", "files")

Estimate = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rates:
    """What a job takes on one worker; `source` says who measured it."""

    rows_per_second: float
    bytes_per_row: float
    requests_per_file: float
    source: str


def estimate(lake: Lake, job: str, counts: Mapping[str, int], first_records: Sequence[Sequence[str]] = ()) -> Estimate:
    """The estimate document of a dry run.

    Args:
        lake: whose last runs tell how fast it is.
        job: as the run's plan and summary name it.
        counts: ``bytes`` and ``files``; ``rows`` where they are known, else they follow from the bytes; ``requests`` where
            they are known, else they follow from the files.
        first_records: keys, or other names, of the first that are concerned.

    Returns:
        ``{"rows", "bytes", "files", "requests", "minutes", "first_records", "basis"}``: minutes of one worker, and a
        sentence on where the rates come from.
    """
    rates = rates_of(lake, job)
    size = int(counts.get("bytes", 0))
    rows = int(counts["rows"]) if "rows" in counts else round(size / rates.bytes_per_row)
    files = int(counts.get("files", 0))
    return {
        "rows": rows,
        "bytes": size,
        "files": files,
        "requests": int(counts["requests"]) if "requests" in counts else round(files * rates.requests_per_file),
        "minutes": round(rows / rates.rows_per_second / 60, 2),
        "first_records": [[r] if isinstance(r, str) else list(r) for r in first_records[:FIRST_RECORDS]],
        "basis": rates.source + ("" if "rows" in counts else "; rows are guessed from the bytes"),
    }


def lines(document: Estimate) -> Iterator[str]:
    """An estimate for people: the command line, the log, the page of an approval."""
    yield (
        f"estimate: {document['rows']:,} rows, {document['bytes'] / 1e6:,.1f} MB, {document['files']:,} files, "
        f"{document['requests']:,} requests, {document['minutes']:,.1f} minutes of one worker"
    )
    yield f"rates: {document['basis']}"
    for record in document["first_records"]:
        yield f"concerns {' / '.join(record)}"


def spent(counts: Mapping[str, int], *, seconds: float, requests: int) -> dict[str, float]:
    """What a run took and worked on, as its summary keeps it for later estimates. `seconds` are those of all its tasks."""
    rows, size, files = (
        next((counts[name] for name in names if name in counts), 0) for names in (_ROWS, _BYTES, _FILES)
    )
    return {"seconds": round(seconds, 3), "requests": requests, "rows": rows, "bytes": size, "files": files}


def rates_of(lake: Lake, job: str) -> Rates:
    """Rates of the lake's own last runs of a job, else the declared ones."""
    declared = _declared(job)
    totals = dict.fromkeys(("seconds", "requests", "rows", "bytes", "files"), 0.0)
    runs = 0
    for own in _last_runs(lake, job):
        totals = {name: total + own[name] for name, total in totals.items()}
        runs += 1
    if not totals["rows"] or not totals["seconds"]:
        return declared
    return Rates(
        rows_per_second=totals["rows"] / totals["seconds"],
        bytes_per_row=totals["bytes"] / totals["rows"] or declared.bytes_per_row,
        requests_per_file=totals["requests"] / totals["files"] if totals["files"] else declared.requests_per_file,
        source=f"this lake's last {runs} runs of {job}, {totals['rows'] / totals['seconds']:,.0f} rows/s",
    )


def _last_runs(lake: Lake, job: str) -> Iterator[dict[str, float]]:
    """What the newest runs that did something took."""
    found = [info for info in lake.store.list("runs/") if info.key.endswith(f"/summary-{job}.json")]
    taken = 0
    for info in sorted(found, key=lambda info: info.modified, reverse=True)[: 4 * LAST_RUNS]:
        summary = unseal(lake.store.get(info.key), kind="summary", key=info.key)
        own = summary.get("spent")
        if own and own["rows"] and summary["ok"] and not summary.get("dry_run"):
            taken += 1
            yield own
        if taken == LAST_RUNS:
            return


def _declared(job: str) -> Rates:
    document = model(RATES_ID)
    rates = document["jobs"].get(job, document["jobs"]["other"])
    return Rates(
        rates["rows_per_second"],
        rates["bytes_per_row"],
        rates["requests_per_file"],
        f"declared in {RATES_ID}, {rates['rows_per_second']:,} rows/s ({rates['source']})",
    )
