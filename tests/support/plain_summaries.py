"""``tf-mmr-3-v1`` one text, one sentence and one word at a time: what `akosha.transforms.summaries` must equal.

Lists of words and numbers are the product's own; `test_declared.py` holds those. What is done with them is written anew here.
"""

from __future__ import annotations

import re
from collections import Counter
from math import sqrt

from akosha.transforms import relevance
from akosha.transforms import sentences as splitting
from akosha.transforms.summaries import MAX_CHARACTERS, Summary

_STOP = re.compile(r"(?<![.!?])([.!?]++)[\"'\u201d\u2019)\]*_`]*+\s+|[\u3002\uff01\uff1f]")
_TOKEN = re.compile(r"\w\w+")
_LETTERS = re.compile(r"[^\W\d_]{2}")


def summary_of(text: str) -> Summary:
    """The summary of one text."""
    text = text[:MAX_CHARACTERS]
    found = list(dict.fromkeys(sentences_of(text)))
    if not found:
        lines = (" ".join(line.split()) for line in text.split("\n"))
        line = next((line for line in lines if line and not line.startswith(("```", "~~~"))), "")
        return Summary(splitting.shorten(line), splitting.shorten(line))
    chosen = _chosen(found)
    return Summary(" ".join(found[index] for index in sorted(chosen)), found[chosen[0]])


def sentences_of(text: str) -> list[str]:
    """The sentences of one text."""
    return [
        splitting.shorten(sentence)
        for paragraph in _paragraphs(splitting.without_fences(text))
        for sentence in _split(paragraph)
        if _LETTERS.search(sentence)
    ]


def _paragraphs(text: str) -> list[str]:
    paragraphs: list[list[str]] = [[]]
    for line in text.split("\n"):
        marker = splitting._MARKER.match(line)
        goes_on = paragraphs[-1] and len(paragraphs[-1][-1]) >= splitting._WRAPPED_CHARACTERS
        if not line.strip() or marker or not goes_on:
            paragraphs.append([])
        if line.strip() and not splitting._NOT_PROSE.match(line):
            paragraphs[-1].append(line[marker.end() if marker else 0 :].strip())
    return [" ".join(lines) for lines in paragraphs]


def _split(paragraph: str) -> list[str]:
    found, start = [], 0
    for match in _STOP.finditer(paragraph):
        if not (match[1] and _goes_on(paragraph, start, match)):
            found.append(paragraph[start : match.end()].strip())
            start = match.end()
    return [*found, paragraph[start:].strip()]


def _goes_on(paragraph: str, start: int, match: re.Match[str]) -> bool:
    following = paragraph[match.end() : match.end() + 1]
    if match[1] != ".":
        return match[1].startswith("..") and following.islower()
    words = paragraph[max(start, match.start() - 24) : match.start()].split()
    word = words[-1].strip("([\"'*_") if words else ""
    if len(word) == 1 and word.isupper() and word != "I":
        return True
    return (
        word.lower() in splitting._NEVER_LAST
        or (following.islower() and word.lower() in splitting._NOT_BEFORE_LOWER)
        or (following.isdigit() and word.lower() in splitting._NOT_BEFORE_NUMBER)
    )


def _chosen(found: list[str]) -> list[int]:
    words = [
        [word for word in _TOKEN.findall(sentence.lower()) if word not in relevance._STOP_WORDS] for sentence in found
    ]
    counts = Counter(word for listed in words for word in listed)
    length = sqrt(sum(count**2 for count in counts.values())) or 1.0
    sets = [set(listed) for listed in words]
    scores = [
        sum(counts[word] for word in own) / (sqrt(len(own) or 1) * length) * min(1.0, len(own) / relevance.FULL_WORDS)
        for own in sets
    ]
    scores[0] *= relevance.OPENING_WEIGHT
    chosen: list[int] = []
    while len(chosen) < min(relevance.SENTENCES, len(found)):
        left = {
            index: relevance.RELEVANCE_WEIGHT * scores[index]
            - (1 - relevance.RELEVANCE_WEIGHT) * max((_overlap(own, sets[other]) for other in chosen), default=0.0)
            for index, own in enumerate(sets)
            if index not in chosen
        }
        chosen.append(max(left, key=left.__getitem__))
    return chosen


def _overlap(one: set[str], other: set[str]) -> float:
    return len(one & other) / sqrt(len(one) * len(other)) if one and other else 0.0
