"""Vectors that came with uploads: are they those of our model? Judged by a small sample of each system's records in hot.

What was found is remembered in one sealed document of the lake, written when a run ends: what is remembered too little
is judged again, so nothing depends on it. A system is judged when it is new, and again when its records have changed:
at once if it was foreign, else after a day.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from akosha.embedding.source import VectorSource
from akosha.errors import ObjectMissingError
from akosha.lake.commits import Commit
from akosha.lake.documents import seal, unseal
from akosha.lake.lake import Lake
from akosha.lake.schemas import CLIENT_MODEL, KEY

VERDICTS: Final = "runs/client-vectors.json"
KIND: Final = "client-vectors"
SAMPLE_RECORDS: Final = 8
# Other models lie near 0; the same model on other hardware, or cut a few tokens earlier, stays above.
LEAST_COSINE: Final = 0.95
JUDGE_AGAIN_AFTER: Final = timedelta(days=1)

Policy = Literal["keep", "verify", "replace"]
Finding = Literal["own", "foreign", "none"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one system.

    Attributes:
        system_id: whose vectors.
        finding: ``own`` = of our model and kept, ``foreign`` = to be replaced, ``none`` = it had none in hot.
        sampled: records compared; 0 where the policy asks for no comparison.
        agreeing: how many of them had our model's vector.
        replaced: vectors that the run which judged replaced.
        left: vectors still to be replaced.
        policy: AKOSHA_CLIENT_VECTORS at that time.
        keys_sha256: digest of the system's key file at that time; another one = its records have changed.
        judged_at: UTC, ISO.
    """

    system_id: str
    finding: Finding
    sampled: int
    agreeing: int
    replaced: int
    left: int
    policy: str
    keys_sha256: str
    judged_at: str


def read_verdicts(lake: Lake) -> dict[str, Verdict]:
    """What is remembered, by system.

    Raises:
        IntegrityError: the document is damaged; delete it, and every system is judged again.
    """
    try:
        document = unseal(lake.store.get(VERDICTS), kind=KIND, key=VERDICTS)
    except ObjectMissingError:
        return {}
    return {one["system_id"]: Verdict(**one) for one in document["systems"]}


def remember(lake: Lake, verdicts: Iterable[Verdict]) -> None:
    """Add verdicts to what is remembered, replacing those of the same systems. Without any nothing is written."""
    fresh = {verdict.system_id: verdict for verdict in verdicts}
    if not fresh:
        return
    merged = read_verdicts(lake) | fresh
    systems = [asdict(verdict) for _, verdict in sorted(merged.items())]
    lake.store.put(VERDICTS, seal({"format": f"akosha-{KIND}/1", "systems": systems}))


def due_systems(head: Commit, verdicts: Mapping[str, Verdict], policy: Policy, now: datetime) -> list[str]:
    """Systems of a shard whose vectors are to be judged, or whose replacement is not finished. Opens nothing."""
    if policy == "keep" or not head.of_tier("hot"):
        return []
    return [
        system for system, keys in sorted(head.keys.items()) if _is_due(verdicts.get(system), keys.sha256, policy, now)
    ]


def _is_due(verdict: Verdict | None, keys_sha256: str, policy: Policy, now: datetime) -> bool:
    if verdict is None or verdict.policy != policy or verdict.left:
        return True
    if verdict.keys_sha256 == keys_sha256:
        return False
    judged = datetime.fromisoformat(verdict.judged_at)
    return verdict.finding == "foreign" or now - judged >= JUDGE_AGAIN_AFTER


def judge(
    lake: Lake, head: Commit, systems: Collection[str], source: VectorSource, *, policy: Policy, now: datetime
) -> list[Verdict]:
    """Judge systems by their newest records in hot with a client's vector, `SAMPLE_RECORDS` of each.

    Returns:
        One verdict for each system, less those for whose sample the budget did not last. Nothing is replaced yet:
        `left` says how many are to be.
    """
    counts, sample = _sampled(lake, head, systems, 0 if policy == "replace" else SAMPLE_RECORDS)
    digests = sample.column("content_sha256").to_pylist()
    source.expect(len(digests))
    vectors, _ = source.vectors(sample.column("content").to_pylist(), digests)
    agreeing: dict[str, list[bool]] = {}
    unfinished = set()
    for row in sample.to_pylist():
        ours = vectors.get(row["content_sha256"])
        if ours is None:
            unfinished.add(row["system_id"])
            continue
        theirs = np.asarray(row["embedding"], dtype=np.float64)
        cosine = float(theirs @ ours.vector) / max(float(np.linalg.norm(theirs)), 1e-30)
        agreeing.setdefault(row["system_id"], []).append(cosine >= LEAST_COSINE)
    return [
        _verdict(head, system, counts.get(system, 0), agreeing.get(system, []), policy, now)
        for system in sorted(systems)
        if system in head.keys and system not in unfinished
    ]


def _verdict(head: Commit, system: str, count: int, agreeing: list[bool], policy: Policy, now: datetime) -> Verdict:
    foreign = count > 0 and (policy == "replace" or 2 * sum(agreeing) < len(agreeing))
    return Verdict(
        system_id=system,
        finding="foreign" if foreign else "own" if count else "none",
        sampled=len(agreeing),
        agreeing=sum(agreeing),
        replaced=0,
        left=count if foreign else 0,
        policy=policy,
        keys_sha256=head.keys[system].sha256,
        judged_at=now.isoformat(),
    )


def _sampled(lake: Lake, head: Commit, systems: Collection[str], each: int) -> tuple[dict[str, int], pa.Table]:
    """Client's vectors in hot by system, and the newest records of each system that carry one, ties by key."""
    found: list[pa.Table] = []
    for entry in head.of_tier("hot"):
        rows = lake.rows(entry, [*KEY, "created_at", "embedding_model"])
        theirs = pc.and_(
            pc.is_in(rows.column("system_id"), pa.array(sorted(systems), pa.string())),
            pc.fill_null(pc.equal(rows.column("embedding_model"), CLIENT_MODEL), fill_value=False),
        )
        rows = rows.filter(theirs)
        found.append(rows.append_column("path", pa.repeat(pa.scalar(entry.path, pa.string()), rows.num_rows)))
    newest = pa.concat_tables(found).sort_by(
        [
            ("system_id", "ascending"),
            ("created_at", "descending"),
            ("source_table", "ascending"),
            ("record_id", "ascending"),
        ]
    )
    counts: dict[str, int] = {}
    chosen: dict[str, list[int]] = {}
    places = zip(*(newest.column(name).to_pylist() for name in ("system_id", "path", "row")), strict=True)
    for system, path, row in places:
        counts[system] = counts.get(system, 0) + 1
        if counts[system] <= each:
            chosen.setdefault(path, []).append(row)
    return counts, _texts_and_vectors(lake, head, chosen)


def _texts_and_vectors(lake: Lake, head: Commit, chosen: Mapping[str, list[int]]) -> pa.Table:
    names = ["system_id", "content_sha256", "content", "embedding"]
    parts = [lake.rows(head.files[path], names) for path in sorted(chosen)]
    picked = [
        part.filter(pc.is_in(part.column("row"), pa.array(chosen[path], pa.uint32())))
        for path, part in zip(sorted(chosen), parts, strict=True)
    ]
    empty = pa.table({"system_id": pa.array([], pa.string()), "content_sha256": pa.array([], pa.binary()),
                      "content": pa.array([], pa.string()), "embedding": pa.array([], pa.list_(pa.float32()))})  # fmt: skip
    return pa.concat_tables([part.drop_columns(["row"]) for part in picked]) if picked else empty
