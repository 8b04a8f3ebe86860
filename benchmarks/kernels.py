"""Rates of the pure kernels on one core, on docstrings of installed packages.

    PYTHONPATH=plugins python benchmarks/kernels.py [--texts 1000] [--json]

CPU seconds are counted, so a busy machine changes little; every rate is the best of five rounds. Rates against a reference in
the same run (datasketch, a plain copy) can be compared between machines.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from datasketch import MinHash

from akosha.transforms.cleaning import clean
from akosha.transforms.digests import utf8_digests
from akosha.transforms.fingerprints import fingerprints, shingle_hashes
from akosha.transforms.quantization import quantize
from akosha.transforms.signs import sign_bits
from akosha.transforms.summaries import summarise
from corpus import docstrings

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 5
VECTORS = 20_000


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of the fastest of five rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


def datasketch_bulk(texts: list[str]) -> list[MinHash]:
    """The same signatures by ``MinHash.bulk``, from the same shingle hashes, made in the same way."""
    values = [shingle_hashes(text).tolist() for text in texts]
    sketches: list[MinHash] = MinHash.bulk(
        values, num_perm=128, seed=1, hashfunc=lambda value: value, scheme="affine32"
    )
    return sketches


def measure(count: int) -> dict[str, float]:
    """Every figure by name; the unit is in the name."""
    texts = [clean(text) for text in docstrings(count)]
    if not texts:
        message = "no docstrings found: install the packages named in benchmarks/corpus.py"
        raise SystemExit(message)
    vectors = np.random.default_rng(1).normal(size=(VECTORS, 384)).astype(np.float32)
    target = np.empty_like(vectors)
    mean = vectors.mean(axis=0)
    column = pa.array(texts)
    own, reference = seconds(lambda: fingerprints(texts)), seconds(lambda: datasketch_bulk(texts))
    quantised, copied = seconds(lambda: quantize(vectors)), seconds(lambda: np.copyto(target, vectors))
    megabytes = vectors.nbytes / 1e6
    return {
        "texts": len(texts),
        "mean_text_bytes": sum(len(text.encode()) for text in texts) / len(texts),
        "cleaned_per_s": len(texts) / seconds(lambda: [clean(text) for text in texts]),
        "digests_per_s": len(texts) / seconds(lambda: utf8_digests(column)),
        "summaries_per_s": len(texts) / seconds(lambda: summarise(texts)),
        "fingerprints_per_s": len(texts) / own,
        "datasketch_bulk_per_s": len(texts) / reference,
        "fingerprints_ratio_to_datasketch_bulk": reference / own,
        "quantise_mb_per_s": megabytes / quantised,
        "numpy_copy_mb_per_s": megabytes / copied,
        "quantise_ratio_to_copy": copied / quantised,
        "signs_mb_per_s": megabytes / seconds(lambda: sign_bits(vectors, mean)),
    }


def main() -> None:
    """Print the figures as a table or as JSON."""
    parser = argparse.ArgumentParser(description="Rates of the pure kernels on one core.")
    parser.add_argument("--texts", type=int, default=1000, help="docstrings to use, at most")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    figures = {name: round(value, 3) for name, value in measure(arguments.texts).items()}
    lines = (
        [json.dumps(figures)] if arguments.json else [f"{name:40s} {value:>14,.2f}" for name, value in figures.items()]
    )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
