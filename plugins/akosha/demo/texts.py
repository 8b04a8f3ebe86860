"""Real English technical prose: the docstrings of pinned packages that are installed anyway.

Recall, duplicates and summaries mean nothing on lorem ipsum. The files are read with `ast`, never imported. Only packages
pinned to one version for every supported Python are listed (numpy, scipy and networkx are not), so that each machine
finds the same texts.
"""

from __future__ import annotations

import ast
import hashlib
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from akosha.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = (
    "airflow", "alembic", "botocore", "flask", "great_expectations", "pandas", "polars", "pydantic", "sklearn",
    "sqlalchemy", "sympy", "tornado", "werkzeug",
)  # fmt: skip
SHORTEST = 150
LONGEST = 700
ENOUGH_PER_PACKAGE = 260
"""Texts taken from one package before its remaining files are left unread: no package dominates, and it stays quick."""

_SKIPPED_FOLDERS = frozenset(
    {"tests", "test", "testing", "_vendor", "vendored", "migrations", "example_dags", "data", "providers"}
)
_SECTION = re.compile(
    r"^(args|arguments|parameters|params|returns?|raises|yields|examples?|notes?|attributes|references|see also|usage|"
    r"warnings?|keyword arguments)\s*:?\s*$",
    re.IGNORECASE,
)
_ROLE = re.compile(r":[\w:.+-]+:`~?\.?([^`<]+?)(?:\s*<[^`>]*>)?`")
_LITERAL = re.compile(r"``([^`]+)``")
_NOT_PROSE = re.compile(r">>>|::|\|\||[{}<>|\\^]|https?:|:param|:return|:type|@|TODO|\.\. ")
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")
_COMMON = frozenset(
    _WORD.findall(
        "a all an and any are as at be been but by can do does each for from has have if in into is it its may more must no "
        "not of on one only or other same should so some such than that the their them then there these they this to used "
        "using was we when where which while will with you"
    )
)


def harvest(packages: tuple[str, ...] = PACKAGES) -> list[str]:
    """Texts of 150 to 700 characters, no two alike, ordered by the SHA-256 of their UTF-8 bytes.

    Raises:
        ConfigurationError: a package of the list is not installed; names it.
    """
    found = {text for package in packages for text in _of_package(package)}
    ordered = sorted(found, key=lambda text: hashlib.sha256(text.encode()).digest())
    seen: set[str] = set()
    distinct = []
    # Template docstrings differ in one name only: one of each opening and of each ending is enough.
    for text in ordered:
        opening, ending = _shape(text[:60]), _shape(text[-60:])
        if opening not in seen and ending not in seen:
            distinct.append(text)
        seen.update((opening, ending))
    return distinct


def _of_package(package: str) -> set[str]:
    texts: set[str] = set()
    for path in _sources(package):
        for docstring in _docstrings(path):
            text = prose(docstring)
            if text is not None:
                texts.add(text)
        if len(texts) >= ENOUGH_PER_PACKAGE:
            break
    return texts


def _sources(package: str) -> list[Path]:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        message = f"the demo texts come from package {package!r}, which is not installed: run `make setup`"
        raise ConfigurationError(message, package=package)
    root = Path(next(iter(spec.submodule_search_locations)))
    paths = {path.relative_to(root).as_posix(): path for path in root.rglob("*.py")}
    kept = [name for name in paths if _SKIPPED_FOLDERS.isdisjoint(name.split("/"))]
    # By digest, not by name: the files read before a package has given enough are then spread over all of it.
    return [paths[name] for name in sorted(kept, key=lambda name: hashlib.sha256(name.encode()).digest())]


def _docstrings(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # templates carry the ending .py too
        return
    waiting: list[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef] = [tree]
    while waiting:  # not ast.walk: expressions are most of a tree and hold no docstrings
        node = waiting.pop()
        if not node.body:
            continue
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            yield first.value.value
        waiting += [child for child in node.body if isinstance(child, ast.ClassDef | ast.FunctionDef)]


def prose(docstring: str) -> str | None:
    """The leading run of prose paragraphs joined into one text, or None when it is not one of a useful length."""
    taken: list[str] = []
    length = 0
    for paragraph in re.split(r"\n[ \t]*\n", docstring.strip()):
        lines = [line.strip() for line in paragraph.splitlines()] or [""]
        if _SECTION.match(lines[0]) or any(set(line) and set(line) <= set("-=~^") for line in lines):
            break
        text = _LITERAL.sub(r"`\1`", _ROLE.sub(r"`\1`", " ".join(lines)))
        text = re.sub(r"\s+", " ", text).strip()
        if not _is_prose(text) or length + len(text) > LONGEST:
            break
        taken.append(text)
        length += len(text) + 1
    joined = " ".join(taken)
    return joined if SHORTEST <= len(joined) <= LONGEST else None


def _is_prose(text: str) -> bool:
    if not text or not text.isascii() or not text[0].isupper() or text[-1] not in ".!?" or _NOT_PROSE.search(text):
        return False
    words = _WORD.findall(text)
    if len(words) < 5:
        return False
    common = sum(word.lower() in _COMMON for word in words) / len(words)
    letters = sum(character.isalpha() or character == " " for character in text) / len(text)
    return common >= 0.28 and letters >= 0.88


def _shape(text: str) -> str:
    return " ".join(_WORD.findall(text.lower()))
