"""Keys and manifests: strict about safety, lenient about form."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from akosha.errors import InvalidUploadError
from akosha.uploads.manifest import ManifestDocument, OlderManifestDocument, UploadKey, parse_manifest, split_upload_key

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "tests" / "data" / "session_buddy"
SCHEMA = ROOT / "include" / "models" / "manifest.schema.json"
OLDER_SCHEMA = SCHEMA.with_name("manifest-older.schema.json")
FOLDER = "systems/les-mbp.local/uploads/20261120_235053_les-mbp.local/"
KEY = FOLDER + "manifest.json"


def sample_manifests() -> list[Path]:
    return sorted(SAMPLES.rglob("manifest.json"))


def document(**changes: Any) -> dict[str, Any]:
    return {
        "upload_id": "20261120_235053_les-mbp.local",
        "system_id": "les-mbp.local",
        "timestamp": "2026-11-20T23:50:54.568861+00:00",
        "files": [file()],
        "metadata": {"uploader": "session-buddy", "version": "1.0.0"},
    } | changes


def file(**changes: Any) -> dict[str, Any]:
    path = FOLDER + "reflection.duckdb"
    return {
        "name": "reflection.duckdb", "path": path, "size_bytes": 0, "compression": "gzip", "checksum": ""
    } | changes  # fmt: skip


def parse(prefix: str = "", key: str = KEY, **changes: Any):
    return parse_manifest(key, json.dumps(document(**changes)).encode(), prefix)


def reason_of(prefix: str = "", key: str = KEY, **changes: Any) -> str:
    with pytest.raises(InvalidUploadError) as caught:
        parse(prefix, key, **changes)
    assert len(caught.value.message) > 40
    return caught.value.reason


@pytest.mark.parametrize("path", sample_manifests(), ids=lambda path: path.parent.name)
def test_every_real_manifest_is_accepted_without_a_note(path: Path):
    manifest = parse_manifest(path.relative_to(SAMPLES).as_posix(), path.read_bytes())
    assert manifest.reflection is not None
    assert (SAMPLES / manifest.reflection.path).is_file()
    assert manifest.reflection.size_bytes is None
    assert manifest.reflection.checksum is None
    assert manifest.timestamp.tzinfo is UTC
    assert manifest.notes == ()


@pytest.mark.parametrize("path", sample_manifests(), ids=lambda path: path.parent.name)
def test_every_real_manifest_matches_the_published_schema(path: Path):
    schema = json.loads(SCHEMA.read_text())
    jsonschema.validate(json.loads(path.read_text()), schema)
    assert schema.items() >= ManifestDocument.model_json_schema().items()


@pytest.mark.parametrize(
    ("system_id", "upload_id"),
    [
        ("les-mbp.local", "20261120_235053_les-mbp.local"),
        ("a laptop with spaces", "20261120_235053_a laptop with spaces"),
        ("büro-größe-名", "20261120_235053_büro-größe-名"),
        ("team/laptop", "20261120_235053_team/laptop"),
        ("a/uploads/b", "20261120_235053_a/uploads/b"),
        ("uploads", "20261120_235053_uploads"),
        ("x/uploads", "20261120_235053_x/uploads"),
        ("plain", "any-other-form"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "team/incoming", "/team/incoming/"])
def test_a_key_is_split_into_the_ids_it_was_made_from(system_id: str, upload_id: str, prefix: str):
    root = prefix.strip("/") + "/" if prefix else ""
    key = f"{root}systems/{system_id}/uploads/{upload_id}/manifest.json"
    assert split_upload_key(key, prefix) == UploadKey(system_id, upload_id)


@pytest.mark.parametrize(
    "key",
    [
        "", "manifest.json", "systems/a/manifest.json", "systems//uploads/u/manifest.json", "systems/a/uploads/manifest.json",
        "systems/a/uploads//manifest.json", "other/systems/a/uploads/u/manifest.json", "systems/a/uploads/u/",
        "systems/a\n/uploads/u/manifest.json", "systems/" + "a" * 1_100 + "/uploads/u/manifest.json",
    ],
)  # fmt: skip
def test_a_key_of_another_form_is_refused(key: str):
    with pytest.raises(InvalidUploadError) as caught:
        split_upload_key(key)
    assert caught.value.reason == "invalid-key"


def test_a_manifest_of_another_system_is_refused():
    assert reason_of(system_id="other") == "other-system"


def test_a_manifest_of_another_upload_is_refused():
    assert reason_of(upload_id="20261120_235053_other") == "other-upload"


@pytest.mark.parametrize(
    "path",
    [
        "systems/victim/uploads/20261120_235053_victim/reflection.duckdb",
        FOLDER + "../other/reflection.duckdb",
        FOLDER + "a/./b",
        FOLDER + "a//b",
        FOLDER,
        FOLDER + "..\\x",
        FOLDER + "x\u0000y",
        "/etc/passwd",
        "file:///etc/passwd",
        FOLDER.rstrip("/") + "-more/reflection.duckdb",
    ],
)
def test_a_path_outside_the_upload_is_refused(path: str):
    assert reason_of(files=[file(path=path)]) == "path-outside-prefix"


@pytest.mark.parametrize(
    "changes",
    [
        {"files": None},
        {"files": [file(compression="zstd")]},
        {"files": [file(size_bytes=-1)]},
        {"files": [file(name="")]},
        {"files": [file(path="x" * 1_025)]},
        {"files": [file(), file()]},
        {"files": [file()] * 65},
        {"timestamp": "yesterday"},
        {"timestamp": "1999-01-01T00:00:00+00:00"},
        {"timestamp": "9999-12-31T23:59:59-12:00"},
        {"timestamp": None},
        {"system_id": 7},
    ],
    ids=lambda changes: json.dumps(changes)[:50],
)
def test_a_manifest_of_another_form_is_refused(changes: dict[str, Any]):
    assert reason_of(**changes) == "invalid-manifest"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"upload_id": "\\ud800"}',
        b"[" * 100_000,
        b" " * ((1 << 20) + 1),
        b"{}",
    ],
    ids=["empty", "cut", "list", "null", "binary", "surrogate", "deep", "long", "bare"],
)
def test_bytes_that_are_no_manifest_are_refused(data: bytes):
    with pytest.raises(InvalidUploadError) as caught:
        parse_manifest(KEY, data)
    assert caught.value.reason == "invalid-manifest"
    assert caught.value.context["manifest"] == KEY


def test_a_filled_manifest_of_another_uploader_is_accepted():
    entry = file(
        path=FOLDER + "reflection.duckdb.gz", name="reflection.duckdb.gz", size_bytes=22_112,
        checksum="SHA256:" + "AB" * 32, compression=" GZIP ", extra={"x": 1},
    )  # fmt: skip
    manifest = parse(files=[entry], more="keys")
    assert manifest.reflection is not None
    assert manifest.reflection.size_bytes == 22_112
    assert manifest.reflection.checksum == "ab" * 32
    assert manifest.reflection.compression == "gzip"
    assert manifest.reflection.path.endswith(".gz")


def test_a_checksum_of_another_algorithm_is_noted_and_not_checked():
    manifest = parse(files=[file(checksum="d41d8cd98f00b204e9800998ecf8427e")])
    assert manifest.reflection is not None
    assert manifest.reflection.checksum is None
    assert "not a SHA-256" in manifest.notes[0]


def test_a_naive_timestamp_is_read_as_utc_and_noted():
    manifest = parse(timestamp="2026-11-20T23:50:54")
    assert manifest.timestamp == datetime(2026, 11, 20, 23, 50, 54, tzinfo=UTC)
    assert "no time zone" in manifest.notes[0]


def test_a_timestamp_of_another_zone_becomes_utc():
    manifest = parse(timestamp="2026-11-21T05:20:54+05:30")
    assert manifest.timestamp == datetime(2026, 11, 20, 23, 50, 54, tzinfo=UTC)
    assert manifest.timestamp.utcoffset() == UTC.utcoffset(None)


def test_a_knowledge_graph_is_exposed_and_its_absence_is_fine():
    graph = file(name="knowledge_graph.duckdb", path=FOLDER + "knowledge_graph.duckdb")
    assert parse(files=[graph]).reflection is None
    assert parse(files=[graph]).knowledge_graph is not None
    assert parse(files=[]).files == ()


@pytest.mark.parametrize("written", ["team/incoming/" + FOLDER, FOLDER])
def test_a_path_below_a_bucket_prefix_becomes_the_full_key(written: str):
    manifest = parse("team/incoming", "team/incoming/" + KEY, files=[file(path=written + "reflection.duckdb")])
    assert manifest.files[0].path == "team/incoming/" + FOLDER + "reflection.duckdb"


def older(**changes: Any) -> dict[str, Any]:
    return {
        "system_id": "les-mbp.local",
        "uploaded_at": "2026-11-20T23:50:54.568861+00:00",
        "conversation_count": 3,
        "version": "1.0.0",
        "checksum": "ab" * 32,
        "compressed": True,
        "compression_format": "gzip",
        "files": ["memories.json"],
    } | changes


def parse_older(prefix: str = "", key: str = KEY, **changes: Any):
    return parse_manifest(key, json.dumps(older(**changes)).encode(), prefix)


def reason_of_older(**changes: Any) -> str:
    with pytest.raises(InvalidUploadError) as caught:
        parse_older(**changes)
    assert len(caught.value.message) > 40
    return caught.value.reason


def test_a_manifest_of_the_older_akosha_is_accepted_without_a_note():
    manifest = parse_older()
    assert (manifest.dialect, manifest.upload_id, manifest.conversation_count, manifest.notes) == (
        "akosha", "20261120_235053_les-mbp.local", 3, ()
    )  # fmt: skip
    assert manifest.timestamp == datetime(2026, 11, 20, 23, 50, 54, 568861, tzinfo=UTC)
    assert manifest.memories is not None
    assert manifest.memories.path == FOLDER + "memories.json"
    assert (manifest.memories.compression, manifest.memories.checksum) == ("gzip", "ab" * 32)
    assert (manifest.reflection, manifest.knowledge_graph) == (None, None)


def test_the_older_dialect_matches_its_published_schema():
    schema = json.loads(OLDER_SCHEMA.read_text())
    jsonschema.validate(older(), schema)
    assert schema.items() >= OlderManifestDocument.model_json_schema().items()


def test_a_timestamp_decides_for_session_buddy():
    assert parse(uploaded_at="2020-01-01T00:00:00Z").dialect == "session-buddy"
    assert parse(files=[file(name="memories.json", path=FOLDER + "memories.json")]).memories is None


@pytest.mark.parametrize(
    ("changes", "compression"),
    [
        ({"compressed": False, "compression_format": ""}, "none"),
        ({"compressed": False, "compression_format": None}, "none"),
        ({"compressed": True, "compression_format": " GZIP "}, "gzip"),
        ({"compressed": True, "compression_format": None}, "gzip"),
        ({"compressed": None, "compression_format": "none"}, "none"),
        ({"compressed": None, "compression_format": None}, "none"),
        ({"compressed": None, "compression_format": None, "files": ["memories.json.gz"]}, "gzip"),
        ({"compressed": False, "compression_format": "gzip"}, "none"),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_the_older_dialect_says_in_two_fields_what_is_packed(changes: dict[str, Any], compression: str):
    manifest = parse_older(**changes)
    assert manifest.memories is not None
    assert manifest.memories.compression == compression


@pytest.mark.parametrize("told", ["zstd", "br", "lz4", "gzip,zstd"])
def test_another_compression_of_the_older_dialect_is_refused_by_name(told: str):
    with pytest.raises(InvalidUploadError, match=told) as caught:
        parse_older(compression_format=told)
    assert caught.value.reason == "invalid-manifest"


@pytest.mark.parametrize("blank", ["", "  ", None])
def test_a_blank_checksum_and_count_of_the_older_dialect_are_unknown(blank: str | None):
    manifest = parse_older(checksum=blank, conversation_count=None)
    assert manifest.memories is not None
    assert (manifest.memories.checksum, manifest.conversation_count, manifest.notes) == (None, None, ())


@pytest.mark.parametrize("version", ["2.7", 3, {"major": 9}, [], "x" * 500, 10**4_000])
def test_an_unknown_version_of_the_older_dialect_is_noted_and_read(version: object):
    (note,) = parse_older(version=version).notes
    assert "is not known" in note
    assert len(note) < 200


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"system_id": "other"}, "other-system"),
        ({"upload_id": "other"}, "other-upload"),
        ({"files": ["../memories.json"]}, "path-outside-prefix"),
        ({"files": ["/memories.json"]}, "path-outside-prefix"),
        ({"files": ["a/../../memories.json"]}, "path-outside-prefix"),
        ({"files": ["memories.json", "memories.json.gz"]}, "invalid-manifest"),
        ({"files": "memories.json"}, "invalid-manifest"),
        ({"files": [{"name": "memories.json"}]}, "invalid-manifest"),
        ({"files": ["x" * 2_000]}, "invalid-manifest"),
        ({"files": None}, "invalid-manifest"),
        ({"uploaded_at": "yesterday"}, "invalid-manifest"),
        ({"uploaded_at": "1999-01-01T00:00:00Z"}, "invalid-manifest"),
        ({"conversation_count": -1}, "invalid-manifest"),
        ({"conversation_count": "many"}, "invalid-manifest"),
        ({"compressed": "perhaps"}, "invalid-manifest"),
    ],
    ids=lambda value: json.dumps(value)[:50],
)
def test_a_broken_manifest_of_the_older_dialect_is_refused(changes: dict[str, Any], reason: str):
    assert reason_of_older(**changes) == reason


def test_other_files_of_the_older_dialect_are_noted_and_left_alone():
    manifest = parse_older(files=["memories.json", "index.bin"])
    assert [file.name for file in manifest.files] == ["memories.json"]
    assert "index.bin" in manifest.notes[0]
    assert "not checked" in parse_older(files=[]).notes[0]


def test_the_older_dialect_lies_below_a_bucket_prefix_too():
    for name in ("memories.json", FOLDER + "memories.json", "in/" + FOLDER + "memories.json"):
        manifest = parse_older("in", "in/" + KEY, files=[name])
        assert manifest.files[0].path == "in/" + FOLDER + "memories.json"


def test_a_number_too_long_to_be_written_is_no_version():
    """Python itself refuses to write numbers of more than 4,300 digits."""
    for digits in (4_301, 100_000):
        parse_any(json.dumps(older(version=0)).replace('"version": 0', '"version": ' + "9" * digits).encode())


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(["2026-11-20T23:50:54Z", "les-mbp.local", "memories.json", "../x", "gzip", "0" * 64, "\ud800"]),
)  # fmt: skip
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner))
DOCUMENTS = st.one_of(
    st.dictionaries(st.sampled_from(sorted(older())), VALUES, max_size=3).map(lambda changes: older(**changes)),
    st.dictionaries(st.sampled_from(sorted(document())), VALUES, max_size=2).map(lambda changes: document(**changes)),
    VALUES,
)


@given(DOCUMENTS)
@settings(max_examples=150, deadline=None)
def test_whatever_a_manifest_says_it_is_accepted_or_refused_with_a_reason(written: object):
    """I15."""
    parse_any(json.dumps(written).encode())


@given(st.binary(max_size=200) | st.integers(0, 400).map(lambda cut: json.dumps(older()).encode()[:cut]))
@settings(max_examples=100, deadline=None)
def test_whatever_bytes_a_manifest_has_it_is_accepted_or_refused_with_a_reason(data: bytes):
    """I15."""
    parse_any(data)


def parse_any(data: bytes) -> None:
    try:
        manifest = parse_manifest(KEY, data)
    except InvalidUploadError as error:
        refusal = error
    else:
        assert manifest.system_id == "les-mbp.local"
        assert all(file.path.startswith(FOLDER) for file in manifest.files)
        return
    assert refusal.reason in {"invalid-manifest", "other-system", "other-upload", "path-outside-prefix"}
    assert len(refusal.message) < 2_000
