"""Near-duplicates of a text, and the odd things real memories hold. Every choice is drawn from a seeded generator."""

from __future__ import annotations

import re
from random import Random
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")
Variant = Literal["typo", "edit", "swapped"]
VARIANTS: tuple[Variant, ...] = ("typo", "edit", "swapped")

TYPOS_PER_CHARACTER = 0.02
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_OPENINGS = (
    "Note from the review: ",
    "Found it again today. ",
    "As discussed, ",
    "Reminder for the team: ",
)
_FACTS = (
    ("true", "false"), ("before", "after"), ("first", "last"), ("always", "never"), ("True", "False"),
    ("string", "integer"), ("row", "column"), ("rows", "columns"), ("left", "right"), ("minimum", "maximum"),
    ("enabled", "disabled"), ("input", "output"), ("list", "dictionary"), ("class", "function"), ("table", "index"),
    ("must", "need not"), ("default", "fallback"), ("method", "attribute"), ("value", "key"), ("if", "unless"),
)  # fmt: skip
_SWAPS = dict(_FACTS) | {b: a for a, b in _FACTS}
_CODE = (
    "```python\nfor attempt in range({n}):\n    try:\n        return call()\n"
    "    except TimeoutError:\n        sleep(0.1)\n```"
)
_ENDINGS = (
    "日本語のコメントも直した。",
    "Zoë pointed out that the façade hides this.",
    "Left a TODO for the dashboard. 🚀",
    "The ticket was written half in Spanish: ¿por qué falla el índice?",
    "The token was [REDACTED], so we rotated it.",
)


def seeded(seed: str) -> Random:
    """A generator that gives the same numbers for the same seed, on every machine and Python."""
    return Random(seed)  # noqa: S311 - repeatable on purpose, nothing secret depends on it


def pick(random: Random, options: Sequence[T]) -> T:
    """One of the options; only `Random.random` is used, whose sequence no Python version changes."""
    return options[int(random.random() * len(options))]


def vary(text: str, kind: Variant, random: Random) -> str:
    """A text near to `text` but not equal: mistyped, lightly edited, or with facts swapped (a hard negative)."""
    changed = {"typo": _mistype, "edit": _edit, "swapped": _swap}[kind](text, random)
    return changed if changed != text else _edit(text, random)


def decorate(text: str, random: Random) -> str:
    """Now and then a code fence, other scripts, an emoji or a redaction mark, as in real memories."""
    chance = random.random()
    if chance < 0.02:
        return f"{text}\n\n{_CODE.format(n=3 + int(random.random() * 60))}"
    return f"{text} {pick(random, _ENDINGS)}" if chance < 0.06 else text


def _mistype(text: str, random: Random) -> str:
    characters: list[str] = []
    for character in text:
        chance = random.random() if character.isalpha() else 1.0
        if chance < TYPOS_PER_CHARACTER / 3:
            continue
        characters.append(pick(random, _LETTERS) if chance < TYPOS_PER_CHARACTER * 2 / 3 else character)
        if TYPOS_PER_CHARACTER * 2 / 3 <= chance < TYPOS_PER_CHARACTER:
            characters.append(character)
    return "".join(characters)


def _edit(text: str, random: Random) -> str:
    sentences = re.split(r"(?<=[.!?]) ", text)
    if len(sentences) > 2 and random.random() < 0.5:
        del sentences[int(random.random() * len(sentences))]
    return pick(random, _OPENINGS) + " ".join(sentences)


def _swap(text: str, random: Random) -> str:
    def other(match: re.Match[str]) -> str:
        word = match.group()
        if word.isdigit():
            return str(int(word) + 1 + int(random.random() * 90))
        return _SWAPS[word]

    return re.sub(rf"\b(?:\d{{1,9}}|{'|'.join(_SWAPS)})\b", other, text)
