"""What an operator can get wrong: one clear line that names the setting, an exit code, and nothing half-written."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from tests.support.installation import AKOSHA, Installation
from tests.support.s3_proxy import ALWAYS, Proxy, s3_proxy
from tests.support.uploads import database, memory, put_upload, vectors

from akosha.errors import DiskFullError
from akosha.jobs import reading
from akosha.lake.documents import seal
from akosha.lake.lake import Lake

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
FAILED, USAGE, DAMAGED = 1, 2, 3


def assert_refused(done: subprocess.CompletedProcess[str], *words: str, code: int = FAILED) -> None:
    """One line on standard error, with all `words`, and the exit code."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("akosha: ")]
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0]


def put_one(installation: Installation, system_id: str = "laptop-7", rows: int = 40) -> None:
    carried = vectors(rows)
    memories = [memory(f"id-{n}", f"Note {n}: use a deadline.", NOW, carried[n]) for n in range(rows)]
    put_upload(installation.uploads, system_id, NOW, database({"conversations_v2": memories}))


@pytest.fixture
def local(tmp_path: Path) -> Installation:
    return Installation.local(tmp_path)


@pytest.fixture
def made(local: Installation) -> Installation:
    """With a lake and an upload that is due."""
    Lake.create(local.settings, now=NOW)
    put_one(local)
    return local


@pytest.fixture
def proxy(s3_server: str) -> Iterator[Proxy]:
    with s3_proxy(s3_server) as running:
        yield running


def objects(endpoint: str, bucket: str) -> list[str]:
    listed = boto3.client("s3", endpoint_url=endpoint).list_objects_v2(Bucket=bucket)
    return [found["Key"] for found in listed.get("Contents", ())]


def rewrite(installation: Installation, **fields: object) -> None:
    """Another lake.json, sealed as it should be."""
    path = installation.folder / "lake" / "lake.json"
    path.write_bytes(seal({**json.loads(path.read_bytes()), **fields}))


class TestStore:
    def test_a_missing_bucket(self, tmp_path: Path, s3_server: str):
        name = f"missing-{uuid.uuid4().hex}"
        installation = Installation.on_s3(tmp_path, s3_server, name)
        for verb in ("init", "status"):
            assert_refused(installation.cli(verb), "no bucket", name, "AKOSHA_LAKE_URL")
        names = [found["Name"] for found in boto3.client("s3", endpoint_url=s3_server).list_buckets()["Buckets"]]
        assert name not in names

    def test_a_missing_uploads_bucket(self, made: Installation, s3_server: str):
        heads = made.heads()
        done = made.main("ingest", uploads_url="s3://no-such-uploads", s3_endpoint_url=s3_server)
        assert_refused(done, "no bucket 'no-such-uploads'", "AKOSHA_UPLOADS_URL")
        assert made.heads() == heads

    @pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "InvalidAccessKeyId"])
    def test_wrong_credentials(self, tmp_path: Path, proxy: Proxy, s3_server: str, bucket: str, code: str):
        proxy.rule("answer", count=ALWAYS, status=403, code=code)
        installation = Installation.on_s3(tmp_path, proxy.url, bucket)
        assert_refused(installation.main("init"), "AWS_ACCESS_KEY_ID")
        assert objects(s3_server, bucket) == []

    def test_no_credentials(self, tmp_path: Path, s3_server: str, bucket: str):
        installation = Installation.on_s3(tmp_path, s3_server, bucket)
        environment = installation.full_environment()
        del environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]
        done = subprocess.run(
            [AKOSHA, "init"], env={**environment, "HOME": str(tmp_path)}, capture_output=True, text=True, check=False
        )
        assert_refused(done, "no S3 credentials", "AWS_ACCESS_KEY_ID")

    def test_an_endpoint_that_is_down(self, tmp_path: Path):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        installation = Installation.on_s3(tmp_path, f"http://127.0.0.1:{port}", "bucket")
        assert_refused(installation.main("init"), "AKOSHA_S3_ENDPOINT_URL")

    def test_a_store_without_conditional_create(self, tmp_path: Path, proxy: Proxy, s3_server: str, bucket: str):
        proxy.rule("unconditional", method="PUT", conditional=True, count=ALWAYS)
        installation = Installation.on_s3(tmp_path, proxy.url, bucket)
        assert_refused(installation.main("init"), "conditional create", "AKOSHA_LAKE_URL")
        assert objects(s3_server, bucket) == []

    def test_a_store_that_has_lost_conditional_create(self, tmp_path: Path, proxy: Proxy, s3_server: str, bucket: str):
        """Moved to another server since: every job that writes looks again before it plans."""
        installation = Installation.on_s3(tmp_path, s3_server, bucket)
        Lake.create(installation.settings, now=NOW)
        put_one(installation)
        before = objects(s3_server, bucket)
        proxy.rule("unconditional", method="PUT", conditional=True, count=ALWAYS)
        done = installation.main("ingest", s3_endpoint_url=proxy.url)
        assert_refused(done, "conditional create", "AKOSHA_LAKE_URL")
        assert objects(s3_server, bucket) == before

    def test_a_cold_store_without_conditional_create_is_refused_at_init(
        self, tmp_path: Path, proxy: Proxy, s3_server: str, bucket: str
    ):
        proxy.rule("unconditional", method="PUT", path="/frost/", conditional=True, count=ALWAYS)
        installation = Installation.on_s3(tmp_path, proxy.url, bucket, cold_url=f"s3://{bucket}/frost")
        assert_refused(installation.main("init"), "conditional create", "AKOSHA_COLD_URL")
        assert objects(s3_server, bucket) == []


