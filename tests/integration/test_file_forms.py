"""How DuckDB files of a tier are laid out: what the speed of writing and reading them rests on."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from tests.integration.small_lake import memories, table_of

from akosha.lake import duck, files

pytestmark = pytest.mark.integration

SHORT, LONG = "Set a deadline on every call. ", "Set a deadline on every call. " * 200


def compression_of(path: Path, column: str) -> set[str]:
    """Methods that a file uses for the values of a column."""
    with duckdb.connect(config={"threads": 1}) as con:
        con.execute(f"ATTACH '{path}' AS f (READ_ONLY)")
        segments = con.sql("FROM pragma_storage_info('f.records')").to_arrow_table().to_pylist()
    return {row["compression"] for row in segments if (row["column_name"], row["segment_type"]) == (column, "VARCHAR")}


def with_texts(rows: pa.Table, text: str, copies: int) -> pa.Table:
    many = pa.concat_tables([rows] * copies).combine_chunks()
    at = many.schema.get_field_index("content")
    return many.set_column(at, many.schema.field(at), pa.array([f"{text}{number}" for number in range(many.num_rows)]))


@pytest.mark.parametrize("rows", [10, duck.SMALL_FILE_ROWS])
def test_summaries_of_warm_files_are_not_compressed(tmp_path: Path, rows: int):
    table = pa.concat_tables([table_of("warm", memories("laptop-7", "warm", 10))] * (rows // 10)).combine_chunks()
    files.write(table, tmp_path / "warm.duckdb", kind="warm", about={})
    assert compression_of(tmp_path / "warm.duckdb", "summary") == {"Uncompressed"}
    assert compression_of(tmp_path / "warm.duckdb", "sentence") == {"Uncompressed"}


@pytest.mark.parametrize(
    ("text", "copies", "compressed"),
    [(SHORT, 1, False), (LONG, 1, True), (SHORT, duck.SMALL_FILE_ROWS // 10, True)],
    ids=["few and short", "few and long", "many and short"],
)
def test_texts_of_hot_files_are_compressed_unless_they_are_few_and_short(
    tmp_path: Path, text: str, copies: int, compressed: bool
):
    table = with_texts(table_of("hot", memories("laptop-7", "hot", 10)), text, copies)
    files.write(table, tmp_path / "hot.duckdb", kind="hot", about={})
    assert (compression_of(tmp_path / "hot.duckdb", "content") != {"Uncompressed"}) == compressed
