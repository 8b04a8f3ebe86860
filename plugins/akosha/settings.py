"""Configuration: one frozen object, read from the environment.

Every field names its environment variable, its unit and its default. Airflow passes the same variables to its tasks,
so a value is read in exactly one way everywhere. Credentials and region come the usual AWS ways and are never held here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from akosha.errors import ConfigurationError

PREFIX = "AKOSHA_"

PositiveDays = Annotated[int, Field(ge=1, le=36_500)]


class Settings(BaseModel):
    """What an operator may choose. The environment variable is the field's name in capitals after ``AKOSHA_``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lake_url: str = Field(description="where the lake lives: file:///path or s3://bucket/prefix")
    cold_url: str = Field("", description="where cold files live; empty = inside the lake. Recorded in lake.json")
    uploads_url: str = Field("", description="where Session-Buddy uploads arrive: s3://bucket or s3://bucket/prefix")
    s3_endpoint_url: str = Field("", description="S3 endpoint other than AWS, for example http://127.0.0.1:8333")
    events_queue_url: str = Field(
        "", description="SQS queue of S3 notifications that wakes the ingest between its runs; empty = off"
    )
    cache_dir: Path = Field(
        Path("~/.cache/akosha"), description="local cache: sidecars, fetched files, embeddings. Deletable at any time"
    )
    hot_days: PositiveDays = Field(7, description="days a record stays in hot")
    warm_days: PositiveDays = Field(90, description="age in days at which a warm record becomes cold")
    retain_days: PositiveDays = Field(
        7, description="days for which a version stays readable, and can be gone back to, after it was replaced"
    )
    sweep_grace_hours: int = Field(
        24,
        ge=1,
        description="hours a file that no version names is left alone, and again between its condemnation and its end",
    )
    scrub_days: int = Field(
        28, ge=1, le=3_650, description="days within which the nightly scrub reads every stored byte once"
    )
    vector_wait_days: int = Field(
        7, ge=0, le=36_500, description="days past its line that a record waits in hot for a vector"
    )
    embed_budget_seconds: float = Field(
        900,
        ge=0,
        allow_inf_nan=False,
        description="seconds one scheduled embedding run may take, all its tasks together; 0 = no limit, as on the command line",
    )
    client_vectors: Literal["keep", "verify", "replace"] = Field(
        "verify",
        description="vectors that came with uploads: keep; verify = replace those of systems whose sample is not of our model; replace",
    )
    sandbox_max_bytes: int = Field(
        4 << 30, ge=1 << 20, description="largest unpacked database file that is read, in bytes"
    )
    list_budget: int = Field(
        0,
        ge=0,
        description="LIST requests an ingest plan may spend on systems; the next run goes on from there. 0 = no limit",
    )
    system_uploads: int = Field(
        500, ge=0, description="uploads of one system that an ingest run takes; the rest is backlog. 0 = no limit"
    )
    system_bytes: int = Field(
        1_000_000_000, ge=0, description="packed bytes of one system that an ingest run takes. 0 = no limit"
    )
    run_uploads: int = Field(
        20_000, ge=0, description="uploads that an ingest run takes, dealt out fairly among systems. 0 = no limit"
    )
    run_bytes: int = Field(4_000_000_000, ge=0, description="packed bytes that an ingest run takes. 0 = no limit")
    move_bytes_per_run: int = Field(
        200_000_000_000,
        ge=0,
        description="bytes of files that one run of a move takes, the oldest first; the rest follows in further runs at once. 0 = no limit, as on the command line",
    )
    recall_floor: float = Field(0.95, ge=0, le=1, description="recall@10 below which a move is refused")
    batches: int = Field(8, ge=1, le=256, description="mapped tasks per run, at most")
    ambiguous_systems: str = Field(
        "unknown-system", description="system ids that unrelated machines share, separated by commas"
    )
    workers: int = Field(0, ge=0, description="processes of one command-line job; 0 = one per core")

    @field_validator("lake_url", "cold_url", "uploads_url")
    @classmethod
    def _known_scheme(cls, value: str) -> str:
        if value and not value.startswith(("s3://", "file://")):
            msg = f"expected s3://bucket/prefix or file:///path, found {value!r}"
            raise ValueError(msg)
        if value.startswith("file://") and not value.startswith("file:///"):
            msg = f"a file URL needs an absolute path after file://, found {value!r}"
            raise ValueError(msg)
        return value.rstrip("/") if value != "file:///" else value

    @field_validator("events_queue_url")
    @classmethod
    def _http(cls, value: str) -> str:
        if value and not value.startswith(("https://", "http://")):
            msg = "expected the queue's URL such as https://sqs.eu-central-1.amazonaws.com/123456789012/uploads"
            raise ValueError(msg)
        return value

    @property
    def ambiguous(self) -> frozenset[str]:
        """System ids that unrelated machines share."""
        return frozenset(part.strip() for part in self.ambiguous_systems.split(",") if part.strip())

    @property
    def cache(self) -> Path:
        """The cache folder with ``~`` resolved.

        Raises:
            ConfigurationError: nobody has that home.
        """
        try:
            return self.cache_dir.expanduser()
        except RuntimeError as error:
            message = f"AKOSHA_CACHE_DIR is {self.cache_dir}: {error}; write the folder's path in full"
            raise ConfigurationError(message, setting="AKOSHA_CACHE_DIR") from error

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read every ``AKOSHA_*`` variable.

        Raises:
            ConfigurationError: a variable is missing or its value does not fit; names the variable, what was found and
                what was expected.
        """
        source = os.environ if environment is None else environment
        values = {
            name: source[PREFIX + name.upper()]
            for name in cls.model_fields
            if source.get(PREFIX + name.upper(), "") != ""
        }
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            variable = PREFIX + str(first["loc"][0]).upper()
            if first["type"] == "missing":
                message = f"{variable} is not set: set it to {cls.model_fields[str(first['loc'][0])].description}"
                raise ConfigurationError(message, setting=variable) from None
            message = f"{variable} is wrong: {first['msg']}; found {first['input']!r}"
            raise ConfigurationError(message, setting=variable) from None

    def require_uploads_url(self) -> str:
        """The uploads URL.

        Raises:
            ConfigurationError: it is not set.
        """
        if not self.uploads_url:
            message = "AKOSHA_UPLOADS_URL is not set: set it to the bucket that receives uploads, s3://bucket"
            raise ConfigurationError(message, setting="AKOSHA_UPLOADS_URL")
        return self.uploads_url

    def describe(self, environment: Mapping[str, str] | None = None) -> list[dict[str, str]]:
        """Every setting as name, value, origin (``environment`` or ``default``) and description."""
        source = os.environ if environment is None else environment
        return [
            {
                "setting": PREFIX + name.upper(),
                "value": str(getattr(self, name)),
                "origin": "environment" if source.get(PREFIX + name.upper(), "") != "" else "default",
                "description": field.description or "",
            }
            for name, field in type(self).model_fields.items()
        ]
