"""What lies in the local cache decides nothing, and what lies in the lake is checked before it is used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from tests.integration.small_lake import NOW, Memory, Shelf, publish

from akosha.errors import ConfigurationError, IntegrityError, ObjectMissingError
from akosha.lake import files
from akosha.lake.lake import Lake
from akosha.lake.schemas import ARCHIVE
from akosha.settings import Settings

pytestmark = pytest.mark.integration


def made(settings: Settings) -> Lake:
    lake = Lake.create(settings, now=NOW)
    memory = Memory("laptop-7", "one", "a text", None, NOW)
    publish(lake, Shelf({"hot": [memory]}))
    return Lake.open(settings)


def test_a_damaged_cached_file_is_fetched_again(s3_server: str, bucket: str, tmp_path: Path) -> None:
    """Cites I22."""
    lake = made(Settings(lake_url=f"s3://{bucket}/lake", s3_endpoint_url=s3_server, cache_dir=tmp_path / "cache"))
    (entry,) = lake.heads()[0].of_tier("hot")
    assert lake.rows(entry).num_rows == 1
    (kept,) = (tmp_path / "cache" / "files").rglob(f"{entry.sha256}*")
    kept.write_bytes(kept.read_bytes()[:-100])
    assert Lake.open(lake.settings).rows(entry).num_rows == 1


WRONG = "0" * 64


@pytest.mark.parametrize(
    ("known", "sound"),
    [
        ({}, True),
        ({"sha256": WRONG}, True),
        ({"xxh128": ""}, True),
        ({"xxh128": WRONG}, True),
        ({"xxh128": "", "sha256": WRONG}, False),
    ],
    ids=["both", "XXH3 decides", "SHA-256 alone, as older commits have", "SHA-256 overrules", "neither"],
)
def test_a_changed_file_of_the_lake_is_refused_before_it_is_used(
    tmp_path: Path, known: dict[str, str], sound: bool
) -> None:
    """Cites I3."""
    lake = made(Settings(lake_url=f"file://{tmp_path}/lake", cache_dir=tmp_path / "cache"))
    (entry,) = lake.heads()[0].keys.values()
    path = tmp_path / "lake" / entry.path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    entry = replace(entry, **known)
    if sound:
        assert Lake.open(lake.settings).keys(entry).num_rows == 1
        path.write_bytes(data)
    with pytest.raises(IntegrityError, match="a file does not match its SHA-256"):
        Lake.open(lake.settings).keys(entry)


def test_a_file_that_a_sweep_deleted_since_it_was_read_is_missing_and_not_damaged(tmp_path: Path) -> None:
    """A writer that stood still plans again, or fails and is tried again; it must not call the lake damaged."""
    lake = made(Settings(lake_url=f"file://{tmp_path}/lake", cache_dir=tmp_path / "cache"))
    (entry,) = lake.heads()[0].of_tier("hot")
    assert lake.rows(entry).num_rows == 1
    (tmp_path / "lake" / entry.path).unlink()
    with pytest.raises(ObjectMissingError, match="is missing"):
        lake.rows(entry)


def test_a_lost_lake_document_is_not_papered_over(tmp_path: Path) -> None:
    lake = made(Settings(lake_url=f"file://{tmp_path}/lake", cache_dir=tmp_path / "cache"))
    (tmp_path / "lake" / "lake.json").unlink()
    with pytest.raises(ConfigurationError, match=r"no lake\.json"):
        Lake.create(lake.settings, now=NOW)
    assert not (tmp_path / "lake" / "lake.json").exists()


def test_files_are_cut_by_the_bytes_of_their_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_TEXT_BYTES", 1_000)
    texts = ["x" * size for size in (400, 400, 400, 5_000, 10, 10)]
    table = pa.table({"content": pa.array(texts, ARCHIVE.field("content").type)})
    cut = list(files.pieces(table))
    assert [piece.num_rows for piece in cut] == [2, 1, 1, 2]
    assert pa.concat_tables(cut).equals(table)
