"""Plans: what a run will do, written into the lake before anything is done, and the summary of what it did."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from akosha.errors import PermanentError, UsageError
from akosha.lake import layout
from akosha.lake.documents import Document, seal, unseal
from akosha.lake.lake import Lake
from akosha.lake.policy import Policy
from akosha.lake.shard_log import Writer
from akosha.settings import Settings

Plan = dict[str, Any]
Result = dict[str, Any]
Summary = dict[str, Any]

NEAR_MISSES: Final = 5
AHEAD: Final = timedelta(days=1)
EARLIEST_YEAR, LATEST_YEAR = 1970, 2200
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Work:
    """One shard's part of a run.

    `count` is what people read, `weight` balances batches (None = the count), `items` is what the job needs, as JSON.
    """

    shard: int
    count: int
    weight: int | None = None
    items: Any = None

    @property
    def load(self) -> int:
        """What this part costs, in the unit of the run's weights."""
        return self.count if self.weight is None else self.weight


def open_lake(*, to_write: bool = False) -> Lake:
    """The lake of the environment's settings."""
    return Lake.open(Settings.from_environment(), to_write=to_write)


def now() -> datetime:
    """The clock, read at the seam and nowhere below."""
    return datetime.now(UTC)


def unknown_system(lake: Lake, system: str) -> str:
    """What is said of a system without a record in the lake: the systems whose names come near."""
    names = [name for head in lake.heads() for name in head.keys]
    near = difflib.get_close_matches(system, names, NEAR_MISSES, 0.5)
    return f"no system {system!r} in this lake" + (f"; near are {', '.join(map(repr, near))}" if near else "")


def policy_of_plan(lake: Lake, plan: Document) -> Policy:
    """The policy a run was planned under: one that is written meanwhile counts from the next run on."""
    return policy_of_parameters(lake, plan["parameters"])


def policy_of_parameters(lake: Lake, parameters: Mapping[str, Any]) -> Policy:
    """The policy that a plan's parameters name; the newest where they name none."""
    return lake.policy(parameters.get("policy") or None)


def writer_of(lake: Lake, plan: Document) -> Writer:
    """Who commits in this run."""
    return Writer(run_id=plan["run_id"], policy=policy_of_plan(lake, plan).number, now=now())


@dataclass(frozen=True, slots=True)
class Unit:
    """What a run counts, and how much weight makes a task of its own worth its start."""

    name: str
    per_batch: int


UPLOADS: Final = Unit("uploads", 16_000)
UPLOAD_KILOBYTES: Final = 1_000  # what an upload costs before its first row, as much as so many kilobytes
TEXTS: Final = Unit("texts", 512)  # loading the model costs as much as embedding a hundred
ROWS: Final = Unit("rows to look at", 1_000)  # and the recall gate wants 200 held-out queries in a batch
SHARDS: Final = Unit("shards in all", 1)


