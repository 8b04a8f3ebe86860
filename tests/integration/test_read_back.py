"""Cites I2: what was written is read back and compared before anything is committed, so a lying disk loses nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.integration.small_lake import NOW, Shelf, memories, new_lake, publish

from akosha.errors import IntegrityError
from akosha.lake import files
from akosha.lake.shard_log import Writer
from akosha.tiers import hot_to_warm

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("fault", ["a row is lost", "a summary changes", "a code changes"])
def test_a_file_that_is_not_what_was_meant_is_refused_and_the_source_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    lake = new_lake(tmp_path)
    publish(lake, Shelf({"hot": memories("laptop-7", "warm", 40)}))
    (before,) = lake.heads()
    honest = files.write

    def faulty(table: pa.Table, path: Path, *, kind: str, about: dict[str, str]) -> None:
        honest(spoiled(table, fault) if kind == "warm" else table, path, kind=kind, about=about)

    monkeypatch.setattr(files, "write", faulty)
    writer = Writer("run", lake.policy().number, NOW)
    with pytest.raises(IntegrityError, match="nothing was committed"):
        hot_to_warm.move_batch(lake, [before.shard], lake.policy(), writer, as_of=NOW)
    (after,) = lake.heads()
    assert after == before
    assert sum(lake.rows(entry).num_rows for entry in after.of_tier("hot")) == 40
    assert list(lake.store.list(f"shards/{before.shard:03d}/warm/")) == []

    monkeypatch.setattr(files, "write", honest)
    (outcome,), _ = hot_to_warm.move_batch(lake, [before.shard], lake.policy(), writer, as_of=NOW)
    assert outcome.rows == 40


def spoiled(table: pa.Table, fault: str) -> pa.Table:
    if fault == "a row is lost":
        return table.slice(1)
    if fault == "a summary changes":
        changed = [*table.column("summary").to_pylist()[:-1], "something else"]
        return table.set_column(
            table.schema.get_field_index("summary"), table.schema.field("summary"), pa.array(changed)
        )
    codes = np.array(table.column("codes").to_pylist(), dtype=np.int8)
    codes[0, 0] ^= 1
    column = pa.array(list(codes), table.schema.field("codes").type)
    return table.set_column(table.schema.get_field_index("codes"), table.schema.field("codes"), column)
