"""The corpus through the real pipeline: hundreds of systems in one ingest, each judged by what became of its uploads."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
import pytest
from tests.support import mutation_bytes, mutation_crafted, mutation_manifests
from tests.support.installation import Installation
from tests.support.mutation_attempts import Attempt, Kind, objects
from tests.support.mutation_sources import NAMES, Record, Records, sound

from akosha import jobs
from akosha.declared import model
from akosha.jobs import ingest
from akosha.lake.lake import Lake
from akosha.lake.layout import MEMO_PREFIX, QUARANTINE_PREFIX, REFUSED_ROWS_MARK, shard_of
from akosha.quality.fsck import fsck
from akosha.uploads.memos import read_memo
from akosha.uploads.reader import RULES_ID
from akosha.uploads.sandbox import Form, Reading, Sandbox

KINDS: Final = (*mutation_bytes.KINDS, *mutation_manifests.KINDS, *mutation_crafted.KINDS)
BATCH: Final = 250
SHARDS: Final = 5  # that the systems of a batch share: uploads of a shard share commits
ARRIVED: Final = datetime(2026, 11, 21, 6, tzinfo=UTC).timestamp()
RUNBOOK: Final = Path(__file__).parents[2] / "docs" / "runbooks" / "operate.md"
STRONG: Final = {"id", "extracted_at"}
CONTROL: Final = "control-"


@dataclass(frozen=True)
class Case:
    """One case, made again by its kind and seed."""

    kind: Kind
    seed: int

    @property
    def system(self) -> str:
        return f"{self.kind.name}-{self.seed}"

    def attempt(self, system: str) -> Attempt:
        return self.kind.make(system, Random(f"{self.kind.name}/{self.seed}"))  # noqa: S311 - made again by its seed


@dataclass
class Scoreboard:
    """What became of the cases, by kind; of the refused ones, why."""

    cases: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    nothing: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    records: int = 0
    failures: list[str] = field(default_factory=list)

    def text(self) -> str:
        """As it is printed."""
        lines = [f"{'kind':24} {'cases':>6} {'refused':>8} {'as meant':>10} {'no record':>10}"]
        for name, count in [*self.cases.items(), ("all", self.cases.total())]:
            parts = [
                table.total() if name == "all" else table[name] for table in (self.refused, self.accepted, self.nothing)
            ]
            lines.append(f"{name:24} {count:6,} {parts[0]:8,} {parts[1]:10,} {parts[2]:10,}")
        lines.append("uploads refused: " + ", ".join(f"{code} {count:,}" for code, count in self.reasons.most_common()))
        lines.append(
            "rows refused, vectors dropped: " + ", ".join(f"{code} {n:,}" for code, n in self.rows.most_common())
        )
        lines.append(f"records accepted and compared: {self.records:,}")
        lines.append(f"crashes of the task: 0; failures, differing records among them: {len(self.failures)}")
        return "\n".join([*lines, *self.failures])


def cases(total: int) -> list[Case]:
    """At least so many cases, every kind among them, in an order that mixes the kinds."""
    shares = sum(kind.share for kind in KINDS)
    made = [Case(kind, seed) for kind in KINDS for seed in range(max(2, ceil(kind.share * total / shares)))]
    Random(total).shuffle(made)  # noqa: S311 - the same order each time
    return made


def batches(chosen: Sequence[Case]) -> Iterator[Sequence[Case]]:
    """The cases that share a lake."""
    for start in range(0, len(chosen), BATCH):
        yield chosen[start : start + BATCH]


class Corpus:
    """Judges cases, one lake for each batch. `sandbox` runs; it is the real one, with less room for each file."""

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        self._folder = folder
        self._sandbox = sandbox
        self.board = Scoreboard()
        table = RUNBOOK.read_text().split("## Quarantine", 1)[1].split("\n## ", 1)[0]
        self._reasons = set(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE))
        self._row_codes = {rule["code"] for rule in model(RULES_ID)["rules"]}

    def run(self, chosen: Sequence[Case], patch: pytest.MonkeyPatch) -> None:
        """Upload, ingest and judge one batch.

        A task that crashes ends the run: what has no memo by then is named.
        """
        installation = Installation.local(self._folder, sandbox_max_bytes=32 << 20, workers=1)
        lake = Lake.create(installation.settings, now=datetime(2026, 11, 21, tzinfo=UTC))
        patch.setattr(ingest, "reading_process", lambda: nullcontext(self._sandbox))
        shards = {(len(self.board.cases) * 7 + n * 51) % 256 for n in range(SHARDS)}
        attempts = {}
        for name in NAMES:
            self._put(installation, f"{CONTROL}{name}", objects(f"{CONTROL}{name}", sound(name)))
        for case in chosen:
            system = next(name for n in range(99_999) if shard_of(name := f"{case.system}.{n}") in shards)
            attempts[system] = (case, case.attempt(system))
            self._put(installation, system, attempts[system][1].objects)
        try:
            summary = installation.ingest()
        except Exception as error:
            left = sorted(case.system for system, (case, _) in attempts.items() if not _memos(lake, system))
            message = f"the task ended with {type(error).__name__}: {error}; no memo yet: {left}"
            raise AssertionError(message) from error
        assert summary["ok"] is True
        self._judge(installation, attempts)
        with installation.applied():
            assert jobs.plan_ingest("again", listing="full")["counts"]["due"] == 0
        findings = fsck(lake, read_data=True).findings
        assert not findings, findings
        shutil.rmtree(self._folder)
        self._folder.mkdir()

    def _put(self, installation: Installation, system: str, made: Sequence[tuple[str, bytes]]) -> None:
        """Written without syncing, as of one moment: the time of arrival bounds the manifest's."""
        for key, data in made:
            path = installation.uploads.local_path(f"systems/{system}/uploads/{key}")
            assert path is not None
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            os.utime(path, (ARRIVED, ARRIVED))

    def _judge(self, installation: Installation, attempts: dict[str, tuple[Case, Attempt]]) -> None:
        memos: dict[str, list[dict[str, Any]]] = {}
        store = installation.lake.store
        for found in (*store.list(MEMO_PREFIX), *store.list(QUARANTINE_PREFIX)):
            if not found.key.endswith(REFUSED_ROWS_MARK):
                memo = read_memo(store, found.key)
                memos.setdefault(memo["system_id"], []).append(memo)
        rows: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
        for row in installation.export().to_pylist():
            rows.setdefault(row["system_id"], {})[row["source_table"], row["record_id"]] = row
        for name in NAMES:
            assert self._records(rows.get(f"{CONTROL}{name}", {})) == sound(name).records, name
        for system, (case, attempt) in attempts.items():
            found = rows.get(system, {})
            control = rows[f"{CONTROL}{attempt.control}"] if attempt.control and not attempt.authored else None
            wrong = [
                *self._wrong_memos(attempt, memos.get(system, [])),
                *self._wrong_rows(attempt, memos.get(system, []), found),
            ]
            wrong += [] if control is None else _wrong_times(attempt, found, control)
            self.board.failures += [f"{case.kind.name} seed {case.seed}: {message}" for message in wrong]
            self._count(case, memos.get(system, []), len(found))
        assert set(rows) <= {*attempts, *(f"{CONTROL}{name}" for name in NAMES)}

    def _count(self, case: Case, memos: Sequence[dict[str, Any]], records: int) -> None:
        board, name = self.board, case.kind.name
        board.cases[name] += 1
        refused = [memo["reason"] for memo in memos if memo["outcome"] == "quarantined"]
        board.reasons.update(refused)
        table = board.accepted if records else board.refused if refused else board.nothing
        table[name] += 1
        board.records += records
        for memo in memos:
            board.rows.update(memo.get("refused", {}))
            board.rows.update(memo.get("dropped_vectors", {}))

    def _wrong_memos(self, attempt: Attempt, memos: Sequence[dict[str, Any]]) -> Iterator[str]:
        wanted = sum(key.endswith("/manifest.json") for key, _ in attempt.objects)
        if len(memos) != wanted or len({memo["manifest_key"] for memo in memos}) != wanted:
            yield f"{wanted} uploads are due, {len(memos)} memos were written"
        for memo in memos:
            if memo["outcome"] not in {"applied", "unchanged", "quarantined"}:
                yield f"outcome {memo['outcome']}"
            if memo["outcome"] == "quarantined":
                yield from self._wrong_refusal(attempt, memo)
            elif attempt.must == "refuse":
                yield f"taken ({memo['outcome']}), expected one of {sorted(attempt.reasons)}"
            unknown = {*memo.get("refused", {}), *memo.get("dropped_vectors", {})} - self._row_codes
            if unknown:
                yield f"rows refused for undeclared reasons {unknown}"

    def _wrong_refusal(self, attempt: Attempt, memo: dict[str, Any]) -> Iterator[str]:
        reason, message = memo["reason"], memo["message"]
        if reason not in self._reasons:
            yield f"reason {reason!r} is not declared"
        if attempt.must == "accept":
            yield f"refused ({reason}: {message}), expected to be taken"
        if attempt.reasons and reason not in attempt.reasons:
            yield f"refused as {reason} ({message}), expected one of {sorted(attempt.reasons)}"
        if not 30 < len(message) < 2_000 or " " not in message or not message.isprintable() or "Traceback" in message:
            yield f"no sentence: {message!r}"

    def _wrong_rows(
        self, attempt: Attempt, memos: Sequence[dict[str, Any]], rows: dict[tuple[str, str], dict[str, Any]]
    ) -> Iterator[str]:
        if attempt.authored or (
            not rows and all(memo["outcome"] == "quarantined" or "file" not in memo for memo in memos)
        ):
            return
        found = self._records(rows)
        for key in sorted(found.keys() | attempt.truth.keys()):
            if found.get(key) != attempt.truth.get(key):
                yield f"record {key!r}: accepted {_short(found.get(key))}, the undamaged upload has {_short(attempt.truth.get(key))}"

    def _records(self, rows: dict[tuple[str, str], dict[str, Any]]) -> Records:
        return {
            key: Record(
                row["content"], None if row["embedding"] is None else np.array(row["embedding"], "<f4").tobytes()
            )
            for key, row in rows.items()
        }


