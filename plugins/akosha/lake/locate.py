"""Finding the rows of given records: files are pruned by their time range, then their key columns are joined."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from akosha.lake import duck
from akosha.lake.commits import Commit, FileEntry, Tier
from akosha.lake.files import ROW
from akosha.lake.lake import Lake
from akosha.lake.schemas import KEY
from akosha.lake.sql import statement


def locate(lake: Lake, head: Commit, wanted: pa.Table, *tiers: Tier) -> Iterator[tuple[FileEntry, NDArray[np.uint32]]]:
    """Files of `tiers` that hold some of the wanted records, with the row numbers.

    Args:
        lake: the lake.
        head: the version to look in.
        wanted: columns system_id, source_table, record_id, and created_live (UTC) as their files know it.
        tiers: where to look.
    """
    if not wanted.num_rows:
        return
    bounds = pc.min_max(wanted.column("created_live")).as_py()
    for entry in head.of_tier(*tiers):
        if _overlaps(entry, bounds["min"], bounds["max"]):
            rows = _rows(lake.rows(entry, list(KEY)), wanted)
            if len(rows):
                yield entry, rows


def _overlaps(entry: FileEntry, first: datetime, last: datetime) -> bool:
    return datetime.fromisoformat(entry.first) <= last and datetime.fromisoformat(entry.last) >= first


def _rows(present: pa.Table, wanted: pa.Table) -> NDArray[np.uint32]:
    with duck.connection(Path("locate")) as con:
        con.register("present", present)
        con.register("wanted", wanted)
        found: NDArray[np.uint32] = con.sql(statement("locate_rows")).to_arrow_table().column(ROW).to_numpy()
        return found
