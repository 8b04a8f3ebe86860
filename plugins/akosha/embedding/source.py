"""Where the lane gets a vector from: the cache by content digest, else the model, within a budget."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from akosha.embedding.cache import EmbeddingCache
from akosha.embedding.model import OUR_MODELS, Encoder
from akosha.transforms.cleaning import clean

# Shown by the command line and kept in Airflow's task log: where a long job stands.
progress_log = logging.getLogger("akosha.progress")

# Texts encoded between two looks at the cache and the budget: six seconds of work.
ENCODE_TEXTS: Final = 128


@dataclass(frozen=True, slots=True)
class Embedded:
    """A vector, float32 ``(384,)``, and the declared id of what made it."""

    vector: NDArray[np.float32]
    model_id: str


class VectorSource:
    """Vectors for texts. The model is loaded when the first text is not in the cache.

    Args:
        cache: shared by all processes of a machine.
        load: how the model is loaded.
        deadline: on the clock of ``time.monotonic``; None = no limit.
        expected: texts that this source will be asked for, as far as is known, for the estimate in the log.
    """

    def __init__(
        self, cache: EmbeddingCache, load: Callable[[], Encoder], *, deadline: float | None, expected: int = 0
    ) -> None:
        self._cache = cache
        self._load = load
        self._encoder: Encoder | None = None
        self._deadline = deadline
        self._expected = expected
        self._done = self._encoded = 0
        self._seconds = 0.0

    @property
    def exhausted(self) -> bool:
        """Whether the budget is spent."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def expect(self, texts: int) -> None:
        """Say that so many more texts will be asked for."""
        self._expected += texts

    def vectors(self, texts: Sequence[str], digests: Sequence[bytes]) -> tuple[dict[bytes, Embedded], int]:
        """Vectors by digest, and how many came from the cache. Fewer than asked when the budget runs out.

        Texts are encoded by length, shortest first, `ENCODE_TEXTS` at a time; the cache is asked again right before
        each encoding, because another process may have met the same text.
        """
        found = self._cached(digests)
        cached = len(found)
        wanted = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in found}
        by_length = sorted(wanted.items(), key=lambda item: (len(item[1]), item[0]))
        self._done += len(digests) - len(by_length)
        for start in range(0, len(by_length), ENCODE_TEXTS):
            if self.exhausted:
                break
            chunk = dict(by_length[start : start + ENCODE_TEXTS])
            meanwhile = self._cached(list(chunk)) if start else {}
            cached += len(meanwhile)
            found |= meanwhile
            found |= self._fresh({digest: text for digest, text in chunk.items() if digest not in meanwhile})
            self._done += len(chunk)
            self._report()
        return found, cached

    def _cached(self, digests: Sequence[bytes]) -> dict[bytes, Embedded]:
        """What any of our models made; the reference before the lane's."""
        found: dict[bytes, Embedded] = {}
        for model_id in OUR_MODELS:
            missing = [digest for digest in digests if digest not in found]
            kept = self._cache.get_many(model_id, missing) if missing else {}
            found |= {digest: Embedded(vector, model_id) for digest, vector in kept.items()}
        return found

    def _fresh(self, texts: Mapping[bytes, str]) -> dict[bytes, Embedded]:
        if not texts:
            return {}
        encoder = self._model()
        began = time.monotonic()
        encoded = encoder.encode([clean(text) for text in texts.values()])
        self._seconds += time.monotonic() - began
        self._encoded += len(texts)
        vectors = dict(zip(texts, encoded, strict=True))
        self._cache.put_many(encoder.model_id, vectors)
        return {digest: Embedded(vector, encoder.model_id) for digest, vector in vectors.items()}

    def _model(self) -> Encoder:
        if self._encoder is None:
            self._encoder = self._load()
        return self._encoder

    def _report(self) -> None:
        left = max(0, self._expected - self._done)
        rate = self._encoded / self._seconds if self._seconds else 0.0
        budget = "none" if self._deadline is None else f"{max(0.0, self._deadline - time.monotonic()):.0f}"
        progress_log.info(
            "embed done=%d left=%d texts_per_second=%.1f eta_seconds=%.0f budget_seconds=%s model=%s",
            self._done, left, rate, left / rate if rate else 0.0, budget, self._model().model_id if rate else "none",
        )  # fmt: skip
