"""docker-compose.yaml cannot be started here; what can be known about it without an engine is checked."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from akosha.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker-compose.yaml"
SECRETS = {
    "AIRFLOW_FERNET_KEY",
    "AIRFLOW_JWT_SECRET",
    "AIRFLOW_API_SECRET_KEY",
    "POSTGRES_PASSWORD",
    "REDIS_PASSWORD",
    "S3_ACCESS_KEY",
    "S3_SECRET_KEY",
    "ADMIN_PASSWORD",
}
ONE_SHOT = {"init"}
VARIABLE = re.compile(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}")


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load(COMPOSE.read_text())


@pytest.fixture(scope="module")
def services(compose):
    return compose["services"]


def names_of_environment(services) -> set[str]:
    return {name for service in services.values() for name in service.get("environment", {})}


def test_the_file_is_valid_compose():
    done = subprocess.run(
        ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(
    shutil.which("docker-compose") is None, reason="docker-compose is not installed (apt-get install docker-compose)"
)
@pytest.mark.parametrize("missing", [None, "POSTGRES_PASSWORD", "ADMIN_PASSWORD"])
def test_compose_itself_reads_the_file_and_insists_on_secrets(tmp_path, missing):
    given = tmp_path / "env"
    given.write_text("".join(f"{name}=0123456789abcdef\n" for name in sorted(SECRETS - {missing})))
    done = subprocess.run(
        ["docker-compose", "--env-file", given, "-f", COMPOSE, "config"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
    )
    assert (done.returncode == 0) == (missing is None), done.stderr
    if missing is None:
        assert set(yaml.safe_load(done.stdout)["services"]["worker-2"]["depends_on"]) == {"init"}
    else:
        assert missing in done.stderr


def test_secrets_are_required_and_nothing_else_is():
    used = VARIABLE.findall(COMPOSE.read_text())
    assert {name for name, kind, _ in used if kind == ":?"} == SECRETS
    assert {name for name, kind, _ in used if kind != ":?"} & SECRETS == set()
    assert [name for name, kind, _ in used if kind == ""] == []


def test_no_secret_has_a_value_in_the_project():
    example = (ROOT / ".env.example").read_text().splitlines()
    given = dict(line.split("=", 1) for line in example if line and not line.startswith("#"))
    assert given == dict.fromkeys(SECRETS, "")
    for name in names_of_environment(yaml.safe_load(COMPOSE.read_text())["services"]):
        if re.search(r"PASSWORD|SECRET|FERNET|AUTH$", name):
            assert f"{name}: ${{" in COMPOSE.read_text(), f"{name} is written down in docker-compose.yaml"


def test_the_example_offers_exactly_the_variables_that_are_read():
    offered = set(re.findall(r"^#?([A-Z][A-Z0-9_]*)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    read = {name for name, _, _ in VARIABLE.findall(COMPOSE.read_text())}
    assert offered == read


def test_the_example_shows_the_defaults_of_the_file():
    shown = dict(re.findall(r"^#([A-Z][A-Z0-9_]*)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    defaults = {name: value for name, kind, value in VARIABLE.findall(COMPOSE.read_text()) if kind == ":-"}
    assert shown == defaults


def test_the_topology_is_complete(services):
    stores = {"postgres", "redis", "seaweedfs"}
    airflow = {"init", "api-server", "scheduler", "dag-processor", "triggerer", "worker-1", "worker-2"}
    assert set(services) == stores | airflow


def test_nobody_runs_as_root(services):
    for name, service in services.items():
        assert re.fullmatch(r"[1-9]\d*:\d+", service["user"]), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    assert re.findall(r"^USER (.*)$", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE) == ["50000:0"]


def test_whatever_keeps_running_has_a_health_check_and_comes_back(services):
    for name, service in services.items():
        if name in ONE_SHOT:
            assert service["restart"] == "no", name
            continue
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}, name


def test_nothing_is_published_beyond_this_machine(services):
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert len(published) == 2
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_every_volume_is_declared_and_workers_share_no_cache(compose, services):
    used = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    assert used == set(compose["volumes"])
    caches = [set(services[worker]["volumes"]) - {"logs:/opt/airflow/logs"} for worker in ("worker-1", "worker-2")]
    assert caches[0].isdisjoint(caches[1])


def test_images_are_pinned(services):
    for service in services.values():
        _, _, tag = service["image"].rpartition(":")
        assert tag != "latest"
        assert re.search(r"\d|IMAGE_TAG|local", tag)
    release = services["seaweedfs"]["image"].rpartition(":")[2]
    assert tuple(int(part) for part in release.split(".")) >= (4, 41)


def airflow_options() -> set[str]:
    from airflow.configuration import conf

    return {
        f"AIRFLOW__{section.upper().replace('.', '_')}__{option.upper()}"
        for section, about in conf.configuration_description.items()
        for option in about["options"]
    }


def test_every_airflow_setting_is_one_that_airflow_knows(services):
    dockerfile = set(re.findall(r"AIRFLOW__\w+", (ROOT / "deploy" / "Dockerfile").read_text()))
    named = {name for name in names_of_environment(services) if name.startswith("AIRFLOW__")} | dockerfile
    assert len(named) > 10
    assert named - airflow_options() == set()


def test_every_akosha_setting_is_one_that_akosha_knows(services):
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    dockerfile = set(re.findall(r"AKOSHA_\w+(?==)", (ROOT / "deploy" / "Dockerfile").read_text()))
    named = {name for name in names_of_environment(services) if name.startswith(PREFIX)} | dockerfile
    assert {"AKOSHA_LAKE_URL", "AKOSHA_UPLOADS_URL", "AKOSHA_S3_ENDPOINT_URL", "AKOSHA_CACHE_DIR"} <= named
    assert named - known == set()


def test_the_defaults_make_valid_settings(services):
    written = services["worker-1"]["environment"]
    values = {
        name: VARIABLE.sub(lambda found: found[3], str(value))
        for name, value in written.items()
        if name.startswith(PREFIX)
    }
    settings = Settings.from_environment(values)
    assert settings.lake_url == "s3://akosha-lake/lake"
    assert settings.uploads_url == "s3://akosha-uploads"


def test_database_urls_name_their_driver(services):
    written = services["scheduler"]["environment"]
    assert written["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].startswith("postgresql+psycopg2://")
    assert written["AIRFLOW__CELERY__RESULT_BACKEND"].startswith("db+postgresql+psycopg2://")


def test_pools_are_written_the_way_airflow_imports_them():
    pools = json.loads((ROOT / "deploy" / "pools.json").read_text())
    assert set(pools) == {"akosha_ingest", "akosha_embed", "akosha_move", "akosha_validate"}
    for name, pool in pools.items():
        assert set(pool) == {"slots", "description", "include_deferred"}, name
        assert pool["slots"] >= 1, name


def test_the_image_copies_everything_that_is_not_kept_out():
    copied = set(re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE))
    sources = {name for line in copied for name in line.split()}
    let_in = {
        line[1:].rstrip("/") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    assert sources == let_in
    assert all((ROOT / name).exists() for name in sources)
