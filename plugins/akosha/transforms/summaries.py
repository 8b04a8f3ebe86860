"""Extractive summaries: the sentences nearest to the text's own word counts, without saying the same twice.

Scores are made of whole counts and correctly rounded roots, and ties go to the earlier sentence, so a text has one
summary on every machine. Method: term-frequency centroid (Radev et al., Centroid-based summarization, 2004) with maximal
marginal relevance (Carbonell and Goldstein, 1998).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from math import inf, sqrt
from typing import TYPE_CHECKING

from akosha.transforms.sentences import sentences, shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

SUMMARY_ID = "tf-mmr-3-v1"
SENTENCES = 3
RELEVANCE_WEIGHT = 0.7
# A sentence of fewer different words is a heading or a stub: its score falls in proportion.
FULL_WORDS = 6
# The opening sentence says what a text is about more often than any other. Measured on docstrings and README parts:
# with 1.5 the best sentence finds its own text among 256 more often (.86 against .81, .71 against .69).
OPENING_WEIGHT = 1.5
# A text beyond this is summarised from its beginning; a client stores at most 65,536 characters.
MAX_CHARACTERS = 70_000

_TOKEN = re.compile(r"\w\w+")
_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        an and are as at be been but by can could did do does for from had has have he her his how if in
        into is it its may me more my no not of on or our out she should so some such than that the their
        them then there these they this to up us was we were what when where which who will with would you
        your also just only any all each both
        """,
    )
)


@dataclass(frozen=True, slots=True)
class Summary:
    """What is kept of a text when it ages.

    Attributes:
        text: up to three sentences in the order of the text, joined by one blank; one line.
        sentence: the best of them.
    """

    text: str
    sentence: str


def summarise(texts: Sequence[str]) -> list[Summary]:
    """Summarise every text on its own.

    Args:
        texts: cleaned by the caller (`akosha.transforms.cleaning.clean`).

    Returns:
        One summary per text, in order. A text without a sentence (only code) gives its first line that is not a fence,
        cut to a sentence's length; a blank text gives empty strings.
    """
    return [_summary(text[:MAX_CHARACTERS]) for text in texts]


def _summary(text: str) -> Summary:
    found = list(dict.fromkeys(sentences(text)))
    if not found:
        line = _first_line(text)
        return Summary(line, line)
    chosen = _choose(found)
    return Summary(" ".join(found[index] for index in sorted(chosen)), found[chosen[0]])


def _first_line(text: str) -> str:
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return next((shorten(line) for line in lines if line and not line.startswith(("```", "~~~"))), "")


def _choose(found: list[str]) -> list[int]:
    """Indices of up to three sentences, the best one first."""
    words = [_TOKEN.findall(sentence.lower()) for sentence in found]
    counts: dict[str, int] = dict(Counter(chain.from_iterable(words)))
    for word in _STOP_WORDS.intersection(counts):
        del counts[word]
    sets = [frozenset(listed) - _STOP_WORDS for listed in words]
    most = [RELEVANCE_WEIGHT * score for score in _relevance(sets, counts)]
    # Redundancy only lowers a score: in this order the search ends where nothing further can win.
    left = sorted(range(len(sets)), key=lambda index: (-most[index], index))
    chosen = [left.pop(0)]
    while left and len(chosen) < SENTENCES:
        best = _next(left, most, sets, chosen)
        chosen.append(best)
        left.remove(best)
    return chosen


def _next(left: list[int], most: list[float], sets: list[frozenset[str]], chosen: list[int]) -> int:
    """The sentence that says most and repeats least of what is chosen already; ties go to the earlier one."""
    best, best_score = left[0], -inf
    for index in left:
        if most[index] < best_score:
            break
        repeated = max([_overlap(sets[index], sets[other]) for other in chosen])
        score = most[index] - (1 - RELEVANCE_WEIGHT) * repeated
        if score > best_score or (score == best_score and index < best):
            best, best_score = index, score
    return best


def _relevance(sets: list[frozenset[str]], counts: dict[str, int]) -> list[float]:
    """Cosine between each sentence's words and the text's word counts, lowered for stubs, raised for the opening."""
    length = sqrt(sum([count * count for count in counts.values()])) or 1.0
    count_of = counts.__getitem__
    scores = [
        sum(map(count_of, words)) / (sqrt(len(words) or 1) * length) * min(1.0, len(words) / FULL_WORDS)
        for words in sets
    ]
    scores[0] *= OPENING_WEIGHT
    return scores


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    """Cosine between two sets of words."""
    if not one or not other:
        return 0.0
    return len(one & other) / sqrt(len(one) * len(other))
