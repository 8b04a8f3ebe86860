"""The storm's scoreboard, printed when everything has run; and the warm processes that its cases are forked from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.cases import Pool, case_pool
from tests.support.scoreboard import BOARD, SEED


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    with case_pool() as running:
        yield running


@pytest.fixture(scope="session")
def stages(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake at every stage of its life, to be copied."""
    root = tmp_path_factory.mktemp("stages")
    pool.ask({"do": "stages", "root": str(root)})
    return root


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not (BOARD.crashes or BOARD.faults or BOARD.damaged or BOARD.steps):
        return
    terminalreporter.section(f"storm, STORM_SEED={SEED}")
    terminalreporter.write_line(BOARD.text())
    if file := os.environ.get("STORM_BOARD"):
        Path(file).write_text(BOARD.text() + "\n")
