"""The queue of notifications as `akosha doctor` sees it: what is wrong, and which setting to change."""

from __future__ import annotations

import uuid

import boto3
import pytest
from tests.support.s3_proxy import s3_proxy

from akosha import jobs
from akosha.errors import ConfigurationError, QueueUnavailableError
from akosha.uploads.sqs import NotificationQueue

pytestmark = pytest.mark.integration


@pytest.fixture
def sqs(s3_server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", s3_server)
    return boto3.client("sqs")


@pytest.fixture
def queue_url(sqs):
    return sqs.create_queue(QueueName=f"uploads-{uuid.uuid4().hex}")["QueueUrl"]


def test_what_is_received_is_hidden_until_it_is_deleted(sqs, queue_url):
    for number in range(25):
        sqs.send_message(QueueUrl=queue_url, MessageBody=f"{number}")
    queue = NotificationQueue(queue_url)
    received = [message for _ in range(4) for message in queue.receive(wait_seconds=0)]
    assert {message.body for message in received} == {str(number) for number in range(25)}
    assert queue.counts() == (0, 25)
    assert queue.delete([message.receipt for message in received]) == 0
    assert queue.counts() == (0, 0)


def test_a_message_that_the_queue_keeps_is_counted(sqs, queue_url):
    sqs.send_message(QueueUrl=queue_url, MessageBody="one")
    queue = NotificationQueue(queue_url)
    [message] = queue.receive(wait_seconds=0)
    assert queue.delete([message.receipt, "no such receipt"]) == 1


@pytest.mark.parametrize(
    ("code", "kind", "named"),
    [
        ("AccessDenied", ConfigurationError, "sqs:ReceiveMessage"),
        ("InvalidClientTokenId", ConfigurationError, "AWS_ACCESS_KEY_ID"),
        ("ServiceUnavailable", QueueUnavailableError, "AKOSHA_EVENTS_QUEUE_URL"),
    ],
)
def test_an_answer_that_refuses_says_what_to_change(s3_server, queue_url, monkeypatch, code, kind, named):
    with s3_proxy(s3_server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", proxy.url)
        proxy.rule("answer", method="POST", count=9, status=503 if "Service" in code else 403, code=code)
        with pytest.raises(kind, match=named):
            NotificationQueue(queue_url).counts()


@pytest.mark.parametrize(
    ("variable", "value", "kind"),
    [
        ("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:1", QueueUnavailableError),
        ("AWS_ENDPOINT_URL_SQS", "nonsense", ConfigurationError),
        ("AWS_DEFAULT_REGION", None, ConfigurationError),
        ("AWS_DEFAULT_REGION", "no region", ConfigurationError),
        ("AWS_ACCESS_KEY_ID", None, ConfigurationError),
    ],
)
def test_a_wrong_setting_is_named(queue_url, monkeypatch, variable, value, kind):
    if value is None:
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, value)
    with pytest.raises(kind) as caught:
        NotificationQueue(queue_url).counts()
    assert variable in str(caught.value)


@pytest.fixture
def events(bucket, s3_server, tmp_path, monkeypatch):
    """What doctor says of the queue, given settings."""
    monkeypatch.setenv("AKOSHA_LAKE_URL", f"file://{tmp_path}/lake")
    monkeypatch.setenv("AKOSHA_UPLOADS_URL", f"s3://{bucket}")
    monkeypatch.setenv("AKOSHA_S3_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AKOSHA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("AIRFLOW_HOME")

    def ask(**settings):
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        [check] = [check for check in jobs.doctor()["checks"] if check["check"] == "events"]
        return check["result"], check["found"]

    return ask


def test_doctor_passes_over_a_queue_that_is_not_set(events):
    result, found = events()
    assert result == "skipped"
    assert "AKOSHA_EVENTS_QUEUE_URL" in found


def test_doctor_counts_the_messages_of_a_queue_that_answers(events, sqs, queue_url):
    sqs.send_message(QueueUrl=queue_url, MessageBody="one")
    assert events(AKOSHA_EVENTS_QUEUE_URL=queue_url) == ("ok", "reachable; 1 messages wait, 0 are being read")


def test_doctor_says_what_is_wrong_with_a_queue(events, sqs, queue_url, tmp_path):
    result, found = events(AKOSHA_EVENTS_QUEUE_URL=queue_url + "-not")
    assert result == "problem"
    assert "there is no queue" in found
    result, found = events(AKOSHA_EVENTS_QUEUE_URL=queue_url, AKOSHA_UPLOADS_URL=f"file://{tmp_path}")
    assert result == "problem"
    assert "AKOSHA_UPLOADS_URL" in found