def batches_of(work: Sequence[Work], most: int, per_batch: int) -> list[list[Work]]:
    """Shards in batches of about equal weight: `most` at most, fewer while a batch would carry less than `per_batch`.

    The heaviest shard goes first, ties by number.
    """
    wanted = max(1, sum(part.load for part in work) // per_batch)
    batches: list[list[Work]] = [[] for _ in range(min(most, wanted, len(work)))]
    loads = [0] * len(batches)
    for part in sorted(work, key=lambda part: (-part.load, part.shard)):
        lightest = loads.index(min(loads))
        batches[lightest].append(part)
        loads[lightest] += part.load
    return [sorted(batch, key=lambda part: part.shard) for batch in batches]


def write_plan(
    lake: Lake,
    job: str,
    run_id: str,
    work: Sequence[Work],
    *,
    unit: Unit,
    message: str,
    **parameters: object,
) -> Plan:
    """Write the plan of a run and return what travels: key, batch labels, one line.

    Args:
        lake: where.
        job: ingest, embed, hot-to-warm, warm-to-cold or validate.
        run_id: the run; made safe for a path.
        work: one part per shard with something to do.
        unit: what is counted, and the weight that makes a batch.
        message: one line for operators.
        parameters: kept in the plan for `run_batch`, as JSON; ``estimate`` and ``dry_run`` go on into the summary.
    """
    run = safe_run_id(run_id)
    batches = batches_of(work, lake.settings.batches, unit.per_batch)
    document: Document = {
        "format": "akosha-plan/1",
        "job": job,
        "run_id": run,
        "planned_at": now().isoformat(),
        "parameters": {"policy": lake.policy().number, **parameters},
        "message": message,
        "batches": [[{"shard": part.shard, "items": part.items} for part in batch] for batch in batches],
    }
    key = f"runs/{run}/plan-{job}.json"
    lake.store.put(key, seal(document))
    labels = [{"batch": number, "label": _label(batch, unit)} for number, batch in enumerate(batches)]
    weight = sum(part.load for part in work)
    return {"plan_key": key, "job": job, "run_id": run, "batches": labels, "message": message, "weight": weight}


def safe_run_id(run_id: str) -> str:
    """A run id as it stands in paths and commits."""
    return _UNSAFE.sub("-", run_id)


def read_plan(lake: Lake, plan_key: str) -> Document:
    """A plan, verified."""
    return unseal(lake.store.get(plan_key), kind="plan", key=plan_key)


def write_summary(lake: Lake, plan: Document, summary: Summary, shards: Iterable[int]) -> Summary:
    """Write the summary of a run beside its plan, with the heads of the shards it touched, and return it."""
    heads = {f"{head.shard:03d}": [head.version, head.sha256] for head in (lake.shard(s).head() for s in shards)}
    document: Document = {
        "format": "akosha-summary/1",
        "job": plan["job"],
        "run_id": plan["run_id"],
        "finished_at": now().isoformat(),
        "policy": plan["parameters"].get("policy"),
        "heads": heads,
        **summary,
    }
    lake.store.put(f"runs/{plan['run_id']}/summary-{plan['job']}.json", seal(document))
    return document


def require_all_batches(plan: Document, results: Sequence[Mapping[str, Any]]) -> None:
    """Check that every batch reported.

    Raises:
        PermanentError: some did not; names their shards.
    """
    done = {int(result["batch"]) for result in results}
    missing = [number for number in range(len(plan["batches"])) if number not in done]
    if missing:
        shards = [part["shard"] for number in missing for part in plan["batches"][number]]
        message = (
            f"{len(missing)} of {len(plan['batches'])} batches failed; what the others did is committed and stays. "
            "Read the failed tasks' logs; the next run takes the rest again"
        )
        raise PermanentError(message, job=plan["job"], shards=shards)


def held_said(outcomes: Iterable[Mapping[str, Any]]) -> str:
    """What a message adds about shards that are held after an undo; nothing when none is."""
    return "".join(f"; {outcome['waits_for']}" for outcome in outcomes if outcome.get("waits_for"))


def parse_as_of(as_of: str | None, *, force: bool) -> datetime:
    """The instant a job decides with, UTC; the clock when none is given.

    Raises:
        UsageError: not a time with zone, or more than a day ahead of the clock without `force`.
    """
    clock = now()
    if not as_of:
        return clock
    try:
        instant = datetime.fromisoformat(as_of)
    except ValueError:
        message = f"as_of must be a time such as 2026-11-20T02:30:00+00:00, found {as_of!r}"
        raise UsageError(message) from None
    if not EARLIEST_YEAR < instant.year < LATEST_YEAR:
        message = f"as_of must lie between {EARLIEST_YEAR} and {LATEST_YEAR}, found {as_of!r}"
        raise UsageError(message)
    instant = instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    if instant > clock + AHEAD and not force:
        message = f"as_of {instant.isoformat()} is more than a day ahead of the clock; add --force if that is meant"
        raise UsageError(message)
    return instant


def chosen_shards(system: str, shard: int | None) -> set[int] | None:
    """The shards a job is limited to, or None for all.

    Raises:
        UsageError: the shard does not exist, or is not the system's.
    """
    if shard is not None and not 0 <= shard < layout.SHARDS:
        message = f"shard must lie in 0-{layout.SHARDS - 1}, found {shard}"
        raise UsageError(message)
    if not system:
        return None if shard is None else {shard}
    own = layout.shard_of(system)
    if shard not in {None, own}:
        message = f"system {system!r} lives in shard {own}, not in {shard}; leave one of the two out"
        raise UsageError(message)
    return {own}


def _label(batch: Sequence[Work], unit: Unit) -> str:
    first, last = batch[0].shard, batch[-1].shard
    shards = f"shard {first:03d}" if len(batch) == 1 else f"{len(batch)} shards {first:03d}-{last:03d}"
    return f"{shards} · {sum(part.count for part in batch):,} {unit.name}"
