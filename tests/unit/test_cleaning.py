from __future__ import annotations

import base64
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from akosha.transforms.cleaning import MAX_CHARACTERS, clean

ANY_TEXT = st.text(st.characters(codec=None))


def encoded(text: str) -> str:
    return "__SB64__" + base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("one\r\ntwo\rthree\u2028four\x85five", "one\ntwo\nthree\nfour\nfive"),
        ("a\0b\x07c\x7fd\x9fe", "abcde"),
        ("user\u202egnp.exe\u2066!", "usergnp.exe!"),
        ("\x1b[31;1mred\x1b[0m text", "red text"),
        ("cafe\u0301", "caf\u00e9"),
        ("if a\t< b:\n    return 'x'", "if a\t< b:\n    return 'x'"),
        ("lone \udc00 surrogate", "lone \ufffd surrogate"),
        ("pair \ud83d\ude00", "pair \U0001f600"),
        (encoded("lone \udc00 here"), "lone \ufffd here"),
        (encoded("plain"), "plain"),
        ("__SB64__not base64!", "__SB64__not base64!"),
        ("__SB64__" + base64.b64encode(b"\xff\xfe ok").decode(), "\ufffd\ufffd ok"),
        ("", ""),
    ],
)
def test_clean_golden_texts(text: str, expected: str) -> None:
    assert clean(text) == expected


@given(ANY_TEXT)
def test_cleaned_text_is_valid_utf8_and_stays_as_it_is(text: str) -> None:
    cleaned = clean(text)
    assert cleaned.encode("utf-8").decode("utf-8") == cleaned
    assert clean(cleaned) == cleaned


@given(ANY_TEXT.filter(lambda text: not text.startswith("__SB64__")))
def test_encoded_text_cleans_to_the_same_as_the_text_itself(text: str) -> None:
    assert clean(encoded(text)) == clean(text)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_printable_code_is_never_rewritten(text: str) -> None:
    assert clean("code: " + text) == "code: " + text


@pytest.mark.parametrize("letter", [chr(point) for point in range(128)])
def test_every_letter_of_ascii_stays_becomes_a_line_feed_or_goes(letter: str) -> None:
    kept = letter if letter in "\t\n" or letter.isprintable() else "\n" if letter in "\r\v\f" else ""
    assert clean(f"a{letter}b") == f"a{kept}b"


def test_hostile_runs_of_combining_marks_cost_no_more_than_their_pieces() -> None:
    marks = "a" + "\u0301\u0316" * 600_000
    cleaned = clean(marks)
    assert len(cleaned) <= MAX_CHARACTERS
    assert cleaned.startswith(unicodedata.normalize("NFC", marks[:4_096]))


def test_long_words_are_normalised_in_pieces_and_short_ones_whole() -> None:
    text = "cafe\u0301 " * 2_000
    assert clean(text) == "caf\u00e9 " * 2_000
