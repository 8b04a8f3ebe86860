"""The rebuild proof: all uploads that still exist, replayed into an empty lake, give the export of the live lake.

The history is told again shard by shard: uploads when the live lake took them in, under the policy of that moment, and
between them the moves that were carried out, each with its own as_of and policy. A record may also lie where the last moves
put it when they are made once more: a forced back-fill makes uploads look younger than they are. Nothing is written to the live lake.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from akosha.embedding.cache import EmbeddingCache
from akosha.embedding.model import OUR_MODELS, load_lane_encoder
from akosha.embedding.source import Embedded, VectorSource
from akosha.errors import CommitConflictError, UsageError
from akosha.jobs import moves
from akosha.jobs.embed import CACHE_FILE
from akosha.jobs.ingest import uploads_source
from akosha.jobs.plans import chosen_shards, now, open_lake
from akosha.lake import layout
from akosha.lake.commits import Commit
from akosha.lake.documents import Document, unseal
from akosha.lake.export import export_shard
from akosha.lake.holds import holds
from akosha.lake.lake import Lake
from akosha.lake.schemas import KEY
from akosha.lake.shard_log import Writer
from akosha.quality.rebuilt import Allowed, Comparison, Key, Vector, compare
from akosha.tiers import hot_to_warm, warm_to_cold
from akosha.tiers.embed import OPERATION as EMBED
from akosha.tiers.embed import embed_shard
from akosha.uploads.ingest import Ingester
from akosha.uploads.memos import APPLIED, UNCHANGED, UploadRef, upload_of
from akosha.uploads.prepare import Source
from akosha.uploads.sandbox import Sandbox

RUN_ID: Final = "rebuild-proof"
TRIES: Final = 3
_Arrival = tuple[datetime, UploadRef]
TAKEN_IN: Final = frozenset({APPLIED, UNCHANGED})


@dataclass(slots=True)
class _Uploads:
    """The uploads that the live lake took in: what is there, what is gone, when each was taken in.

    `at` and `there` are by system and manifest time; `aside` counts uploads that were never taken in.
    """

    refs: dict[int, list[tuple[UploadRef, datetime]]] = field(default_factory=lambda: defaultdict(list))
    gone: list[str] = field(default_factory=list)
    incomplete: set[str] = field(default_factory=set)
    there: dict[str, set[datetime]] = field(default_factory=lambda: defaultdict(set))
    at: dict[tuple[str, datetime], datetime] = field(default_factory=dict)
    aside: int = 0

    def lose(self, ref: UploadRef, why: str) -> None:
        """Note an upload that cannot be replayed."""
        self.gone.append(f"{ref.manifest_key} ({why})")
        self.incomplete.add(ref.system_id)


@dataclass(frozen=True, slots=True)
class Move:
    """A move of one shard that was carried out: what decided it, and when it was planned. `until` cut it by age."""

    kind: str
    as_of: datetime
    until: datetime | None
    policy: int | None
    planned_at: datetime


@dataclass(frozen=True, slots=True)
class PlannedMove:
    """A run of a move: whether it ended well, and what it was to do by shard."""

    run_id: str
    ended_well: bool
    moves: Mapping[int, Move]


class _LikeLive(VectorSource):
    """Gives a vector only to texts whose record has one in the live lake: the others still wait there as well."""

    def __init__(self, cache: EmbeddingCache, wanted: set[bytes]) -> None:
        super().__init__(cache, load_lane_encoder, deadline=None)
        self._wanted = wanted

    def vectors(self, texts: Sequence[str], digests: Sequence[bytes]) -> tuple[dict[bytes, Embedded], int]:
        chosen = [(text, digest) for text, digest in zip(texts, digests, strict=True) if digest in self._wanted]
        return super().vectors([text for text, _ in chosen], [digest for _, digest in chosen])


def prove_rebuild(out: Path | None = None, *, system: str = "", shard: int | None = None) -> dict[str, Any]:
    """Replay all uploads that still exist into an empty lake and compare its export with the live lake's.

    Args:
        out: a new folder in which the rebuilt lake stays; None = a temporary one.
        system: only the shard of this system.
        shard: only this shard, 0-255.

    Returns:
        JSON-able: ``ok``, ``message``, ``counts``, ``differences`` (the first of them) and how many there are of each kind,
        ``uploads`` (replayed, gone, aside), ``held_shards`` that were left out, ``least_cosine``, ``out``.

    Raises:
        UsageError: `out` is there already, or the shard is not the system's.
        CommitConflictError: jobs went on committing while the uploads were listed.
    """
    only = chosen_shards(system, shard)
    live = open_lake()
    if out is not None and out.exists():
        message = f"--out {out} exists: name a new folder"
        raise UsageError(message)
    heads, uploads = _snapshot(live, only)
    with _folder(out) as folder:
        scratch, source = _empty_lake(live, folder), uploads_source(live.settings)
        proof = _Proof(live, scratch, source, uploads, _policies(live), planned_moves(live))
        comparison = Comparison()
        for head in heads:
            proof.judge(head, comparison)
    return _answer(comparison, proof, out)


@dataclass(slots=True)
class _Proof:
    live: Lake
    scratch: Lake
    source: Source
    uploads: _Uploads
    policies: dict[int, tuple[datetime, bytes]]
    planned: list[PlannedMove]
    held: list[int] = field(default_factory=list)
    deleting: set[str] = field(default_factory=set)
    replayed: int = 0

    def judge(self, head: Commit, into: Comparison) -> None:
        """Tell the history of one shard again and compare its end with the live one."""
        if head.held_by:
            self.held.append(head.shard)
            return
        live = export_shard(self.live, head)
        moved = moves_of(self.planned, self.live, head.shard)
        last = {move.kind: move for move in moved}
        with EmbeddingCache(self.live.settings.cache / CACHE_FILE) as cache, Sandbox() as sandbox:
            source = _LikeLive(cache, _with_vectors(live))
            for step in self._history(head.shard, live, moved):
                if isinstance(step, Move):
                    self._move(head.shard, step)
                else:
                    self._take_in(head.shard, step, sandbox)
                    embed_shard(self.scratch, head.shard, source, self._writer(now()))
            told = export_shard(self.scratch, self.scratch.shard(head.shard).head())
            for kind in sorted(last):
                self._move(head.shard, last[kind])
            made = _vectors_made(live, cache, source)
        aged = export_shard(self.scratch, self.scratch.shard(head.shard).head())
        compare(live, (told, aged), self._allowed(head, live, last), made, into)

    def _history(self, shard: int, live: pa.Table, moved: Sequence[Move]) -> Iterator[Move | list[_Arrival]]:
        """Moves, and between them the uploads of one day and policy together."""
        first_seen = _first_seen(live)
        arrivals = [
            (min(at, first_seen.get(ref.manifest_key, at)), ref) for ref, at in self.uploads.refs.get(shard, ())
        ]
        events: list[tuple[datetime, str, Move | UploadRef]] = [(move.planned_at, "", move) for move in moved]
        events += [(at, ref.manifest_key, ref) for at, ref in arrivals]
        group: list[_Arrival] = []
        for at, _, event in sorted(events, key=lambda event: event[:2]):
            if isinstance(event, Move):
                if group:
                    yield group
                    group = []
                yield event
                continue
            if group and self._chapter(group[-1][0]) != self._chapter(at):
                yield group
                group = []
            group.append((at, event))
        if group:
            yield group

    def _chapter(self, at: datetime) -> tuple[date, int]:
        return at.astimezone(UTC).date(), _policy_at(self.policies, at)

    def _use_policies(self, upto: int) -> None:
        """Let the rebuilt lake have the policies that there were then."""
        for number, (_, data) in self.policies.items():
            if number <= upto:
                self.scratch.store.put(layout.policy_key(number), data)
            else:
                self.scratch.store.delete(layout.policy_key(number))

    def _take_in(self, shard: int, arrivals: Sequence[_Arrival], sandbox: Sandbox) -> None:
        at = arrivals[0][0]
        self._use_policies(_policy_at(self.policies, at))
        self.deleting |= self.scratch.policy().delete_absent
        refs = [ref for _, ref in arrivals]
        outcome = Ingester(self.scratch, self.source, sandbox, self._writer(at)).ingest_shard(shard, refs)
        self.replayed += outcome.applied + outcome.unchanged
        self._note_lost(refs, outcome.reasons)

    def _note_lost(self, refs: Sequence[UploadRef], reasons: Sequence[Mapping[str, str]]) -> None:
        """An upload that cannot be read any more, although its manifest is there, is as good as gone."""
        by_key = {ref.manifest_key: ref for ref in refs}
        for reason in reasons:
            ref = by_key[reason["upload"]]
            self.uploads.lose(ref, reason["reason"])
            times = {time for (name, time) in self.uploads.at if name == ref.system_id}
            memo = unseal(self.live.store.get(ref.memo_key), kind="memo", key=ref.memo_key)
            self.uploads.there[ref.system_id] -= times & {datetime.fromisoformat(str(memo["manifest_time"]))}

    def _move(self, shard: int, move: Move) -> None:
        self._use_policies(max(self.policies))
        policy, writer = self.scratch.policy(move.policy), self._writer(now())
        carry_out = {moves.HOT_TO_WARM: hot_to_warm.move_batch, moves.WARM_TO_COLD: warm_to_cold.move_batch}[move.kind]
        carry_out(self.scratch, [shard], policy, writer, as_of=move.as_of, until=move.until)

    def _writer(self, at: datetime) -> Writer:
        return Writer(RUN_ID, self.scratch.policy().number, at)

    def _allowed(self, head: Commit, live: pa.Table, last: Mapping[str, Move]) -> Allowed:
        deciding = _deciding_times(self.live, head, live)
        moved_at = max((move.planned_at for move in last.values()), default=datetime.max.replace(tzinfo=UTC))
        excluded, late = set(), set()
        for key, (times, made) in deciding.items():
            if not times <= self.uploads.there.get(key[0], set()):
                excluded.add(key)
            taken_in = [self.uploads.at[key[0], time] for time in made if (key[0], time) in self.uploads.at]
            if taken_in and max(taken_in) >= moved_at:
                late.add(key)
        if _embedded_since(self.live, head.shard, moved_at):
            late |= _with_our_vectors(live)
        shared = self.live.settings.ambiguous | self.deleting
        policy = self.live.policy()
        resident = frozenset(system for system in head.keys if policy.rules(system).min_residence_days)
        held = {_key(row) for row in holds(self.live, head).to_pylist()}
        return Allowed(excluded, late, held, frozenset(shared & self.uploads.incomplete), resident)


def _embedded_since(lake: Lake, shard: int, instant: datetime) -> bool:
    """Whether vectors were filled in a shard after an instant: records without one may have waited at the last move."""
    log = lake.shard(shard)
    commits = (log.read(version) for version in log.versions())
    return any(
        commit.operation == EMBED and datetime.fromisoformat(commit.committed_at) >= instant for commit in commits
    )


def _with_our_vectors(live: pa.Table) -> set[Key]:
    rows = live.select([*KEY, "embedding_model"]).to_pylist()
    return {_key(row) for row in rows if row["embedding_model"] in OUR_MODELS}


def planned_moves(lake: Lake) -> list[PlannedMove]:
    """Every move of a lake that was planned and not a dry run, by the plans and summaries of its runs."""
    runs = {listed.key for listed in lake.store.list("runs/")}
    found = []
    for kind in (moves.HOT_TO_WARM, moves.WARM_TO_COLD):
        for key in sorted(key for key in runs if key.endswith(f"/plan-{kind}.json")):
            plan = unseal(lake.store.get(key), kind="plan", key=key)
            if plan["parameters"]["dry_run"]:
                continue
            summary = f"runs/{plan['run_id']}/summary-{kind}.json"
            ended = summary in runs and bool(unseal(lake.store.get(summary), kind="summary", key=summary)["ok"])
            parts = {part["shard"]: part["items"] for batch in plan["batches"] for part in batch}
            found.append(
                PlannedMove(plan["run_id"], ended, {shard: _move_of(plan, kind, parts[shard]) for shard in parts})
            )
    return found


def moves_of(planned: Sequence[PlannedMove], lake: Lake, shard: int) -> list[Move]:
    """Those that were carried out in a shard, since their run ended well or committed there, and not undone, in their order."""
    commits = [lake.shard(shard).read(version) for version in lake.shard(shard).versions()]
    undone = {one.run_id for commit in commits if commit.undo for one in commit.undo.undone}
    committed = {commit.run_id for commit in commits}
    found = [
        run.moves[shard]
        for run in planned
        if shard in run.moves and run.run_id not in undone and (run.ended_well or run.run_id in committed)
    ]
    return sorted(found, key=lambda move: (move.planned_at, move.kind))


def _move_of(plan: Document, kind: str, until: str | None) -> Move:
    parameters = plan["parameters"]
    return Move(
        kind=kind,
        as_of=datetime.fromisoformat(str(parameters["as_of"])),
        until=datetime.fromisoformat(until) if until else None,
        policy=parameters.get("policy") or None,
        planned_at=datetime.fromisoformat(plan["planned_at"]),
    )


def _snapshot(live: Lake, only: set[int] | None) -> tuple[list[Commit], _Uploads]:
    """Heads, and the uploads they are made of: read between two equal looks at the heads."""
    source = uploads_source(live.settings)
    for _ in range(TRIES):
        heads = [head for head in live.heads() if only is None or head.shard in only]
        uploads = _taken_in(live, source, [head.shard for head in heads])
        again = {head.shard: head.sha256 for head in live.heads()}
        if all(again.get(head.shard) == head.sha256 for head in heads):
            return heads, uploads
    message = "jobs go on committing while the uploads are listed; pause the DAGs, or try again when they are idle"
    raise CommitConflictError(message)


def _taken_in(live: Lake, source: Source, shards: Sequence[int]) -> _Uploads:
    uploads = _Uploads()
    for shard in shards:
        uploads.aside += sum(1 for _ in live.store.list(layout.quarantine_prefix(shard)))
        names = [listed.key for listed in live.store.list(f"{layout.MEMO_PREFIX}{shard:03d}/")]
        undone = {mark[0] for mark in map(layout.parse_undone_key, names) if mark is not None}
        for name in names:
            if not layout.is_memo_key(name):
                continue
            if name in undone:
                uploads.aside += 1
                continue
            memo = unseal(live.store.get(name), kind="memo", key=name)
            if memo["outcome"] not in TAKEN_IN:
                uploads.aside += 1
                continue
            ref, at = upload_of(memo), datetime.fromisoformat(str(memo["at"]))
            found = source.store.stat(ref.manifest_key)
            if found is None or found.etag != ref.etag:
                uploads.lose(ref, "no longer there" if found is None else "written anew")
                continue
            time = datetime.fromisoformat(str(memo["manifest_time"]))
            uploads.refs[shard].append((ref, at))
            uploads.there[ref.system_id].add(time)
            uploads.at[ref.system_id, time] = at
    return uploads


def _deciding_times(lake: Lake, head: Commit, live: pa.Table) -> dict[Key, tuple[set[datetime], set[datetime]]]:
    """Manifest times of the uploads that decided a record (text, time, details), and of those that made it what it is.

    The second leaves out the newest upload that held it: holding it once more changes no text and no time.
    """
    made: dict[Key, set[datetime]] = {}
    for row in live.select([*KEY, "provenance"]).to_pylist():
        told = _manifest_time(row["provenance"])
        made[_key(row)] = set() if told is None else {told}
    times = {key: (set(held), held) for key, held in made.items()}
    for system, entry in head.keys.items():
        newest = datetime.fromisoformat(entry.newest_manifest)
        columns = ["source_table", "record_id", "time_manifest", "in_newest", "applied_manifest"]
        for row in lake.keys(entry).select(columns).to_pylist():
            decided, own = times.setdefault((system, row["source_table"], row["record_id"]), (set(), set()))
            own.add(row["time_manifest"])
            decided |= {row["time_manifest"], newest if row["in_newest"] else row["applied_manifest"]}
    return times


def _key(row: Mapping[str, Any]) -> Key:
    return row["system_id"], row["source_table"], row["record_id"]


def _with_vectors(live: pa.Table) -> set[bytes]:
    rows = live.select(["content_sha256", "embedding_model"]).to_pylist()
    return {bytes.fromhex(row["content_sha256"]) for row in rows if row["embedding_model"] is not None}


def _first_seen(live: pa.Table) -> dict[str, datetime]:
    """By manifest key, the end of the day on which records of an upload came into the live lake: a forced back-fill dates its memo anew."""
    seen: dict[str, datetime] = {}
    for text in set(live.column("provenance").to_pylist()):
        told = json.loads(text)
        if told.get("ingested_on") and told.get("upload"):
            day = datetime.fromisoformat(told["ingested_on"]).replace(tzinfo=UTC)
            end = day + timedelta(days=1, microseconds=-1)
            seen[told["upload"]] = min(end, seen.get(told["upload"], end))
    return seen


def _manifest_time(provenance: str) -> datetime | None:
    told = json.loads(provenance).get("manifest_time")
    return datetime.fromisoformat(told).astimezone(UTC) if told else None


def _vectors_made(live: pa.Table, cache: EmbeddingCache, source: VectorSource) -> dict[Key, Vector | None]:
    """Vectors of our own, made anew from the texts, by the model that the live lake names; None where it is not here."""
    by_model: dict[str, list[tuple[Key, str, bytes]]] = defaultdict(list)
    for row in live.select([*KEY, "content", "content_sha256", "embedding_model"]).to_pylist():
        if row["embedding_model"] in OUR_MODELS:
            by_model[row["embedding_model"]].append((_key(row), row["content"], bytes.fromhex(row["content_sha256"])))
    made: dict[Key, Vector | None] = {}
    for model, wanted in by_model.items():
        cached = cache.get_many(model, [digest for _, _, digest in wanted])
        missing = [(text, digest) for _, text, digest in wanted if digest not in cached]
        fresh, _ = source.vectors([text for text, _ in missing], [digest for _, digest in missing])
        cached |= {digest: found.vector for digest, found in fresh.items() if found.model_id == model}
        made |= {key: cached.get(digest) for key, _, digest in wanted}
    return made


def _policies(live: Lake) -> dict[int, tuple[datetime, bytes]]:
    """Number -> when it was made, and its bytes; ascending."""
    found = {}
    for listed in live.store.list(layout.POLICY_PREFIX):
        data = live.store.get(listed.key)
        document = unseal(data, kind="policy", key=listed.key)
        found[int(document["number"])] = (datetime.fromisoformat(str(document["made_at"])), data)
    return dict(sorted(found.items()))


def _policy_at(policies: Mapping[int, tuple[datetime, bytes]], instant: datetime) -> int:
    """The policy in force at an instant; the first one before that."""
    made = [number for number, (made_at, _) in policies.items() if made_at <= instant]
    return max(made, default=min(policies))


def _empty_lake(live: Lake, folder: Path) -> Lake:
    """A lake in a folder with the settings of the live one; the gate of recall is not asked again."""
    settings = live.settings.model_copy(
        update={"lake_url": f"file://{folder.resolve()}/lake", "cold_url": "", "recall_floor": 0.0}
    )
    return Lake.create(settings, now=now())


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    if out is not None:
        out.mkdir(parents=True)
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="akosha-rebuild-") as folder:
        yield Path(folder)


def _answer(comparison: Comparison, proof: _Proof, out: Path | None) -> dict[str, Any]:
    counts, differences = dict(comparison.counts), comparison.kinds.total()
    message = (
        f"{proof.replayed} uploads replayed, {len(proof.uploads.gone)} no longer exist; of {counts.get('records', 0):,} live "
        f"records {counts.get('equal', 0):,} are equal in the rebuilt lake, {counts.get('excluded', 0):,} are excluded since "
        f"an upload that decided them is gone; least cosine {comparison.least_cosine:.6f}"
    )
    if proof.held:
        message += f"; held shards left out: {proof.held}"
    message += f"; {differences:,} DIFFERENCES" if differences else "; no difference"
    return {
        "ok": not differences,
        "message": message,
        "counts": counts,
        "least_cosine": comparison.least_cosine,
        "difference_kinds": dict(comparison.kinds),
        "differences": comparison.differences,
        "uploads": {"replayed": proof.replayed, "gone": proof.uploads.gone, "aside": proof.uploads.aside},
        "held_shards": proof.held,
        "out": str(out) if out is not None else "",
    }
