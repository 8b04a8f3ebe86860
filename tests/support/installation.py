"""One installation under test: its settings, and its jobs run in this process or through the real command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from akosha import jobs
from akosha.cli.main import main
from akosha.jobs import reading
from akosha.lake.export import EXPORT
from akosha.lake.lake import Lake
from akosha.lake.objects import ObjectStore
from akosha.lake.stores import open_store
from akosha.settings import Settings

AKOSHA = Path(sys.executable).with_name("akosha")


@dataclass
class Installation:
    """Everything of one test below `folder`; `environment` holds the AKOSHA_* and AWS_* variables, and nothing else does."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def local(cls, folder: Path, **settings: object) -> Installation:
        """A lake and an uploads root on the local disk. `settings` by field name."""
        return cls(folder).using(lake_url=f"file://{folder}/lake", uploads_url=f"file://{folder}/uploads", **settings)

    @classmethod
    def on_s3(cls, folder: Path, endpoint: str, bucket: str, **settings: object) -> Installation:
        """A lake and uploads in one bucket, below two prefixes."""
        return cls(folder).using(
            lake_url=f"s3://{bucket}/lake", uploads_url=f"s3://{bucket}/up", s3_endpoint_url=endpoint, **settings
        )

    def using(self, **settings: object) -> Installation:
        """The same with other settings, by field name."""
        given = {f"AKOSHA_{name.upper()}": str(value) for name, value in settings.items()}
        return Installation(self.folder, {"AKOSHA_CACHE_DIR": f"{self.folder}/cache", **self.environment, **given})

    @property
    def settings(self) -> Settings:
        return Settings.from_environment(self.environment)

    @property
    def lake(self) -> Lake:
        return Lake.open(self.settings)

    @property
    def uploads(self) -> ObjectStore:
        return open_store(self.settings.uploads_url, self.settings, setting="AKOSHA_UPLOADS_URL")

    def heads(self) -> dict[int, tuple[int, str]]:
        """Version and digest of the head of each shard."""
        return {head.shard: (head.version, head.sha256) for head in self.lake.heads()}

    def run(self, job: str, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Plan and run a job in this process, as the command line does; the summary.

        `job` is the planning function, for example ``plan_ingest``.
        """
        with self.applied():
            plan = getattr(jobs, job)(f"test-{uuid.uuid4().hex[:8]}", *arguments, **options)
            return jobs.run_all(plan, progress=lambda _: None)

    def ingest(self, **options: Any) -> dict[str, Any]:
        return self.run("plan_ingest", **{"listing": "full", **options})

    def move(self, kind: str, as_of: Any, **options: Any) -> dict[str, Any]:
        return self.run("plan_move", kind, **{"as_of": as_of.isoformat(), "force": True, **options})

    def export(self) -> pa.Table:
        """All live records, sorted by key."""
        out = self.folder / f"export-{uuid.uuid4().hex}"
        with self.applied():
            reading.export_lake(out)
        files = sorted(out.glob("*.parquet"))
        tables = [pq.read_table(file) for file in files]
        order = [(name, "ascending") for name in ("system_id", "source_table", "record_id")]
        return pa.concat_tables([EXPORT.empty_table(), *tables]).sort_by(order)

    def quarantine(self) -> dict[str, dict[str, Any]]:
        """Memos of uploads set aside, by system."""
        with self.applied():
            return {memo["system_id"]: memo for memo in reading.quarantine_list()}

    def cli(self, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
        """Run the installed command with nothing but these settings."""
        return subprocess.run(
            [AKOSHA, *arguments], env=self.using(**settings).full_environment(), capture_output=True, text=True,
            timeout=300, check=False, cwd=self.folder,
        )  # fmt: skip

    def main(self, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
        """The same command in this process: for tests of many, where starting it is most of the work."""
        out, err = StringIO(), StringIO()
        with self.using(**settings).applied(), redirect_stdout(out), redirect_stderr(err):
            try:
                code = main(list(arguments))
            except SystemExit as exit_:  # how argparse ends
                code = int(exit_.code or 0)
        return subprocess.CompletedProcess(list(arguments), code, out.getvalue(), err.getvalue())

    def cli_json(self, *arguments: str) -> dict[str, Any]:
        """Run the installed command, which must succeed, and parse its JSON."""
        done = self.cli(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def full_environment(self) -> dict[str, str]:
        """The environment of a process of this installation."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AKOSHA_", "AIRFLOW"))}
        return {**kept, **self.environment}

    def applied(self) -> pytest.MonkeyPatch:
        """A context in which this process has the installation's settings."""
        return _Applied(self.environment)  # type: ignore[return-value]


class _Applied:
    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> None:
        for name in [name for name in os.environ if name.startswith("AKOSHA_")]:
            self._patch.delenv(name)
        for name, value in self._environment.items():
            self._patch.setenv(name, value)

    def __exit__(self, *_: object) -> None:
        self._patch.undo()
