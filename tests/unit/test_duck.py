"""DuckDB databases are kept between uses, but for those that did large work or failed."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from akosha.errors import IntegrityError
from akosha.lake import duck

HERE = Path("a file")


def is_marked() -> bool:
    """Whether the next block gets the database that was marked."""
    with duck.connection(HERE) as con:
        return bool(con.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'mark'").fetchall()[0][0])


def mark(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("CREATE TABLE memory.main.mark (n INTEGER)")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duck, "_idle", [])


def test_a_database_is_used_again():
    with duck.connection(HERE) as con:
        mark(con)
    assert is_marked()


def test_one_that_did_large_work_is_given_back_with_its_memory():
    with duck.connection(HERE, large=True) as con:
        mark(con)
    assert not is_marked()


@pytest.mark.parametrize("error", [duckdb.Error("it broke"), KeyboardInterrupt()], ids=["of DuckDB", "any other"])
def test_one_that_failed_is_not_used_again(error: BaseException):
    def work() -> None:
        with duck.connection(HERE) as con:
            mark(con)
            raise error

    with pytest.raises((IntegrityError, KeyboardInterrupt)):
        work()
    assert not is_marked()
