"""Records that a promotion holds in hot."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from akosha.lake.commits import Commit
from akosha.lake.lake import Lake
from akosha.lake.schemas import KEY

HOLDS: Final = pa.schema([*[(name, pa.string()) for name in KEY], ("hold_until", pa.timestamp("us", tz="UTC"))])


def holds(lake: Lake, head: Commit) -> pa.Table:
    """Records of a shard that stay in hot until an instant: system_id, source_table, record_id, hold_until."""
    del lake, head
    return HOLDS.empty_table()
