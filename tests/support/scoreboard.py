"""What a run of the storm injected and found, printed at its end and, with STORM_BOARD, written to a file."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

LONG: Final = bool(os.environ.get("STORM"))
SEED: Final = int(os.environ.get("STORM_SEED") or time.time_ns() % 1_000_000)


def drawn(name: str) -> random.Random:
    """Chance for one test, the same again for the same STORM_SEED."""
    return random.Random(f"{SEED} {name}")  # noqa: S311 - drawn again by its seed


@dataclass
class Scoreboard:
    """Counters of a whole run."""

    crashes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    records: Counter[str] = field(default_factory=Counter)
    damaged: Counter[str] = field(default_factory=Counter)
    detected: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def count_records(self, *, lost: int, doubled: int, altered: int) -> None:
        """Add what a comparison with the dictionary found."""
        self.records.update({"compared": 1, "lost": lost, "doubled": doubled, "altered": altered})

    def text(self) -> str:
        """As it is printed."""
        lines = [f"STORM_SEED={SEED}"]
        for title, counter in (
            ("crashes injected (kill -9)", self.crashes),
            ("faults injected", self.faults),
            ("damaged lake files", self.damaged),
            ("steps of the state machine", self.steps),
        ):
            lines.append(f"{title:32} {counter.total():7,}")
            lines += [f"  {name:30} {count:7,}" for name, count in sorted(counter.items())]
        lines.append(f"{'lakes compared with the model':32} {self.records['compared']:7,}")
        lines += [f"  records {name:22} {self.records[name]:7,}" for name in ("lost", "doubled", "altered")]
        if self.damaged:
            share = self.detected.total() / self.damaged.total()
            lines.append(f"{'damage detected':32} {share:7.2%}")
        lines.append(f"{'other differences':32} {len(self.wrong):7,}")
        return "\n".join([*lines, *self.wrong[:20]])


BOARD: Final = Scoreboard()
