"""Checking an installation: every setting with its origin, the stores, the model, the cache, Airflow's pools."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from akosha.declared import include_folder
from akosha.embedding.model import check_weights
from akosha.errors import AkoshaError, ConfigurationError
from akosha.jobs.ingest import uploads_source
from akosha.lake.lake import Lake
from akosha.settings import Settings
from akosha.uploads.sqs import NotificationQueue

MIN_FREE_BYTES: Final = 2 << 30
POOLS: Final = ("akosha_ingest", "akosha_embed", "akosha_move", "akosha_validate")
AIRFLOW_SECONDS: Final = 120


def doctor() -> dict[str, Any]:
    """Every setting, and one line for each check: its name, ``ok``, ``problem`` or ``skipped``, and what was found."""
    settings = Settings.from_environment()
    checks = [
        _check("lake", lambda: _lake(settings)),
        _check("policy", lambda: _policy(settings)),
        _check("uploads", lambda: _uploads(settings)),
        _events(settings),
        _check("model", lambda: f"weights match the declared SHA-256 ({check_weights().name})"),
        _check("cache", lambda: _cache(settings)),
        _pools(),
    ]
    return {
        "settings": settings.describe(),
        "checks": checks,
        "ok": all(check["result"] != "problem" for check in checks),
    }


def _check(name: str, run: Callable[[], str]) -> dict[str, str]:
    try:
        return {"check": name, "result": "ok", "found": run()}
    except AkoshaError as error:
        return {"check": name, "result": "problem", "found": str(error)}


def _lake(settings: Settings) -> str:
    lake = Lake.open(settings, to_write=True)
    policy = lake.policy()
    return (
        f"open, conditional create works; {len(lake.shards())} shards in use, policy {policy.number}: "
        f"hot {policy.hot_days} days, warm {policy.warm_days} days"
    )


def _policy(settings: Settings) -> str:
    """What the policy in force gives up, and whether the settings it leans on fit it."""
    policy = Lake.open(settings).policy()
    rules = policy.rules()
    if rules.warm_days < rules.hot_days:
        message = (
            f"policy {policy.number}: records leave warm after {rules.warm_days} days but hot after {rules.hot_days}: "
            "change AKOSHA_HOT_DAYS or AKOSHA_WARM_DAYS, or `akosha policy set --warm-days`"
        )
        raise ConfigurationError(message, setting="AKOSHA_WARM_DAYS")
    own = sorted(system for system in policy.systems if not policy.rules(system).archive)
    if rules.archive and not own:
        return f"policy {policy.number}; the archive is on: aged records keep their full text"
    whose = "all systems" + (" but those with a rule of their own" if policy.systems else "")
    whose = whose if not rules.archive else ", ".join(own[:5]) + (" and more" if len(own) > 5 else "")
    return (
        f"policy {policy.number}; the archive is OFF for {whose}. What leaves hot meanwhile is lost for good: its full text "
        "(summaries stay), promotion back to hot, a new embedding, re-ranking in cold, its text in exports. Only the uploads "
        "still have it"
    )


def _uploads(settings: Settings) -> str:
    systems = uploads_source(settings).store.list_folders("systems/")
    return f"readable; {len(systems)} folders below systems/"


def _events(settings: Settings) -> dict[str, str]:
    """The queue that wakes the ingest; skipped where there is none."""
    if not settings.events_queue_url:
        found = "AKOSHA_EVENTS_QUEUE_URL is not set: the ingest runs by its timetable only"
        return {"check": "events", "result": "skipped", "found": found}
    return _check("events", lambda: _queue(settings))


def _queue(settings: Settings) -> str:
    if not settings.require_uploads_url().startswith("s3://"):
        message = f"notifications are about a bucket, but AKOSHA_UPLOADS_URL is {settings.uploads_url}: set it to s3://"
        raise ConfigurationError(message, setting="AKOSHA_UPLOADS_URL")
    waiting, held = NotificationQueue(settings.events_queue_url).counts()
    return f"reachable; {waiting} messages wait, {held} are being read"


def _cache(settings: Settings) -> str:
    folder = settings.cache
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        message = f"cannot use {folder} ({error.strerror}): change AKOSHA_CACHE_DIR"
        raise ConfigurationError(message, setting="AKOSHA_CACHE_DIR") from error
    if free < MIN_FREE_BYTES:
        message = f"{free / 1e9:.1f} GB free in {folder}, expected 2 GB at least: free space or change AKOSHA_CACHE_DIR"
        raise ConfigurationError(message, setting="AKOSHA_CACHE_DIR")
    return f"{folder}, {free / 1e9:.0f} GB free"


def _pools() -> dict[str, str]:
    """Pools as Airflow's own command line lists them; skipped where no Airflow is set up."""
    airflow = Path(sys.executable).with_name("airflow")
    if "AIRFLOW_HOME" not in os.environ or not airflow.exists():
        return {"check": "pools", "result": "skipped", "found": "AIRFLOW_HOME is not set here"}
    command = [str(airflow), "pools", "list", "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=AIRFLOW_SECONDS, check=False)  # noqa: S603
    if done.returncode:
        return {"check": "pools", "result": "problem", "found": f"`airflow pools list` failed: {done.stderr[-200:]}"}
    found = {pool["pool"] for pool in json.loads(done.stdout[done.stdout.index("[") :])}
    missing = [name for name in POOLS if name not in found]
    if missing:
        pools = include_folder().parent / "deploy" / "pools.json"
        return {
            "check": "pools",
            "result": "problem",
            "found": f"missing {missing}: run `airflow pools import {pools}`",
        }
    return {"check": "pools", "result": "ok", "found": ", ".join(POOLS)}
