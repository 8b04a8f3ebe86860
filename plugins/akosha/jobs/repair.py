"""Jobs that look after the bytes of a lake: the scrub and the repair."""

from __future__ import annotations

from typing import Any

from akosha.errors import ConfigurationError, IntegrityError, UsageError
from akosha.jobs.ingest import uploads_source
from akosha.jobs.plans import chosen_shards, now, open_lake
from akosha.lake import layout
from akosha.lake.lake import Lake
from akosha.lake.objects import ObjectStore
from akosha.lake.shard_log import Writer
from akosha.lake.stores import open_store
from akosha.quality.repair import Repair
from akosha.quality.scrub import scrub
from akosha.settings import Settings


def open_damaged() -> Lake:
    """The lake of the environment's settings, also while its lake.json is damaged or lost but shards are there."""
    settings = Settings.from_environment()
    try:
        return open_lake()
    except IntegrityError:
        return Lake.open_unidentified(settings)
    except ConfigurationError:
        lake = Lake.open_unidentified(settings)
        if lake.store.stat(layout.LAKE) is not None or not lake.shards():
            raise
        return lake


def uploads_of(settings: Settings) -> ObjectStore | None:
    """The store of uploads where one is set and there; what only they have is then known."""
    if not settings.uploads_url:
        return None
    try:
        return uploads_source(settings).store
    except ConfigurationError:
        return None


def repair_lake(
    run_id: str,
    *,
    shard: int | None = None,
    copy_url: str = "",
    dry_run: bool = True,
    accept_loss: bool = False,
) -> dict[str, Any]:
    """Repair a damaged lake from what is still there.

    Args:
        run_id: who commits.
        shard: only this shard, 0-255; None = everything.
        copy_url: another copy of the lake, ``file://`` or ``s3://``, to take exact copies from.
        dry_run: only say what would be done.
        accept_loss: go on without records that nothing has any more.

    Raises:
        UsageError: no such shard, or a copy URL of another kind.
        IntegrityError: records would be lost.
    """
    chosen_shards("", shard)
    if copy_url and not copy_url.startswith(("file:///", "s3://")):
        message = f"--from must be file:///path or s3://bucket/prefix, found {copy_url!r}"
        raise UsageError(message)
    lake = open_damaged()
    clock = now()
    return Repair(
        lake=lake,
        uploads=uploads_of(lake.settings),
        copies=open_store(copy_url.rstrip("/"), lake.settings, setting="--from") if copy_url else None,
        writer=lambda: Writer(run_id, lake.policy().number, clock),
        now=clock,
        shard=shard,
        dry_run=dry_run,
        accept_loss=accept_loss,
    ).run()


def scrub_lake(*, cycle_days: int | None = None) -> dict[str, Any]:
    """Re-read today's share of all bytes; None = the cycle of the settings."""
    lake = open_damaged()
    return scrub(lake, now=now(), cycle_days=lake.settings.scrub_days if cycle_days is None else cycle_days,
                 uploads=uploads_of(lake.settings))  # fmt: skip
