"""How fast exact search is, as ratios measured in one run: ``python -m benchmarks.search [--rows 60000]``."""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from akosha.lake.columns import codes_column, vectors_column
from akosha.lake.edit import edit_shard
from akosha.lake.lake import Lake
from akosha.lake.layout import shard_of
from akosha.lake.provenance import about, record_provenance
from akosha.lake.schemas import HOT, WARM
from akosha.lake.shard_log import Writer
from akosha.search.engine import search
from akosha.search.query import SearchQuery
from akosha.search.sidecars import Sidecars
from akosha.settings import Settings
from akosha.transforms.quantization import quantize
from akosha.transforms.recall import unit

NOW = datetime(2026, 11, 20, tzinfo=UTC)
SYSTEMS = 16
QUERIES = 40
PROVENANCE = record_provenance(upload="u", etag="e", file_sha256="f", manifest_time=NOW.isoformat())


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall time of one query, in milliseconds."""

    p50_ms: float
    p99_ms: float


def clustered(rows: int) -> np.ndarray:
    """Vectors in 500 clusters, float32 ``(rows, 384)``: neighbours are closer than noise, as texts are."""
    random = np.random.default_rng(1)
    centres = random.normal(size=(500, 384)).astype(np.float32)
    return centres[random.integers(0, 500, rows)] + random.normal(size=(rows, 384), scale=0.7).astype(np.float32)


def build(lake: Lake, vectors: np.ndarray) -> None:
    """One tenth in hot, the rest in warm, spread over systems."""
    share = len(vectors) // SYSTEMS
    for number in range(SYSTEMS):
        system = f"bench-{number}"
        ours = vectors[number * share : (number + 1) * share]
        head = lake.shard(shard_of(system)).head()
        with edit_shard(lake, head, about()) as edit:
            edit.put("hot", table(system, ours[: share // 10], hot=True))
            edit.put("warm", table(system, ours[share // 10 :], hot=False))
            edit.publish("ingest", Writer("benchmark", 1, NOW), counts={})


def table(system: str, vectors: np.ndarray, *, hot: bool) -> pa.Table:
    """Rows of hot or warm with the given vectors."""
    count, present = len(vectors), np.ones(len(vectors), dtype=bool)
    texts = [f"{system} {hot} {number}" for number in range(count)]
    codes, scales = quantize(vectors)
    columns = {
        "system_id": [system] * count,
        "source_table": ["conversations"] * count,
        "record_id": texts,
        "created_at": pa.array([NOW - timedelta(seconds=n) for n in range(count)], pa.timestamp("us", tz="UTC")),
        "content_sha256": pa.array([hashlib.sha256(text.encode()).digest() for text in texts], pa.binary()),
        "fingerprint": pa.array([b"f" * 512] * count, pa.binary()),
        "embedding": vectors_column(vectors, present),
        "codes": codes_column(codes, present),
        "scale": scales,
        "embedding_model": ["client"] * count,
        "project": ["web"] * count,
        "metadata": ["{}"] * count,
        "attributes": ["{}"] * count,
        "provenance": [PROVENANCE] * count,
        "time_evidence": ["id"] * count,
    } | dict.fromkeys(("content", "summary", "sentence"), texts)
    schema = HOT if hot else WARM
    return pa.table({name: columns[name] for name in schema.names}).cast(schema)


def timed(ask: Callable[[np.ndarray], object], queries: np.ndarray) -> Timing:
    """Wall time of each query in one thread of control, after one to warm up."""
    ask(queries[0])
    taken = []
    for query in queries:
        start = time.perf_counter()
        ask(query)
        taken.append((time.perf_counter() - start) * 1e3)
    return Timing(float(np.percentile(taken, 50)), float(np.percentile(taken, 99)))


def found_texts(lake: Lake, sidecars: Sidecars, query: np.ndarray) -> set[str]:
    return {hit.place.record_id for hit in search(lake, query, SearchQuery(), sidecars=sidecars).hits}


def recall(lake: Lake, sidecars: Sidecars, vectors: np.ndarray, queries: np.ndarray) -> float:
    """Recall@10 of the whole engine against exact FLOAT over all rows."""
    exact, share = unit(vectors), len(vectors) // SYSTEMS
    hits = 0
    for query in queries:
        rows = np.argpartition(-(exact @ query), 10)[:10]
        places = [(row // share, row % share) for row in rows.tolist()]
        names = {f"bench-{s} {n < share // 10} {n if n < share // 10 else n - share // 10}" for s, n in places}
        hits += len(names & found_texts(lake, sidecars, query))
    return hits / (10 * len(queries))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000)
    rows = parser.parse_args().rows // SYSTEMS * SYSTEMS
    vectors = clustered(rows)
    queries = vectors[:: rows // QUERIES][:QUERIES] + np.random.default_rng(2).normal(size=(QUERIES, 384), scale=0.5)
    queries = queries.astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        environment = {"AKOSHA_LAKE_URL": f"file://{folder}/lake", "AKOSHA_CACHE_DIR": f"{folder}/cache"}
        lake = Lake.create(Settings.from_environment(environment), now=NOW)
        build(lake, vectors)
        report(lake, vectors, queries, Path(folder))


def report(lake: Lake, vectors: np.ndarray, queries: np.ndarray, folder: Path) -> None:
    start = time.perf_counter()
    search(lake, queries[0], SearchQuery())
    building = time.perf_counter() - start
    start = time.perf_counter()
    sidecars = Sidecars(lake)
    search(lake, queries[0], SearchQuery(), sidecars=sidecars)
    opening = time.perf_counter() - start
    exact = unit(vectors)
    floats = timed(lambda query: np.argpartition(-(exact @ query), 10)[:10], queries)
    engine = timed(lambda query: search(lake, query, SearchQuery(), sidecars=sidecars), queries)
    one = timed(lambda query: search(lake, query, SearchQuery(systems=("bench-3",)), sidecars=sidecars), queries)
    size = sum(path.stat().st_size for path in (folder / "cache" / "sidecars").rglob("*") if path.is_file())
    found = recall(lake, sidecars, vectors, queries)
    print(f"{len(vectors)} vectors in {SYSTEMS} shards, a tenth of them in hot, {QUERIES} queries, k = 10")
    print(f"sidecars made      {len(vectors) / building:12,.0f} rows/s   {size / len(vectors):.0f} bytes a row")
    print(f"sidecars opened    {opening * 1e3:12.1f} ms with the first query, checked by CRC-32")
    print(f"engine, no filter  {engine.p50_ms:12.1f} ms p50 {engine.p99_ms:8.1f} ms p99")
    print(f"engine, one system {one.p50_ms:12.1f} ms p50 {one.p99_ms:8.1f} ms p99")
    print(f"numpy float32      {floats.p50_ms:12.1f} ms p50 {floats.p99_ms:8.1f} ms p99, all in one matrix in memory")
    print(
        f"ratio engine / numpy float32 {engine.p50_ms / floats.p50_ms:.2f}; one system / all {one.p50_ms / engine.p50_ms:.2f}"
    )
    print(f"recall@10 against exact FLOAT {found:.4f}")


if __name__ == "__main__":
    main()
