"""SQL statements by name: one file each under ``include/sql``, with its contract on top."""

from __future__ import annotations

from functools import cache

from akosha.declared import include_text


@cache
def statement(name: str) -> str:
    """The text of ``include/sql/<name>.sql``.

    Args:
        name: the file's name without ``.sql``, for example ``insert_keys``.

    Raises:
        ConfigurationError: there is no such statement, or the name is not a plain name.
    """
    return include_text("sql", f"{name}.sql")
