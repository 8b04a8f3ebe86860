"""Extractive summaries: the sentences nearest to the text's own word counts, without saying the same twice."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from akosha.transforms.relevance import choose
from akosha.transforms.sentences import sentences, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SUMMARY_ID = "tf-mmr-3-v1"
# A text beyond this is summarised from its beginning; a client stores at most 65,536 characters.
MAX_CHARACTERS = 70_000
# Texts are taken together up to this many characters, so that numpy's cost per call is shared by hundreds of texts.
_CHUNK_CHARACTERS = 128 * 1024


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
    return [summary for chunk in _chunks(texts) for summary in _summaries(chunk)]


def _chunks(texts: Sequence[str]) -> Iterator[list[list[str]]]:
    """The different sentences of each text, in groups of texts of about `_CHUNK_CHARACTERS`."""
    chunk: list[list[str]] = []
    size = 0
    for text in texts:
        beginning = text[:MAX_CHARACTERS]
        chunk.append(list(dict.fromkeys(sentences(beginning))) or [_first_line(beginning)])
        size += len(beginning) + 1
        if size >= _CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _summaries(chunk: list[list[str]]) -> Iterator[Summary]:
    joined = list(chain.from_iterable(chunk))
    for chosen in choose(joined, [len(found) for found in chunk]).tolist():
        yield Summary(" ".join([joined[index] for index in sorted(set(chosen))]), joined[chosen[0]])


def _first_line(text: str) -> str:
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return next((shorten(line) for line in lines if line and not line.startswith(("```", "~~~"))), "")
