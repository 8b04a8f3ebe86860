"""Messages of the notification queue: whom they name, and that nothing in them is more than a hint."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.notifications import from_eventbridge, from_s3, from_sns, manifest_of, s3_test_event

from akosha.uploads.notices import EXCERPT, Notice, Watched, read_notice
from akosha.uploads.wakeups import MAX_MESSAGES, MAX_SYSTEMS, WakeUp

WATCHED = Watched("uploads", "")
KEY = manifest_of("les-mbp.local")


@pytest.mark.parametrize(
    "body",
    [
        from_s3(KEY),
        from_s3(KEY, event="s3:ObjectCreated:Put"),
        from_s3(KEY, event="ObjectCreated:CompleteMultipartUpload"),
        from_eventbridge(KEY),
        from_sns(from_s3(KEY)),
        from_sns(from_eventbridge(KEY)),
        from_sns(from_sns(from_s3(KEY))),
    ],
    ids=["s3", "minio", "multipart", "eventbridge", "sns", "sns-eventbridge", "sns-sns"],
)
def test_every_form_of_notification_names_the_system(body):
    assert read_notice(body, WATCHED) == Notice(frozenset({"les-mbp.local"}))


@pytest.mark.parametrize("system", ["dev box 3", "büro-rechner-ö", "a+b", "100%25", "team/laptop", "what?#&"])
def test_a_key_is_decoded_as_its_form_encodes_it(system):
    for body in (
        from_s3(manifest_of(system)),
        from_eventbridge(manifest_of(system)),
        from_sns(from_s3(manifest_of(system))),
    ):
        assert read_notice(body, WATCHED) == Notice(frozenset({system}))


def test_one_message_may_name_several_systems():
    body = from_s3(manifest_of("one"), manifest_of("two"), manifest_of("one", "20261120_110000"))
    assert read_notice(body, WATCHED).systems == {"one", "two"}


@pytest.mark.parametrize(
    "body",
    [
        s3_test_event(),
        from_sns(s3_test_event()),
        from_s3(),
        from_s3(KEY.replace("manifest.json", "reflection.duckdb")),
        from_s3(KEY, event="ObjectRemoved:Delete"),
        from_s3(KEY, bucket="another"),
        from_s3("manifest.json"),
        from_s3("systems//uploads//manifest.json"),
        from_s3(manifest_of("one", prefix="elsewhere/")),
        from_eventbridge(KEY, kind="Object Deleted"),
        from_sns(from_sns(from_sns(from_s3(KEY)))),
    ],
)
def test_what_is_no_new_manifest_names_nobody_and_is_no_problem(body):
    assert read_notice(body, WATCHED) == Notice()


@pytest.mark.parametrize(
    "body",
    [
        "",
        "not json",
        "[]",
        "null",
        "{}",
        '{"Records": {}}',
        '{"Records": [{"eventName": "ObjectCreated:Put"}]}',
        '{"Records": [{"eventName": 1, "s3": {"bucket": {"name": "uploads"}, "object": {"key": []}}}]}',
        json.dumps({"Type": "SubscriptionConfirmation", "Message": "You have chosen to subscribe", "Token": "1"}),
        from_sns("not json"),
        from_s3(KEY).replace("les-mbp", "%FF%FE"),
        from_s3(KEY)[:-20],
        '{"Event": "\\ud800"}',
        "[" * 5_000,
    ],
)
def test_what_is_no_notification_says_what_was_found_instead(body):
    notice = read_notice(body, WATCHED)
    assert notice.systems == frozenset()
    assert notice.problem.startswith("expected ")
    assert repr(body[:EXCERPT]) in notice.problem or "Type" in body


def test_only_uploads_below_the_prefix_count():
    watched = Watched.of("s3://uploads/team/a/")
    assert read_notice(from_s3(manifest_of("one", prefix="team/a/")), watched).systems == {"one"}
    assert read_notice(from_s3(manifest_of("one")), watched) == Notice()


def test_uploads_in_a_folder_are_not_watched():
    assert Watched.of("file:///uploads").bucket == ""
    assert read_notice(from_s3(KEY, bucket="x"), Watched.of("file:///x")) == Notice()


@given(st.text())
def test_no_text_is_more_than_a_problem(body):
    assert read_notice(body, WATCHED).systems == frozenset()


def test_a_wake_up_counts_what_it_gathered():
    wake_up = WakeUp()
    for number, body in enumerate([from_s3(manifest_of("b")), from_s3(manifest_of("a")), s3_test_event(), "x", "y"]):
        wake_up.add(read_notice(body, WATCHED), str(number))
    example = read_notice("x", WATCHED).problem
    assert wake_up.payload() == {
        "systems": ["a", "b"],
        "messages": 5,
        "other": 1,
        "malformed": 2,
        "malformed_example": example,
    }
    assert wake_up.take_receipts() == ["0", "1", "2", "3", "4"]
    assert (wake_up.take_receipts(), wake_up.messages) == ([], 5)


def test_a_wake_up_is_bounded_in_names_and_messages():
    named, many = WakeUp(), WakeUp()
    named.add(Notice(frozenset(str(number) for number in range(MAX_SYSTEMS - 1))), "")
    assert not named.full
    named.add(Notice(frozenset({"one more"})), "")
    assert named.full
    many.messages = MAX_MESSAGES - 1
    assert not many.full
    many.add(Notice(), "")
    assert many.full
