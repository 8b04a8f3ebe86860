"""Akosha's entry in Airflow's list of plugins. It registers nothing yet.

Airflow executes this file in every one of its processes, tasks included: keep it free of heavy imports.
"""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin


class AkoshaPlugin(AirflowPlugin):
    """Named, so that Admin > Plugins shows which deployments carry Akosha."""

    name = "akosha"
