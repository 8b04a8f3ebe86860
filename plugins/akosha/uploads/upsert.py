"""Deciding what an upload changes: a join of its keys with the key file of its system. Pure but for DuckDB in memory."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from akosha.lake import duck
from akosha.lake.schemas import KEYS
from akosha.lake.sql import statement
from akosha.transforms.times import EVIDENCE

INCOMING: Final = pa.schema(
    [
        pa.field("position", pa.int64()),
        *[KEYS.field(name) for name in ("source_table", "record_id", "content_sha256", "created_at", "time_evidence")],
        KEYS.field("bookkeeping"),
    ]
)


@dataclass(frozen=True, slots=True)
class UpsertPlan:
    """What one upload does to its system.

    Attributes:
        keys: the key file afterwards (schema ``KEYS``), or None when it stays as it is.
        rows: one row for each new or changed record: position in the upload, final record_id, created_at, time_evidence.
        replaced: live records whose text changes: source_table, record_id, created_live (UTC).
        retimed: live records that keep their text but get better time evidence: the same columns and the new
            created_at and time_evidence.
        new, changed, unchanged, older: numbers of records; older = an upload applied before had a newer text.
    """

    keys: pa.Table | None
    rows: pa.Table
    replaced: pa.Table
    retimed: pa.Table
    new: int
    changed: int
    unchanged: int
    older: int


def plan_upsert(live: pa.Table, incoming: pa.Table, *, manifest_time: datetime, ambiguous: bool) -> UpsertPlan:
    """Compare an upload with the live keys of its system.

    Args:
        live: the key file, schema ``KEYS``.
        incoming: one row for each accepted row of the upload, schema ``INCOMING``; position counts them.
        manifest_time: when the upload was made, UTC: the newest one wins, an older one never replaces.
        ambiguous: whether unrelated machines share this system id.
    """
    with duck.connection(Path("upsert")) as con:
        ranks = pa.table({"time_evidence": list(EVIDENCE), "rank": pa.array(range(len(EVIDENCE)), pa.int8())})
        for name, table in (("live", live), ("incoming", incoming), ("ranks", ranks)):
            con.register(name, table)
        params = {"manifest": manifest_time, "ambiguous": ambiguous}
        plan = con.sql(statement("upsert_plan"), params=params).to_arrow_table()
        keys = None
        if pc.any(plan.column("key_changes"), min_count=0).as_py():
            con.register("plan", plan)
            keys = con.sql(statement("upsert_keys")).to_arrow_table().cast(KEYS)
    new = _where(plan, "is_new")
    changed = _where(plan, "is_changed")
    older = _where(plan, "is_older")
    text_moves = pc.or_(plan.column("is_new"), plan.column("is_changed"))
    retimed = plan.filter(pc.and_(plan.column("is_retimed"), pc.invert(plan.column("is_changed"))))
    return UpsertPlan(
        keys=keys,
        rows=plan.filter(text_moves).select(["position", "record_id", "created_at", "time_evidence"]),
        replaced=changed.select(["source_table", "record_id", "created_live"]),
        retimed=retimed.select(["source_table", "record_id", "created_live", "created_at", "time_evidence"]),
        new=new.num_rows,
        changed=changed.num_rows,
        unchanged=plan.num_rows - new.num_rows - changed.num_rows - older.num_rows,
        older=older.num_rows,
    )


def _where(plan: pa.Table, flag: str) -> pa.Table:
    return plan.filter(plan.column(flag))
