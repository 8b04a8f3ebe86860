"""UTC from naive local times: the best evidence wins, and neighbours tell the zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from akosha.transforms.times import EVIDENCE, NAT, infer_times, time_in_id, times_in_ids

HOUR = 3_600_000_000
MINUTE = HOUR // 60
SECOND = MINUTE // 60
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
MANIFEST = datetime(2026, 11, 20, 23, 51, 12, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def us(time: datetime) -> int:
    return (time - EPOCH) // timedelta(microseconds=1)


NOW = us(MANIFEST)


def ulid(time_us: int, tail: str = "8Z8SE6T61QDNMXBK") -> str:
    milliseconds = time_us // 1_000
    return "".join(CROCKFORD[(milliseconds >> 5 * i) & 31] for i in range(9, -1, -1)) + tail


def uuid7(time_us: int) -> str:
    return f"{time_us // 1_000:012x}7abc8def0123456789ab"


def infer(rows: list[tuple[str, int, int]], manifest_us: int = NOW):
    ids, local, extracted = zip(*rows, strict=True)
    return infer_times(times_in_ids([list(ids)]), np.array(local, np.int64), np.array(extracted, np.int64), manifest_us)


def names(result) -> list[str]:
    return [EVIDENCE[rank] for rank in result.evidence]


def test_a_real_ulid_tells_its_millisecond():
    assert time_in_id(["01M7XNXD08Z8SE6T61QDNMXBKE"])[0] == us(datetime(2026, 11, 20, 23, 50, 50, 120_000, tzinfo=UTC))


@given(st.integers(us(datetime(2015, 1, 2, tzinfo=UTC)), us(datetime(2090, 1, 1, tzinfo=UTC))))
def test_every_time_is_found_in_every_kind_of_id(time_us: int):
    bare = uuid7(time_us)
    dashed = f"{bare[:8]}-{bare[8:12]}-{bare[12:16]}-{bare[16:20]}-{bare[20:]}"
    found = time_in_id([ulid(time_us), ulid(time_us).lower(), bare, bare.upper(), dashed])
    assert (found == time_us // 1_000 * 1_000).all()


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "538f898e57a1e4fa", "b160934a75e2deb6caa02116e3303e52", "ee151247-e5bf-42ab-b809-a635da1620fa",
        "01M7XNXD08Z8SE6T61QDNMXBKU", "Z1M7XNXD08Z8SE6T61QDNMXBKE", "01M7XNXD08Z8SE6T61QDNMXBÄE", "0" * 26, "7" * 32,
        "00000000000070008000000000000000", "x" * 32, "-" * 36, "\uff10\uff11M7XNXD08Z8SE6T61QDNMXBKE", "01M7XNXD08Z8SE6T61QDNMXB\0E",
    ],
)  # fmt: skip
def test_other_ids_tell_nothing(text: str):
    assert time_in_id([text])[0] == NAT


def test_a_time_in_an_id_long_after_the_manifest_is_not_believed():
    rows = [(ulid(NOW + 47 * HOUR), NAT, NAT), (ulid(NOW + 49 * HOUR), NAT, NAT)]
    assert names(infer(rows)) == ["id", "none"]


@given(st.lists(st.sampled_from(["a", ulid(NOW), uuid7(NOW), "7" * 32])), st.integers(1, 5))
def test_ids_that_come_in_batches_tell_what_they_tell_together(ids: list[str], size: int):
    found = times_in_ids([ids[start : start + size] for start in range(0, len(ids), size)])
    assert found.times_us.tolist() == time_in_id(ids).tolist()
    assert found.bare.tolist() == [text in (uuid7(NOW), "7" * 32) for text in ids]


def test_no_ids_give_no_times():
    result = infer_times(times_in_ids([]), np.empty(0, np.int64), np.empty(0, np.int64), NOW)
    assert len(result.created_us) == 0
    assert result.offsets == ()


def test_evidence_is_taken_in_the_declared_order():
    made = NOW - HOUR
    rows = [
        (ulid(made), made - 8 * HOUR, made + 5 * MINUTE),
        ("a", made - 8 * HOUR, made + 7 * SECOND),
        ("b", made - 8 * HOUR, NAT),
        ("c", NAT, NAT),
    ]
    result = infer(rows)
    assert names(result) == ["id", "extracted_at", "offset", "none"]
    assert result.created_us.tolist() == [made // 1_000 * 1_000, made + 7 * SECOND, made, NOW]
    assert [(used.offset_us, used.support) for used in result.offsets] == [(-8 * HOUR, 2)]


def test_daylight_saving_inside_an_upload_is_followed():
    change = us(datetime(2026, 11, 1, 9, 0, tzinfo=UTC))  # Los Angeles leaves summer time
    rows = []
    for days in range(-10, 11):
        offset = -7 * HOUR if days < 0 else -8 * HOUR
        made = change + days * 24 * HOUR + MINUTE
        rows += [(ulid(made), made + offset, NAT), (f"plain{days}", made + HOUR + offset, NAT)]
    result = infer(rows)
    expected = [change + days * 24 * HOUR + MINUTE + HOUR for days in range(-10, 11)]
    assert result.created_us[1::2].tolist() == expected
    assert [used.offset_us for used in result.offsets] == [-8 * HOUR, -7 * HOUR]


@pytest.mark.parametrize("offset", [-12 * HOUR, -210 * MINUTE, 0, 345 * MINUTE, 330 * MINUTE, 14 * HOUR])
@pytest.mark.parametrize("slip", [-90 * SECOND, 0, 90 * SECOND])
def test_an_offset_is_rounded_to_a_quarter_of_an_hour(offset: int, slip: int):
    made = NOW - 10 * HOUR
    result = infer([(ulid(made), made + offset + slip, NAT), ("x", made + offset, NAT)])
    assert result.offsets[0].offset_us == offset
    assert result.created_us[1] == made


@pytest.mark.parametrize("wrong", [7 * MINUTE, -5 * MINUTE, 15 * HOUR, -13 * HOUR, 400 * 24 * HOUR])
def test_an_anchor_no_zone_can_explain_is_not_used(wrong: int):
    made = NOW - 10 * HOUR
    result = infer([(ulid(made), made + wrong, NAT), ("x", NOW + 2 * HOUR - SECOND, NAT)])
    assert names(result)[0] == "id"
    assert all(used.evidence == "manifest" for used in result.offsets)


def test_a_rare_offset_does_not_touch_its_neighbours():
    good = [(ulid(NOW - i * HOUR), NOW - i * HOUR + HOUR, NAT) for i in range(1, 101)]
    odd = (ulid(NOW - 50 * HOUR), NOW - 53 * HOUR, NAT)
    result = infer([*good, odd, ("x", NOW - 53 * HOUR, NAT)])
    assert [used.offset_us for used in result.offsets] == [HOUR]
    assert result.created_us[-1] == NOW - 54 * HOUR


def test_a_digest_that_looks_like_a_uuid_does_not_set_a_time_no_zone_explains():
    result = infer([(uuid7(us(datetime(2019, 5, 5, tzinfo=UTC))), NOW - HOUR, NAT)])
    assert names(result) == ["manifest"]


def test_a_uuid7_that_fits_its_local_time_is_believed():
    made = NOW - HOUR
    result = infer([(uuid7(made), made + 9 * HOUR, NAT)])
    assert names(result) == ["id"]
    assert result.created_us[0] == made // 1_000 * 1_000


@pytest.mark.parametrize("offset", [-8 * HOUR, 0, HOUR, 330 * MINUTE, 13 * HOUR])
def test_without_anchors_the_newest_row_and_the_manifest_tell_the_zone(offset: int):
    result = infer([("a", NOW + offset - 3 * SECOND, NAT), ("b", NOW + offset - 50 * HOUR, NAT)])
    assert names(result) == ["manifest", "manifest"]
    assert result.created_us.tolist() == [NOW - 3 * SECOND, NOW - 50 * HOUR]


def test_without_any_hint_local_time_is_taken_as_utc():
    result = infer([("a", NOW - 50 * HOUR - 7 * MINUTE, NAT)])
    assert result.created_us[0] == NOW - 50 * HOUR - 7 * MINUTE
    assert result.offsets[0].offset_us == 0


@given(st.lists(st.integers(-100 * HOUR, 40 * HOUR), min_size=1, max_size=20))
def test_a_guessed_time_never_lies_after_the_manifest(ages: list[int]):
    result = infer([(f"r{i}", NOW + age, NAT) for i, age in enumerate(ages)])
    assert (result.created_us <= NOW).all()
    assert set(names(result)) == {"manifest"}


@given(st.permutations(range(12)))
def test_the_order_of_rows_changes_nothing(order: list[int]):
    made = [NOW - i * 7 * HOUR for i in range(12)]
    rows = [(ulid(t) if i % 3 == 0 else f"r{i}", t + (HOUR if i < 6 else 2 * HOUR), NAT) for i, t in enumerate(made)]
    straight = infer(rows).created_us
    assert infer([rows[i] for i in order]).created_us.tolist() == straight[list(order)].tolist()


def test_a_checkpoint_time_tells_the_zone_but_not_the_row():
    local = np.array([NOW - 10 * HOUR, NOW - 9 * HOUR], np.int64)
    nothing = np.full(2, NAT)
    checkpoint = np.array([NOW - 2 * HOUR - SECOND, NAT], np.int64)
    result = infer_times(times_in_ids([["a", "b"]]), local, nothing, NOW, checkpoint)
    assert names(result) == ["offset", "offset"]
    assert result.created_us.tolist() == [NOW - 2 * HOUR, NOW - HOUR]


@pytest.mark.parametrize("extracted", [us(datetime(2001, 1, 1, tzinfo=UTC)), NOW + 72 * HOUR])
def test_an_unbelievable_extraction_time_is_ignored(extracted: int):
    assert names(infer([("a", NOW - 3 * SECOND, extracted)])) == ["manifest"]
