"""Texts that the lake knows: their digests are looked up, and are those that hashing would give."""

from __future__ import annotations

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from akosha.transforms.digests import hashes_and_digests
from akosha.uploads.known_texts import KNOWN, KnownTexts, write_known

TEXTS = st.lists(st.one_of(st.none(), st.text(max_size=20)), max_size=30)


def known(texts: list[str], digests: list[bytes] | None = None) -> KnownTexts:
    data = [text.encode() for text in texts]
    table = pa.table(
        {
            "content_xxh128": [xxhash.xxh3_128_digest(text) for text in data],
            "content_sha256": digests or [hashlib.sha256(text).digest() for text in data],
        },
        schema=KNOWN,
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "known.arrow"
        write_known(table, path)
        return KnownTexts.open(path)


@given(TEXTS, st.none() | st.sets(st.text(max_size=20), max_size=30), st.integers(0, 3))
def test_every_text_gets_its_own_digest_known_or_not(texts: list[str | None], there: set[str] | None, skipped: int):
    of = hashes_and_digests
    if there is not None:
        of = known(sorted(there | {text for text in texts[::2] if text is not None})).digests
    hashes, digests = of(pa.array(texts, pa.string())[skipped:])
    wanted = [None if text is None else text.encode() for text in texts[skipped:]]
    assert digests.to_pylist() == [None if text is None else hashlib.sha256(text).digest() for text in wanted]
    assert hashes.to_pylist() == [None if text is None else xxhash.xxh3_128_digest(text) for text in wanted]


def test_a_known_text_is_looked_up_and_not_hashed():
    _, digests = known(["old"], [b"x" * 32]).digests(pa.array(["old", "new"]))
    assert digests.to_pylist() == [b"x" * 32, hashlib.sha256(b"new").digest()]
