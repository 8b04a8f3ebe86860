from __future__ import annotations

import inspect
import json
import logging
import subprocess
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
