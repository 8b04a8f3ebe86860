"""The policy DAG, run by Airflow over a real lake: a dry run writes nothing, an approved change is one new document."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from akosha.lake.lake import Lake
from akosha.settings import Settings

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.usefixtures("airflow_database"),
    # A whole Airflow works inside the test here, and deprecates parts of itself and of what it stands on.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

ROOT = Path(__file__).resolve().parents[2]
KEY = "laptop-7 / conversations_v2 / a / b"


@pytest.fixture
def lake(tmp_path, monkeypatch) -> Lake:
    monkeypatch.setenv("AKOSHA_LAKE_URL", f"file://{tmp_path}/lake")
    monkeypatch.setenv("AKOSHA_CACHE_DIR", str(tmp_path / "cache"))
    return Lake.create(Settings.from_environment(), now=datetime(2026, 11, 20, tzinfo=UTC))


def run(**conf):
    """Run the DAG to its end; what its tasks ended as, and what `write` returned."""
    from airflow.dag_processing.dagbag import DagBag

    # Read anew each time: `test` leaves a run's conf in the DAG's params. Nobody is there to approve.
    dag = DagBag(ROOT / "dags").dags["akosha_policy"]
    done = dag.test(run_conf=conf, mark_success_pattern=None if conf.get("dry_run", True) else "approve")
    tasks = {task.task_id: task for task in done.get_task_instances()}
    answer = tasks["write"].xcom_pull(task_ids="write", key="return_value")
    return {name: task.state for name, task in tasks.items()}, answer


def test_a_dry_run_says_what_would_change_and_writes_nothing(lake):
    states, answer = run(hot_days=3)
    assert states == {"plan": "success", "approve": "success", "write": "success"}
    assert (answer["written"], answer["number"], lake.policy().number) == (False, 2, 1)


def test_an_approved_change_is_the_next_policy(lake):
    states, answer = run(dry_run=False, system="laptop-7", hot_days=3, archive="off", delete_absent=["laptop-8"])
    assert states["write"] == "success"
    policy = lake.policy()
    assert (answer["written"], policy.number) == (True, 2)
    assert (policy.rules("laptop-7").hot_days, policy.rules("laptop-7").archive, policy.rules().archive) == (
        3,
        False,
        True,
    )
    assert policy.delete_absent == {"laptop-8"}
    run(dry_run=False, reset=["archive"], system="laptop-7", pin=["laptop-7 / conversations_v2 / a"])
    assert lake.policy().rules("laptop-7").archive is True
    assert lake.policy().pinned == {("laptop-7", "conversations_v2", "a")}


@pytest.mark.parametrize(
    "form", [{}, {"pin": ["laptop-7 a"]}, {"pin": [KEY]}, {"hot_days": 91}, {"delete_absent": ["unknown-system"]}]
)
def test_a_form_that_no_policy_can_follow_fails_the_run_at_once(lake, form):
    states, _ = run(**form)
    assert states["plan"] == "failed"
    assert lake.policy().number == 1
