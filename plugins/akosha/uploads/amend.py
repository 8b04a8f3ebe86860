"""Live records that keep their text but are written anew where they are: better time, other details, a vector, another name.

The row stays in its tier and keeps what was derived from its text; the archive's copy of the key and time follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from akosha.lake.edit import ShardEdit
from akosha.lake.files import ROW
from akosha.lake.lake import Lake
from akosha.lake.locate import locate
from akosha.lake.schemas import CLIENT_MODEL
from akosha.uploads.texts import WantedRows

DETAILS: Final = ("project", "metadata", "attributes")
_KEY: Final = ("source_table", "record_id")


def amendments(amended: pa.Table, details: Sequence[WantedRows]) -> pa.Table:
    """`amended` (``upsert_amended.sql``) with what an upload says of those records: project, metadata, attributes, embedding."""
    said = [
        rows.texts.select([*DETAILS, "embedding"]).append_column("position", rows.wanted.column("position"))
        for rows in details
        if rows.texts.num_rows
    ]
    if not said:
        return amended
    columns = pa.concat_tables(said)
    place = pc.index_in(amended.column("position"), value_set=columns.column("position").combine_chunks())
    for name in (*DETAILS, "embedding"):
        amended = amended.append_column(name, columns.column(name).take(place))
    return amended


def amend(lake: Lake, edit: ShardEdit, system_id: str, changes: pa.Table) -> None:
    """Write the live rows of `changes` (a result of `amendments`) anew, each in its own tier.

    Args:
        lake: the lake.
        edit: the commit to be.
        system_id: whose records.
        changes: source_table, record_id_live and created_live say which rows; the rest what becomes of them.
    """
    if not changes.num_rows:
        return
    wanted = changes.select(["source_table", "record_id_live", "created_live"]).rename_columns([*_KEY, "created_live"])
    wanted = wanted.append_column("system_id", pa.repeat(pa.scalar(system_id, pa.string()), wanted.num_rows))
    for entry, numbers in locate(lake, edit.head, wanted, "hot", "warm", "cold", "archive"):
        rows = lake.rows(entry)
        rows = rows.filter(pa.array(np.isin(rows.column(ROW).to_numpy(), numbers)))
        edit.put(entry.tier, _amended(rows, changes))
        edit.drop(entry, numbers)


def _amended(rows: pa.Table, changes: pa.Table) -> pa.Table:
    """`rows` with their changes; every one of them has one."""
    mine = rows.select(list(_KEY)).append_column("at", pa.array(np.arange(rows.num_rows)))
    theirs = (
        changes.select(["source_table", "record_id_live"])
        .rename_columns(list(_KEY))
        .append_column("place", pa.array(np.arange(changes.num_rows)))
    )
    places = mine.join(theirs, list(_KEY), join_type="left outer").sort_by("at").column("place").combine_chunks()
    change = changes.take(places)
    rows = _put(rows, "record_id", change.column("record_id"))
    for name in ("created_at", "time_evidence"):
        rows = _put(rows, name, change.column(name)) if name in rows.column_names else rows
    if "attributes" in change.column_names:
        rows = _with_details(rows, change)
    return rows


def _with_details(rows: pa.Table, change: pa.Table) -> pa.Table:
    takes = change.column("takes_details")
    for name in DETAILS:
        if name in rows.column_names:
            rows = _put(rows, name, pc.if_else(takes, change.column(name), rows.column(name)))
    if "summary" not in rows.column_names or "embedding" not in rows.column_names:
        return rows  # only hot rows take a vector: in warm and cold its codes are verified against the archive's
    lacking = rows.column("embedding").is_null()
    fills = pc.and_(pc.and_(change.column("takes_vector"), lacking), change.column("embedding").is_valid())
    if not pc.any(fills).as_py():
        return rows
    both = pa.concat_tables(
        [pa.table({"v": rows.column("embedding")}), pa.table({"v": change.column("embedding")})]
    ).column("v")
    chosen = np.arange(rows.num_rows) + np.where(fills.to_numpy(), rows.num_rows, 0)
    rows = _put(rows, "embedding", both.take(pa.array(chosen)))
    return _put(rows, "embedding_model", pc.if_else(fills, pa.scalar(CLIENT_MODEL), rows.column("embedding_model")))


def _put(rows: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    field = rows.schema.field(name)
    return rows.set_column(rows.schema.get_field_index(name), field, column.cast(field.type))
