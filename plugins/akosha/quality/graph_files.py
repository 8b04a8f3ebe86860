"""The rules that the graph files of one head keep."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pyarrow.compute as pc

from akosha.lake.commits import Commit, GraphFile
from akosha.lake.graph_schema import ENTITY, KINDS, OBSERVATION
from akosha.lake.lake import Lake
from akosha.quality.findings import FsckReport


def check_graphs(lake: Lake, head: Commit, report: FsckReport) -> None:
    """Every graph file holds what its entry says: rows of each kind, each key once, each text with its digest.

    Raises:
        IntegrityError: a file is damaged.
        ObjectMissingError: a file is missing.
    """
    for entry in head.graphs.values():
        _check_graph(lake.graph(entry), entry, head.shard, report)
        report.checked["graphs"] += 1


def _check_graph(table: pa.Table, entry: GraphFile, shard: int, report: FsckReport) -> None:
    counts = {kind: int(pc.sum(pc.equal(table.column("kind"), kind), min_count=0).as_py()) for kind in KINDS}
    expected = dict(zip(KINDS, (entry.entities, entry.relations, entry.observations), strict=True))
    if counts != expected or table.num_rows != entry.rows:
        message = f"its commit says {expected}, it holds {counts}; put back the file that its commit describes"
        report.damage("row_count", message, key=entry.path, shard=shard, kind="graph")
    doubled = table.num_rows - len(set(_keys(table)))
    if doubled:
        message = f"{doubled} entities, relations or observations are there twice; ingest the uploads of {entry.system_id!r} again"
        report.damage("graph_doubled", message, key=entry.path, shard=shard, kind="graph")
    notes = table.filter(pc.equal(table.column("kind"), OBSERVATION))
    entities = table.filter(pc.equal(table.column("kind"), ENTITY)).column("id")
    strays = notes.num_rows - int(pc.sum(pc.is_in(notes.column("id"), value_set=entities), min_count=0).as_py())
    if strays:
        message = f"{strays} observations are of no entity; ingest the uploads of {entry.system_id!r} again"
        report.damage("graph_stray", message, key=entry.path, shard=shard, kind="graph")
    _check_texts(notes, entry, shard, report)


def _keys(table: pa.Table) -> list[tuple[str, str, bytes]]:
    digests = table.column("content_sha256").to_pylist()
    kinds, ids = (table.column(name).to_pylist() for name in ("kind", "id"))
    return [
        (kind, own, digest if kind == OBSERVATION else b"")
        for kind, own, digest in zip(kinds, ids, digests, strict=True)
    ]


def _check_texts(notes: pa.Table, entry: GraphFile, shard: int, report: FsckReport) -> None:
    pairs = zip(notes.column("text").to_pylist(), notes.column("content_sha256").to_pylist(), strict=True)
    wrong = sum(text is None or hashlib.sha256(text.encode()).digest() != digest for text, digest in pairs)
    if wrong:
        message = f"{wrong} observations do not have their digest; ingest the uploads of {entry.system_id!r} again"
        report.damage("content_digest", message, key=entry.path, shard=shard, kind="graph")
