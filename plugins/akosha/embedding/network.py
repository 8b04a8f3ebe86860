"""The forward pass of the pinned MiniLM on one core, in float32 or with 8-bit products.

Written out, because a batch's intermediate values then stay in a core's second-level cache and every row (token) gets a
scale of its own: no text's scale depends on what else is in its batch, as it does with one scale per tensor. What a batch
still changes is rounding, which moves single codes: cosine 0.999 between the vectors of one text in two batches.
Importing this module costs 2 CPU-s (torch); `model` does so when an encoder is loaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

LAYERS: Final = 6
HEADS: Final = 12
WIDTH: Final = 384
INNER_WIDTH: Final = 4 * WIDTH
EPSILON: Final = 1e-12
MAX_CODE: Final = 127
# Tokens of one batch, padding included. Measured with 8-bit products, texts/s per core at 256, 512, 1,024 and 2,048: 1.4 KB
# texts 20.1, 20.5, 20.0, 18.6; shorter ones of mixed length 48, 46, 43, 37. Beyond 512 the inner layer (3 MB) leaves the cache.
BATCH_TOKENS: Final = 512
_PROBE_ROWS: Final = 64
_PROBES: Final = 5

Weights = Mapping[str, Tensor]


class Product(Protocol):
    """A linear layer."""

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows float32 ``(n, inputs)`` to float32 ``(n, outputs)``. The result is overwritten by the next call."""
        ...


class FloatProduct:
    """A linear layer in float32."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, rows: Tensor) -> Tensor:
        """``rows @ weight.T + bias``."""
        return F.linear(rows, self._weight, self._bias)


class CodeProduct:
    """A linear layer of 8-bit codes: one scale for each output; for each row, at the time of the call, a scale and an offset.

    A row is `offset + scale * (code + 127)`. The offset matters: a few inputs of a layer are large and of one sign, and
    with a scale alone the least cosine to float32 was 0.983 instead of 0.991. Buffers are kept between calls: fresh ones
    of this size cost as much as the product (page faults).
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._scales = weight.abs().amax(1).clamp_(min=EPSILON) / MAX_CODE
        codes = (weight / self._scales[:, None]).round_().to(torch.int8)
        self._codes, self._bias = codes.t(), bias
        self._sums_of_weights = codes.float().sum(1) * self._scales
        outputs, inputs = weight.shape
        self._scaled = torch.empty(BATCH_TOKENS, inputs)
        self._rows = torch.empty(BATCH_TOKENS, inputs, dtype=torch.int8)
        self._sums = torch.empty(BATCH_TOKENS, outputs, dtype=torch.int32)
        self._result = torch.empty(BATCH_TOKENS, outputs)

    def __call__(self, rows: Tensor) -> Tensor:
        """The same product, nearly. At most `BATCH_TOKENS` rows."""
        count = rows.shape[0]
        offsets = rows.amin(1, keepdim=True)
        scales = (rows.amax(1, keepdim=True) - offsets).clamp_(min=EPSILON).mul_(1 / (2 * MAX_CODE))
        scaled = torch.sub(rows, offsets, out=self._scaled[:count]).div_(scales).round_().sub_(MAX_CODE)
        codes = self._rows[:count].copy_(scaled)
        sums = torch._int_mm(codes, self._codes, out=self._sums[:count])
        result = self._result[:count].copy_(sums).mul_(scales)
        torch.addcmul(self._bias, result, self._scales, out=result)
        return result.addr_((offsets + MAX_CODE * scales)[:, 0], self._sums_of_weights)


@dataclass(frozen=True, slots=True)
class _Layer:
    attend: Product
    project: Product
    widen: Product
    narrow: Product
    attended: tuple[Tensor, Tensor]
    widened: tuple[Tensor, Tensor]


