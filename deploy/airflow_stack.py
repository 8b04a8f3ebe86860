"""A private Airflow on 127.0.0.1: SQLite, LocalExecutor, four components, no question asked.

The four are started here and not by ``airflow standalone``, whose log servers listen on every interface and whose
children outlive a SIGTERM.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import secrets
import shutil
import socket
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rest import Airflow

if TYPE_CHECKING:
    from processes import Child, Children

ROOT = Path(__file__).resolve().parent.parent
AIRFLOW = (sys.executable, "-m", "airflow")
# Log servers are off: the API server reads the logs from the same disk.
COMPONENTS = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
_HEARTBEATS = {
    "scheduler": "latest_scheduler_heartbeat",
    "dag_processor": "latest_dag_processor_heartbeat",
    "triggerer": "latest_triggerer_heartbeat",
}
USER = "admin"


def free_port(preferred: int = 0) -> int:
    """``preferred`` when nobody listens on it, else one that the system chooses."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            # As servers do: a port whose last connections are still closing counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    message = "no free port on 127.0.0.1"
    raise OSError(message)


@dataclass(frozen=True, slots=True)
class Secrets:
    """Made once per checkout, readable by their owner only."""

    password: str
    jwt: str
    session: str


@dataclass(frozen=True, slots=True)
class Stack:
    """Where this Airflow lives and listens."""

    home: Path
    port: int
    secrets: Secrets

    @property
    def url(self) -> str:
        """The address of the UI and the API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def database(self) -> Path:
        """The metadata database of this launch."""
        return self.home / "airflow.db"

    @property
    def migrated(self) -> Path:
        """An empty database of this Airflow version. Making one takes 8 CPU-seconds, copying it none."""
        return self.home / f"empty-{importlib.metadata.version('apache-airflow-core')}.db"

    @property
    def unfinished(self) -> Path:
        """What a migration works on; it counts only once it is renamed to `migrated`."""
        return self.home / "migrating.db"

    def environment(self, database: Path) -> dict[str, str]:
        """Airflow's configuration, all of it in variables.

        Args:
            database: the SQLite file to use.
        """
        return {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__SECRET_KEY": self.secrets.session,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": self.secrets.jwt,
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            # LocalExecutor forks all its workers at once, and two cores have no use for more.
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.home / "passwords.json"),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "60",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{database}",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            # A skipped or failed task holds its slot until the next heartbeat.
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
        }

    def begin_migration(self, children: Children) -> Child | None:
        """Start making the empty database, unless there is one."""
        if self.migrated.exists():
            return None
        self.unfinished.unlink(missing_ok=True)
        variables = self.environment(self.unfinished)
        return children.start("airflow-db-migrate", [*AIRFLOW, "db", "migrate"], variables=variables)

    def start(self, children: Children, migration: Child | None) -> None:
        """Start the four components on a fresh database.

        Fresh at every launch: after a kill -9 the old one holds runs that nobody works on, and each of them would be in
        the way of a new one. What the demo must not forget is in the lake.
        """
        if migration:
            children.finished(migration)
            self.unfinished.replace(self.migrated)
        for leftover in self.home.glob("airflow.db*"):
            leftover.unlink()
        shutil.copyfile(self.migrated, self.database)
        _write_private(self.home / "passwords.json", json.dumps({USER: self.secrets.password}))
        for name in COMPONENTS:
            self._start_component(children, name, scheduled=False)

    def start_schedules(self, children: Children) -> None:
        """Let schedules and assets start DAGs from now on; until now only what was triggered ran.

        An un-paused DAG would otherwise begin with a scheduled run of its own, before the one that was asked for.
        """
        children.end("scheduler")
        self._start_component(children, "scheduler", scheduled=True)

    def _start_component(self, children: Children, name: str, *, scheduled: bool) -> None:
        variables = self.environment(self.database) | {"AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": str(scheduled)}
        children.start(name, [*AIRFLOW, *COMPONENTS[name]], variables=variables, service=True)

    def client(self) -> Airflow:
        """A client that has yet to log in."""
        return Airflow(self.url, USER, self.secrets.password)


def healthy(client: Airflow, since: datetime) -> bool:
    """Whether all four live. The body says it, not the status; an old heartbeat reads 'healthy' as well."""
    health = client.health()
    if health.get("metadatabase", {}).get("status") != "healthy":
        return False
    for component, heartbeat in _HEARTBEATS.items():
        state = health.get(component, {})
        seen = state.get(heartbeat)
        if state.get("status") != "healthy" or not seen or datetime.fromisoformat(seen).astimezone(UTC) < since:
            return False
    return True


def create_pools(client: Airflow) -> None:
    """Create the pools that the DAGs name."""
    for name, pool in json.loads((ROOT / "deploy" / "pools.json").read_text()).items():
        client.set_pool(name, pool)


def load_secrets(path: Path) -> Secrets:
    """Read the secrets, or make them when there are none."""
    try:
        return Secrets(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        made = Secrets(password=secrets.token_hex(8), jwt=secrets.token_hex(32), session=secrets.token_hex(32))
        _write_private(path, json.dumps(asdict(made)))
        return made


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
