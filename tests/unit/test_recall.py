from __future__ import annotations

import hashlib

import numpy as np
import pytest

from akosha.transforms.quantization import dequantize, quantize
from akosha.transforms.recall import gate_sample, leave_one_out, measure_gate, recall_at_k


def clustered(count: int, seed: int = 3) -> np.ndarray:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(20, 384))
    return (centres[np.arange(count) % 20] + random.normal(size=(count, 384))).astype(np.float32)


def digests(count: int) -> list[bytes]:
    return [hashlib.sha256(str(number).encode()).digest() for number in range(count)]


def test_the_same_vectors_find_everything():
    vectors = clustered(300)
    assert recall_at_k(vectors[:20], vectors[20:], vectors[20:]) == 1.0


def test_shuffled_vectors_find_next_to_nothing():
    vectors = clustered(600)
    shuffled = np.random.default_rng(1).permutation(vectors[100:])
    assert recall_at_k(vectors[:100], vectors[100:], shuffled) < 0.2


def test_recall_counts_found_neighbours_over_k():
    corpus = np.eye(384, dtype=np.float32)[:4] + 0.01
    query = np.array([[4, 3, 2, 1] + [0] * 380], dtype=np.float32)
    swapped = corpus[[0, 3, 2, 1]]
    assert recall_at_k(query, corpus, swapped, k=2) == 0.5


def test_which_of_equal_neighbours_is_found_does_not_matter():
    corpus = np.repeat(np.eye(384, dtype=np.float32)[:1], 30, axis=0)
    found = corpus * np.linspace(1, 2, 30, dtype=np.float32)[:, None]
    assert recall_at_k(corpus[:1], corpus, found, k=3) == 1.0


def test_a_query_that_excludes_itself_is_not_its_own_neighbour():
    vectors = np.eye(384, dtype=np.float32)[:3] + np.float32(0.1)
    found = vectors.copy()
    found[1:] = -1.0
    assert recall_at_k(vectors[:1], vectors, found, k=1) == 1.0
    assert recall_at_k(vectors[:1], vectors, -vectors, k=1) == 0.0
    measure = leave_one_out(vectors, vectors, k=10, queries=3, enough=50)
    assert (measure.recall, measure.queries, measure.judged) == (1.0, 3, False)


def test_forms_of_different_shape_are_refused():
    vectors = clustered(5)
    with pytest.raises(ValueError, match="one shape"):
        recall_at_k(vectors, vectors, vectors[:4])


def test_held_out_queries_do_not_depend_on_the_order_of_the_pool():
    names = digests(500)
    order = np.random.default_rng(5).permutation(500)
    one, other = gate_sample(names), gate_sample([names[number] for number in order])
    assert [names[row] for row in one.queries] == [names[order[row]] for row in other.queries]
    assert len(one.queries) == 200


def test_no_text_is_both_asked_and_searched():
    names = digests(250) * 2
    sample = gate_sample(names)
    asked = {names[row] for row in sample.queries}
    searched = {names[row] for row in sample.corpus}
    assert not asked & searched
    assert len(asked) + len(searched) == len(sample.queries) + len(sample.corpus) == 250


def test_int8_passes_the_gate_and_garbage_does_not():
    vectors = clustered(800)
    good = measure_gate(vectors, dequantize(*quantize(vectors)), digests(800))
    bad = measure_gate(vectors, -vectors, digests(800))
    assert good.judged
    assert good.recall > 0.95
    assert good.queries == 200
    assert good.corpus == 600
    assert bad.judged
    assert bad.recall < 0.1


@pytest.mark.parametrize("count", [0, 1, 5, 219])
def test_a_small_pool_is_reported_but_not_judged(count: int):
    vectors = clustered(max(count, 1))[:count]
    measure = measure_gate(vectors, vectors, digests(count))
    assert not measure.judged
    assert measure.recall == 1.0
    assert measure.queries + measure.corpus == count
