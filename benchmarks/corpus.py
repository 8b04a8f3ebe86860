"""Real technical texts for benchmarks and declared parameters: docstrings of installed packages."""

from __future__ import annotations

import ast
import gzip
import hashlib
import html
import inspect
import json
import re
import sysconfig
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = ("boto3", "botocore", "celery", "numpy", "polars", "pyarrow", "pydantic", "sklearn", "sqlalchemy", "scipy")
_DOCUMENTATION = re.compile(r'"documentation":("(?:[^"\\]|\\.)*")')
_TAG = re.compile(r"<[^>]*>")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def docstrings(count: int, *, shortest: int = 1000, longest: int = 2000) -> list[str]:
    """Different docstrings of the given length in characters, spread over the packages.

    The order is that of their SHA-256, so the choice depends on the installed versions alone.
    """
    found = {
        hashlib.sha256(text.encode("utf-8", "replace")).digest(): text
        for package in PACKAGES
        for text in _of_package(package)
        if shortest <= len(text) <= longest
    }
    return [found[digest] for digest in sorted(found)[:count]]


def _of_package(package: str) -> Iterator[str]:
    for path in sorted((Path(sysconfig.get_path("purelib")) / package).rglob("*.py")):
        if "tests" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node, clean=False)):
                yield inspect.cleandoc(text)


def documentation(count: int, *, shortest: int = 1000, longest: int = 2000) -> list[str]:
    """Different texts of the given length: paragraphs of the AWS service descriptions, no paragraph used twice.

    There are more of them than docstrings, so that `count` may be tens of thousands. The order is that of their SHA-256.
    """
    folder = Path(sysconfig.get_path("purelib")) / "botocore" / "data"
    paragraphs: dict[bytes, str] = {}
    texts: list[str] = []
    for path in sorted(
        folder.glob("*/*/service-2.json.gz"), key=lambda path: hashlib.sha256(path.as_posix().encode()).digest()
    ):
        for found in _DOCUMENTATION.findall(gzip.decompress(path.read_bytes()).decode()):
            text = " ".join(html.unescape(_TAG.sub(" ", json.loads(found))).split())
            if 60 <= len(text) <= longest - shortest:
                paragraphs.setdefault(hashlib.sha256(text.encode()).digest(), text)
        if len(paragraphs) > 14 * count:
            break
    text = ""
    for digest in sorted(paragraphs):
        text = f"{text}\n{paragraphs[digest]}" if text else paragraphs[digest]
        if len(text) >= shortest:
            texts.append(text)
            text = ""
    return texts[:count]