class TestLake:
    def test_no_lake_there(self, local: Installation):
        for arguments in (["status"], ["ingest"], ["migrate", "hot-to-warm"], ["fsck"], ["export", "--out", "x"]):
            assert_refused(local.main(*arguments), "akosha init", "AKOSHA_LAKE_URL")
        assert not (local.folder / "lake").exists()

    def test_vectors_of_another_dimension(self, made: Installation):
        rewrite(made, dimension=768)
        assert_refused(made.main("ingest"), "768", "384", "AKOSHA_LAKE_URL")

    def test_another_number_of_shards(self, made: Installation):
        rewrite(made, shards=64)
        assert_refused(made.main("status"), "64 shards", "AKOSHA_LAKE_URL")

    def test_a_newer_format(self, made: Installation):
        rewrite(made, format="akosha-lake/2")
        assert_refused(made.main("status"), "newer Akosha", "AKOSHA_LAKE_URL")

    def test_a_damaged_identity_is_damage(self, made: Installation):
        path = made.folder / "lake" / "lake.json"
        path.write_bytes(path.read_bytes().replace(b"384", b"385"))
        assert_refused(made.main("status"), "lake.json", code=DAMAGED)

    def test_another_cold_url(self, made: Installation):
        done = made.main("status", cold_url=f"file://{made.folder}/elsewhere")
        assert_refused(done, "AKOSHA_COLD_URL", "elsewhere", "unset")

    def test_a_file_in_the_place_of_the_lake(self, local: Installation):
        (local.folder / "lake").write_text("not a folder")
        assert_refused(local.main("init"), "AKOSHA_LAKE_URL")
        assert (local.folder / "lake").read_text() == "not a folder"


