"""What every DAG promises: to the scheduler, which parses it all the time, and to the operator, who reads it."""

from __future__ import annotations

import ast
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import CronDataIntervalTimetable, TriggerRule

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.sdk import DAG

# Airflow 3.3 reads .airflowignore with a pattern class that pathspec has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "dags").glob("*.py"))
DAG_IDS = [file.stem for file in FILES]
BY_HAND = {"akosha_backfill", "akosha_policy", "akosha_promote", "akosha_undo"}
DESTRUCTIVE = {"akosha_backfill", "akosha_policy", "akosha_undo"}
ONE_TASK = {"akosha_policy"}  # writes one document: nothing to map over, nothing to add up
SLICED = {"akosha_hot_to_warm", "akosha_warm_to_cold"}
READS_ONLY = {"akosha_validate"}
WORK = {
    "akosha_backfill": "ingest",
    "akosha_embed": "embed",
    "akosha_hot_to_warm": "move",
    "akosha_ingest": "ingest",
    "akosha_maintain": "sweep",
    "akosha_policy": "write",
    "akosha_promote": "promote",
    "akosha_undo": "undo",
    "akosha_validate": "validate",
    "akosha_warm_to_cold": "move",
}


@pytest.fixture(params=DAG_IDS)
def dag(request: pytest.FixtureRequest, dag_bag: DagBag) -> DAG:
    return dag_bag.dags[request.param]


def test_every_file_imports_and_holds_the_dag_it_is_named_after(dag_bag, capsys):
    with capsys.disabled():
        # For the reader of the log: how long a machine takes is no promise.
        for stat in dag_bag.dagbag_stats:
            sys.stdout.write(f"\nparsed {stat.file} in {stat.duration.total_seconds() * 1000:.0f} ms")
    assert dag_bag.import_errors == {}
    assert sorted(dag_bag.dags) == DAG_IDS == sorted(WORK)
    assert {dag_id: Path(dag.fileloc).stem for dag_id, dag in dag_bag.dags.items()} == {name: name for name in DAG_IDS}


@pytest.mark.parametrize(
    "file",
    [*FILES, *(ROOT / "plugins").glob("*.py")],
    ids=str,
)
def test_parsing_a_file_imports_neither_the_library_nor_anything_heavy(file):
    heavy = {"akosha", "boto3", "duckdb", "great_expectations", "numpy", "pyarrow", "sentence_transformers", "torch"}
    imported = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            imported |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert "__future__" in imported
    assert not imported & heavy


def test_a_run_plans_then_maps_over_batches_then_finishes(dag):
    if dag.dag_id in ONE_TASK:
        assert sorted(dag.task_ids) == sorted(["plan", WORK[dag.dag_id], "approve"])
        return
    others = ["approve"] * (dag.dag_id in DESTRUCTIVE) + ["go_on"] * (dag.dag_id in SLICED)
    assert sorted(dag.task_ids) == sorted(["plan", WORK[dag.dag_id], "finish", *others])
    work, finish = dag.get_task(WORK[dag.dag_id]), dag.get_task("finish")
    assert work.is_mapped
    assert work.map_index_template == "{{ batch_label }}"
    assert finish.trigger_rule == TriggerRule.ALL_DONE
    assert finish.upstream_task_ids == {"plan", WORK[dag.dag_id]}


def test_only_what_is_destructive_waits_for_a_person_and_never_beyond_its_run(dag):
    waiting = [task for task in dag.tasks if isinstance(task, HITLOperator)]
    assert [task.task_id for task in waiting] == ["approve"] * (dag.dag_id in DESTRUCTIVE)
    for task in waiting:
        assert dag.timetable.can_be_scheduled is False
        assert (task.upstream_task_ids, task.downstream_task_ids) == ({"plan"}, {WORK[dag.dag_id]})
        assert task.defaults == ["Reject"]
        assert timedelta(0) < task.response_timeout < dag.dagrun_timeout


def test_a_large_move_goes_on_whatever_became_of_its_batches(dag_bag):
    for dag_id in SLICED:
        go_on = dag_bag.dags[dag_id].get_task("go_on")
        assert (go_on.upstream_task_ids, go_on.trigger_rule) == ({"move"}, TriggerRule.ALL_DONE)
        assert not go_on.downstream_task_ids
        assert "continues" in dag_bag.dags[dag_id].params


def test_a_policy_is_not_written_unless_somebody_says_so(dag_bag):
    policy = dag_bag.dags["akosha_policy"]
    assert policy.params["dry_run"] is True
    assert policy.get_task("write").upstream_task_ids == {"plan", "approve"}


def test_every_dag_that_changes_the_lake_has_a_dry_run(dag):
    assert ("dry_run" in dag.params) == (dag.dag_id not in READS_ONLY)


