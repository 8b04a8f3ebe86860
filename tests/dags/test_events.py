"""The event lane: a trigger that reads a real SQS queue, the schedule it joins, and the run it starts. Cites I7: a lost or broken notification delays, it never decides."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from datetime import UTC, datetime
from pathlib import Path

import boto3
import pytest
from airflow.sdk import AssetOrTimeSchedule, CronDataIntervalTimetable
from tests.support.notifications import from_eventbridge, from_s3, from_sns, manifest_of, s3_test_event
from tests.support.s3_proxy import ALWAYS, s3_proxy

import akosha_events
from akosha_events import UPLOADS, UploadsQueueTrigger, or_when_uploads_arrive, woken_systems

ROOT = Path(__file__).resolve().parents[2]
QUEUE = "http://127.0.0.1:9324/123456789012/uploads"
FOUR_HOURS = (datetime(2026, 11, 3, tzinfo=UTC), datetime(2026, 11, 3, 4, tzinfo=UTC))
pytestmark = [
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning"),
    # The machinery of Airflow that is used here deprecates parts of itself.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:airflow"),
]


@pytest.fixture
def sqs(s3_server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", s3_server)
    return boto3.client("sqs")


@pytest.fixture
def queue_url(sqs):
    return sqs.create_queue(QueueName=f"uploads-{uuid.uuid4().hex}")["QueueUrl"]


@pytest.fixture
def send(sqs, queue_url):
    def send_all(*bodies):
        for body in bodies:
            sqs.send_message(QueueUrl=queue_url, MessageBody=body)

    return send_all


@pytest.fixture
def left(sqs, queue_url):
    """How many messages wait, and how many are hidden because they were received and not deleted."""

    def count():
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)["Attributes"]
        return tuple(int(found[name]) for name in names)

    return count


@pytest.fixture
def trigger(queue_url, monkeypatch):
    monkeypatch.setattr(akosha_events, "POLL_SECONDS", 1)

    def make(**chosen):
        timing = {"quiet_seconds": 1, "spacing_seconds": 3, "back_off_seconds": (0.1, 0.4)} | chosen
        return UploadsQueueTrigger(queue_url, "s3://uploads", **timing)

    return make


def fired(trigger, *, within=20):
    """The payload of the first event, once the trigger has gone on: that is how it learns that the event was taken."""

    async def first():
        events = trigger.run()
        payload = (await anext(events)).payload
        going_on = asyncio.ensure_future(anext(events))
        await asyncio.wait([going_on], timeout=1.5)
        going_on.cancel()
        await asyncio.wait([going_on])
        await events.aclose()
        return payload

    return asyncio.run(asyncio.wait_for(first(), within))


def test_every_form_of_notification_becomes_one_event_and_is_deleted(trigger, send, left):
    send(
        from_s3(manifest_of("one")),
        from_sns(from_s3(manifest_of("dev box 3"))),
        from_eventbridge(manifest_of("büro-rechner-ö")),
        s3_test_event(),
        "{not json",
    )
    payload = fired(trigger())
    assert payload["systems"] == ["büro-rechner-ö", "dev box 3", "one"]
    assert (payload["messages"], payload["other"], payload["malformed"]) == (5, 1, 1)
    assert "'{not json'" in payload["malformed_example"]
    assert left() == (0, 0)


def test_a_burst_collapses_into_one_event(trigger, send, left):
    send(*[from_s3(manifest_of(f"system-{number % 20}", f"20261120_10{number:04d}")) for number in range(60)])
    payload = fired(trigger())
    assert (len(payload["systems"]), payload["messages"]) == (20, 60)
    assert left() == (0, 0)


def test_events_keep_their_distance_while_messages_keep_coming(trigger, send):
    send(from_s3(manifest_of("first")))

    async def two_events():
        events = trigger(spacing_seconds=3).run()
        clock = asyncio.get_running_loop().time
        first = await anext(events)
        at = clock()
        going_on = asyncio.ensure_future(anext(events))
        number = 0
        while not going_on.done():
            await asyncio.to_thread(send, from_s3(manifest_of(f"later-{number}")))
            number += 1
            await asyncio.sleep(0.2)
        await events.aclose()
        return first.payload, (await going_on).payload, clock() - at, number

    first, second, seconds, number = asyncio.run(asyncio.wait_for(two_events(), 30))
    assert first["systems"] == ["first"]
    assert number - 8 <= len(second["systems"]) <= number
    # Although the queue was never quiet, the second came: after its distance, and not much later.
    assert 3 <= seconds < 6


def test_messages_that_name_nobody_fire_nothing_and_are_deleted_but_counted_in_the_next_event(trigger, send, left):
    send("nonsense", s3_test_event(), from_s3(manifest_of("one").replace("manifest.json", "reflection.duckdb")))
    waiting = trigger()
    with pytest.raises(TimeoutError):
        fired(waiting, within=4)
    assert left() == (0, 0)
    send("nonsense")
    send(from_s3(manifest_of("one")))
    payload = fired(waiting)
    assert (payload["systems"], payload["malformed"]) == (["one"], 1)


def test_a_message_whose_event_was_not_taken_is_received_again(trigger, send, left, sqs, queue_url, monkeypatch):
    send(from_s3(manifest_of("one")))
    monkeypatch.setattr("akosha.uploads.sqs.VISIBILITY_SECONDS", 2)

    async def killed_with_the_event_in_hand():
        events = trigger().run()
        payload = (await anext(events)).payload
        await events.aclose()
        return payload

    assert asyncio.run(killed_with_the_event_in_hand())["systems"] == ["one"]
    assert left() == (0, 1)
    payload = fired(trigger())
    assert (payload["systems"], left()) == (["one"], (0, 0))


def test_an_unreachable_queue_is_tried_again_until_it_is_back_and_said_once(
    trigger, send, left, s3_server, monkeypatch, caplog
):
    send(from_s3(manifest_of("one")))
    with s3_proxy(s3_server) as proxy, caplog.at_level(logging.INFO):
        monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", proxy.url)
        proxy.rule("reset", method="POST", count=6)
        payload = fired(trigger(), within=30)
    assert payload["systems"] == ["one"]
    assert left() == (0, 0)
    said = [record.getMessage() for record in caplog.records if "uploads queue" in record.getMessage()]
    assert len(said) == 2, said
    assert "tried again for ever" in said[0]
    assert "AKOSHA_EVENTS_QUEUE_URL" in said[0]
    assert "answers again after" in said[1]


def test_a_queue_that_does_not_exist_stops_nothing(trigger, sqs, queue_url, caplog):
    sqs.delete_queue(QueueUrl=queue_url)
    with pytest.raises(TimeoutError):
        fired(trigger(), within=3)
    said = [record.getMessage() for record in caplog.records if "uploads queue" in record.getMessage()]
    assert len(said) == 1
    assert f"there is no queue {queue_url}" in said[0]


def test_messages_that_cannot_be_deleted_do_not_stop_the_next_event(trigger, send, left, s3_server, monkeypatch):
    send(from_s3(manifest_of("one")))
    with s3_proxy(s3_server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", proxy.url)

        async def two_events():
            events = trigger().run()
            first = (await anext(events)).payload
            spoiled = proxy.rule("reset", method="POST", count=ALWAYS)
            going_on = asyncio.ensure_future(anext(events))
            await asyncio.sleep(1)
            proxy.rules.remove(spoiled)
            await asyncio.to_thread(send, from_s3(manifest_of("two")))
            second = (await going_on).payload
            await events.aclose()
            return first, second

        first, second = asyncio.run(asyncio.wait_for(two_events(), 30))
    assert (first["systems"], second["systems"]) == (["one"], ["two"])
    # The first is still hidden: it comes back later and wakes once more.
    assert left()[1] >= 1


def test_its_identity_is_the_queue_and_the_bucket():
    path, kwargs = UploadsQueueTrigger(QUEUE, "s3://uploads", quiet_seconds=2).serialize()
    assert path == "akosha_events.UploadsQueueTrigger"
    assert UploadsQueueTrigger(**kwargs).serialize() == (path, kwargs)
    assert kwargs == {"queue_url": QUEUE, "uploads_url": "s3://uploads"}


def ingest():
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(ROOT / "dags" / "akosha_ingest.py")
    assert bag.import_errors == {}
    return bag


@pytest.fixture
def with_queue(monkeypatch):
    monkeypatch.setenv("AKOSHA_EVENTS_QUEUE_URL", QUEUE)
    monkeypatch.setenv("AKOSHA_UPLOADS_URL", "s3://uploads")


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_queue_the_timetable_is_left_alone(monkeypatch, value):
    if value is not None:
        monkeypatch.setenv("AKOSHA_EVENTS_QUEUE_URL", value)
    timetable = CronDataIntervalTimetable("*/15 * * * *", timezone="UTC")
    assert or_when_uploads_arrive(timetable) is timetable
    assert isinstance(ingest().dags["akosha_ingest"].timetable, CronDataIntervalTimetable)


def test_with_a_queue_the_timetable_stays_and_a_watched_asset_joins_it(with_queue):
    dag = ingest().dags["akosha_ingest"]
    assert isinstance(dag.timetable, AssetOrTimeSchedule)
    assert isinstance(dag.timetable.timetable, CronDataIntervalTimetable)
    [asset] = dag.timetable.asset_condition.objects
    [watcher] = asset.watchers
    assert (asset.name, dag.max_active_runs, dag.catchup) == (UPLOADS, 1, False)
    assert watcher.trigger.serialize()[1] == {"queue_url": QUEUE, "uploads_url": "s3://uploads"}


def intervals(bag):
    from airflow.serialization.serialized_objects import DagSerialization

    dag = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(bag.dags["akosha_ingest"]))))
    assert dag.timetable.periodic
    return [tuple(run.data_interval) for run in dag.iter_dagrun_infos_between(*FOUR_HOURS)]


def test_back_fill_has_the_same_data_intervals_with_and_without_a_queue(monkeypatch):
    without = intervals(ingest())
    monkeypatch.setenv("AKOSHA_EVENTS_QUEUE_URL", QUEUE)
    assert intervals(ingest()) == without
    assert len(without) == 17
    assert {(end - start).total_seconds() for start, end in without} == {900}


@pytest.fixture
def forgotten(airflow_database):
    """What a test writes of the DAG into the shared database goes with it: other tests serialise their own version."""
    from airflow.api.common.delete_dag import delete_dag

    yield
    delete_dag("akosha_ingest")


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.usefixtures("forgotten")
def test_airflow_starts_the_trigger_from_its_database_and_two_events_become_one_run(with_queue):
    from airflow._shared.module_loading import import_string
    from airflow.dag_processing.dagbag import sync_bag_to_db
    from airflow.models.asset import AssetDagRunQueue, AssetEvent
    from airflow.models.dag import DagModel
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.trigger import Trigger
    from airflow.triggers.base import TriggerEvent
    from airflow.utils.session import create_session
    from sqlalchemy import delete, select

    with create_session() as session:
        session.merge(DagBundleModel(name="dags-folder"))
    sync_bag_to_db(ingest(), "dags-folder", None)
    with create_session() as session:
        session.get(DagModel, "akosha_ingest").is_paused = False
    sync_bag_to_db(ingest(), "dags-folder", None)
    with create_session() as session:
        [stored] = session.scalars(select(Trigger)).all()
        assert stored.classpath == "akosha_events.UploadsQueueTrigger"
        restored = import_string(stored.classpath)(**stored.kwargs)
        assert (restored.queue_url, restored.uploads_url) == (QUEUE, "s3://uploads")
        for names in (["one"], ["one", "two"]):
            Trigger.submit_event(stored.id, TriggerEvent({"systems": names}), session=session)
        session.flush()
        found = session.scalars(select(AssetEvent)).all()
        # One line in the queue of runs, however many events: they become one run.
        assert len(session.scalars(select(AssetDagRunQueue)).all()) == 1
        assert woken_systems(events_of(*[event.extra for event in found])) == ["one", "two"]
        for model in (AssetDagRunQueue, AssetEvent):
            session.execute(delete(model))


def events_of(*extras, asset=UPLOADS):
    """What a task finds in its context when these events started its run."""
    from airflow.sdk.api.datamodels._generated import AssetReferenceAssetEventDagRun
    from airflow.sdk.execution_time.comms import AssetEventDagRunReferenceResult
    from airflow.sdk.execution_time.context import TriggeringAssetEventsAccessor

    events = [
        AssetEventDagRunReferenceResult(
            asset=AssetReferenceAssetEventDagRun(name=asset, uri=f"{asset}/", extra={}),
            extra=extra,
            source_task_id=None,
            source_dag_id=None,
            source_run_id=None,
            source_map_index=None,
            source_aliases=[],
            timestamp=FOUR_HOURS[0],
        )
        for extra in extras
    ]
    return {"triggering_asset_events": TriggeringAssetEventsAccessor.build(events)}


def test_a_run_that_no_notification_started_woke_nobody():
    assert woken_systems({}) == []
    assert woken_systems(events_of()) == []
    assert woken_systems(events_of({"payload": {"systems": ["x"]}}, asset="akosha://hot")) == []


def test_a_run_wakes_the_systems_of_all_events_behind_it():
    context = events_of(
        {"from_trigger": True, "payload": {"systems": ["b", "a"]}}, {"payload": {"systems": ["c", "a"]}}
    )
    assert woken_systems(context) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "extra", [{}, {"payload": None}, {"payload": {"systems": "abc"}}, {"payload": {"systems": [1, "", None]}}]
)
def test_an_event_written_by_hand_wakes_nobody_by_name(extra):
    assert woken_systems(events_of(extra)) == []
