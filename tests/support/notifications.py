"""Notifications as AWS writes them, in every way that they reach a queue."""

from __future__ import annotations

import json
from urllib.parse import quote_plus


def manifest_of(system: str, moment: str = "20261120_101500", prefix: str = "") -> str:
    """The key of a manifest."""
    return f"{prefix}systems/{system}/uploads/{moment}_{system}/manifest.json"


def from_s3(*keys: str, bucket: str = "uploads", event: str = "ObjectCreated:Put") -> str:
    """What S3 sends to a queue: one record per key, keys URL-encoded."""
    return json.dumps({"Records": [_record(bucket, key, event) for key in keys]})


def from_sns(message: str) -> str:
    """`message` in the envelope of an SNS topic."""
    envelope = {
        "Type": "Notification",
        "MessageId": "b3a1",
        "TopicArn": "arn:aws:sns:us-east-1:123456789012:uploads",
        "Subject": "Amazon S3 Notification",
        "Message": message,
        "Timestamp": "2026-11-20T10:15:01.000Z",
    }
    return json.dumps(envelope)


def from_eventbridge(key: str, bucket: str = "uploads", kind: str = "Object Created") -> str:
    """What EventBridge sends; the key is not encoded."""
    event = {
        "version": "0",
        "id": "17793124",
        "detail-type": kind,
        "source": "aws.s3",
        "time": "2026-11-20T10:15:01Z",
        "detail": {"version": "0", "bucket": {"name": bucket}, "object": {"key": key, "size": 412, "etag": "b1946ac9"}},
    }
    return json.dumps(event)


def s3_test_event() -> str:
    """What S3 sends when notifications are switched on."""
    return json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "uploads", "RequestId": "5582815E"})


def _record(bucket: str, key: str, event: str) -> dict[str, object]:
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventTime": "2026-11-20T10:15:00.000Z",
        "eventName": event,
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"},
            "object": {"key": quote_plus(key, safe="/"), "size": 412, "eTag": "b1946ac92492d2347c6235b4d2611184"},
        },
    }
