"""How many true neighbours a lossy form of vectors still finds.

A neighbour counts as found when its true similarity reaches that of the k-th true neighbour: texts that share their
first 256 tokens have equal vectors, and which of them comes first says nothing about a codec.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

GATE_QUERIES: Final = 200
GATE_CORPUS: Final = 20_000
TIE: Final = 1e-6
# 64 queries against 20,000 rows are 5 MB of similarities for each of the two forms.
BLOCK_QUERIES: Final = 64

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RecallMeasure:
    """One measurement.

    Attributes:
        recall: found true neighbours / k, mean over the queries, 0-1; 1 when there was nothing to ask.
        overlap: neighbours that both forms return / k, without regard to ties.
        queries: how many were asked.
        corpus: how many vectors were searched.
        judged: whether there is enough to pass a verdict on.
    """

    recall: float
    overlap: float
    queries: int
    corpus: int
    judged: bool


@dataclass(frozen=True, slots=True)
class GateSample:
    """Row numbers of the pool: those asked, and those searched; disjoint, and no text is in both."""

    queries: NDArray[np.int64]
    corpus: NDArray[np.int64]


def unit(vectors: Vectors) -> Vectors:
    """Rows scaled to length 1; rows of zeros stay zeros. float32 ``(n, d)``."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = np.divide(vectors, norms, out=np.zeros_like(vectors, dtype=np.float32), where=norms > 0)
    return scaled


def recall_at_k(
    queries: Vectors,
    corpus_truth: Vectors,
    corpus_found: Vectors,
    k: int = 10,
    exclude: NDArray[np.int64] | None = None,
) -> float:
    """Share of the k true neighbours (exact, cosine on `corpus_truth`) that `corpus_found` returns as its first k.

    Args:
        queries: float32 ``(q, d)``, any length but zero.
        corpus_truth: float32 ``(n, d)``.
        corpus_found: what is searched instead, decoded to float32 ``(n, d)``, row for row the same records.
        k: neighbours asked for; at most as many as there are.
        exclude: for each query the one row it must not find (itself), int64 ``(q,)``; None = nothing.

    Returns:
        mean over the queries, 0-1; 1 with no query or no corpus.

    Raises:
        ValueError: the two forms of the corpus differ in shape.
    """
    return _measure(queries, corpus_truth, corpus_found, k, exclude)[0]


def leave_one_out(vectors: Vectors, decoded: Vectors, *, k: int = 10, queries: int, enough: int) -> RecallMeasure:
    """Ask with the first `queries` rows of a sample, each against all other rows of the sample.

    Args:
        vectors: FLOAT form, float32 ``(n, d)``; texts differ.
        decoded: decoded form of the same rows.
        k: neighbours asked for.
        queries: how many rows are asked, at most.
        enough: rows from which on the figure is judged.
    """
    asked = min(queries, len(vectors))
    recall, overlap = _measure(vectors[:asked], vectors, decoded, k, np.arange(asked, dtype=np.int64))
    return RecallMeasure(recall, overlap, asked, len(vectors), judged=len(vectors) >= enough)


def gate_sample(digests: Sequence[bytes], *, k: int = 10, queries: int = GATE_QUERIES) -> GateSample:
    """Hold out queries of a pool, the same ones whatever the order of the pool.

    Texts are ordered by digest and each is taken once: the first ones are asked, the following ones (at most 20,000)
    are searched. A pool too small for both keeps half of it, or at least ``2 k`` texts, as corpus.

    Args:
        digests: content digests of the pool, 32 bytes each; equal texts under several keys are one text.
        k: neighbours that will be asked for.
        queries: how many to hold out, at most.
    """
    first_of = dict(zip(reversed(digests), range(len(digests) - 1, -1, -1), strict=True))
    rows = np.array([first_of[digest] for digest in sorted(first_of)], dtype=np.int64)
    asked = min(queries, max(len(rows) - 2 * k, len(rows) // 2))
    return GateSample(rows[:asked], rows[asked : asked + GATE_CORPUS])


def measure_gate(
    vectors: Vectors, decoded: Vectors, digests: Sequence[bytes], *, k: int = 10, queries: int = GATE_QUERIES
) -> RecallMeasure:
    """What a batch of moves would do to recall: held-out queries, exact on FLOAT and on what warm will hold.

    Args:
        vectors: FLOAT vectors of the pool, float32 ``(n, 384)``.
        decoded: the same rows, quantised and decoded again.
        digests: their content digests.
        k: neighbours.
        queries: how many are held out; the figure is judged only when so many could be, from ``2 k`` others.
    """
    sample = gate_sample(digests, k=k, queries=queries)
    recall, overlap = _measure(vectors[sample.queries], vectors[sample.corpus], decoded[sample.corpus], k, None)
    judged = len(sample.queries) >= queries and len(sample.corpus) >= 2 * k
    return RecallMeasure(recall, overlap, len(sample.queries), len(sample.corpus), judged)


def _measure(
    queries: Vectors, truth: Vectors, found: Vectors, k: int, exclude: NDArray[np.int64] | None
) -> tuple[float, float]:
    if truth.shape != found.shape:
        message = f"both forms of the corpus must be of one shape; truth is {truth.shape}, found is {found.shape}"
        raise ValueError(message)
    size = min(k, len(truth) - (exclude is not None))
    if size <= 0 or not len(queries):
        return 1.0, 1.0
    asked, exact, lossy = unit(queries), unit(truth), unit(found)
    good = shared = 0
    for start in range(0, len(asked), BLOCK_QUERIES):
        block = slice(start, start + BLOCK_QUERIES)
        hidden = None if exclude is None else exclude[block]
        similar = _similarities(asked[block], exact, hidden)
        true = np.argpartition(-similar, size - 1, axis=1)[:, :size]
        answer = np.argpartition(-_similarities(asked[block], lossy, hidden), size - 1, axis=1)[:, :size]
        line = np.take_along_axis(similar, true, axis=1).min(axis=1, keepdims=True)
        good += int((np.take_along_axis(similar, answer, axis=1) >= line - TIE).sum())
        shared += int((true[:, :, None] == answer[:, None, :]).sum())
    return good / (len(asked) * size), shared / (len(asked) * size)


def _similarities(queries: Vectors, corpus: Vectors, exclude: NDArray[np.int64] | None) -> Vectors:
    similar: Vectors = queries @ corpus.T
    if exclude is not None:
        similar[np.arange(len(queries)), exclude] = -np.inf
    return similar
