"""Damaged and hostile uploads through the whole pipeline: refused with a reason, or taken exactly as they were meant.

MUTATIONS=5000 runs the long form (`make mutations`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from tests.support.mutation_corpus import Corpus, SmallSandbox, batches, cases

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CASES = int(os.environ.get("MUTATIONS", "400"))


def test_no_damage_crashes_the_task_or_changes_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """I5, I15, I21: every upload that is due ends with one memo, every refusal has a declared reason and a sentence."""
    with SmallSandbox() as sandbox:
        corpus = Corpus(tmp_path, sandbox)
        for number, batch in enumerate(batches(cases(CASES))):
            sandbox.inline_rows = (4_096, 3)[number % 2]  # read in one go, and in two
            corpus.run(batch, monkeypatch)
            sys.stdout.write(f"\n{corpus.board.cases.total():,} cases, {len(corpus.board.failures)} failures")
    with capsys.disabled():
        sys.stdout.write(f"\n{corpus.board.text()}\n")
    assert not corpus.board.failures
    assert corpus.board.cases.total() >= CASES
