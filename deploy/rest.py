"""Airflow's REST API, as much of it as the launcher needs. Every `airflow` command costs 4-7 CPU-seconds, this none."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

_TIMEOUT_SECONDS = 30
# A proxy configured in the environment has no business with 127.0.0.1.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class RefusedError(Exception):
    """The API answered with an error status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"Airflow answered {status}: {text[:500]}")
        self.status = status


@dataclass(slots=True)
class Airflow:
    """One Airflow at ``url``, for example ``http://127.0.0.1:8080``."""

    url: str
    user: str
    password: str
    _token: str = field(default="", repr=False)

    def _send(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401  # JSON
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)  # noqa: S310
        try:
            with _OPENER.open(request, timeout=_TIMEOUT_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise RefusedError(error.code, error.read().decode(errors="replace")) from None

    def log_in(self) -> None:
        """Fetch a token; it lasts a day."""
        answer = self._send("POST", "/auth/token", {"username": self.user, "password": self.password})
        self._token = answer["access_token"]

    def health(self) -> dict[str, Any]:
        """Status and latest heartbeat of every component; empty while the server does not answer."""
        try:
            return self._send("GET", "/api/v2/monitor/health")
        except (OSError, ValueError, RefusedError):
            return {}

    def import_errors(self) -> list[dict[str, Any]]:
        """DAG files that could not be read: ``filename`` and ``stack_trace``."""
        return self._send("GET", "/api/v2/importErrors")["import_errors"]

    def dag_ids(self) -> set[str]:
        """The DAGs that Airflow knows."""
        return {dag["dag_id"] for dag in self._send("GET", "/api/v2/dags?limit=100")["dags"]}

    def set_pool(self, name: str, pool: dict[str, Any]) -> None:
        """Create a pool, or give an existing one these slots."""
        body = {"name": name, **pool}
        try:
            self._send("POST", "/api/v2/pools", body)
        except RefusedError as error:
            if error.status != 409:
                raise
            self._send("PATCH", f"/api/v2/pools/{quote(name)}", body)

    def pause(self, dag_id: str, *, paused: bool) -> None:
        """Pause or un-pause a DAG."""
        self._send("PATCH", f"/api/v2/dags/{dag_id}?update_mask=is_paused", {"is_paused": paused})

    def trigger(self, dag_id: str) -> str:
        """Ask for a run; its id. It starts once the DAG is not paused."""
        answer = self._send("POST", f"/api/v2/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": {}})
        return answer["dag_run_id"]

    def run_state(self, dag_id: str, run_id: str) -> str:
        """``queued``, ``running``, ``success`` or ``failed``."""
        return self._send("GET", f"{_run(dag_id, run_id)}")["state"]

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Every task instance of a run."""
        query = urlencode({"limit": 100})
        return self._send("GET", f"{_run(dag_id, run_id)}/taskInstances?{query}")["task_instances"]

    def result(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any] | None:
        """What a task returned; None when it returned nothing."""
        try:
            path = f"{_run(dag_id, run_id)}/taskInstances/{task_id}/xcomEntries/return_value"
            value = self._send("GET", path)["value"]
        except RefusedError as error:
            if error.status != 404:
                raise
            return None
        return json.loads(value) if isinstance(value, str) else value


def _run(dag_id: str, run_id: str) -> str:
    return f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"
