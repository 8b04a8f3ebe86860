"""Where vectors come from: the cache first, then the model, shortest texts first, while the budget lasts."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from akosha.embedding.cache import EmbeddingCache
from akosha.embedding.model import LANE_MODEL_ID, MODEL_ID
from akosha.embedding.source import ENCODE_TEXTS, VectorSource


class Letters:
    """An encoder of the lane that counts what it was asked."""

    model_id = LANE_MODEL_ID
    dimension = 384

    def __init__(self, during: Callable[[], None] = lambda: None) -> None:
        self.encoded: list[str] = []
        self.loaded = 0
        self.during = during

    def load(self) -> Letters:
        self.loaded += 1
        return self

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.during()
        self.encoded += texts
        return np.array([[len(text)] * 384 for text in texts], dtype=np.float32)


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[EmbeddingCache]:
    with EmbeddingCache(tmp_path / "embeddings.sqlite") as kept:
        yield kept


def asked(source: VectorSource, texts: list[str]) -> tuple[dict[str, str], int]:
    """Model ids by text, and how many came from the cache."""
    found, cached = source.vectors(texts, [digest(text) for text in texts])
    return {text: found[digest(text)].model_id for text in texts if digest(text) in found}, cached


def test_equal_texts_are_encoded_once_and_kept_for_the_next_run(cache: EmbeddingCache):
    encoder = Letters()
    texts = ["a note", "another note", "a note"]
    assert asked(VectorSource(cache, encoder.load, deadline=None), texts)[1] == 0
    assert sorted(encoder.encoded) == ["a note", "another note"]
    models, cached = asked(VectorSource(cache, encoder.load, deadline=None), texts)
    assert (set(models.values()), cached, encoder.loaded) == ({LANE_MODEL_ID}, 2, 1)


def test_texts_are_encoded_by_length(cache: EmbeddingCache):
    encoder = Letters()
    texts = [f"{'x' * ((number * 37) % 300)}{number:03d}" for number in range(300)]
    asked(VectorSource(cache, encoder.load, deadline=None), texts)
    assert [len(text) for text in encoder.encoded] == sorted(len(text) for text in texts)


def test_a_vector_of_the_reference_is_taken_before_one_of_the_lane(cache: EmbeddingCache):
    ones = np.ones(384, dtype=np.float32)
    cache.put_many(MODEL_ID, {digest("both"): ones, digest("reference"): ones})
    cache.put_many(LANE_MODEL_ID, {digest("both"): ones, digest("lane"): ones})
    encoder = Letters()
    models, cached = asked(VectorSource(cache, encoder.load, deadline=None), ["both", "reference", "lane"])
    assert models == {"both": MODEL_ID, "reference": MODEL_ID, "lane": LANE_MODEL_ID}
    assert (cached, encoder.loaded) == (3, 0)


def test_what_another_process_embeds_meanwhile_is_not_embedded_again(cache: EmbeddingCache):
    texts = [f"{number:06d}" for number in range(3 * ENCODE_TEXTS)]

    def other_process() -> None:
        with EmbeddingCache(cache.path) as theirs:
            theirs.put_many(LANE_MODEL_ID, {digest(text): np.ones(384, np.float32) for text in texts})

    encoder = Letters(during=other_process)
    models, cached = asked(VectorSource(cache, encoder.load, deadline=None), texts)
    assert (len(models), cached, len(encoder.encoded)) == (len(texts), 2 * ENCODE_TEXTS, ENCODE_TEXTS)


def test_a_spent_budget_ends_between_chunks_and_keeps_what_is_done(cache: EmbeddingCache):
    deadline = time.monotonic() + 0.2
    encoder = Letters(during=lambda: time.sleep(0.3))
    texts = [f"{number:06d}" for number in range(2 * ENCODE_TEXTS)]
    source = VectorSource(cache, encoder.load, deadline=deadline)
    models, _ = asked(source, texts)
    assert (len(models), source.exhausted) == (ENCODE_TEXTS, True)
    again = VectorSource(cache, Letters().load, deadline=time.monotonic() - 1)
    assert asked(again, texts)[1] == ENCODE_TEXTS, "what is cached costs no budget"


def test_each_step_says_what_is_done_how_fast_and_how_long_the_rest_takes(
    cache: EmbeddingCache, caplog: pytest.LogCaptureFixture
):
    encoder = Letters(during=lambda: time.sleep(0.1))
    texts = [f"{number:06d}" for number in range(2 * ENCODE_TEXTS)]
    source = VectorSource(cache, encoder.load, deadline=time.monotonic() + 900, expected=4 * ENCODE_TEXTS)
    with caplog.at_level(logging.INFO, logger="akosha.progress"):
        asked(source, texts)
    lines = [dict(part.split("=") for part in record.getMessage().split()[1:]) for record in caplog.records]
    assert [(line["done"], line["left"]) for line in lines] == [("128", "384"), ("256", "256")]
    rate, eta = float(lines[1]["texts_per_second"]), float(lines[1]["eta_seconds"])
    assert 0 < rate <= 1_280
    assert eta == pytest.approx(256 / rate, abs=1)
    assert 0 < float(lines[1]["budget_seconds"]) <= 900
    assert lines[1]["model"] == LANE_MODEL_ID
