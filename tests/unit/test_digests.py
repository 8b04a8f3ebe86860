from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from akosha.transforms.digests import content_digest, content_digests, set_digest

DIGESTS = st.lists(st.binary(min_size=32, max_size=32), max_size=8)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(TEXTS, max_size=5))
def test_digests_are_sha256_of_the_bytes_as_received(texts: list[str]) -> None:
    expected = [hashlib.sha256(text.encode()).digest() for text in texts]
    assert content_digests(texts) == expected == [content_digest(text) for text in texts]


def test_a_lone_surrogate_has_no_digest() -> None:
    with pytest.raises(UnicodeEncodeError):
        content_digest("\ud800")


@given(DIGESTS, st.randoms(use_true_random=False))
def test_a_set_digest_does_not_depend_on_order(digests: list[bytes], random) -> None:
    shuffled = list(digests)
    random.shuffle(shuffled)
    assert set_digest(shuffled) == set_digest(digests)


@given(DIGESTS, st.binary(min_size=32, max_size=32).filter(any))
def test_one_more_digest_changes_the_set_digest_even_if_repeated(digests: list[bytes], extra: bytes) -> None:
    assert set_digest([*digests, extra]) != set_digest(digests)
    assert set_digest([extra, extra]) != set_digest([])


def test_set_digest_is_the_sum_modulo_two_to_the_256() -> None:
    assert set_digest([]) == bytes(32)
    assert set_digest([b"\xff" * 32, b"\0" * 31 + b"\2"]) == b"\0" * 31 + b"\1"


def test_a_digest_of_wrong_length_is_refused_by_position() -> None:
    with pytest.raises(ValueError, match="31 at position 1"):
        set_digest([bytes(32), bytes(31)])
