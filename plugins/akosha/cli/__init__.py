"""``akosha <verb>``: the same jobs for a terminal or cron, when Airflow is down."""

from akosha.cli.main import main

__all__ = ["main"]
