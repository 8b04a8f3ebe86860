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
# Both kinds of stop begin with one set of characters, which is searched for several times faster than alternatives.
_END = re.compile(
    r"([.!?\u3002\uff01\uff1f](?:(?<=[\u3002\uff01\uff1f])|(?<![.!?][.!?])[.!?]*+[\"'\u201d\u2019)\]*_`]*+\s+))"
)
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
    found = map(str.strip, _split(_paragraphs(without_fences(text))).split("\n"))
    return [line if len(line) <= MAX_SENTENCE_CHARACTERS else shorten(line) for line in found if _WORD.search(line)]


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


def _paragraphs(text: str) -> str:
    """The text with one line for each run of lines that belong together, without its list or heading marker."""
    parts: list[str] = []
    wrapped = False
    for line in text.split("\n"):
        content = line.strip()
        if not content:
            wrapped = False
            continue
        # Most lines begin with a letter, which neither a marker nor what is not prose does.
        if not content[0].isalpha():
            if _NOT_PROSE.match(line):
                continue
            if marker := _MARKER.match(line):
                content = line[marker.end() :].strip()
                wrapped = False
        parts += (" " if wrapped else "\n", content)
        wrapped = len(content) >= _WRAPPED_CHARACTERS
    return "".join(parts)


def _split(paragraphs: str) -> str:
    """Paragraphs, each a line, with a line for each of their sentences."""
    pieces = _END.split(paragraphs)
    for index in range(1, len(pieces), 2):
        end = pieces[index]
        if "\n" not in end and not _goes_on(pieces[index - 1], end, pieces[index + 1]):
            pieces[index] = f"{end}\n"
    return "".join(pieces)


def _goes_on(before: str, end: str, after: str) -> bool:
    """Whether the full stop belongs to an abbreviation, an initial or an ellipsis inside a sentence."""
    if end[0] != ".":
        return False
    following = after[:1]
    if end[1] in ".!?":
        return end[1] == "." and following.islower()
    # 24 characters hold every abbreviation that is known here; what stands in a paragraph before is none.
    words = before[-24:].rpartition("\n")[2].rsplit(None, 1)
    word = words[-1].strip("([\"'*_") if words else ""
    if len(word) == 1 and word.isupper() and word != "I":
        return True
    word = word.lower()
    if following.islower():
        return word in _NOT_BEFORE_LOWER or word in _NEVER_LAST
    return word in _NEVER_LAST or (following.isdigit() and word in _NOT_BEFORE_NUMBER)
