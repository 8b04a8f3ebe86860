"""The forward pass written out: batches by tokens, and 8-bit products that stay true to float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from akosha.declared import model
from akosha.embedding.model import LANE_MODEL_ID, TextEncoder, check_weights, load_encoder
from akosha.embedding.network import (
    BATCH_TOKENS,
    CodeProduct,
    FloatProduct,
    Network,
    load_weights,
    token_batches,
)

READMES = sorted((Path(__file__).parents[2]).rglob("*.md"))


@given(st.lists(st.integers(1, 256), max_size=300))
def test_every_text_is_in_one_batch_and_no_batch_holds_more_than_its_budget(lengths: list[int]) -> None:
    batches = token_batches(lengths, BATCH_TOKENS)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(len(batch) * max(lengths[row] for row in batch) <= BATCH_TOKENS for batch in batches)


def test_batches_go_from_long_texts_to_short_ones() -> None:
    lengths = [(number * 37) % 150 + 1 for number in range(150)]
    order = [lengths[row] for batch in token_batches(lengths, BATCH_TOKENS) for row in batch]
    assert order == sorted(lengths, reverse=True)
    assert token_batches([1_000, 3], BATCH_TOKENS) == [[0], [1]], "one text is always taken"


def rows_and_weight() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows as inside the model: most values small, a few large and of one sign."""
    generator = torch.Generator().manual_seed(7)
    rows = torch.randn(200, 384, generator=generator) * torch.rand(200, 1, generator=generator)
    rows[:, 5] -= 12
    return rows, torch.randn(96, 384, generator=generator), torch.randn(96, generator=generator)


def test_a_product_of_codes_is_the_product_nearly() -> None:
    rows, weight, bias = rows_and_weight()
    expected = FloatProduct(weight, bias)(rows)
    found = CodeProduct(weight, bias)(rows)
    assert float((found - expected).norm() / expected.norm()) < 0.025, "twice that without offsets"


def test_a_row_of_codes_does_not_depend_on_its_neighbours() -> None:
    rows, weight, bias = rows_and_weight()
    product = CodeProduct(weight, bias)
    together = product(rows).clone()
    alone = torch.cat([product(rows[number : number + 1]).clone() for number in range(len(rows))])
    assert torch.allclose(together, alone, atol=1e-5)


def test_constant_rows_and_zero_weights_stay_finite() -> None:
    product = CodeProduct(torch.zeros(8, 16), torch.ones(8))
    assert product(torch.full((3, 16), 2.5)).tolist() == [[1.0] * 8] * 3
    product = CodeProduct(torch.ones(8, 16), torch.zeros(8))
    assert product(torch.full((3, 16), 2.5)) == pytest.approx(np.full((3, 8), 40.0), rel=1e-5)


@pytest.fixture(scope="module")
def lane() -> TextEncoder:
    plain = load_encoder()
    assert isinstance(plain, TextEncoder)
    weights = load_weights(check_weights() / "model.safetensors")
    return TextEncoder(plain.tokenizer, Network(weights, CodeProduct), LANE_MODEL_ID)


@pytest.mark.slow
def test_the_lanes_vectors_keep_the_declared_cosine_on_real_texts(lane: TextEncoder) -> None:
    paragraphs = [part for path in READMES for part in path.read_text().split("\n\n") if len(part) > 15]
    texts = sorted(set(paragraphs))[::2][:150]
    cosines = np.sum(lane.encode(texts) * load_encoder().encode(texts), axis=1)
    assert len(texts) > 50
    assert cosines.min() >= model(LANE_MODEL_ID)["check"]["least_cosine"], texts[int(cosines.argmin())]
    assert cosines.mean() > 0.995
    assert cosines.min() < 0.999999, "these are vectors of codes"


@pytest.mark.slow
def test_a_texts_batch_changes_its_vector_by_no_more_than_rounding(lane: TextEncoder) -> None:
    texts = model(LANE_MODEL_ID)["check"]["texts"]
    together = lane.encode(texts)
    alone = np.concatenate([lane.encode([text]) for text in texts])
    assert np.sum(together * alone, axis=1).min() > 0.998
    assert lane.encode([]).shape == (0, 384)
