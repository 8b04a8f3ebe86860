from __future__ import annotations

import inspect
import json
import logging
import subprocess
import textwrap
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.plain_summaries import sentences_of, summary_of

from akosha.transforms.cleaning import clean
from akosha.transforms.sentences import MAX_SENTENCE_CHARACTERS, sentences
from akosha.transforms.summaries import Summary, summarise

SESSION = """\
# Flaky upload test

The upload test failed about once in forty runs on CI. Locally it never failed.

```python
assert store.head() == 41  # The upload test failed here. Upload, upload, upload.
```

The cause was a race: the upload thread published its commit before the reader had opened the previous one.
I looked at logs for a while. Making the upload wait for the reader's event fixed the race, and 2,000 runs passed.
See https://example.org/issues/17 for the log. Thanks!
"""

DOCUMENTED = (json, json.JSONEncoder, logging.Logger, subprocess.Popen, subprocess.run, textwrap.wrap)
REAL = [inspect.getdoc(thing) or "" for thing in DOCUMENTED]

# What ends a sentence, a paragraph or a word, and what looks like it.
STOPS = ". .. ... ! ? ?! \u3002 \uff01 \uff1f .\" .) .** .` .\u2019 '. \u2026"
ABBREVIATIONS = (
    "e.g. i.e. etc. Dr. no. p. A. I. a.m. fig. U.S. Prof. e.g.* (etc. v2.0.1 3.14 https://example.org/a.b?c=d."
)
MARKS = "- * + > >>> | \u2022 \u2502 \u2514 # ###### 12. 3) ``` ```` ~~~ \u2014"
WORDS = "a I _ x_y the this Upload upload UPLOAD reader commit pipeline before fixed \xe9 \xdf \u0130 \u0130\u0130 \u03a3 \u039f\u03a3 \ufb01 \u4fee\u597d\u4e86"
ODD = "e\u0301 \u0301 \xbd \xb2 \u0663 \0 \ufeff \u200b \ud800"
BLANKS = [" ", "  ", "\t", "\n", "\n\n", "\n    ", "\v", "\f", "\x1c", "\x1e", "\x85", "\xa0", "\u2028", "\u3000"]
LONG = ["The reader waits for the commit of the upload thread", "word " * 70, "x" * 310]
PIECES = [*" ".join([STOPS, ABBREVIATIONS, MARKS, WORDS, ODD]).split(" "), *BLANKS, *LONG]
TRICKY = st.lists(st.sampled_from(PIECES) | st.sampled_from([" ", ". ", "\n"]), max_size=60).map("".join)


@settings(deadline=None, max_examples=300)
@given(st.lists(TRICKY, max_size=12))
def test_many_texts_at_once_are_summarised_as_one_by_one(texts: list[str]) -> None:
    assert summarise(texts) == [summary_of(text) for text in texts]
    assert [sentences(text) for text in texts] == [sentences_of(text) for text in texts]


def test_real_texts_are_summarised_as_one_by_one() -> None:
    found = {inspect.getdoc(thing) or "" for package in (json, logging, np, pytest) for thing in vars(package).values()}
    texts = [clean(text) for text in sorted(found)]
    assert len(texts) > 400
    assert summarise(texts) == [summary_of(text) for text in texts]


@pytest.mark.parametrize(
    "hostile", ["a. ", "Ab cd. ", "e.g. ", "`", " ", "\n", "word ", "w\n", "A line that an editor has wrapped.\n"]
)
def test_hostile_text_takes_linear_time(hostile: str) -> None:
    texts = [hostile * (10_000_000 // len(hostile)), *["It works. So it does."] * 1000]
    began = time.process_time()
    found = summarise(texts)
    assert time.process_time() - began < 1.0
    assert found[1:] == [Summary("It works. So it does.", "It works.")] * 1000


def test_the_summary_of_a_session_names_cause_and_fix_and_no_code() -> None:
    (summary,) = summarise([SESSION])
    assert "race" in summary.text
    assert "assert store" not in summary.text
    assert "```" not in summary.text


@pytest.mark.parametrize("text", REAL)
def test_summaries_of_real_text_are_its_own_sentences_in_order(text: str) -> None:
    (summary,) = summarise([clean(text)])
    found = sentences(clean(text))
    kept = [sentence for sentence in dict.fromkeys(found) if sentence in summary.text]
    assert summary.sentence in found
    assert summary.sentence in summary.text
    assert len(kept) >= min(3, len(set(found)))
    assert len(summary.text) < len(text) or len(found) <= 3


@given(st.text())
def test_any_text_has_a_short_one_line_summary(text: str) -> None:
    (summary,) = summarise([text])
    assert summarise([text]) == [summary]
    assert "\n" not in summary.text
    assert len(summary.sentence) <= MAX_SENTENCE_CHARACTERS
    assert len(summary.text) <= 3 * MAX_SENTENCE_CHARACTERS + 2
    assert summary.sentence in summary.text


def test_the_same_sentence_is_not_said_twice() -> None:
    text = (
        "The disk was full again on node seven today. " * 5 + "A new volume with more room was attached to node seven."
    )
    (summary,) = summarise([text])
    assert summary.text.count("disk was full") == 1
    assert "new volume" in summary.text


def test_one_sentence_is_its_own_summary() -> None:
    assert summarise(["It works."]) == [Summary("It works.", "It works.")]


def test_only_code_falls_back_to_its_first_line() -> None:
    assert summarise(["```\nx = compute(1)\ny = 2\n```"]) == [Summary("x = compute(1)", "x = compute(1)")]
    assert summarise(["1 2 3\n4"]) == [Summary("1 2 3", "1 2 3")]
    assert len(summarise(["```\n" + "7" * 9000])[0].text) == MAX_SENTENCE_CHARACTERS


def test_blank_texts_give_empty_summaries_and_no_texts_none() -> None:
    assert summarise(["", " \n\t"]) == [Summary("", "")] * 2
    assert summarise([]) == []


def test_a_text_is_summarised_the_same_alone_and_in_a_batch() -> None:
    assert summarise([SESSION, *REAL]) == [summarise([text])[0] for text in (SESSION, *REAL)]


def test_summaries_never_change_their_meaning() -> None:
    (summary,) = summarise([SESSION])
    assert summary == Summary(
        text="The upload test failed about once in forty runs on CI. The cause was a race: the upload thread published its commit before the reader had opened the previous one. Making the upload wait for the reader's event fixed the race, and 2,000 runs passed.",
        sentence="Making the upload wait for the reader's event fixed the race, and 2,000 runs passed.",
    )
