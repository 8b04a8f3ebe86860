"""Texts and vectors of the rows of an upload that turned out to be needed.

They were read along with the keys when the upload is small; else a second child of the sandbox reads just the ranges that
hold them. What comes is compared with what the keys promised: row by row, digest by digest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from akosha.errors import InvalidUploadError
from akosha.transforms.digests import utf8_digests
from akosha.uploads.prepare import PreparedUpload
from akosha.uploads.sandbox import Ranges, Sandbox
from akosha.uploads.sources import RowFaults, checked_vectors, text_batches

MAX_RANGES: Final = 32  # of one table; each costs a query
NEAR_ROWS: Final = 8_192  # reading over so many unwanted rows costs less than another query


@dataclass(frozen=True, slots=True)
class WantedRows:
    """Some rows of one table of an upload, in its order.

    Attributes:
        table: the source table.
        wanted: the rows asked for (``upload.rows`` of the upsert), as many as `texts`.
        texts: schema ``TEXT_ROWS`` and content_sha256, vectors and digests checked.
    """

    table: str
    wanted: pa.Table
    texts: pa.Table

    def where(self, chosen: pa.ChunkedArray) -> WantedRows:
        """The rows for which `chosen` is true."""
        return WantedRows(self.table, self.wanted.filter(chosen), self.texts.filter(chosen))


def wanted_rows(upload: PreparedUpload, wanted: pa.Table, sandbox: Sandbox, faults: RowFaults) -> Iterator[WantedRows]:
    """The wanted rows with their texts, a batch at a time.

    Args:
        upload: the upload.
        wanted: columns position (ascending), source_table, record_id and others.
        sandbox: reads what was not read yet.
        faults: where to note vectors that the rules drop.

    Raises:
        InvalidUploadError: ``damaged``: the rows are not those whose keys were read.
    """
    if not wanted.num_rows:
        return
    by_table = {}
    positions = wanted.column("position").to_numpy()
    tables = wanted.column("source_table")
    for table in upload.reading.tables:
        mine = np.flatnonzero(np.asarray(tables.to_numpy(zero_copy_only=False) == table.name))
        if len(mine):
            by_table[table.name] = slice(int(mine[0]), int(mine[-1]) + 1)
    rows = {name: upload.source_rows[positions[part]] for name, part in by_table.items()}
    for name, path in _files(upload, rows, sandbox).items():
        asked = wanted.slice(by_table[name].start, len(rows[name]))
        for part, found, digests in _matched(upload, name, path, rows[name], asked):
            vectors = checked_vectors(found, part.column("record_id").combine_chunks(), faults)
            at = found.schema.get_field_index("embedding")
            texts = pa.Table.from_batches([found]).set_column(at, "embedding", vectors)
            yield WantedRows(name, part, texts.append_column("content_sha256", digests))


def _files(upload: PreparedUpload, rows: dict[str, NDArray[np.int64]], sandbox: Sandbox) -> dict[str, Path]:
    known = {table.name: table.texts for table in upload.reading.tables if table.texts is not None}
    if known:
        return {name: known[name] for name in rows}
    database = upload.fetched.records
    if database is None:
        return {}
    folder = Path(mkdtemp(prefix="texts-", dir=upload.fetched.folder)) / "rows"
    ranges: Ranges = {name: ranges_of(numbers) for name, numbers in rows.items()}
    return sandbox.read_rows(database, folder, ranges)


def ranges_of(rows: NDArray[np.int64]) -> list[tuple[int, int]]:
    """First and last row of up to `MAX_RANGES` ranges that hold the given rows (ascending) and few others."""
    gaps = np.diff(rows)
    wide = np.flatnonzero(gaps > NEAR_ROWS)
    widest = np.sort(wide[np.argsort(-gaps[wide], kind="stable")[: MAX_RANGES - 1]])
    firsts = np.concatenate([[0], widest + 1])
    lasts = np.concatenate([widest, [len(rows) - 1]])
    return [(int(rows[first]), int(rows[last])) for first, last in zip(firsts, lasts, strict=True)]


def _matched(
    upload: PreparedUpload, table: str, path: Path, rows: NDArray[np.int64], wanted: pa.Table
) -> Iterator[tuple[pa.Table, pa.RecordBatch, pa.Array]]:
    """The wanted rows, what was found of them, and the digests of their texts."""
    done = 0
    for batch in text_batches(table, path):
        numbers = batch.column("source_row").to_numpy(zero_copy_only=False)
        chosen = np.flatnonzero(np.isin(numbers, rows, assume_unique=False))
        if not len(chosen):
            continue
        part = wanted.slice(done, len(chosen))
        if not np.array_equal(numbers[chosen], rows[done : done + len(chosen)]):
            raise _other(upload, table)
        found = batch if len(chosen) == batch.num_rows else batch.take(pa.array(chosen))
        content = found.column("content")
        digests = upload.arrived.column("content_sha256").take(_places(upload, part)).combine_chunks().cast(pa.binary())
        if content.null_count or not utf8_digests(content).equals(digests):
            raise _other(upload, table)
        yield part, found, digests
        done += len(chosen)
    if done != len(rows):
        raise _other(upload, table)


def _places(upload: PreparedUpload, wanted: pa.Table) -> pa.Array:
    """Where the wanted positions stand in `arrived`, which lacks the refused duplicates."""
    arrived = upload.arrived.column("position").to_numpy()
    return pa.array(np.searchsorted(arrived, wanted.column("position").to_numpy()))


def _other(upload: PreparedUpload, table: str) -> InvalidUploadError:
    message = f"table {table} gave other rows when it was read again. Have the system upload again"
    return InvalidUploadError(message, reason="damaged", table=table, upload=upload.fetched.ref.manifest_key)
