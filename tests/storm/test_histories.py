"""Random histories of snapshots through the whole pipeline, against a dictionary: order, repetition and crashes do not show.

HISTORIES=200 runs the long form (`make mutations`). A failing case is named by its seed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.support.dying_store import DiedError, DyingStore, Fuse
from tests.support.histories import START, Snapshot, drawn_history, expected
from tests.support.installation import Installation
from tests.support.mutation_corpus import SmallSandbox
from tests.support.uploads import put_upload

from akosha.jobs import ingest
from akosha.lake import lake as lakes
from akosha.lake.lake import Lake
from akosha.lake.stores import open_store
from akosha.quality.fsck import fsck

pytestmark = [pytest.mark.integration, pytest.mark.slow]

EXAMPLES = int(os.environ.get("HISTORIES", "6"))
LATEST_CALL = 100  # about what a run of these histories makes


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SmallSandbox]:
    with SmallSandbox() as running:
        yield running


class Pipeline:
    """One lake and its uploads, whose runs may die."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.installation = Installation.local(folder, workers=1)
        self._patch = patch
        self.runs = self.deaths = 0
        Lake.create(self.installation.settings, now=START)

    def receive(self, snapshots: Sequence[Snapshot]) -> None:
        for snapshot in snapshots:
            put_upload(self.installation.uploads, snapshot.system, snapshot.moment, snapshot.database())

    def run(self, fuse: Fuse | None = None) -> None:
        """One ingest of everything due; with a fuse it may die on the way."""
        self.runs += 1
        fuse = fuse or Fuse()
        with self._patch.context() as patch:
            for module in (lakes, ingest):
                patch.setattr(
                    module, "open_store", lambda *given, **options: DyingStore(open_store(*given, **options), fuse)
                )
            try:
                self.installation.ingest()
            except DiedError:
                self.deaths += 1

    def forget(self) -> None:
        """Lose every memo: all uploads come again."""
        store = self.installation.lake.store
        for found in list(store.list("uploads/")):
            store.delete(found.key)

    def export(self) -> pa.Table:
        return self.installation.export().drop_columns(["provenance"])


@pytest.mark.parametrize("seed", range(EXAMPLES))
def test_order_repetition_and_crashes_do_not_show(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sandbox: SmallSandbox
):
    """I1, I4, I6, I12, I13, I14, I18: the export equals the dictionary's and that of uploads taken in order."""
    monkeypatch.setattr(ingest, "reading_process", lambda: nullcontext(sandbox))
    random = Random(seed)  # noqa: S311 - drawn again by its seed
    sandbox.inline_rows = random.choice([3, 4_096])
    history = drawn_history(random)

    stormy = Pipeline(tmp_path / "stormy", monkeypatch)
    left = list(history)
    random.shuffle(left)
    while left:
        count = random.randrange(1, len(left) + 1)
        stormy.receive(left[:count])
        del left[:count]
        for _ in range(random.randrange(3)):
            stormy.run(Fuse(random.randrange(1, LATEST_CALL), done=random.random() < 0.5))
        if random.random() < 0.7:
            stormy.run()
        if random.random() < 0.2:
            stormy.forget()
    stormy.run()
    stormy.run()

    found = {
        (row["system_id"], row["source_table"], row["record_id"]): _seen(row) for row in stormy.export().to_pylist()
    }
    wanted = expected(history)
    assert found.keys() == wanted.keys(), seed
    for key, record in wanted.items():
        assert found[key] == record, (seed, key)

    calm = Pipeline(tmp_path / "calm", monkeypatch)
    calm.receive(history)
    calm.run()
    assert stormy.export().equals(calm.export()), seed
    heads = stormy.installation.heads()
    stormy.run()
    assert stormy.installation.heads() == heads
    damage = [
        finding for finding in fsck(stormy.installation.lake, read_data=True).findings if finding.severity == "damage"
    ]
    assert not damage, seed
    sys.stdout.write(
        f"seed {seed}: {len(history)} snapshots, {len(wanted)} records, {stormy.runs} runs of which {stormy.deaths} died"
        "\n"
    )


def _seen(row: dict[str, Any]) -> dict[str, Any]:
    embedding = None if row["embedding"] is None else np.array(row["embedding"], "<f4").tobytes()
    kept = ("content", "created_at", "time_evidence", "project", "metadata", "tier")
    return {**{name: row[name] for name in kept}, "embedding": embedding}
