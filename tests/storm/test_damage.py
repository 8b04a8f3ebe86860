"""Bit flips and truncation of every kind of lake file: `akosha fsck --read-data` finds each one."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.small_lake import full_lake
from tests.support.cases import Pool
from tests.support.scoreboard import BOARD, LONG, drawn

pytestmark = [pytest.mark.integration, pytest.mark.slow]

FLIPS, CUTS = (6, 3) if LONG else (1, 1)
KINDS = {"archive", "cold", "commits", "hot", "keys", "lake.json", "policy", "removals", "uploads", "warm"}


@pytest.mark.parametrize("which", ["made by jobs", "made by hand"])
def test_no_damage_of_a_lake_file_goes_unnoticed(pool: Pool, stages: Path, tmp_path: Path, which: str):
    """I3."""
    if which == "made by hand":  # the only one with a removal list and all tiers in one shard
        full_lake(tmp_path)
    source = str(tmp_path if which == "made by hand" else stages / "held")
    kinds = pool.ask({"do": "objects", "source": source})
    chance = drawn(which)
    chosen = [(kind, key) for kind, keys in kinds.items() for key in (keys if LONG else [chance.choice(keys)])]
    requests = [
        {
            "do": "spoil",
            "source": source,
            "keys": [key],
            "flips": FLIPS,
            "cuts": CUTS,
            "seed": chance.randrange(1 << 30),
        }
        for _, key in chosen
    ]
    missed: list[str] = []
    for (kind, _), answer in zip(chosen, pool.map(pool.ask, requests), strict=True):
        BOARD.damaged[kind] += answer["done"]
        BOARD.detected[kind] += answer["done"] - len(answer["missed"])
        missed += answer["missed"]
    BOARD.wrong += missed
    assert not missed
    if which == "made by hand":
        assert set(kinds) >= KINDS
