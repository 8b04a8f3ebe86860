"""Each DAG, run by Airflow over a real S3 endpoint and a real lake, with uploads that Session-Buddy wrote. Cites I7: a task that met an error does not report success."""

from __future__ import annotations

import json
import logging
import shutil
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path

import boto3
import pytest
from tests.support.approvals import somebody_answers

from akosha import jobs
from akosha.jobs import ingest, plans
from akosha.lake.lake import Lake
from akosha.lake.layout import shard_of
from akosha.lake.shard_log import Writer
from akosha.lake.undo import undo_shard
from akosha.settings import Settings

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.usefixtures("airflow_database"),
    # A whole Airflow works inside the test here, and deprecates parts of itself and of what it stands on.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

ROOT = Path(__file__).resolve().parents[2]
UPLOADS = ROOT / "tests" / "data" / "session_buddy"
KNOWN = "les-mbp.local"
# The samples were written on this day.
WRITTEN = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
def settings(s3_server, bucket, tmp_path, monkeypatch) -> Settings:
    monkeypatch.setenv("AKOSHA_LAKE_URL", f"s3://{bucket}/lake")
    monkeypatch.setenv("AKOSHA_UPLOADS_URL", f"s3://{bucket}")
    monkeypatch.setenv("AKOSHA_S3_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AKOSHA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("AKOSHA_BATCHES", "2")
    settings = Settings.from_environment()
    Lake.create(settings, now=WRITTEN)
    store = client()
    for file in sorted(UPLOADS.rglob("*")):
        if file.is_file():
            store.put_object(Bucket=bucket, Key=file.relative_to(UPLOADS).as_posix(), Body=file.read_bytes())
    return settings


@pytest.fixture
def upload(settings, bucket):
    """Put a copy of a sample as the upload of another system, or as a later one of its own."""
    [sample] = (UPLOADS / "systems/legacy-feb/uploads").iterdir()

    def put(system, moment):
        store = client()
        name = f"{moment}_{system}"
        for file in sorted(sample.iterdir()):
            body = file.read_bytes()
            if file.name == "manifest.json":
                text = body.decode().replace(sample.name, name).replace("systems/legacy-feb/", f"systems/{system}/")
                body = json.dumps(json.loads(text) | {"system_id": system}).encode()
            store.put_object(Bucket=bucket, Key=f"systems/{system}/uploads/{name}/{file.name}", Body=body)

    return put


@pytest.fixture
def run(settings):
    """Run a DAG to its end; the run, and the summary that `finish` returned."""
    from airflow.dag_processing.dagbag import DagBag

    def run_dag(dag_id, **conf):
        # Read anew each time: `test` leaves a run's conf in the DAG's params.
        done = DagBag(ROOT / "dags").dags[dag_id].test(run_conf=conf)
        [finish] = [task for task in done.get_task_instances() if task.task_id == "finish"]
        return done, finish.xcom_pull(task_ids="finish", key="return_value")

    return run_dag


@pytest.fixture
def native_backfill(settings, monkeypatch):
    """Run `akosha_ingest` as Airflow's own back-fill would, for the quarter of an hour that ends at an instant."""
    from airflow.dag_processing.dagbag import DagBag
    from airflow.models import dagrun
    from airflow.utils.types import DagRunType

    make = dagrun.get_or_create_dagrun

    def as_backfill(**given):  # Airflow's test runs are manual ones
        run = make(**given)
        run.run_type = DagRunType.BACKFILL_JOB
        given["session"].commit()
        return run

    def run_dag(end, **conf):
        monkeypatch.setattr(dagrun, "get_or_create_dagrun", as_backfill)
        done = DagBag(ROOT / "dags").dags["akosha_ingest"].test(logical_date=end, run_conf=conf)
        monkeypatch.setattr(dagrun, "get_or_create_dagrun", make)
        [finish] = [task for task in done.get_task_instances() if task.task_id == "finish"]
        return done, finish.xcom_pull(task_ids="finish", key="return_value")

    return run_dag


def states(done):
    return {(task.task_id, task.map_index): task.state for task in done.get_task_instances()}


def labels(done, task_id):
    return sorted(task.rendered_map_index for task in done.get_task_instances() if task.task_id == task_id)


def client():
    return boto3.client("s3", endpoint_url=Settings.from_environment().s3_endpoint_url)


def flip_a_bit(bucket, key):
    content = bytearray(client().get_object(Bucket=bucket, Key=key)["Body"].read())
    content[len(content) // 2] ^= 1
    client().put_object(Bucket=bucket, Key=key, Body=bytes(content))


def summaries(bucket, job):
    keys = [found["Key"] for found in client().list_objects_v2(Bucket=bucket, Prefix="lake/runs/")["Contents"]]
    chosen = [key for key in keys if key.endswith(f"summary-{job}.json")]
    return [json.loads(client().get_object(Bucket=bucket, Key=key)["Body"].read()) for key in chosen]


def records():
    return {tier: figures["records"] for tier, figures in jobs.status()["tiers"].items()}


def later(days):
    return {"as_of": (WRITTEN + timedelta(days=days)).isoformat(), "force": True}


def test_a_night_carries_uploads_through_every_tier_and_a_second_one_changes_nothing(run):
    done, summary = run("akosha_ingest")
    assert done.state == "success"
    assert summary["rows_changed"] == records()["hot"] > 0
    assert all("shard" in label and "uploads" in label for label in labels(done, "ingest"))
    total = records()["hot"]

    done, summary = run("akosha_embed")
    assert done.state == "success"
    assert jobs.status()["without_vector"] == 0

    done, summary = run("akosha_hot_to_warm", **later(10))
    assert done.state == "success"
    assert (summary["rows_changed"], records()["hot"], records()["warm"]) == (total, 0, total)

    done, summary = run("akosha_warm_to_cold", **later(100))
    assert done.state == "success"
    assert (summary["rows_changed"], records()["warm"], records()["cold"]) == (total, 0, total)

    done, summary = run("akosha_validate", as_of=later(100)["as_of"])
    assert done.state == "success"
    assert summary["ok"]

    heads = [(head.shard, head.version) for head in Lake.open(Settings.from_environment()).heads()]
    for dag_id, conf in (
        ("akosha_ingest", {"listing": "full"}),
        ("akosha_embed", {}),
        ("akosha_hot_to_warm", later(10)),
        ("akosha_warm_to_cold", later(100)),
    ):
        done, summary = run(dag_id, **conf)
        assert done.state == "success"
        assert (summary["ok"], summary["rows_changed"]) == (True, 0)
    assert [(head.shard, head.version) for head in Lake.open(Settings.from_environment()).heads()] == heads


def test_an_empty_night_is_green_with_one_skipped_placeholder(run):
    done, summary = run("akosha_hot_to_warm")
    assert done.state == "success"
    assert states(done) == {
        ("plan", -1): "success",
        ("move", -1): "skipped",
        ("finish", -1): "success",
        ("go_on", -1): "success",
    }
    assert summary["message"].startswith("nothing to do")


def test_a_dry_run_says_what_would_move_and_moves_nothing(run):
    run("akosha_ingest")
    before = records()
    # Past the wait for a vector as well, so that every record is due.
    done, summary = run("akosha_hot_to_warm", **later(30), dry_run=True)
    assert done.state == "success"
    assert summary["counts"]["rows"] == before["hot"]
    assert records() == before


def test_a_broken_upload_is_reported_by_a_green_run(run, bucket):
    manifest = "systems/legacy-feb/uploads/20261120_234040_legacy-feb/manifest.json"
    client().put_object(Bucket=bucket, Key=manifest, Body=b"{not json")
    done, summary = run("akosha_ingest")
    assert done.state == "success"
    assert [entry["upload"] for entry in summary["quarantined"]] == [manifest]
    assert summary["counts"]["new"] > 0


def test_a_batch_that_fails_leaves_the_others_committed_and_turns_the_run_red(run, upload, bucket, tmp_path):
    run("akosha_ingest")
    before = records()["hot"]
    # As many uploads as make two batches; the known system's key file must be read, and is damaged.
    for number in range(2 * plans.UPLOADS.per_batch // plans.UPLOAD_KILOBYTES):
        upload(f"machine-{number}", "20261120_235900")
    upload(KNOWN, "20261120_235900")
    [head] = [head for head in Lake.open(Settings.from_environment()).heads() if KNOWN in head.keys]
    flip_a_bit(bucket, f"lake/{head.keys[KNOWN].path}")
    shutil.rmtree(tmp_path / "cache")

    done, summary = run("akosha_ingest", listing="full")

    assert done.state == "failed"
    assert summary is None
    assert sorted(state for (task, _), state in states(done).items() if task == "ingest") == ["failed", "success"]
    assert states(done)["finish", -1] == "failed"
    assert records()["hot"] > before
    assert sorted(summary["ok"] for summary in summaries(bucket, "ingest")) == [False, True]


def test_a_missing_lake_fails_the_plan_at_once_and_names_the_setting(run, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("AKOSHA_LAKE_URL", (tmp_path / "elsewhere").as_uri())
    done, summary = run("akosha_ingest")
    assert done.state == "failed"
    assert states(done)["plan", -1] == "failed"
    assert summary is None


def heads():
    return [(head.shard, head.version) for head in Lake.open(Settings.from_environment()).heads()]


def test_a_back_fill_of_what_is_applied_changes_nothing_and_asks_first(run):
    run("akosha_ingest")
    before = heads()

    done, summary = run("akosha_backfill", systems=f"{KNOWN}, legacy-feb", force=True)
    assert done.state == "success"
    assert summary["message"].startswith("dry run: ")
    assert (summary["counts"]["uploads"], summary["counts"]["due"]) == (0, len(summary["would_take"]))
    assert summary["estimate"]["files"] == summary["counts"]["due"]

    with somebody_answers("Approve") as person:
        done, summary = run("akosha_backfill", systems=f"{KNOWN}, legacy-feb", force=True, dry_run="no")
    assert done.state == "success"
    [(subject, body)] = person.asked
    assert subject.startswith("Forced back-fill: ")
    assert body.startswith("- estimate: ")
    assert summary["counts"]["uploads"] == summary["counts"]["unchanged"] + summary["counts"]["quarantined"] > 0
    assert (summary["counts"]["systems"], summary["rows_changed"]) == (2, 0)
    assert heads() == before


@pytest.mark.parametrize(
    ("answer", "said"), [("Reject", "rejected by jo"), ("nothing", "nobody approved it within 24 hours")]
)
def test_a_forced_back_fill_that_nobody_approved_does_nothing_and_says_so(run, answer, said):
    with somebody_answers(answer) as person:
        done, summary = run("akosha_backfill", force=True, dry_run="no")
    assert len(person.asked) == 1
    assert done.state == "success"
    assert states(done) == {
        ("plan", -1): "success",
        ("approve", -1): "success",
        ("ingest", -1): "skipped",
        ("finish", -1): "success",
    }
    assert summary["message"].startswith(f"nothing was done: {said}; planned was: ")
    assert (summary["ok"], summary["rows_changed"], heads()) == (True, 0, [])


def test_a_back_fill_of_what_is_due_asks_nobody(run):
    with somebody_answers("Reject") as person:
        done, summary = run("akosha_backfill")
    assert (done.state, person.asked) == ("success", [])
    assert summary["rows_changed"] > 0


def test_a_back_fill_takes_only_the_dates_of_its_form(run, upload):
    upload("late-one", "20261101_120000")
    upload("late-two", "20261102_120000")
    done, summary = run("akosha_backfill", from_date="2026-11-01", until_date="2026-11-01")
    assert done.state == "success"
    assert (summary["counts"]["uploads"], summary["counts"]["applied"], summary["counts"]["systems"]) == (1, 1, 1)


def test_airflows_own_back_fill_takes_the_uploads_of_its_interval_again(run, native_backfill, upload):
    upload("late-one", "20261101_120100")
    upload("late-two", "20261101_121500")
    end = datetime(2026, 11, 1, 12, 15, tzinfo=UTC)

    done, summary = native_backfill(end)
    assert done.state == "success"
    assert (summary["counts"]["uploads"], summary["counts"]["applied"]) == (1, 1)
    before = heads()

    done, summary = native_backfill(end)
    assert done.state == "success"
    assert (summary["counts"]["uploads"], summary["counts"]["unchanged"], summary["rows_changed"]) == (1, 1, 0)
    assert heads() == before

    done, summary = native_backfill(end - timedelta(days=1))
    assert done.state == "success"
    assert summary["counts"]["uploads"] == 0


def event_of(done):
    """What the newest asset event of a run carries."""
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        made = select(AssetEvent).where(AssetEvent.source_run_id == done.run_id)
        return dict(session.scalars(made.order_by(AssetEvent.id.desc())).first().extra)


def test_the_log_and_the_asset_event_of_a_run_name_every_number_and_what_was_quarantined_for_which_reason(
    run, bucket, caplog
):
    manifest = "systems/legacy-feb/uploads/20261120_234040_legacy-feb/manifest.json"
    client().put_object(Bucket=bucket, Key=manifest, Body=b"{not json")
    with caplog.at_level(logging.INFO):
        done, summary = run("akosha_ingest")
    event = event_of(done)
    assert event["counts"] == summary["counts"]
    assert event["quarantine_reasons"] == {"invalid-manifest": 1}
    assert event["spent"]["requests"] > event["spent"]["rows"] > 0
    [line] = [line for line in caplog.messages if line.startswith("finished job=ingest")]
    for name in (*ingest.COUNTS, "requests", "backlog_uploads", "backlog_bytes", "backlog_oldest_seconds", "due"):
        assert f" {name}={summary['counts'][name]}" in line, name
    assert " quarantined_invalid-manifest=1" in line
    assert f" spent_seconds={event['spent']['seconds']}" in line

    done, summary = run("akosha_hot_to_warm", **later(30))
    assert event_of(done)["counts"] == summary["counts"]
    assert event_of(done)["spent"]["rows"] == summary["rows_changed"] > 0


def test_the_summary_that_an_asset_event_carries_names_the_backlog_and_every_other_number(run, monkeypatch, bucket):
    monkeypatch.setenv("AKOSHA_RUN_UPLOADS", "2")
    done, summary = run("akosha_ingest")
    assert done.state == "success"
    assert (summary["counts"]["planned"], summary["counts"]["uploads"]) == (2, 2)
    assert summary["counts"]["backlog_uploads"] == summary["counts"]["due"] - 2 > 0
    for name in ("refused_rows", "rows_read", "requests", "backlog_bytes", "backlog_oldest_seconds", "unusable_keys"):
        assert summary["counts"][name] >= 0


def go_on(done):
    """The run that ``go_on`` triggered, which a test has to start itself: its id and conf; None when there is none."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = select(DagRun).where(DagRun.dag_id == done.dag_id, DagRun.run_id.like(f"slice%{done.run_id}"))
        made = session.scalars(found.order_by(DagRun.id.desc())).first()
        return (made.run_id, dict(made.conf)) if made else None


def test_a_week_of_moves_is_caught_up_in_bounded_slices_that_follow_each_other(run, monkeypatch):
    run("akosha_ingest")
    total, files = records()["hot"], sum(tier["files"] for tier in jobs.status()["tiers"].values())
    monkeypatch.setenv("AKOSHA_MOVE_BYTES_PER_RUN", "1")

    conf, moved, slices = later(30), 0, 0
    while conf:
        done, summary = run("akosha_hot_to_warm", **conf)
        slices += 1
        assert done.state == "success"
        assert summary["plan"]["slice"] == slices <= files
        moved += summary["rows_changed"]
        triggered = go_on(done)
        assert bool(triggered) == bool(summary["left"])
        if triggered:
            assert triggered[0].startswith("slice_")
            assert f"slice {slices}, {summary['left']['shards']} shards" in summary["message"]
        conf = triggered[1] if triggered else None
    assert slices >= 2
    assert (moved, records()["hot"], records()["warm"]) == (total, 0, total)


def test_a_dry_run_of_any_slice_asks_for_no_other_run(run, monkeypatch):
    run("akosha_ingest")
    monkeypatch.setenv("AKOSHA_MOVE_BYTES_PER_RUN", "1")
    done, summary = run("akosha_hot_to_warm", **later(30), dry_run=True)
    assert (done.state, summary["left"], go_on(done)) == ("success", {}, None)
    assert summary["estimate"]["rows"] == records()["hot"]


def test_a_task_that_runs_twice_at_once_and_once_more_moves_every_record_once(run):
    """I1, I4: correctness comes from the commit, not from Airflow."""
    run("akosha_ingest")
    total = records()["hot"]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as twins:
        plan = jobs.plan_move("twins", "hot-to-warm", **later(30))
        batches = [batch["batch"] for batch in plan["batches"]]
        running = [twins.submit(jobs.run_batch, plan["plan_key"], batch) for batch in batches for _ in range(2)]
        results = [future.result() for future in running]
    assert (records()["hot"], records()["warm"]) == (0, total)
    assert sum(shard["rows"] for result in results for shard in result["shards"]) >= total
    before = heads()
    done, summary = run("akosha_hot_to_warm", **later(30))
    assert (done.state, summary["rows_changed"], heads()) == ("success", 0, before)


def test_a_held_shard_is_left_alone_and_named_by_a_green_run(run):
    run("akosha_ingest")
    lake = Lake.open(Settings.from_environment())
    held, *others = sorted(head.shard for head in lake.heads())
    undo_shard(lake, held, to_version=0, writer=Writer("undo", lake.policy().number, WRITTEN), reason="a test")
    before = dict(heads())[held]

    done, summary = run("akosha_hot_to_warm", **later(30))
    assert done.state == "success"
    assert f"{held:03d}" in summary["message"]
    assert "held" in summary["message"]
    assert summary["rows_changed"] > 0
    assert dict(heads())[held] == before
    assert others


def test_promotion_undo_and_maintenance_run_from_their_forms(run, settings):
    """I28, I31, I32."""
    ahead = (datetime.now(UTC) + timedelta(days=60)).isoformat()
    run("akosha_ingest")
    run("akosha_hot_to_warm", as_of=ahead, force=True, system=KNOWN)
    moved = Lake.open(settings).shard(shard_of(KNOWN)).head()
    _, dry = run("akosha_promote", system=KNOWN, dry_run=True)
    done, promoted = run("akosha_promote", system=KNOWN)
    assert done.state == "success"
    assert promoted["counts"]["rows"] == dry["counts"]["rows"] == moved.counts["moved"]
    assert states(done)["promote", 0] == "success"

    done, undo = run("akosha_undo", run=promoted["run_id"])
    assert (done.state, states(done)["approve", -1]) == ("success", "success")
    assert undo["message"].startswith("dry run: 1 shards would go back: 1 commits with 0 uploads are undone")
    assert Lake.open(settings).shard(shard_of(KNOWN)).head().operation == "promote"
    done, released = run("akosha_undo", action="release")
    assert (done.state, released["message"]) == ("success", "0 shards are held")

    done, maintained = run("akosha_maintain")
    assert done.state == "success"
    assert maintained["counts"]["scrubbed_findings"] == 0
