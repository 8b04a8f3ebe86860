"""Splitting of technical text into sentences.

Made for what assistants write: Markdown with code fences, lists, URLs, paths and version numbers. A full stop ends a
sentence only before white space, so URLs, decimals and file names stay whole.
"""

from __future__ import annotations

import re

MAX_SENTENCE_CHARACTERS = 300
# A line shorter than this was not wrapped by an editor: the next one starts a new sentence.
_WRAPPED_CHARACTERS = 40

# Quantifiers are possessive where hostile text could make the search quadratic.
_FENCE = re.compile(
    r"^[ \t]*+(`{3,}+|~{3,}+)[^\n]*+(?:\n|\Z)(?:.*?^[ \t]*+\1[`~]*+[ \t]*+$|.*)", re.MULTILINE | re.DOTALL
)
_NOT_PROSE = re.compile(r"[ \t]*(?:(?:>>>|\.\.\.)(?:[ \t]|$)|[│┌└├╞╭╰])")
_MARKER = re.compile(r"\s*(?:(?:[-*+•>|]|#{1,6}|\d{1,3}[.)])\s+|\|)")
_END = re.compile(r"(?<![.!?])([.!?]++)[\"'\u201d\u2019)\]*_`]*+\s+|[\u3002\uff01\uff1f]")
_WORD = re.compile(r"[^\W\d_]{2}")
_NEVER_LAST = frozenset(["dr", "mr", "mrs", "ms", "prof", "vs", "cf", "resp", "incl", "approx", "e.g", "i.e", "viz"])
_NOT_BEFORE_NUMBER = frozenset(["no", "nr", "fig", "eq", "sec", "ch", "vol", "pp", "ca", "p"])
_NOT_BEFORE_LOWER = frozenset(["etc", "al", "inc", "ltd", "co", "corp", "dept", "a.m", "p.m", "u.s", "st"])


def sentences(text: str) -> list[str]:
    """Split a text into sentences.

    Code fences, interpreter prompts and drawn tables are dropped. A list item, heading or quoted line starts a sentence and loses its
    marker; wrapped lines are joined. What holds no word is left out, what is longer than `MAX_SENTENCE_CHARACTERS` is
    cut at a blank and ends in an ellipsis.

    Args:
        text: cleaned by the caller (`akosha.transforms.cleaning.clean`).

    Returns:
        Sentences in the order of the text, each one line.
    """
    found: list[str] = []
    for paragraph in _paragraphs(without_fences(text)):
        found += [shorten(sentence) for sentence in _split(paragraph) if _WORD.search(sentence)]
    return found


def without_fences(text: str) -> str:
    """The text without fenced code; an unclosed fence reaches to the end."""
    if "```" not in text and "~~~" not in text:
        return text
    return _FENCE.sub("\n", text)


def shorten(sentence: str) -> str:
    """Cut a sentence that is too long at its last blank, so that it ends in an ellipsis within the limit."""
    if len(sentence) <= MAX_SENTENCE_CHARACTERS:
        return sentence
    kept = sentence[: MAX_SENTENCE_CHARACTERS - 1]
    blank = kept.rfind(" ", MAX_SENTENCE_CHARACTERS // 2)
    return (kept[:blank] if blank > 0 else kept).rstrip() + "…"


def _paragraphs(text: str) -> list[str]:
    """Runs of lines that belong together, each joined to one line without its list or heading marker."""
    paragraphs: list[str] = []
    lines: list[str] = []
    for line in text.split("\n"):
        content = line.strip()
        # Most lines begin with a letter, which neither a marker nor what is not prose does.
        special = content and not content[0].isalpha()
        marker = _MARKER.match(line) if special else None
        if not content or marker or (lines and len(lines[-1]) < _WRAPPED_CHARACTERS):
            if lines:
                paragraphs.append(" ".join(lines))
            lines = []
        if content and not (special and _NOT_PROSE.match(line)):
            lines.append(line[marker.end() :].strip() if marker else content)
    if lines:
        paragraphs.append(" ".join(lines))
    return paragraphs


def _split(paragraph: str) -> list[str]:
    found: list[str] = []
    start = 0
    for match in _END.finditer(paragraph):
        if match[1] and _goes_on(paragraph, start, match):
            continue
        found.append(paragraph[start : match.end()].strip())
        start = match.end()
    rest = paragraph[start:].strip()
    if rest:
        found.append(rest)
    return found


def _goes_on(paragraph: str, start: int, match: re.Match[str]) -> bool:
    """Whether the full stop belongs to an abbreviation, an initial or an ellipsis inside a sentence."""
    stops = match[1]
    following = paragraph[match.end() : match.end() + 1]
    if stops != ".":
        return stops.startswith("..") and following.islower()
    # 24 characters hold every abbreviation that is known here.
    words = paragraph[max(start, match.start() - 24) : match.start()].split()
    word = words[-1].strip("([\"'*_") if words else ""
    if len(word) == 1 and word.isupper() and word != "I":
        return True
    word = word.lower()
    if following.islower():
        return word in _NOT_BEFORE_LOWER or word in _NEVER_LAST
    return word in _NEVER_LAST or (following.isdigit() and word in _NOT_BEFORE_NUMBER)
