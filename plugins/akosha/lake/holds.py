"""Records that a move leaves where they are until some instant: one small file of a shard, replaced whole.

It is named by the commit like every other file, so an undo brings back the holds of its version, and a commit that was
planned on other holds is planned again.
"""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from akosha.lake import files
from akosha.lake.commits import Commit
from akosha.lake.lake import Lake
from akosha.lake.schemas import HOLDS, KEY


def holds(lake: Lake, head: Commit) -> pa.Table:
    """Records on hold in a shard (schema ``HOLDS``: key and `hold_until`, UTC), by key, expired ones included.

    Raises:
        ObjectMissingError, IntegrityError: the file is gone or damaged.
    """
    if head.holds is None:
        return HOLDS.empty_table()
    path = lake.cache.path_of(lake.store, head.holds)
    return files.read(path, kind="holds").drop_columns([files.ROW])


def with_holds(held: pa.Table, keys: pa.Table, *, until: datetime, now: datetime) -> pa.Table:
    """`held` with more records, each once and with its latest instant, less what has expired: so it stays small.

    Args:
        held: schema ``HOLDS``.
        keys: columns system_id, source_table, record_id.
        until: of the records in `keys`, UTC.
        now: what ends before it is dropped.

    Returns:
        schema ``HOLDS``, sorted by key.
    """
    more = keys.select(KEY).append_column(
        "hold_until", pa.repeat(pa.scalar(until, HOLDS.field("hold_until").type), keys.num_rows)
    )
    everything = pa.concat_tables([held, more.cast(HOLDS)])
    latest = everything.group_by(list(KEY)).aggregate([("hold_until", "max")]).rename_columns([*KEY, "hold_until"])
    alive = latest.filter(pc.greater(latest.column("hold_until"), pa.scalar(now, HOLDS.field("hold_until").type)))
    return alive.sort_by([(name, "ascending") for name in KEY]).cast(HOLDS)
