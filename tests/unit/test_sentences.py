from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from akosha.transforms.sentences import MAX_SENTENCE_CHARACTERS, sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One thing failed. Another did not! Why?", ["One thing failed.", "Another did not!", "Why?"]),
        (
            "See https://example.org/a.b?c=d. It uses v2.0.1 at 3.14 ms.",
            ["See https://example.org/a.b?c=d.", "It uses v2.0.1 at 3.14 ms."],
        ),
        ("Ask Dr. Smith, e.g. about i.e. clauses. Done now.", ["Ask Dr. Smith, e.g. about i.e. clauses.", "Done now."]),
        ("J. Doe fixed it. pytest passes.", ["J. Doe fixed it.", "pytest passes."]),
        ("The answer is no. Try it. See No. 5.", ["The answer is no.", "Try it.", "See No. 5."]),
        (
            "Lists, dicts, etc. are fine. Sets etc. Also fine.",
            ["Lists, dicts, etc. are fine.", "Sets etc.", "Also fine."],
        ),
        ("It waits... then goes on. End.", ["It waits... then goes on.", "End."]),
        ('He said "stop." Then (it stopped.) Good.', ['He said "stop."', "Then (it stopped.)", "Good."]),
        ("Before the code:\n```python\nx = 1. Y = 2\n```\nAfter it.", ["Before the code:", "After it."]),
        ("Text first.\n~~~\nnever closed. Code", ["Text first."]),
        ("Text.\n```", ["Text."]),
        (
            "# Heading\n- first item\n* second item\n3. third item",
            ["Heading", "first item", "second item", "third item"],
        ),
        (
            "A line that an editor wrapped at about sixty columns\ngoes on here.",
            ["A line that an editor wrapped at about sixty columns goes on here."],
        ),
        ("short status\nanother status", ["short status", "another status"]),
        (">>> x = 1\nThe value is one.", ["The value is one."]),
        ("修好了。测试通过。", ["修好了。", "测试通过。"]),
        ("--- 123 ---\n\n\t\n", []),
        ("", []),
    ],
)
def test_splitting_of_technical_text(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@given(st.text())
def test_sentences_are_short_single_lines_with_a_word(text: str) -> None:
    for sentence in sentences(text):
        assert sentence == sentence.strip()
        assert "\n" not in sentence
        assert 2 <= len(sentence) <= MAX_SENTENCE_CHARACTERS


def test_an_endless_sentence_is_cut_at_a_blank() -> None:
    (found,) = sentences("word " * 500)
    assert found.endswith("word…")
    assert 200 < len(found) <= MAX_SENTENCE_CHARACTERS
    assert len(sentences("x" * 5000)[0]) == MAX_SENTENCE_CHARACTERS


@pytest.mark.parametrize(
    "hostile",
    ["`" * 70_000, "`" * 35_000 + "\n" + "x" * 35_000, "." * 70_000, "'." * 35_000, " " * 70_000, "```\n" * 17_000,
     "." + "'" * 70_000, "- " * 35_000, "a.'" * 23_000, ("." * 50 + " ") * 1_400, "#" * 70_000, "1" * 70_000],
)  # fmt: skip
def test_hostile_text_takes_linear_time(hostile: str) -> None:
    began = time.process_time()
    found = sentences(hostile)
    assert time.process_time() - began < 1.0
    assert isinstance(found, list)