def test_every_task_has_an_owner_retries_and_a_timeout_inside_that_of_its_run(dag):
    assert dag.dagrun_timeout is not None
    for task in dag.tasks:
        assert task.owner == "akosha"
        assert (task.retries, task.retry_delay) == (2, timedelta(seconds=60))
        assert timedelta(0) < task.execution_timeout < dag.dagrun_timeout
        assert task.on_failure_callback


def test_every_pool_is_one_that_the_launchers_create(dag_bag):
    pools = json.loads((ROOT / "deploy" / "pools.json").read_text())
    used = {task.pool for dag in dag_bag.dags.values() for task in dag.tasks}
    assert used == set(pools)


def test_runs_never_overlap_and_missed_ones_are_not_made_up(dag):
    assert dag.max_active_runs == 1
    assert dag.catchup is False


def test_scheduled_runs_have_a_data_interval_to_decide_ages_with(dag):
    if dag.dag_id in BY_HAND:
        assert not dag.timetable.can_be_scheduled
        return
    timetable = getattr(dag.timetable, "timetable", dag.timetable)
    assert isinstance(timetable, CronDataIntervalTimetable)
    assert str(timetable.timezone) == "UTC"


def test_the_night_is_chained_by_assets_that_an_earlier_step_announces(dag_bag):
    chain = {
        dag_id: [asset.name for asset in dag.timetable.asset_condition.objects]
        for dag_id, dag in dag_bag.dags.items()
        if dag.timetable.asset_condition
    }
    announced = {
        (dag_id, alias.name.removesuffix(" changed"))
        for dag_id, dag in dag_bag.dags.items()
        if dag_id not in ONE_TASK
        for alias in dag.get_task("finish").outlets
    }
    assert chain == {
        "akosha_embed": ["akosha://hot"],
        "akosha_warm_to_cold": ["akosha://warm"],
        "akosha_validate": ["akosha://cold"],
        "akosha_maintain": ["akosha://validated"],
    }
    assert announced == {
        ("akosha_ingest", "akosha://hot"),
        ("akosha_backfill", "akosha://hot"),
        ("akosha_promote", "akosha://hot"),
        ("akosha_hot_to_warm", "akosha://warm"),
        ("akosha_warm_to_cold", "akosha://cold"),
        ("akosha_validate", "akosha://validated"),
    }


def test_every_form_field_says_what_it_is_and_what_fits(dag):
    assert dag.params
    for name in dag.params:
        param = dag.params.get_param(name)
        assert len(param.description) > 20, name
        assert param.schema["type"], name
        empty = param.value in ("", None, [])
        assert "null" in param.schema["type"] or not empty, f"the form asks for {name} before a run can be triggered"
    if "shard" in dag.params:
        shard = dag.params.get_param("shard").schema
        assert (shard["minimum"], shard["maximum"]) == (0, 255)


@pytest.mark.parametrize(
    ("dag_id", "wrong"),
    [
        ("akosha_ingest", {"shard": 256}),
        ("akosha_ingest", {"listing": "some"}),
        ("akosha_backfill", {"from_date": "yesterday"}),
        ("akosha_backfill", {"dry_run": "perhaps"}),
        ("akosha_policy", {"hot_days": 0}),
        ("akosha_policy", {"audit_share": 2}),
        ("akosha_policy", {"archive": "perhaps"}),
        ("akosha_embed", {"budget_seconds": 0}),
        ("akosha_undo", {"to_version": -1}),
        ("akosha_undo", {"action": "destroy"}),
        ("akosha_promote", {"hold_days": 0}),
        ("akosha_hot_to_warm", {"as_of": "yesterday"}),
        ("akosha_warm_to_cold", {"dry_run": "no"}),
    ],
)
def test_a_form_refuses_what_does_not_fit(dag_bag, dag_id, wrong):
    from airflow.sdk.exceptions import ParamValidationError

    params = dag_bag.dags[dag_id].params
    name, value = next(iter(wrong.items()))
    with pytest.raises(ParamValidationError):
        params.get_param(name).resolve(value)


def test_its_page_tells_an_operator_what_it_does_whether_to_rerun_and_what_to_do(dag):
    headings = [line for line in dag.doc_md.splitlines() if line.startswith("### ")]
    assert headings == ["### What it does", "### Is a re-run safe?", "### On failure"]
    assert dag.description
    assert "akosha" in dag.tags


def test_airflow_loads_the_plugin_and_leaves_the_library_alone():
    """The loader executes every file below plugins/ as a top-level module; the library must stay out of its way."""
    from airflow import plugins_manager

    names = {plugin["name"] for plugin in plugins_manager.get_plugin_info()}
    loaded = {
        name for name, module in sys.modules.items() if "/plugins/akosha/" in (getattr(module, "__file__", None) or "")
    }
    assert "akosha" in names
    assert {name for name in loaded if name.split(".")[0] != "akosha"} == set()
