"""Cites I20: the recall gate judges an even sample of the whole batch, whatever the order in which its shards come."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from akosha.tiers import hot_to_warm
from akosha.tiers.hot_to_warm import GateSample, in_audit_sample
from akosha.transforms.quantization import quantize
from akosha.transforms.recall import measure_gate


def batch(count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(7)
    vectors = (random.normal(size=(9, 384))[np.arange(count) % 9] + random.normal(size=(count, 384))).astype(np.float32)
    digests = [hashlib.sha256(str(number).encode()).digest() for number in range(count)]
    return vectors, np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


def sampled(vectors: np.ndarray, digests: np.ndarray, order: np.ndarray, step: int) -> GateSample:
    sample = GateSample()
    for start in range(0, len(order), step):
        rows = order[start : start + step]
        sample.add(vectors[rows], *quantize(vectors[rows]), digests[rows])
    return sample


def test_the_sample_is_that_of_the_whole_batch_in_any_order_and_in_any_pieces(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hot_to_warm, "GATE_ROWS", 400)
    vectors, digests = batch(1_500)
    first = np.argsort([digest.tobytes() for digest in digests])[:400]
    codes, scales = quantize(vectors[first])
    whole = measure_gate(vectors[first], codes * scales[:, None], [digest.tobytes() for digest in digests[first]])
    for order, step in (
        (np.arange(1_500), 1_500),
        (np.arange(1_500)[::-1], 70),
        (np.random.default_rng(1).permutation(1_500), 401),
    ):
        measure = sampled(vectors, digests, order, step).measure()
        assert measure == whole
    assert (whole.queries, whole.corpus, whole.judged) == (200, 200, True)


def test_equal_texts_under_many_keys_count_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hot_to_warm, "GATE_ROWS", 400)  # places for all texts, but not for all rows
    vectors, digests = batch(300)
    rows = np.tile(np.arange(300), 3)
    measure = sampled(vectors, digests, rows, 250).measure()
    assert measure.queries + measure.corpus == 300


def test_codes_that_lose_the_neighbours_are_seen():
    vectors, digests = batch(600)
    codes, scales = quantize(vectors)
    sample = GateSample()
    sample.add(vectors, -codes, scales, digests)
    measure = sample.measure()
    assert measure.judged
    assert measure.recall < 0.1


def test_an_empty_batch_is_not_judged():
    sample = GateSample()
    sample.add(
        np.zeros((0, 384), np.float32),
        np.zeros((0, 384), np.int8),
        np.zeros(0, np.float32),
        np.zeros((0, 32), np.uint8),
    )
    assert not sample.measure().judged


def test_the_audit_sample_is_a_share_of_the_digests():
    _, digests = batch(2_000)
    chosen = in_audit_sample(digests, 0.1)
    assert [int.from_bytes(digest[:4].tobytes(), "big") < 0.1 * 2**32 for digest in digests] == chosen.tolist()
    assert 150 < chosen.sum() < 250
    assert not in_audit_sample(digests, 0.0).any()
    assert in_audit_sample(digests, 1.0).all()
