"""Writing and reading the files of a tier. A file is written once, verified by reading it back, and never changed.

Hot and warm are DuckDB files with a table ``records`` and a table ``about``; cold, archive and key files are Parquet
with page checksums and the same facts in the file's metadata.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from akosha.errors import DiskFullError, IntegrityError
from akosha.lake import duck
from akosha.lake.failpoints import around
from akosha.lake.schemas import BY_TIER, KEY
from akosha.lake.sql import statement

FORMAT: Final = "akosha-file/1"
ROW: Final = "row"
MAX_ROWS: Final = 20_000
MAX_TEXT_BYTES: Final = 48 << 20  # of one file: a task holds it several times over while it is written and verified
DUCKDB_KINDS: Final = frozenset({"hot", "warm"})
BLOCK_BYTES: Final = 1 << 20
SHORT_TEXT_BYTES: Final = 2_048  # on average: not worth compressing in a file of few rows
VERIFIED_ROWS: Final = 2_048
ZSTD_LEVEL: Final = 1
COLD_ZSTD_LEVEL: Final = 3  # fingerprints, most of a cold row: 370 bytes instead of 420, for 11 us of CPU a row


@around("file write")
def write(table: pa.Table, path: Path, *, kind: str, about: dict[str, str]) -> None:
    """Write `table` to a new file and close it.

    Args:
        table: rows in the order they will keep, with the columns of ``BY_TIER[kind]``.
        path: must not exist.
        kind: hot, warm, cold, archive or keys.
        about: names of codecs and models, written next to the data.

    Raises:
        DiskFullError: the local disk is full.
    """
    facts = {"format": FORMAT, "kind": kind, **about}
    if kind in DUCKDB_KINDS:
        _write_duckdb(table, path, kind, facts)
    else:
        _write_parquet(table, path, facts, level=COLD_ZSTD_LEVEL if kind == "cold" else ZSTD_LEVEL)


def read(path: Path, *, kind: str, columns: Sequence[str] = (), before: datetime | None = None) -> pa.Table:
    """Rows of a file in their order, with their numbers in the uint32 column ``row``, last.

    Args:
        path: a local file.
        kind: as in `write`.
        columns: which, default all of the schema.
        before: only rows with `created_at` before this instant.

    Raises:
        IntegrityError: the file is damaged; every block and page read is checked.
    """
    names = list(columns) or BY_TIER[kind].names
    if kind in DUCKDB_KINDS:
        return _read_duckdb(path, kind, names, before)
    return _read_parquet(path, kind, names, before)


def read_about(path: Path, *, kind: str) -> dict[str, str]:
    """What a file says of itself: format, kind, codecs and models."""
    if kind in DUCKDB_KINDS:
        with duck.connection(path) as con:
            duck.attach_existing(con, path)
            return dict(con.execute(statement("read_about")).fetchall())
    metadata = pq.read_schema(path).metadata or {}
    return {key.decode(): value.decode() for key, value in metadata.items() if not key.startswith(b"ARROW")}


@around("file read back")
def verify_written(table: pa.Table, path: Path, *, kind: str) -> None:
    """Reopen a file just written and compare every value of every row with what was meant.

    Raises:
        IntegrityError: something differs.
    """
    rows = 0
    for found in _pieces_of(path, kind):
        meant = table.slice(rows, found.num_rows)
        rows += found.num_rows
        for name in table.column_names:
            if not found.column(name).equals(meant.column(name)):
                message = "a file read back differs from what was written; nothing was committed"
                raise IntegrityError(message, path=str(path), column=name)
    if rows != table.num_rows:
        message = "a file read back has another number of rows than were written; nothing was committed"
        raise IntegrityError(message, path=str(path), expected=table.num_rows, found=rows)


def _pieces_of(path: Path, kind: str) -> Iterator[pa.Table]:
    """A file read back: whole, or row group by row group where it may be as large as a system's key file."""
    if kind in DUCKDB_KINDS:
        yield read(path, kind=kind)
        return
    with _damage_named(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        for index in range(file.num_row_groups):
            yield file.read_row_group(index)


def verify_content(rows: pa.Table, *, where: str) -> None:
    """Check that the text of every record has the digest beside it.

    Args:
        rows: columns of the key, content and content_sha256.
        where: for the error message: a file, or what becomes of the rows.

    Raises:
        IntegrityError: the first that has not, by its key.
    """
    # In pieces that lie in one chunk of each column, so that nothing is copied.
    for batch in rows.select([*KEY, "content", "content_sha256"]).to_batches(VERIFIED_ROWS):
        texts, digests = _bytes_of(batch.column("content")), batch.column("content_sha256").to_pylist()
        for row, (text, digest) in enumerate(zip(texts, digests, strict=True)):
            if hashlib.sha256(text).digest() != digest:
                message = "a text does not match its digest; run `akosha fsck --read-data`"
                record = batch.select(list(KEY)).slice(row, 1).to_pylist()[0]
                raise IntegrityError(message, where=where, **record, expected=digest.hex())


def _bytes_of(texts: pa.Array) -> Iterator[memoryview]:
    """The bytes of every text where they lie: hashing them needs no copy."""
    wide = texts.cast(pa.large_binary())
    _, offsets, data = wide.buffers()
    ends = np.frombuffer(offsets, np.int64)[wide.offset : wide.offset + len(wide) + 1].tolist()
    whole = memoryview(data if data is not None else b"")
    return (whole[start:end] for start, end in itertools.pairwise(ends))


@dataclass(frozen=True, slots=True)
class Digests:
    """What is told of a file's bytes: SHA-256, and XXH3 of 128 bits for readers, both hex."""

    sha256: str
    xxh128: str


@around("hash")
def digests_of(path: Path) -> Digests:
    """Both digests of a file, read once."""
    return Digests(*_fed(path, hashlib.sha256(), xxhash.xxh3_128()))


@around("hash")
def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hex."""
    return _fed(path, hashlib.sha256())[0]


@around("hash")
def xxh128_of(path: Path) -> str:
    """XXH3 of a file, 128 bits, hex: ten times as fast as SHA-256 on a machine without instructions for that."""
    return _fed(path, xxhash.xxh3_128())[0]


def _fed(path: Path, *hashes: hashlib._Hash | xxhash.xxh3_128) -> list[str]:
    """Hex digests of a file by each of the fresh hashes, in one pass over blocks of 1 MiB."""
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            for one in hashes:
                one.update(block)
    return [one.hexdigest() for one in hashes]


def without_rows(table: pa.Table, removed: NDArray[np.uint32] | None) -> pa.Table:
    """`table` less the rows whose number is in `removed`."""
    if removed is None or not len(removed):
        return table
    numbers = table.column(ROW).to_numpy()
    return keep(table, ~np.isin(numbers, removed))


def keep(table: pa.Table, wanted: NDArray[np.bool_]) -> pa.Table:
    """The rows that are wanted, in their order; `table` itself, not a copy, when all are."""
    return table if wanted.all() else table.filter(pa.array(wanted))


def in_order(table: pa.Table, order: list[tuple[str, str]]) -> pa.Table:
    """`table` sorted, in one chunk. Rows that are in order already, as those of one source file are, are not copied."""
    places = pc.sort_indices(table, sort_keys=order).to_numpy()
    ordered = table if (places[1:] > places[:-1]).all() else table.take(pa.array(places))
    return ordered.combine_chunks()


def pieces(table: pa.Table) -> Iterator[pa.Table]:
    """`table` cut, in order, into parts that fit one file: `MAX_ROWS` rows and, for texts, `MAX_TEXT_BYTES`."""
    start = 0
    if "content" not in table.column_names:
        for start in range(0, table.num_rows, MAX_ROWS):
            yield table.slice(start, MAX_ROWS)
        return
    ends = np.cumsum(pc.binary_length(table.column("content")).to_numpy().astype(np.int64))
    while start < table.num_rows:
        before = int(ends[start - 1]) if start else 0
        fitting = int(np.searchsorted(ends, before + MAX_TEXT_BYTES, side="right"))
        end = max(start + 1, min(fitting, start + MAX_ROWS))
        yield table.slice(start, end - start)
        start = end


def _write_duckdb(table: pa.Table, path: Path, kind: str, facts: dict[str, str]) -> None:
    with duck.connection(path) as con:
        duck.attach_new(con, path, table.num_rows)
        create = statement(f"create_{kind}")
        con.execute(create.replace("{texts}", _compression(table)) if kind == "hot" else create)
        con.register("incoming", table)
        con.execute(statement("insert_records"))
        con.execute(statement("create_about"), [list(facts), list(facts.values())])
        con.execute("CHECKPOINT f")
        con.execute("DETACH f")


def _compression(table: pa.Table) -> str:
    """Of texts in hot: DuckDB's choice; none for few and short ones, where trying is three quarters of a write for an eighth of the bytes."""
    size = pc.sum(pc.binary_length(table.column("content")), min_count=0).as_py()
    few_and_short = duck.is_small(table.num_rows) and size <= table.num_rows * SHORT_TEXT_BYTES
    return "USING COMPRESSION uncompressed" if few_and_short else ""


def _read_duckdb(path: Path, kind: str, names: list[str], before: datetime | None) -> pa.Table:
    columns = ", ".join(f'"{name}"' for name in names)
    with duck.connection(path) as con:
        duck.attach_existing(con, path)
        query = statement("read_records").replace("{columns}", columns)
        table = con.sql(query, params={"before": before}).to_arrow_table()
    fields = [BY_TIER[kind].field(name) for name in names]
    rows = table.cast(pa.schema([*fields, pa.field(ROW, pa.uint32(), nullable=False)])).combine_chunks()
    return in_order(rows, [(ROW, "ascending")])


def _write_parquet(table: pa.Table, path: Path, facts: dict[str, str], *, level: int) -> None:
    metadata = cast("dict[bytes | str, bytes | str]", dict(facts))
    try:
        with pq.ParquetWriter(
            path,
            table.schema.with_metadata(metadata),
            compression="zstd",
            compression_level=level,
            write_page_checksum=True,
            use_dictionary=["system_id", "source_table", "time_evidence", "embedding_model", "project", "attributes",
                            "provenance", "metadata", "bookkeeping"],
        ) as writer:  # fmt: skip
            writer.write_table(table, row_group_size=MAX_ROWS)
    except OSError as error:
        message = "no room left on the disk behind AKOSHA_CACHE_DIR; free space or point the setting elsewhere"
        if error.errno is None or "space" in str(error).lower():
            raise DiskFullError(message, setting="AKOSHA_CACHE_DIR", path=str(path)) from error
        raise


def _read_parquet(path: Path, kind: str, names: list[str], before: datetime | None) -> pa.Table:
    wanted = names if before is None or "created_at" in names else [*names, "created_at"]
    with _damage_named(path):
        table = pq.read_table(path, columns=wanted, page_checksum_verification=True, memory_map=False)
    table = table.append_column(
        pa.field(ROW, pa.uint32(), nullable=False), pa.array(np.arange(table.num_rows, dtype=np.uint32))
    )
    if before is not None:
        table = table.filter(_before(table.column("created_at"), before))
    fields = [BY_TIER[kind].field(name) for name in names]
    ordered = table.select([*names, ROW])
    return ordered.cast(pa.schema([*fields, pa.field(ROW, pa.uint32(), nullable=False)])).combine_chunks()


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        message = f"the Parquet file is damaged: {str(error).splitlines()[0][:200]}; run `akosha fsck`"
        raise IntegrityError(message, path=str(path)) from error


def _before(times: pa.ChunkedArray, before: datetime) -> Any:  # noqa: ANN401 - pyarrow.compute is untyped
    return pc.less(times, pa.scalar(before, pa.timestamp("us", tz="UTC")))
