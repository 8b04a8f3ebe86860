from __future__ import annotations

import hashlib

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from akosha.transforms.digests import utf8_digests


@given(st.lists(st.text(), max_size=5), st.integers(0, 2))
def test_digests_are_sha256_of_the_bytes_as_received(texts: list[str], skipped: int) -> None:
    expected = [hashlib.sha256(text.encode()).digest() for text in texts[skipped:]]
    assert utf8_digests(pa.array(texts, pa.string())[skipped:]).to_pylist() == expected
    assert utf8_digests(pa.chunked_array([pa.array(texts, pa.string())]).slice(skipped)).to_pylist() == expected
