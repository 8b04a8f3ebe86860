"""Histories of snapshots, and the dictionary that says what a lake must hold after them, in whatever order they came."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

import duckdb
import numpy as np
from tests.support.mutation_sources import builder, table, vector

START: Final = datetime(2025, 6, 1, 8, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)
AMBIGUOUS: Final = "unknown-system"
SYSTEMS: Final = {"laptop-7": -8.0, "desk-131": 5.5, AMBIGUOUS: 2.0}  # by hours of the client's clock ahead of UTC
TABLES: Final = ("conversations_v2", "default_reflections")
RANKS: Final = ("id", "extracted_at", "offset")
_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(frozen=True)
class Row:
    """One memory in one snapshot; `told` says how its time can be known."""

    table: str
    record_id: str
    text: str
    created: datetime
    told: str
    project: str | None
    has_vector: bool
    counter: int

    @property
    def metadata(self) -> str:
        return json.dumps(
            {"extracted_at": self.created.isoformat()} if self.told == "extracted_at" else {"kept": self.project}
        )

    @property
    def vector(self) -> list[float] | None:
        return (
            vector(int.from_bytes(hashlib.sha256(self.text.encode()).digest()[:4], "big")) if self.has_vector else None
        )


@dataclass(frozen=True)
class Snapshot:
    """One upload of a system, its whole database."""

    system: str
    moment: datetime
    rows: tuple[Row, ...]

    @property
    def manifest_time(self) -> datetime:
        return self.moment + timedelta(seconds=1)

    def database(self) -> bytes:
        """The file it is."""

        def fill(con: duckdb.DuckDBPyConnection) -> bool:
            for name in TABLES:
                con.execute(table(name))
            for row in self.rows:
                local = (row.created + timedelta(hours=SYSTEMS[self.system])).replace(tzinfo=None)
                con.execute(
                    f'INSERT INTO "{row.table}" (id, content, embedding, project, timestamp, metadata, access_count)'
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [row.record_id, row.text, row.vector, row.project, local, row.metadata, row.counter],
                )
            return False

        return builder().build(fill)[0]


def drawn_history(random: Random) -> list[Snapshot]:
    """Two to four snapshots of each system, oldest first: memories added, edited, deleted, stored again, dated better or worse.

    Texts come back, or vectors come and go; both at once has no right answer.
    """
    returning = random.random() < 0.5
    made = []
    for system in SYSTEMS:
        moments = sorted(random.sample(range(200), random.randrange(2, 5)))
        for number, hour in enumerate(moments):
            moment = START + 24 * HOUR + hour * HOUR
            rows = [_anchor(system, name) for name in TABLES]
            rows += [
                _row(
                    random,
                    system,
                    name,
                    which,
                    version=random.randrange(3) if returning else number // 2,
                    flaky=not returning,
                )
                for name in TABLES
                for which in range(4)
                if random.random() < 0.7
            ]
            random.shuffle(rows)
            made.append(Snapshot(system, moment, tuple(rows)))
    return sorted(made, key=lambda snapshot: (snapshot.manifest_time, snapshot.system))


def _row(random: Random, system: str, name: str, which: int, *, version: int, flaky: bool) -> Row:
    created = START + (which * 3 + random.randrange(2)) * HOUR
    told = random.choice(["extracted_at", "offset"])
    record_id = f"id-{which}"
    if which == 3:
        created, told = START + timedelta(milliseconds=7_000 * which), "id"
        record_id = _ulid(created)
    text = f"{system} {name} {which} version {version}: the retry of a stage needs a deadline."
    has_vector = random.random() < 0.5 if flaky else (which + version) % 2 == 0
    return Row(
        name, record_id, text, created, told, random.choice([None, "web", "data"]), has_vector, random.randrange(9)
    )


def _anchor(system: str, name: str) -> Row:
    """Tells the client's zone to all others."""
    return Row(name, "anchor", f"anchor of {system} {name}", START, "extracted_at", "web", False, 0)


def _ulid(created: datetime) -> str:
    number, letters = round(created.timestamp() * 1_000), ""
    for _ in range(10):
        number, digit = divmod(number, 32)
        letters = _CROCKFORD[digit] + letters
    return f"{letters}0123456789ABCDEF"


def expected(snapshots: Sequence[Snapshot]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """What every lake holds after these snapshots: the newest text, the best time, whatever the order.

    Of an ambiguous system another text under an id is another record; the one seen first has the bare id.
    """
    seen: dict[tuple[str, str, str, str], list[tuple[datetime, Row]]] = {}
    for snapshot in snapshots:
        for row in snapshot.rows:
            text = row.text if snapshot.system == AMBIGUOUS else ""
            seen.setdefault((snapshot.system, row.table, row.record_id, text), []).append((snapshot.manifest_time, row))
    named: dict[tuple[str, str, str], dict[str, Any]] = {}
    for (system, name, record_id, text), found in seen.items():
        rivals = [
            (min(moment for moment, _ in other), hashlib.sha256(key[3].encode()).digest())
            for key, other in seen.items()
            if key[:3] == (system, name, record_id)
        ]
        digest = hashlib.sha256(text.encode()).digest()
        mine = (min(moment for moment, _ in found), digest)
        final = record_id if mine == min(rivals) else f"{record_id}~{digest.hex()[:8]}"
        named[system, name, final] = _merged(found)
    return named


def _merged(found: Sequence[tuple[datetime, Row]]) -> dict[str, Any]:
    newest = max(found, key=lambda one: one[0])[1]
    best = min(found, key=lambda one: (RANKS.index(one[1].told), one[0]))[1]
    vectors = [row.vector for _, row in found if row.text == newest.text and row.vector is not None]
    return {
        "content": newest.text,
        "created_at": best.created,
        "time_evidence": best.told,
        "project": newest.project,
        "metadata": newest.metadata,
        "embedding": np.array(vectors[0], "<f4").tobytes() if vectors else None,
        "tier": "hot",
    }
