from __future__ import annotations

import logging
import multiprocessing
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from akosha.embedding.cache import EmbeddingCache
from akosha.errors import ConfigurationError

MODEL = "all-minilm-l6-v2"


def vector(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=384).astype(np.float32)


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def write_hundred(path: Path, first: int) -> None:
    with EmbeddingCache(path) as cache:
        for number in range(first, first + 100):
            cache.put_many(MODEL, {digest(number): vector(number)})


def test_vectors_come_back_bit_by_bit_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "embeddings.sqlite"
    with EmbeddingCache(path) as cache:
        cache.put_many(MODEL, {digest(1): vector(1), digest(2): vector(2)})
    with EmbeddingCache(path) as cache:
        found = cache.get_many(MODEL, [digest(2), digest(3), digest(1), digest(2)])
        assert not cache.rebuilt
    assert set(found) == {digest(1), digest(2)}
    assert (found[digest(2)] == vector(2)).all()
    assert found[digest(2)].dtype == np.float32


def test_models_do_not_share_vectors(tmp_path: Path) -> None:
    with EmbeddingCache(tmp_path / "c") as cache:
        cache.put_many(MODEL, {digest(1): vector(1)})
        assert cache.get_many("another-model", [digest(1)]) == {}


def test_more_digests_than_one_statement_takes(tmp_path: Path) -> None:
    with EmbeddingCache(tmp_path / "c") as cache:
        cache.put_many(MODEL, {digest(number): vector(7) for number in range(0, 25_000, 5_000)})
        assert len(cache.get_many(MODEL, map(digest, range(25_000)))) == 5


def test_a_vector_of_another_shape_stores_nothing(tmp_path: Path) -> None:
    with EmbeddingCache(tmp_path / "c") as cache:
        with pytest.raises(ValueError, match="384"):
            cache.put_many(MODEL, {digest(1): vector(1), digest(2): np.zeros(3, dtype=np.float32)})
        with pytest.raises(ValueError, match="finite"):
            cache.put_many(MODEL, {digest(1): np.full(384, np.nan, dtype=np.float32)})
        assert cache.get_many(MODEL, [digest(1), digest(2)]) == {}


@pytest.mark.parametrize("damage", [b"this is no database, whatever its name says" * 40, b"\xff" * 100])
def test_a_damaged_file_is_rebuilt_and_says_so(tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "c"
    path.write_bytes(damage)
    with caplog.at_level(logging.WARNING), EmbeddingCache(path) as cache:
        assert cache.rebuilt
        cache.put_many(MODEL, {digest(1): vector(1)})
        assert len(cache.get_many(MODEL, [digest(1)])) == 1
    assert "embedding_cache_rebuilt" in caplog.text


def test_damage_found_while_reading_is_rebuilt_too(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with EmbeddingCache(path) as cache:
        cache.put_many(MODEL, {digest(number): vector(number) for number in range(300)})
    raw = bytearray(path.read_bytes())
    raw[4096:] = b"\xa5" * (len(raw) - 4096)
    path.write_bytes(raw)
    with EmbeddingCache(path) as cache:
        assert cache.get_many(MODEL, map(digest, range(300))) == {}
        assert cache.rebuilt


def test_a_flipped_bit_in_a_vector_reads_as_missing(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with EmbeddingCache(path) as cache:
        cache.put_many(MODEL, {digest(1): vector(1), digest(2): vector(2)})
    connection = sqlite3.connect(path)
    raw = bytearray(vector(1).tobytes())
    raw[100] ^= 1
    connection.execute("UPDATE vectors SET vector = ? WHERE digest = ?", (bytes(raw), digest(1).hex()))
    connection.commit()
    connection.close()
    with EmbeddingCache(path) as cache:
        assert set(cache.get_many(MODEL, [digest(1), digest(2)])) == {digest(2)}


def test_several_processes_write_at_once_and_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "c"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=write_hundred, args=(path, first)) for first in (0, 50, 100)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    with EmbeddingCache(path) as cache:
        assert [worker.exitcode for worker in workers] == [0, 0, 0]
        assert len(cache.get_many(MODEL, map(digest, range(200)))) == 200


def test_a_cache_that_cannot_be_opened_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError, match="AKOSHA_CACHE_DIR"):
        EmbeddingCache(tmp_path / "folder")


def test_a_closed_cache_opens_again(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "c")
    cache.put_many(MODEL, {digest(1): vector(1)})
    cache.close()
    cache.close()
    assert len(cache.get_many(MODEL, [digest(1)])) == 1
    cache.close()
