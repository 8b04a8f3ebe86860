from __future__ import annotations

from pathlib import Path

import pytest

from akosha.errors import ConfigurationError
from akosha.settings import PREFIX, Settings

LAKE = {"AKOSHA_LAKE_URL": "s3://bucket/lake"}
GOOD = {
    "LAKE_URL": ("file:///data/lake", "file:///data/lake"),
    "COLD_URL": ("s3://cold/x/", "s3://cold/x"),
    "UPLOADS_URL": ("s3://uploads", "s3://uploads"),
    "S3_ENDPOINT_URL": ("http://127.0.0.1:8333", "http://127.0.0.1:8333"),
    "EVENTS_QUEUE_URL": ("https://sqs.eu-central-1.amazonaws.com/1/q", "https://sqs.eu-central-1.amazonaws.com/1/q"),
    "CACHE_DIR": ("/data/cache", Path("/data/cache")),
    "HOT_DAYS": ("3", 3),
    "WARM_DAYS": ("30", 30),
    "RETAIN_DAYS": ("2", 2),
    "SWEEP_GRACE_HOURS": ("48", 48),
    "SCRUB_DAYS": ("7", 7),
    "VECTOR_WAIT_DAYS": ("0", 0),
    "EMBED_BUDGET_SECONDS": ("90.5", 90.5),
    "CLIENT_VECTORS": ("replace", "replace"),
    "SANDBOX_MAX_BYTES": ("2097152", 2_097_152),
    "LIST_BUDGET": ("500", 500),
    "SYSTEM_UPLOADS": ("10", 10),
    "SYSTEM_BYTES": ("1000000", 1_000_000),
    "RUN_UPLOADS": ("0", 0),
    "RUN_BYTES": ("2000000", 2_000_000),
    "MOVE_BYTES_PER_RUN": ("3000000", 3_000_000),
    "RECALL_FLOOR": ("0.9", 0.9),
    "BATCHES": ("16", 16),
    "AMBIGUOUS_SYSTEMS": ("a, b ,,c", "a, b ,,c"),
    "WORKERS": ("2", 2),
}
BAD = [
    ("LAKE_URL", "/data/lake"),
    ("LAKE_URL", "https://bucket/lake"),
    ("LAKE_URL", "file://data/lake"),
    ("COLD_URL", "cold"),
    ("UPLOADS_URL", "gs://uploads"),
    ("EVENTS_QUEUE_URL", "uploads"),
    ("HOT_DAYS", "0"),
    ("HOT_DAYS", "seven"),
    ("HOT_DAYS", "7.5"),
    ("WARM_DAYS", "-1"),
    ("RETAIN_DAYS", "99999999"),
    ("SWEEP_GRACE_HOURS", "0"),
    ("SCRUB_DAYS", "0"),
    ("VECTOR_WAIT_DAYS", "-1"),
    ("EMBED_BUDGET_SECONDS", "-1"),
    ("EMBED_BUDGET_SECONDS", "nan"),
    ("CLIENT_VECTORS", "trust"),
    ("SANDBOX_MAX_BYTES", "1000"),
    ("LIST_BUDGET", "-1"),
    ("SYSTEM_UPLOADS", "some"),
    ("SYSTEM_BYTES", "-1"),
    ("RUN_UPLOADS", "1.5"),
    ("RUN_BYTES", "-1"),
    ("MOVE_BYTES_PER_RUN", "-1"),
    ("RECALL_FLOOR", "1.1"),
    ("RECALL_FLOOR", "nan"),
    ("BATCHES", "0"),
    ("BATCHES", "257"),
    ("WORKERS", "-1"),
]


def test_every_setting_is_tested_here():
    assert {name.upper() for name in Settings.model_fields} == set(GOOD)


@pytest.mark.parametrize("name", GOOD)
def test_a_setting_is_read_from_its_variable(name: str):
    text, value = GOOD[name]
    settings = Settings.from_environment({**LAKE, PREFIX + name: text})
    assert getattr(settings, name.lower()) == value


@pytest.mark.parametrize(("name", "text"), BAD)
def test_a_wrong_value_names_its_variable_and_what_was_found(name: str, text: str):
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environment({**LAKE, PREFIX + name: text})
    assert PREFIX + name in caught.value.message
    assert text in caught.value.message
    assert caught.value.context["setting"] == PREFIX + name
    assert "\n" not in str(caught.value)


def test_a_missing_lake_is_named():
    with pytest.raises(ConfigurationError, match=r"AKOSHA_LAKE_URL is not set.*file:///path or s3://bucket"):
        Settings.from_environment({})


@pytest.mark.parametrize("name", GOOD)
def test_an_empty_variable_is_no_variable(name: str):
    environment = {**LAKE, PREFIX + name: "", **(LAKE if name == "LAKE_URL" else {})}
    assert Settings.from_environment(environment) == Settings.from_environment(LAKE)


def test_uploads_are_asked_for_only_where_they_are_needed():
    settings = Settings.from_environment(LAKE)
    with pytest.raises(ConfigurationError, match="AKOSHA_UPLOADS_URL"):
        settings.require_uploads_url()


def test_ambiguous_systems_are_separated_by_commas():
    settings = Settings.from_environment({**LAKE, "AKOSHA_AMBIGUOUS_SYSTEMS": "unknown-system, a b ,,"})
    assert settings.ambiguous == {"unknown-system", "a b"}


def test_the_home_folder_is_found():
    settings = Settings.from_environment({**LAKE, "AKOSHA_CACHE_DIR": "~/x"})
    assert settings.cache == Path.home() / "x"


def test_describe_says_where_a_value_comes_from():
    described = {
        row["setting"]: row for row in Settings.from_environment(LAKE).describe({**LAKE, "AKOSHA_HOT_DAYS": ""})
    }
    assert described["AKOSHA_LAKE_URL"]["origin"] == "environment"
    assert described["AKOSHA_HOT_DAYS"] == {
        "setting": "AKOSHA_HOT_DAYS", "value": "7", "origin": "default", "description": "days a record stays in hot",
    }  # fmt: skip
    assert all(row["description"] for row in described.values())


def test_settings_are_frozen():
    settings = Settings.from_environment(LAKE)
    with pytest.raises(ValueError, match="frozen"):
        settings.hot_days = 3  # type: ignore[misc]
