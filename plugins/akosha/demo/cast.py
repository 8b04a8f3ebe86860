"""The machines of the demo world: what each is called, where its clock stands, which client it runs, when it uploads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Literal

from akosha.demo.variants import seeded

if TYPE_CHECKING:
    from akosha.demo.container import Compression
    from akosha.demo.database import Storage

Layer = Literal["prefixed", "legacy", "v2"]
Kind = Literal[
    "context", "turn", "repeat", "reflection", "insight",
    "checkpoint", "legacy_reflection",
    "old_conversation", "old_reflection", "old_insight",
]  # fmt: skip

TABLES: dict[Kind, str] = {
    "context": "conversations_v2", "turn": "conversations_v2", "repeat": "conversations_v2",
    "reflection": "reflections_v2", "insight": "reflections_v2",
    "checkpoint": "conversations", "legacy_reflection": "reflections",
    "old_conversation": "default_conversations", "old_reflection": "default_reflections",
    "old_insight": "default_reflections",
}  # fmt: skip
SHARES: dict[Layer, tuple[tuple[Kind, float], ...]] = {
    "v2": (("context", 0.60), ("turn", 0.22), ("reflection", 0.10), ("insight", 0.06), ("repeat", 0.02)),
    "legacy": (("checkpoint", 0.8), ("legacy_reflection", 0.2)),
    "prefixed": (("old_conversation", 0.75), ("old_reflection", 0.18), ("old_insight", 0.07)),
}


@dataclass(frozen=True, slots=True)
class Machine:
    """One Session-Buddy installation.

    Attributes:
        system_id: what its uploads are filed under; two machines may share it.
        offset_minutes: its wall clock minus UTC; no upload says it.
        rows: records per layer of its database, oldest layer first.
        upload_hours: age of each upload in hours before the anchor, oldest first.
        storage: of its DuckDB files.
        compression: of its objects.
        vectors: share of its v2 and prefixed rows that carry a vector (the embedding server comes and goes).
        graph: whether a knowledge graph lies beside.
    """

    system_id: str
    offset_minutes: int
    rows: tuple[tuple[Layer, int], ...]
    upload_hours: tuple[float, ...]
    storage: Storage = "2.0"
    compression: Compression = "gzip"
    vectors: float = 0.95
    graph: bool = False

    @property
    def seed(self) -> str:
        """Distinguishes machines that share a system id."""
        return f"{self.system_id}{self.offset_minutes:+d}"

    @property
    def uploads(self) -> tuple[timedelta, ...]:
        """Age of each upload, oldest first; not on the hour, as nothing real is."""
        return _ages(self.seed, self.upload_hours)

    @property
    def schema(self) -> tuple[str, ...]:
        """The SQL files that create its tables, oldest layer first."""
        return tuple(f"demo_layer_{layer}" for layer, _ in self.rows)


@cache
def _ages(seed: str, hours: tuple[float, ...]) -> tuple[timedelta, ...]:
    random = seeded(seed)
    return tuple(timedelta(hours=age, seconds=1500 * random.random()) for age in hours)


DAY = 24.0
MACHINES = (
    Machine("les-mbp.local", -480, (("legacy", 40), ("v2", 390)), (45 * DAY, 5 * DAY, 26.0, 2.5), graph=True),
    Machine("dev box 3", 60, (("v2", 310),), (60 * DAY, 6 * DAY, 3.2), storage="1.x", vectors=0.92, graph=True),
    Machine("büro-rechner-ö", 60, (("v2", 200),), (20 * DAY, 4.1), compression="none"),
    Machine("東京-ws.example", 540, (("legacy", 30), ("v2", 250)), (75 * DAY, 3 * DAY, 1.3), vectors=0.9),
    Machine("team/ci-runner", 0, (("v2", 230),), (30 * DAY, 2 * DAY, 5.4), storage="1.x", graph=True),
    Machine("unknown-system", 330, (("v2", 190),), (9 * DAY, 6.3), vectors=1.0),
    Machine("unknown-system", -480, (("v2", 170),), (8 * DAY, 7.9), storage="1.x", vectors=1.0),
    Machine("legacy-feb", 60, (("prefixed", 190), ("legacy", 40)), (50 * DAY, 9 * DAY, 8.6), storage="1.x", graph=True),
    Machine(
        "upgraded.host.example", -180, (("prefixed", 140), ("legacy", 40), ("v2", 170)), (33 * DAY, 4 * DAY, 10.2),
    ),
    Machine("4f1d9c0be7a2", 0, (("v2", 90),), (12 * DAY, 9.7), compression="none", vectors=0.8),
    Machine(
        "kathmandu laptop", 345, (("prefixed", 130),), (70 * DAY, 11.5), storage="1.x", compression="none", vectors=1.0,
    ),
)  # fmt: skip
