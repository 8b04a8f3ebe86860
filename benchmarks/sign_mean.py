"""How the mean of ``sign-centred-v1`` was made: prints the mean vector of 512 real technical texts as JSON.

The numbers in ``include/models/sign-centred-v1.json`` are the declaration and never change; this shows where they came
from, and how to make those of a later id. Other package versions give slightly other texts and numbers.

    PYTHONPATH=plugins python benchmarks/sign_mean.py > mean.json
"""

from __future__ import annotations

import json
import sys

import numpy as np

from akosha.embedding.model import load_encoder
from akosha.transforms.cleaning import clean
from corpus import docstrings

TEXTS = 512
DECIMALS = 6


def main() -> None:
    """Encode the texts and print their mean, dimension by dimension, rounded to six decimals."""
    vectors = load_encoder().encode([clean(text) for text in docstrings(TEXTS)])
    mean = vectors.mean(axis=0, dtype=np.float64)
    json.dump([round(float(value), DECIMALS) for value in mean], sys.stdout)


if __name__ == "__main__":
    main()