class TestSettings:
    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [
            ("lake_url", "", ["AKOSHA_LAKE_URL is not set"]),
            ("lake_url", "/data/lake", ["AKOSHA_LAKE_URL", "/data/lake"]),
            ("hot_days", "seven", ["AKOSHA_HOT_DAYS", "seven"]),
            ("uploads_url", "", ["AKOSHA_UPLOADS_URL is not set"]),
            ("s3_endpoint_url", "localhost", ["AKOSHA_S3_ENDPOINT_URL", "localhost"]),
        ],
    )
    def test_a_wrong_value(self, made: Installation, name: str, value: str, words: list[str]):
        given = {"uploads_url": "s3://uploads"} if name == "s3_endpoint_url" else {}
        assert_refused(made.main("ingest", **{**given, name: value}), *words)

    def test_as_json_the_error_is_an_object(self, made: Installation):
        done = made.cli("ingest", "--json", hot_days="0")
        answer = json.loads(done.stdout)
        assert (answer["ok"], answer["error"]) == (False, "ConfigurationError")
        assert answer["context"]["setting"] == "AKOSHA_HOT_DAYS"

    def test_usage_errors_exit_with_2(self, made: Installation):
        assert made.main("no-such-verb").returncode == USAGE
        assert_refused(made.main("migrate", "hot-to-warm", "--as-of", "yesterday"), "as_of", "yesterday", code=USAGE)
        ahead = (datetime.now(UTC) + timedelta(days=3)).isoformat()
        assert_refused(made.main("migrate", "hot-to-warm", "--as-of", ahead), "--force", code=USAGE)
        assert_refused(made.main("ingest", "--shard", "256"), "0-255", code=USAGE)
        done = made.main("ingest", "--system", "laptop-7", "--shard", "3")
        assert_refused(done, "lives in shard 77", code=USAGE)
        assert made.heads() == {}

    def test_a_reader_that_goes_away_is_no_failure(self, made: Installation):
        """akosha doctor | head -1."""
        process = subprocess.Popen(
            [AKOSHA, "policy", "show"], env=made.full_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        with process.stderr as errors:
            assert errors.read() == b""
        assert process.wait(timeout=60) == 0


@contextmanager
def small_disk(folder: Path, size_bytes: int, *, read_only: bool = False) -> Iterator[Path]:
    """A disk of its own, mounted below `folder`; skips where this machine forbids that."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
    try:
        mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a full disk can only be made by a root user who may mount one")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def leave_free(disk: Path, free_bytes: int) -> None:
    """Fill a disk with one file until no more than this is left."""
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    left = os.statvfs(disk)
    size = left.f_bavail * left.f_frsize - free_bytes
    filler.write_bytes(bytes(max(size, 0)))


def assert_sound(installation: Installation) -> None:
    with installation.applied():
        answer = reading.fsck_lake(read_data=True)
    assert answer["ok"], answer["findings"]


class TestDisk:
    def test_a_read_only_lake_names_the_setting(self, made: Installation, tmp_path: Path):
        with small_disk(tmp_path / "disk", 64 << 20) as disk:
            moved = made.using(lake_url=f"file://{disk}/lake")
            Lake.create(moved.settings, now=NOW)
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            assert_refused(moved.main("ingest"), "Read-only file system", "AKOSHA_LAKE_URL")
            assert moved.main("status").returncode == 0

    def test_a_read_only_cache_names_the_setting(self, made: Installation, tmp_path: Path):
        with small_disk(tmp_path / "disk", 1 << 20) as disk:
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            assert_refused(made.main("ingest", cache_dir=f"{disk}/cache"), "AKOSHA_CACHE_DIR")
        assert made.heads() == {}
        assert made.ingest()["counts"]["new"] == 40

    def test_a_full_lake_disk_is_said_in_one_line(self, made: Installation, tmp_path: Path):
        with small_disk(tmp_path / "disk", 16 << 20) as disk:
            moved = made.using(lake_url=f"file://{disk}/lake")
            Lake.create(moved.settings, now=NOW)
            leave_free(disk, 40_000)
            assert_refused(moved.cli("ingest"), "no room left", "AKOSHA_LAKE_URL")
            assert moved.heads() == {}

    def test_a_full_cache_disk_is_said_in_one_line(self, made: Installation, tmp_path: Path):
        with small_disk(tmp_path / "disk", 16 << 20) as disk:
            leave_free(disk, 100_000)
            assert_refused(made.main("ingest", cache_dir=f"{disk}/cache"), "no room left", "AKOSHA_CACHE_DIR")
        assert made.heads() == {}

    @pytest.mark.slow
    @pytest.mark.parametrize("full", ["lake", "cache"])
    def test_wherever_the_disk_fills_up_nothing_is_half_written(self, made: Installation, tmp_path: Path, full: str):
        """I1, I5: after room is made, the same jobs do everything."""
        put_one(made, "other", 20)
        with small_disk(tmp_path / "disk", 32 << 20) as disk:
            place = {"lake_url": f"file://{disk}/lake"} if full == "lake" else {"cache_dir": f"{disk}/cache"}
            moved = made.using(**place)
            Lake.create(moved.settings, now=NOW)
            refused = 0
            for free_bytes in (0, 8_000, 40_000, 100_000, 300_000, 500_000, 700_000, 1_000_000):
                leave_free(disk, free_bytes)
                try:
                    moved.ingest()
                    moved.move("hot-to-warm", NOW + timedelta(days=30))
                except DiskFullError as error:  # any other error fails the test
                    refused += "AKOSHA_" in str(error)
                assert_sound(moved)
            assert refused >= 4
            (disk / "filler").unlink()
            moved.ingest()
            moved.move("hot-to-warm", NOW + timedelta(days=30))
            assert moved.export().column("tier").to_pylist() == ["warm"] * 60
            assert_sound(moved)
