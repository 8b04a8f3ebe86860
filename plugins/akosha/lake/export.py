"""A lossless copy of a lake as Parquet: one row per live record, whichever tier it is in."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from akosha.errors import IntegrityError, UsageError
from akosha.lake.columns import codes_of, packed_codes
from akosha.lake.commits import TIERS, Commit, Tier
from akosha.lake.files import ROW
from akosha.lake.graph_export import export_graphs
from akosha.lake.lake import Lake
from akosha.lake.provenance import is_unarchived
from akosha.lake.schemas import ARCHIVE, DIMENSION, HOT, KEY

EXPORT: Final = pa.schema(
    [
        *[HOT.field(name) for name in KEY],
        pa.field("tier", pa.string(), nullable=False),
        HOT.field("created_at"),
        HOT.field("time_evidence"),
        pa.field("content_sha256", pa.string(), nullable=False),
        pa.field("content", pa.string()),
        HOT.field("summary"),
        HOT.field("embedding"),
        pa.field("codes", pa.binary(DIMENSION)),
        pa.field("scale", pa.float32()),
        HOT.field("embedding_model"),
        HOT.field("fingerprint"),
        *[HOT.field(name) for name in ("project", "metadata", "attributes", "provenance")],
    ]
)
_FROM_ARCHIVE: Final = ("content", "embedding", "codes", "scale")


@dataclass(frozen=True, slots=True)
class Exported:
    """Rows written per tier, the files of records, rows of knowledge graphs per kind, and their files below ``graph/``."""

    rows: dict[str, int]
    files: list[str]
    graph_rows: dict[str, int]
    graph_files: list[str]


def export(lake: Lake, folder: Path) -> Exported:
    """Write ``shard-NNN.parquet`` files into a new folder, sorted by key; the folder appears when it is complete.

    Knowledge graphs are written beside the records (`export_graphs`).

    ``content_sha256`` is hex, of the original bytes. ``embedding`` is there where FLOAT is kept (hot, audit sample),
    ``codes`` and ``scale`` in warm and cold: a value is code * scale. Full text of warm and cold comes from the archive.

    Raises:
        UsageError: the folder exists and is not empty.
        IntegrityError: a warm or cold record has no archived text.
    """
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        message = f"--out {folder} exists and is not an empty folder: name a new one"
        raise UsageError(message)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    rows: dict[str, int] = dict.fromkeys(TIERS, 0)
    names = []
    heads = lake.heads()
    for head in heads:
        table = export_shard(lake, head)
        if table.num_rows:
            names.append(f"shard-{head.shard:03d}.parquet")
            pq.write_table(table, unfinished / names[-1], compression="zstd", write_page_checksum=True)
        for tier in TIERS:
            rows[tier] += pc.sum(pc.equal(table.column("tier"), tier), min_count=0).as_py()
    graph_rows, graph_files = export_graphs(lake, heads, unfinished)
    if folder.exists():
        folder.rmdir()
    unfinished.rename(folder)
    return Exported(rows, names, graph_rows, graph_files)


def export_shard(lake: Lake, head: Commit) -> pa.Table:
    """All live records of one shard, schema ``EXPORT``, sorted by key."""
    archive = pa.concat_tables(
        [ARCHIVE.empty_table(), *[lake.rows(entry).drop_columns([ROW]) for entry in head.of_tier("archive")]]
    )
    parts = [EXPORT.empty_table()]
    for tier in TIERS:
        for entry in head.of_tier(tier):
            rows = lake.rows(entry).drop_columns([ROW])
            parts.append(_hot(rows) if tier == "hot" else _archived(rows, tier, archive, head.shard))
    return pa.concat_tables(parts).sort_by([(name, "ascending") for name in KEY])


def _hot(rows: pa.Table) -> pa.Table:
    empty = np.zeros(rows.num_rows, dtype=bool)
    codes = packed_codes(np.zeros((0, DIMENSION), np.int8), empty)
    return _finished(
        rows.append_column("codes", codes).append_column("scale", pa.nulls(rows.num_rows, pa.float32())), "hot"
    )


def _archived(rows: pa.Table, tier: Tier, archive: pa.Table, shard: int) -> pa.Table:
    """Warm or cold rows with their archived text and codes; without text those that the archive was not to take (I11)."""
    wanted = rows.select([*KEY]).append_column("at", pa.array(range(rows.num_rows)))
    numbered = archive.select([*KEY]).append_column("from", pa.array(range(archive.num_rows)))
    joined = wanted.join(numbered, list(KEY), join_type="left outer").sort_by("at")
    lacking = joined.column("from").is_null()
    if (
        joined.num_rows != rows.num_rows
        or pc.any(pc.and_(lacking, pc.invert(is_unarchived(rows.column("provenance"))))).as_py()
    ):
        message = "a record of an older tier has no archived text; run `akosha fsck`"
        raise IntegrityError(message, shard=shard, tier=tier)
    kept = archive.take(joined.column("from").combine_chunks())
    own = _codes_of_warm(rows) if tier == "warm" else {}
    for name in _FROM_ARCHIVE:
        column = kept.column(name)
        if name in rows.column_names:
            rows = rows.drop_columns([name])
        # A record that the archive was not to take has no text, but in warm it has its own codes.
        rows = rows.append_column(name, pc.if_else(lacking, own[name], column) if name in own else column)
    return _finished(rows, tier)


def _codes_of_warm(rows: pa.Table) -> dict[str, pa.Array]:
    codes, _, present = codes_of(rows.column("codes"), rows.column("scale"))
    return {"codes": packed_codes(codes, present), "scale": rows.column("scale").combine_chunks()}


def _finished(rows: pa.Table, tier: Tier) -> pa.Table:
    digests = [digest.hex() for digest in rows.column("content_sha256").to_pylist()]
    at = rows.schema.get_field_index("content_sha256")
    return (
        rows.set_column(at, "content_sha256", pa.array(digests, pa.string()))
        .append_column("tier", pa.repeat(pa.scalar(tier, pa.string()), rows.num_rows))
        .select(EXPORT.names)
        .cast(EXPORT)
    )
