"""Health check of one Airflow process of the team stack: says by exit code whether it is alive.

Reads answers instead of status codes: ``/api/v2/monitor/health`` answers 200 even when the scheduler is dead. Needs
nothing but the standard library, because importing Airflow costs seconds of CPU at every check.
"""

from __future__ import annotations

import json
import sys
import urllib.request

# The scheduler answers for itself; dag-processor and triggerer have no endpoint, the api-server reads their heartbeats.
_MONITOR = "http://{host}:8080/api/v2/monitor/health"
_SCHEDULER = "http://127.0.0.1:8974/health"
_TIMEOUT_SECONDS = 10


def _monitor(host: str, part: str) -> str:
    """The status of ``part`` as the api-server on ``host`` sees it: ``healthy``, ``unhealthy`` or ``None``."""
    with urllib.request.urlopen(_MONITOR.format(host=host), timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310  # fixed scheme
        return str(json.load(answer)[part]["status"])


def _scheduler() -> str:
    """``healthy``; raises when the scheduler's own endpoint answers anything but 200."""
    with urllib.request.urlopen(_SCHEDULER, timeout=_TIMEOUT_SECONDS):
        return "healthy"


CHECKS = {
    "api-server": lambda: _monitor("127.0.0.1", "metadatabase"),
    "scheduler": _scheduler,
    "dag-processor": lambda: _monitor("api-server", "dag_processor"),
    "triggerer": lambda: _monitor("api-server", "triggerer"),
}


def main() -> int:
    """Check the process named by the first argument; 0 healthy, 1 not, 2 an unknown name."""
    name = sys.argv[1] if len(sys.argv) == 2 else ""
    if name not in CHECKS:
        print(f"expected one of {', '.join(CHECKS)}; found {name!r}", file=sys.stderr)
        return 2
    try:
        status = CHECKS[name]()
    except (OSError, ValueError, LookupError) as error:
        status = f"{type(error).__name__}: {error}"
    print(f"{name}: {status}")
    return 0 if status == "healthy" else 1


if __name__ == "__main__":
    sys.exit(main())
