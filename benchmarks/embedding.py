"""Texts embedded per second of one core by the lane, against SentenceTransformer in float32, on real technical texts.

    PYTHONPATH=plugins python benchmarks/embedding.py [--texts 128] [--json]

CPU seconds are counted, and the two take turns, so a busy machine changes little; the better of two rounds counts. The reference is
``SentenceTransformer.encode`` in float32 with batches of 64 on one thread; cosines are to its vectors. ``long`` texts have 1,000
to 2,000 characters (most are cut at 256 tokens), ``mixed`` ones 20 to 6,000, ``short`` ones 20 to 80.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from akosha.embedding.model import check_weights, load_encoder, load_lane_encoder
from akosha.transforms.cleaning import clean
from corpus import docstrings

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ROUNDS = 2
BATCH_SIZE = 64
LENGTHS = {"long": (1_000, 2_000), "mixed": (20, 6_000), "short": (20, 80)}


def sentence_transformer() -> Callable[[list[str]], NDArray[np.float32]]:
    """The reference, computing on one thread."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from sentence_transformers import SentenceTransformer

    network: Any = SentenceTransformer(str(check_weights()), device="cpu", local_files_only=True)
    return lambda texts: np.asarray(
        network.encode(texts, batch_size=BATCH_SIZE, normalize_embeddings=True, show_progress_bar=False)
    )


def rounds(work: dict[str, Callable[[], NDArray[np.float32]]]) -> dict[str, tuple[float, NDArray[np.float32]]]:
    """CPU seconds of the fastest round of each, and its vectors."""
    best: dict[str, tuple[float, NDArray[np.float32]]] = {}
    for _ in range(ROUNDS):
        for name, encode in work.items():
            began = time.process_time()
            vectors = encode()
            spent = time.process_time() - began
            if name not in best or spent < best[name][0]:
                best[name] = (spent, vectors)
    return best


def measure(count: int) -> dict[str, float | str]:
    """Every figure by name; the unit is in the name."""
    lane, plain = load_lane_encoder(), load_encoder()
    reference = sentence_transformer()
    figures: dict[str, float | str] = {"model_id": lane.model_id, "texts_of_each_kind": count}
    for kind, (shortest, longest) in LENGTHS.items():
        texts = [clean(text) for text in docstrings(count, shortest=shortest, longest=longest)]
        found = rounds(
            {
                "lane": lambda texts=texts: lane.encode(texts),
                "float32": lambda texts=texts: plain.encode(texts),
                "sentence_transformer": lambda texts=texts: reference(texts),
            }
        )
        expected = found["sentence_transformer"][1]
        cosines = np.sum(found["lane"][1] * expected, axis=1)
        figures |= {f"{kind}_{name}_texts_per_s": len(texts) / spent for name, (spent, _) in found.items()}
        slowest = found["sentence_transformer"][0]
        figures[f"{kind}_lane_ratio_to_sentence_transformer"] = slowest / found["lane"][0]
        figures[f"{kind}_float32_ratio_to_sentence_transformer"] = slowest / found["float32"][0]
        figures[f"{kind}_cosine_mean"] = float(cosines.mean())
        figures[f"{kind}_cosine_min"] = float(cosines.min())
    return figures


def main() -> None:
    """Print the figures as a table or as JSON."""
    parser = argparse.ArgumentParser(description="Texts embedded per second of one core.")
    parser.add_argument("--texts", type=int, default=128, help="docstrings of each kind, at most")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    figures = measure(arguments.texts)
    if arguments.json:
        lines = [json.dumps(figures)]
    else:
        lines = [f"{n:46s} {v if isinstance(v, str) else format(v, ',.4f'):>26}" for n, v in figures.items()]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