def _wrong_times(
    attempt: Attempt, rows: dict[tuple[str, str], dict[str, Any]], control: dict[tuple[str, str], dict[str, Any]]
) -> Iterator[str]:
    """Times are those of the undamaged upload; only an edited manifest moves one, and then the evidence is not the record's own."""
    for key, row in rows.items():
        wanted = control.get(key)
        if wanted is None or (row["created_at"], row["time_evidence"]) == (
            wanted["created_at"],
            wanted["time_evidence"],
        ):
            continue
        manifest = json.loads(row["provenance"])["manifest_time"]
        if not attempt.retimed or row["time_evidence"] in STRONG or not manifest:
            yield (
                f"record {key!r}: time {row['created_at']} by {row['time_evidence']}, the undamaged upload has "
                f"{wanted['created_at']} by {wanted['time_evidence']}"
            )


def _memos(lake: Lake, system: str) -> list[str]:
    return [
        found.key
        for prefix in (MEMO_PREFIX, QUARANTINE_PREFIX)
        for found in lake.store.list(f"{prefix}{shard_of(system):03d}/")
        if not found.key.endswith(REFUSED_ROWS_MARK) and read_memo(lake.store, found.key)["system_id"] == system
    ]


def _short(record: Record | None) -> str:
    if record is None:
        return "nothing"
    return f"{record.text[:60]!r} ({len(record.text):,} letters, {'a' if record.vector else 'no'} vector)"


class SmallSandbox(Sandbox):
    """The real one, with room for less, so that a bomb of a test may be a small one.

    `inline_rows`: so many rows are read at once; of larger files keys first and texts after.
    """

    def __init__(self, inline_rows: int = 4_096) -> None:
        super().__init__(timeout_seconds=30, max_rows=100_000, max_output_bytes=48 << 20)
        self.inline_rows = inline_rows

    def read(
        self, database: Path, out_dir: Path, *, inline_rows: int = 0, form: Form = "keys", known: Path | None = None
    ) -> Reading:
        return super().read(database, out_dir, inline_rows=self.inline_rows, form=form, known=known)
