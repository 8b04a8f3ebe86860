"""What every test may rely on: an Airflow home of its own, and a real S3 endpoint over HTTP."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 60


def _own_environment() -> None:
    """Cut this run off from the machine. Airflow reads its environment at import: this comes before any test module."""
    for name in [name for name in os.environ if name.startswith(("AIRFLOW", "AKOSHA_", "AWS_"))]:
        if name != "AWS_CA_BUNDLE":
            del os.environ[name]
    home = tempfile.mkdtemp(prefix="akosha-tests-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ.update(
        AIRFLOW_HOME=home,
        AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "dags"),
        AIRFLOW__CORE__PLUGINS_FOLDER=str(ROOT / "plugins"),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__CORE__UNIT_TEST_MODE="False",
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{home}/airflow.db",
        AIRFLOW__LOGGING__BASE_LOG_FOLDER=f"{home}/logs",
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
        AWS_DEFAULT_REGION="us-east-1",
        AWS_EC2_METADATA_DISABLED="true",
        AWS_CONFIG_FILE=f"{home}/no-aws-config",
        AWS_SHARED_CREDENTIALS_FILE=f"{home}/no-aws-credentials",
        HF_HUB_OFFLINE="1",
        GX_ANALYTICS_ENABLED="false",
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    )


_own_environment()

# How fast a machine is proves nothing about the code.
settings.register_profile("akosha", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("akosha")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a case of bytes by its argument and number. The workers must agree on names; gzip bytes hold the time."""
    return argname if isinstance(val, bytes) else None


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _wait_until_ready(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            pytest.fail(f"the S3 server ended with {server.returncode}:\n{log.read_text()}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"the S3 server did not answer within {START_SECONDS} s:\n{log.read_text()}")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real S3 endpoint (moto) that lives as long as the test run."""
    log = tmp_path_factory.mktemp("s3") / "server.log"
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    program = Path(sys.executable).parent / "moto_server"
    with log.open("wb") as output:
        server = subprocess.Popen([program, "-H", "127.0.0.1", "-p", str(port)], stdout=output, stderr=output)
        try:
            _wait_until_ready(url, server, log)
            yield url
        finally:
            server.terminate()
            server.wait(timeout=30)


@pytest.fixture
def bucket(s3_server: str) -> str:
    """Name of an empty bucket that no other test uses."""
    import boto3

    name = f"bucket-{uuid.uuid4().hex}"
    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket=name)
    return name
