from __future__ import annotations

import hashlib

import numpy as np
import pytest
from datasketch import MinHash
from hypothesis import given, settings
from hypothesis import strategies as st

from akosha.transforms import fingerprints as module
from akosha.transforms.fingerprints import fingerprints, permutations, shingle_hashes

TEXTS = st.lists(st.text(max_size=80), max_size=8)
PROSE = "The retry policy doubles the delay after every failure, up to five minutes. "


def datasketch_signature(text: str) -> np.ndarray:
    sketch = MinHash(num_perm=128, seed=1, hashfunc=lambda value: value, scheme="affine32")
    sketch.update_batch(shingle_hashes(text).tolist())
    return sketch.hashvalues


@settings(deadline=None)
@given(TEXTS)
def test_fingerprints_are_bit_identical_to_datasketch(texts: list[str]) -> None:
    found = fingerprints(texts)
    assert found.shape == (len(texts), 128)
    assert found.dtype == np.uint32
    for row, text in zip(found, texts, strict=True):
        assert (row == datasketch_signature(text)).all()


def test_long_texts_and_full_batches_are_bit_identical_too() -> None:
    texts = [f"{number} " + PROSE * (number % 40) + "é" * (number % 5) for number in range(200)]
    texts[50] = " ".join(str(number * number) for number in range(30_000))  # many blocks for one text
    texts[51] = "..."
    found = fingerprints(texts)
    for row, text in zip(found, texts, strict=True):
        assert (row == datasketch_signature(text)).all()


def test_permutations_are_those_of_datasketch() -> None:
    assert (np.stack(permutations()) == MinHash(num_perm=128, seed=1, scheme="affine32").permutations).all()


def test_a_text_without_words_is_all_ones() -> None:
    assert (fingerprints(["", " .,!\n", "\u2014"]) == 0xFFFFFFFF).all()
    assert shingle_hashes("?!").shape == (0,)


def test_a_short_text_is_one_padded_window() -> None:
    assert shingle_hashes("ab").shape == (1,)
    assert shingle_hashes("exactly8").shape == (1,)
    assert shingle_hashes("exactly 9").shape == (2,)
    assert not (fingerprints(["ab"]) == fingerprints(["abc"])).all()


@pytest.mark.parametrize("same", ["hello, WORLD again", "  Hello\n\tworld -- again!", "hello world again"])
def test_case_and_punctuation_do_not_count(same: str) -> None:
    assert (shingle_hashes(same) == shingle_hashes("hello world again")).all()


@given(st.text(st.characters(max_codepoint=127)))
def test_the_fast_way_for_ascii_equals_the_general_one(text: str) -> None:
    general = module._NON_WORD.sub(" ", text.lower()).strip().encode()
    assert module._normalised(text).rstrip(b"\0") == general


def test_agreement_estimates_the_jaccard_similarity() -> None:
    words = [f"word{number}" for number in range(300)]
    texts = [" ".join(words), " ".join(words[:270])]
    one, other = (set(shingle_hashes(text).tolist()) for text in texts)
    found = fingerprints(texts)
    assert np.mean(found[0] == found[1]) == pytest.approx(len(one & other) / len(one | other), abs=0.1)


def test_fingerprints_never_change_their_meaning() -> None:
    hashes = shingle_hashes("Retry with back-off!")
    digest = hashlib.sha256(fingerprints([PROSE, "Größe 7 \u2013 ok", "x"]).astype("<u4").tobytes()).hexdigest()
    assert hashes[:2].tolist() == [986599199, 3234276149]
    assert digest == "55280c2bf651c73bd0159cfa9ce99c6ef3caf86e2e6c421c8829bdf03e0b7c81"