class Network:
    """MiniLM with mean pooling. One thread at a time: products keep their buffers.

    Args:
        weights: the tensors of ``model.safetensors``.
        product: `FloatProduct` or `CodeProduct`.
    """

    def __init__(self, weights: Weights, product: Callable[[Tensor, Tensor], Product]) -> None:
        self._words = weights["embeddings.word_embeddings.weight"]
        kinds = weights["embeddings.token_type_embeddings.weight"]
        self._places = weights["embeddings.position_embeddings.weight"] + kinds[0]
        self._first = _pair(weights, "embeddings.LayerNorm")
        self._layers = [_layer(weights, f"encoder.layer.{number}.", product) for number in range(LAYERS)]

    def vectors(self, token_ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Vectors of unit length, float32, shape ``(n, 384)``, in the order given; any number of texts of 1 to 256 tokens."""
        result = np.empty((len(token_ids), WIDTH), dtype=np.float32)
        with torch.inference_mode():
            for rows in token_batches([len(ids) for ids in token_ids], BATCH_TOKENS):
                result[rows] = self._batch([token_ids[row] for row in rows]).numpy()
        return result

    def _batch(self, token_ids: Sequence[Sequence[int]]) -> Tensor:
        ids, mask = _padded(token_ids)
        count, length = ids.shape
        rows = _normed(F.embedding(ids, self._words) + self._places[:length], self._first).view(-1, WIDTH)
        attendable = None if mask.all() else mask[:, None, None, :]
        for layer in self._layers:
            parts = layer.attend(rows).view(count, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
            seen = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask=attendable)
            seen = seen.transpose(1, 2).reshape(-1, WIDTH)
            rows = _normed(layer.project(seen).add_(rows), layer.attended)
            rows = _normed(layer.narrow(F.gelu(layer.widen(rows))).add_(rows), layer.widened)
        weight = mask[:, :, None].float()
        return F.normalize((rows.view(count, length, WIDTH) * weight).sum(1) / weight.sum(1), dim=-1)


def load_weights(path: Path) -> Weights:
    """The tensors of a safetensors file. This process then computes on one thread.

    Parallel work is done by processes: with two threads on a busy machine the threads of one product wait for each
    other (measured: 0.8 texts/s instead of 20).
    """
    torch.set_num_threads(1)
    return load_file(path)


def codes_are_faster() -> bool:
    """Whether 8-bit products pay on this processor (they need VNNI or the like): the widest layer on 64 rows, best of five."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(INNER_WIDTH, WIDTH, generator=generator)
    rows, bias = torch.randn(_PROBE_ROWS, WIDTH, generator=generator), torch.zeros(INNER_WIDTH)
    with torch.inference_mode():
        return _fastest(CodeProduct(weight, bias), rows) < _fastest(FloatProduct(weight, bias), rows)


def token_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Which texts go together: longest first, so that little is padded, as many as `budget` tokens hold, at least one.

    Args:
        lengths: tokens of each text.
        budget: tokens of a batch, padding included.

    Returns:
        Numbers of texts; each occurs once.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    batches = []
    start = 0
    while start < len(order):
        room = max(1, budget // max(1, lengths[order[start]]))
        batches.append(order[start : start + room])
        start += room
    return batches


def _padded(token_ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    longest = max(len(ids) for ids in token_ids)
    ids = np.zeros((len(token_ids), longest), dtype=np.int64)
    mask = np.zeros((len(token_ids), longest), dtype=np.bool_)
    for row, one in enumerate(token_ids):
        ids[row, : len(one)] = one
        mask[row, : len(one)] = True
    return torch.from_numpy(ids), torch.from_numpy(mask)


def _layer(weights: Weights, prefix: str, product: Callable[[Tensor, Tensor], Product]) -> _Layer:
    parts = [_pair(weights, f"{prefix}attention.self.{name}") for name in ("query", "key", "value")]
    return _Layer(
        attend=product(torch.cat([weight for weight, _ in parts]), torch.cat([bias for _, bias in parts])),
        project=product(*_pair(weights, f"{prefix}attention.output.dense")),
        widen=product(*_pair(weights, f"{prefix}intermediate.dense")),
        narrow=product(*_pair(weights, f"{prefix}output.dense")),
        attended=_pair(weights, f"{prefix}attention.output.LayerNorm"),
        widened=_pair(weights, f"{prefix}output.LayerNorm"),
    )


def _pair(weights: Weights, name: str) -> tuple[Tensor, Tensor]:
    return weights[f"{name}.weight"], weights[f"{name}.bias"]


def _normed(rows: Tensor, norm: tuple[Tensor, Tensor]) -> Tensor:
    return F.layer_norm(rows, (WIDTH,), *norm, EPSILON)


def _fastest(product: Product, rows: Tensor) -> float:
    """CPU seconds of the fastest of some calls."""
    best = float("inf")
    for _ in range(_PROBES):
        began = time.thread_time()
        product(rows)
        best = min(best, time.thread_time() - began)
    return best
