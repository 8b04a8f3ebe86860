"""Cleaning of text before anything is derived from it.

The stored text is never cleaned. Fingerprint, summary and embedding are made from ``clean(text)``, so that terminal
noise, encodings and line ends do not decide what is found. Words and code are left alone: nothing is rewritten, only
characters that nobody sees are removed.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata

CLEANING_ID = "clean-v1"
ENCODED_PREFIX = "__SB64__"
REPLACEMENT = "\ufffd"
# Four times what a client stores at most; what lies behind is stored, but nothing is derived from it.
MAX_CHARACTERS = 262_144
# Normalising sorts runs of combining marks in quadratic time: hostile text is cut into pieces.
PIECE_CHARACTERS = 4_096

_LINE_END = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
_TERMINAL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
# C0 and C1 controls except tab and line feed, delete, and the characters that reorder what is displayed.
_UNSEEN = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_WORDS = re.compile(r"\s+|\S+")
# What stays of ASCII; most texts hold nothing else.
_KEPT = b"\t\n" + bytes(range(32, 127))


def clean(text: str) -> str:
    """Make text fit to derive things from (``clean-v1``).

    In this order: the first 262,144 characters are taken; text stored as ``__SB64__`` + base64 is decoded (left as it is
    if it is not base64); surrogate pairs are joined and lone surrogates become U+FFFD; every line end becomes a line feed; terminal colour sequences, control
    characters other than tab and line feed, and bidirectional overrides are removed; the rest is normalised to NFC,
    words of more than 4,096 characters in pieces. Applying it twice changes nothing more, except for text that was encoded twice.

    Args:
        text: any string.

    Returns:
        A string that is valid UTF-8.
    """
    text = text[:MAX_CHARACTERS]
    if text.startswith(ENCODED_PREFIX):
        text = _decoded(text)
    if text.isascii() and not text.encode().translate(None, _KEPT):
        return text
    if _SURROGATE.search(text):
        text = _without_surrogates(text)
    text = _LINE_END.sub("\n", text)
    if _UNSEEN.search(text):
        text = _UNSEEN.sub("", _TERMINAL.sub("", text))
    return text if text.isascii() else _normalised(text)


def _normalised(text: str) -> str:
    """NFC. White space never composes with its neighbours, so words can be normalised one by one."""
    if len(text) <= PIECE_CHARACTERS:
        return unicodedata.normalize("NFC", text)
    return "".join(
        unicodedata.normalize("NFC", word[start : start + PIECE_CHARACTERS])
        for word in _WORDS.findall(text)
        for start in range(0, len(word), PIECE_CHARACTERS)
    )


def _decoded(text: str) -> str:
    """The text behind ``__SB64__``: base64 of UTF-8 in which lone surrogates were passed through."""
    try:
        raw = base64.b64decode(text[len(ENCODED_PREFIX) :], validate=True)
    except (binascii.Error, ValueError):
        return text
    try:
        return raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace")


def _without_surrogates(text: str) -> str:
    # The UTF-16 decoder joins pairs when surrogates are passed through, and passes lone ones on.
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return _SURROGATE.sub(REPLACEMENT, joined)
