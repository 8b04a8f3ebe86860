"""Unpacking an uploaded object: every way in which it can be wrong has its own reason."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import zlib
from pathlib import Path

import pytest
import xxhash

from akosha.errors import DiskFullError, InvalidUploadError
from akosha.uploads.container import Unpacked, unpack, unpack_json

SAMPLES = Path(__file__).parents[1] / "data" / "session_buddy"
SAMPLE = SAMPLES / "systems/unknown-system/uploads/20261120_235143_unknown-system/reflection.duckdb"
LIMIT = 64 << 20


@pytest.fixture(scope="module")
def database() -> bytes:
    return gzip.decompress(SAMPLE.read_bytes())


def run(folder: Path, data: bytes, compression="gzip", max_bytes: int = LIMIT, **promises) -> Unpacked:
    source = folder / "object"
    source.write_bytes(data)
    return unpack(source, folder / "unpacked", compression=compression, max_bytes=max_bytes, **promises)


def reason_of(folder: Path, data: bytes, compression="gzip", max_bytes: int = LIMIT, **promises) -> str:
    with pytest.raises(InvalidUploadError) as caught:
        run(folder, data, compression, max_bytes, **promises)
    assert not (folder / "unpacked").exists()
    assert len(caught.value.message) > 40
    return caught.value.reason


@pytest.mark.parametrize("source", sorted(SAMPLES.rglob("*.duckdb")), ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_every_real_object_unpacks_to_the_same_bytes_as_gzip(source: Path, tmp_path: Path):
    expected = gzip.decompress(source.read_bytes())
    unpacked = unpack(source, tmp_path / "u", compression="gzip", max_bytes=LIMIT)
    assert (tmp_path / "u").read_bytes() == expected
    assert unpacked.xxh128 == xxhash.xxh3_128_hexdigest(expected)
    assert unpacked.size_bytes == len(expected)
    assert unpacked.storage_version in {64, 999}


def test_a_plain_file_is_taken_as_it_is_and_private(tmp_path: Path, database: bytes):
    unpacked = run(tmp_path, database, "none")
    assert unpacked.xxh128 == xxhash.xxh3_128_hexdigest(database)
    assert (tmp_path / "unpacked").stat().st_mode & 0o777 == 0o600


def test_a_plain_file_is_copied_where_the_file_system_has_no_hard_links(
    tmp_path: Path, database: bytes, monkeypatch: pytest.MonkeyPatch
):
    def refused(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(source), None, str(target))

    monkeypatch.setattr(os, "link", refused)
    assert run(tmp_path, database, "none").xxh128 == xxhash.xxh3_128_hexdigest(database)
    assert (tmp_path / "unpacked").read_bytes() == database
    assert (tmp_path / "unpacked").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kept", [1, 9, 10, 11, 100, -9, -8, -1])
def test_a_truncated_object_is_refused(kept: int, tmp_path: Path):
    assert reason_of(tmp_path, SAMPLE.read_bytes()[:kept]) in {"truncated", "damaged"}


def test_half_an_object_is_called_truncated(tmp_path: Path):
    assert reason_of(tmp_path, SAMPLE.read_bytes()[:9_000]) == "truncated"


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_an_empty_object_is_called_truncated(compression: str, tmp_path: Path):
    assert reason_of(tmp_path, b"", compression) == "truncated"


def test_a_plain_file_cut_inside_its_header_is_called_truncated(tmp_path: Path, database: bytes):
    assert reason_of(tmp_path, database[:5_000], "none") == "truncated"


def test_a_flipped_bit_anywhere_in_the_gzip_data_is_found(tmp_path: Path):
    packed = SAMPLE.read_bytes()
    for at in range(20, len(packed), 1_111):
        damaged = bytearray(packed)
        damaged[at] ^= 0x10
        assert reason_of(tmp_path, bytes(damaged)) in {"damaged", "truncated", "not-a-database"}


def test_a_wrong_crc_is_called_damaged(tmp_path: Path):
    packed = bytearray(SAMPLE.read_bytes())
    packed[-6] ^= 1
    assert reason_of(tmp_path, bytes(packed)) == "damaged"


@pytest.mark.parametrize("trailing", [b"\0", b"x" * 40, gzip.compress(b"second member")])
def test_bytes_behind_the_member_are_refused(trailing: bytes, tmp_path: Path):
    assert reason_of(tmp_path, SAMPLE.read_bytes() + trailing) == "damaged"


def test_a_label_that_does_not_match_the_content_is_refused(tmp_path: Path, database: bytes):
    assert reason_of(tmp_path, database, "gzip") == "wrong-label"
    assert reason_of(tmp_path, SAMPLE.read_bytes(), "none") == "wrong-label"


def test_a_plain_file_that_starts_like_gzip_is_still_a_database(tmp_path: Path, database: bytes):
    assert run(tmp_path, b"\x1f\x8b" + database[2:], "none").size_bytes == len(database)


@pytest.mark.parametrize("content", [b"SQLite format 3\0" + b"\0" * 20_000, b"hello", b"\0" * 20_000])
def test_something_else_than_a_database_is_refused(content: bytes, tmp_path: Path):
    assert reason_of(tmp_path, gzip.compress(content)) == "not-a-database"
    assert reason_of(tmp_path, content, "none") == "not-a-database"


def test_a_bomb_is_stopped_at_the_limit(tmp_path: Path):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(b"\0" * (1 << 20)) for _ in range(200)) + packer.flush()
    assert len(bomb) < 300_000
    assert reason_of(tmp_path, bomb, max_bytes=10 << 20) == "too-large"


def test_the_limit_itself_is_allowed(tmp_path: Path, database: bytes):
    assert run(tmp_path, SAMPLE.read_bytes(), max_bytes=len(database)).size_bytes == len(database)
    (tmp_path / "unpacked").unlink()
    assert reason_of(tmp_path, SAMPLE.read_bytes(), max_bytes=len(database) - 1) == "too-large"
    assert reason_of(tmp_path, database, "none", max_bytes=len(database) - 1) == "too-large"


def test_size_and_checksum_may_be_of_packed_or_unpacked_bytes(tmp_path: Path, database: bytes):
    packed = SAMPLE.read_bytes()
    for data in (packed, database):
        promises = {"size_bytes": len(data), "checksum": hashlib.sha256(data).hexdigest()}
        assert run(tmp_path, packed, **promises).size_bytes == len(database)
        (tmp_path / "unpacked").unlink()


def test_a_broken_promise_is_refused(tmp_path: Path):
    assert reason_of(tmp_path, SAMPLE.read_bytes(), checksum="0" * 64) == "checksum-mismatch"
    assert reason_of(tmp_path, SAMPLE.read_bytes(), size_bytes=5) == "size-mismatch"


def test_an_existing_file_is_neither_overwritten_nor_removed(tmp_path: Path):
    (tmp_path / "unpacked").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        run(tmp_path, SAMPLE.read_bytes())
    assert (tmp_path / "unpacked").read_bytes() == b"mine"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the kernel has no /dev/full")
def test_a_full_disk_names_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real_open = os.open
    monkeypatch.setattr("akosha.uploads.container.os.open", lambda *_: real_open("/dev/full", os.O_WRONLY))
    with pytest.raises(DiskFullError) as caught:
        run(tmp_path, SAMPLE.read_bytes())
    assert "AKOSHA_CACHE_DIR" in caught.value.message
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC


def evidence_of(folder: Path, data: bytes) -> dict[str, object]:
    with pytest.raises(InvalidUploadError) as caught:
        run(folder, data)
    return caught.value.context


def test_a_refusal_says_at_which_byte_the_data_end_or_go_on(tmp_path: Path):
    whole = SAMPLE.read_bytes()
    assert evidence_of(tmp_path, whole[:5_000])["packed_offset"] == 5_000
    assert evidence_of(tmp_path, whole + b"more")["packed_offset"] == len(whole)
    assert evidence_of(tmp_path, whole[:20] + bytes(200) + whole[220:])["packed_offset_at_least"] == 0


DOCUMENT = b'{"conversations": []}'


def json_of(folder: Path, data: bytes, compression="gzip", **promises) -> Unpacked:
    source = folder / "object"
    source.write_bytes(data)
    return unpack_json(source, folder / "unpacked", compression=compression, max_bytes=1_000, **promises)


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_a_json_document_unpacks_to_its_bytes(compression: str, tmp_path: Path):
    stored = gzip.compress(DOCUMENT) if compression == "gzip" else DOCUMENT
    for number, promised in enumerate((None, hashlib.sha256(stored).hexdigest(), hashlib.sha256(DOCUMENT).hexdigest())):
        folder = tmp_path / str(number)
        folder.mkdir()
        unpacked = json_of(folder, stored, compression, checksum=promised)
        assert (folder / "unpacked").read_bytes() == DOCUMENT
        assert unpacked == Unpacked(xxhash.xxh3_128_hexdigest(DOCUMENT), len(DOCUMENT), 0)


@pytest.mark.parametrize(
    ("data", "compression", "reason"),
    [
        (b"", "none", "truncated"),
        (gzip.compress(DOCUMENT)[:-9], "gzip", "truncated"),
        (DOCUMENT, "gzip", "wrong-label"),
        (b"\xef\xbb\xbf " + DOCUMENT, "gzip", "wrong-label"),
        (gzip.compress(DOCUMENT), "none", "wrong-label"),
        (b"(\xb5/\xfd....", "gzip", "damaged"),
        (gzip.compress(b" " * 2_000), "gzip", "too-large"),
        (b" " * 2_000, "none", "too-large"),
    ],
)
def test_a_json_document_of_another_form_is_refused(data: bytes, compression: str, reason: str, tmp_path: Path):
    with pytest.raises(InvalidUploadError) as caught:
        json_of(tmp_path, data, compression)
    assert caught.value.reason == reason
    assert not (tmp_path / "unpacked").exists()


def test_a_json_document_with_another_digest_than_promised_is_refused(tmp_path: Path):
    with pytest.raises(InvalidUploadError) as caught:
        json_of(tmp_path, DOCUMENT, "none", checksum="0" * 64)
    assert caught.value.reason == "checksum-mismatch"
