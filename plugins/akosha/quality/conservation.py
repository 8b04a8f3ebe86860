"""Conservation: every key in exactly one tier, with the content its key file lists, and in the archive once it ages.

One join for each shard over key columns; shared by `fsck` and `validate`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from akosha.lake import duck
from akosha.lake.commits import TIERS, Commit, Tier
from akosha.lake.files import ROW
from akosha.lake.lake import Lake
from akosha.lake.layout import shard_of
from akosha.lake.provenance import is_unarchived
from akosha.lake.schemas import HOT, KEY
from akosha.lake.sql import statement

LISTED: Final = (*KEY, "content_sha256", "created_at")
ARCHIVED: Final = (*KEY, "content_sha256")
# What `include/sql/conservation.sql` and `misrouted` can find, in words for an operator.
PROBLEMS: Final = {
    "missing": "listed in a key file but in no tier",
    "unlisted": "in a tier but in no key file",
    "doubled": "in more than one place",
    "digest_mismatch": "in a tier with another content than the key file lists",
    "time_mismatch": "in a tier with another created_at than the key file lists",
    "archive_missing": "in warm or cold but not in the archive with the same content",
    "archive_unneeded": "in the archive but neither in warm nor in cold, or there twice",
    "misrouted": "in a shard that is not its system's",
}


@dataclass(frozen=True, slots=True)
class ShardFigures:
    """What one shard holds at one version, in live rows, and how many records break each rule of `PROBLEMS`."""

    shard: int
    version: int
    keys: int
    hot: int
    warm: int
    cold: int
    archive: int
    missing: int
    unlisted: int
    doubled: int
    digest_mismatch: int
    time_mismatch: int
    archive_missing: int
    archive_unneeded: int
    misrouted: int


def measure_shard(lake: Lake, head: Commit) -> tuple[ShardFigures, pa.Table]:
    """Figures of one shard, and the records behind them.

    Returns:
        the figures; and every breach as problem, system_id, source_table, record_id, ordered.

    Raises:
        IntegrityError: a file of the head is damaged.
        ObjectMissingError: one is missing.
    """
    listed = _listed(lake, head)
    by_tier: dict[Tier, pa.Table] = {tier: _tier(lake, head, tier, (*LISTED, "provenance")) for tier in TIERS}
    placed = pa.concat_tables(
        table.drop_columns(["provenance"])
        .append_column("tier", pa.repeat(pa.scalar(tier), table.num_rows))
        .append_column("unarchived", is_unarchived(table.column("provenance")))
        for tier, table in by_tier.items()
    )
    archived = _tier(lake, head, "archive", ARCHIVED)
    with duck.connection(Path(f"shard {head.shard:03d}")) as con:
        for name, relation in (("listed", listed), ("placed", placed), ("archived", archived)):
            con.register(name, relation)
        breaches = con.sql(statement("conservation")).to_arrow_table()
    breaches = pa.concat_tables([breaches, _misrouted(head.shard, listed, placed)], promote_options="permissive")
    counted = Counter(breaches.column("problem").to_pylist())
    figures = ShardFigures(
        shard=head.shard,
        version=head.version,
        keys=listed.num_rows,
        hot=by_tier["hot"].num_rows,
        warm=by_tier["warm"].num_rows,
        cold=by_tier["cold"].num_rows,
        archive=archived.num_rows,
        **{problem: counted[problem] for problem in PROBLEMS},
    )
    return figures, breaches


def _listed(lake: Lake, head: Commit) -> pa.Table:
    tables = [_schema(LISTED).empty_table()]
    for system, entry in sorted(head.keys.items()):
        keys = lake.keys(entry).select(LISTED[1:])
        keys = keys.add_column(0, "system_id", pa.repeat(pa.scalar(system, pa.string()), keys.num_rows))
        tables.append(keys.cast(_schema(LISTED)))
    return pa.concat_tables(tables)


def _tier(lake: Lake, head: Commit, tier: Tier, columns: tuple[str, ...]) -> pa.Table:
    tables = [lake.rows(entry, columns).drop_columns([ROW]) for entry in head.of_tier(tier)]
    return pa.concat_tables([_schema(columns).empty_table(), *tables])


def _schema(columns: tuple[str, ...]) -> pa.Schema:
    return pa.schema([HOT.field(name) for name in columns])


def _misrouted(shard: int, listed: pa.Table, placed: pa.Table) -> pa.Table:
    keys = pa.concat_tables([listed.select(KEY), placed.select(KEY)])
    systems = pc.unique(keys.column("system_id")).to_pylist()
    strangers = [system for system in systems if shard_of(system) != shard]
    found = (
        keys.filter(pc.is_in(keys.column("system_id"), pa.array(strangers, pa.string()))).group_by(KEY).aggregate([])
    )
    return found.add_column(0, "problem", pa.repeat(pa.scalar("misrouted"), found.num_rows))
