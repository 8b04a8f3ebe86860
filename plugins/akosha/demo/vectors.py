"""Real vectors for the demo texts: made once by the pinned model, then read from a file.

The file is keyed by the digest of each text and by the model, and names the versions of the packages the texts were read
from: other packages give other texts, and the file is stale.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from akosha.demo.broken import BYSTANDERS
from akosha.demo.cast import MACHINES
from akosha.demo.graph import OBSERVATIONS
from akosha.demo.memories import remember
from akosha.demo.texts import PACKAGES, harvest
from akosha.embedding.model import DIMENSION, MODEL_ID, Encoder, load_encoder
from akosha.errors import ConfigurationError
from akosha.transforms.cleaning import clean

DEFAULT_PATH: Final = Path(sys.prefix) / "share" / "akosha" / "demo-vectors.parquet"
_MODEL: Final = b"akosha.model"
_SOURCES: Final = b"akosha.sources"
Encode = Callable[[Sequence[str]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Corpus:
    """What a world is made of.

    Attributes:
        texts: harvested prose, in the order in which it is handed out.
        encode: vectors of texts, float32 ``(n, 384)``, in their order. `load_vectors` gives the real ones.
    """

    texts: tuple[str, ...]
    encode: Encode


@dataclass(frozen=True, slots=True)
class VectorReport:
    """What `make_vectors` did: the file, texts encoded now, texts kept from an earlier run, size in bytes."""

    path: Path
    encoded: int
    kept: int
    size_bytes: int


def carried_texts(texts: tuple[str, ...], scale: float = 1.0) -> list[str]:
    """Every text of the world that carries a vector, once, in a fixed order."""
    worlds, _ = remember((*MACHINES, *BYSTANDERS), texts, scale)
    carried = [text for world in worlds for memory in world if memory.vector for text in memory.contents]
    return list(dict.fromkeys([*carried, *OBSERVATIONS]))


def make_vectors(
    path: Path = DEFAULT_PATH, encoder: Encoder | None = None, texts: tuple[str, ...] | None = None
) -> VectorReport:
    """Harvest the texts, encode those that carry a vector, and write both to `path`; takes a minute or two.

    Texts that the file at `path` already holds for the same model are not encoded again.

    Args:
        path: the file; replaced in one step, so that a stopped run leaves the old one.
        encoder: the model, or None to load the pinned one.
        texts: what to start from, or None to harvest.
    """
    texts = tuple(harvest()) if texts is None else texts
    wanted = carried_texts(texts)
    known = _known(path)
    missing = [text for text in wanted if _digest(text) not in known]
    if missing:
        fresh = (encoder or load_encoder()).encode([clean(text) for text in missing])
        known |= dict(zip(map(_digest, missing), fresh, strict=True))
    _write(path, texts, [text for text in wanted if text not in set(texts)], known)
    return VectorReport(path, len(missing), len(wanted) - len(missing), path.stat().st_size)


def load_vectors(path: Path = DEFAULT_PATH) -> Corpus:
    """The texts and their real vectors, as `make_vectors` wrote them.

    Raises:
        ConfigurationError: the file is missing, unreadable, of another model or of other packages.
    """
    table = _read(path)
    found = table.schema.metadata or {}
    expected = {_MODEL: MODEL_ID.encode(), _SOURCES: _sources()}
    for key, value in expected.items():
        if found.get(key) != value:
            raise _stale(path, f"{key.decode()} is {found.get(key, b'missing').decode()}, expected {value.decode()}")
    texts = table.column("text").to_pylist()
    corpus = tuple(text for text, drawn in zip(texts, table.column("harvested").to_pylist(), strict=True) if drawn)
    vectors = _vectors(table)
    lost = sum(_digest(text) not in vectors for text in carried_texts(corpus))
    if lost:
        raise _stale(path, f"{lost} texts have no vector")

    def encode(wanted: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([vectors[_digest(text)] for text in wanted])

    return Corpus(corpus, encode)


def unit_vectors(texts: Sequence[str]) -> NDArray[np.float32]:
    """Stand-ins for real vectors: unit length, drawn from each text's digest alone. For tests, which load no model."""
    seeds = [int.from_bytes(_digest(text)[:8], "big") for text in texts]
    drawn = np.stack([np.random.Generator(np.random.PCG64(seed)).standard_normal(DIMENSION) for seed in seeds])
    unit: NDArray[np.float32] = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _write(path: Path, texts: Sequence[str], derived: Sequence[str], known: dict[bytes, NDArray[np.float32]]) -> None:
    rows = [*texts, *derived]
    table = pa.table(
        {
            "text": rows,
            "digest": pa.array([_digest(text) for text in rows], type=pa.binary(32)),
            "harvested": [True] * len(texts) + [False] * len(derived),
            "vector": pa.array([known.get(_digest(text)) for text in rows], type=pa.list_(pa.float32(), DIMENSION)),
        }
    ).replace_schema_metadata({_MODEL: MODEL_ID.encode(), _SOURCES: _sources()})
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(table, partial, compression="zstd", write_page_checksum=True)
    partial.replace(path)


def _read(path: Path) -> pa.Table:
    if not path.is_file():
        message = f"the vectors of the demo texts are missing: run `akosha demo-vectors` once (it writes {path})"
        raise ConfigurationError(message, path=str(path))
    try:
        return pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise _stale(path, f"it cannot be read: {error}") from error


def _known(path: Path) -> dict[bytes, NDArray[np.float32]]:
    """Vectors of an earlier run that are still of this model."""
    try:
        table = _read(path)
    except ConfigurationError:
        return {}
    return _vectors(table) if (table.schema.metadata or {}).get(_MODEL) == MODEL_ID.encode() else {}


def _vectors(table: pa.Table) -> dict[bytes, NDArray[np.float32]]:
    filled = table.filter(table.column("vector").is_valid())
    flat = filled.column("vector").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    digests = filled.column("digest").to_pylist()
    return dict(zip(digests, flat.reshape(-1, DIMENSION).astype(np.float32), strict=True))


def _sources() -> bytes:
    """The versions of the packages that texts are read from, as JSON."""
    owners = packages_distributions()
    return json.dumps({name: sorted({version(owner) for owner in owners.get(name, [])}) for name in PACKAGES}).encode()


def _stale(path: Path, why: str) -> ConfigurationError:
    message = f"the vectors of the demo texts are stale: {why}; run `akosha demo-vectors` again"
    return ConfigurationError(message, path=str(path))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
