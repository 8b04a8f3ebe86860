"""Uploads set aside: their history, what settles them, and what an operator is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from akosha.cli import quarantine as lines
from akosha.errors import UsageError
from akosha.lake import layout
from akosha.lake.documents import Document
from akosha.lake.local_store import LocalStore
from akosha.uploads import quarantine
from akosha.uploads.memos import (
    APPLIED,
    QUARANTINED,
    REPLACED,
    SUPERSEDED,
    UploadRef,
    memo_names,
    quarantined,
    quarantined_names,
    read_memo,
    write_memo,
)
from akosha.uploads.quarantine import clear_superseded

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class CountingStore(LocalStore):
    """Counts what was asked of it."""

    lists = gets = 0

    def list(self, prefix: str, *, start_after: str = "", limit: int = 0) -> Any:
        self.lists += 1
        return super().list(prefix, start_after=start_after, limit=limit)

    def get(self, key: str) -> bytes:
        self.gets += 1
        return super().get(key)


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return CountingStore(tmp_path / "lake", setting="AKOSHA_LAKE_URL")


def ref(system_id: str, moment: datetime | str, etag: str = "e") -> UploadRef:
    name = moment if isinstance(moment, str) else f"{moment:%Y%m%d_%H%M%S}"
    upload_id = f"{name}_{system_id}"
    return UploadRef(f"systems/{system_id}/uploads/{upload_id}/manifest.json", etag, system_id, upload_id)


def facts(at: datetime, reason: str = "truncated", run_id: str = "run-1") -> Document:
    message = "the gzip data end in the middle. Have the system upload again"
    evidence = {"packed_offset": "415"}
    return {"reason": reason, "message": message, "evidence": evidence, "run_id": run_id, "at": at.isoformat()}


def set_aside(store: LocalStore, upload: UploadRef, at: datetime, reason: str = "truncated") -> str:
    write_memo(store, upload, QUARANTINED, facts(at, reason))
    return upload.quarantine_key


def clear(store: LocalStore, *good: tuple[UploadRef, datetime], at: datetime = NOON + 9 * HOUR) -> list[str]:
    who = {"run_id": "run-9", "at": at.isoformat()}
    return clear_superseded(store, good[0][0].shard, good, who, ambiguous={"unknown-system"})


def test_first_seen_stays_and_last_seen_and_attempts_move_on(store: LocalStore):
    upload = ref("laptop-7", NOON)
    for number in range(3):
        write_memo(store, upload, QUARANTINED, facts(NOON + number * HOUR))
    memo = read_memo(store, upload.quarantine_key)
    assert (memo["first_seen"], memo["last_seen"]) == (NOON.isoformat(), (NOON + 2 * HOUR).isoformat())
    assert memo["attempts"] == 3


def test_the_history_of_another_upload_is_not_taken_over(store: LocalStore):
    set_aside(store, ref("laptop-7", NOON), NOON)
    set_aside(store, ref("laptop-7", NOON, etag="other"), NOON + HOUR)
    memo = read_memo(store, ref("laptop-7", NOON, etag="other").quarantine_key)
    assert (memo["first_seen"], memo["attempts"]) == ((NOON + HOUR).isoformat(), 1)


def test_a_damaged_memo_does_not_keep_its_upload_from_being_set_aside_again(store: LocalStore):
    upload = ref("laptop-7", NOON)
    store.put(set_aside(store, upload, NOON), b"{}")
    set_aside(store, upload, NOON + HOUR)
    assert read_memo(store, upload.quarantine_key)["attempts"] == 1


def test_a_name_in_quarantine_tells_the_name_outside(store: LocalStore):
    upload = ref("team/büro pc", NOON)
    assert layout.parse_quarantine_key(upload.quarantine_key) == upload.memo_key
    assert layout.parse_quarantine_key(upload.memo_key) is None
    assert quarantined_names(store) == set()
    set_aside(store, upload, NOON)
    assert quarantined_names(store) == {upload.memo_key}


def test_a_newer_good_upload_settles_the_broken_ones_before_it_and_no_later_one(store: LocalStore):
    earlier = [ref("laptop-7", NOON - number * HOUR) for number in (1, 30, 2_000)]
    later = ref("laptop-7", NOON + HOUR)
    for upload in [*earlier, later]:
        set_aside(store, upload, NOON + 2 * HOUR)
    good = ref("laptop-7", NOON)
    assert sorted(clear(store, (good, NOON))) == sorted(upload.memo_key for upload in earlier)
    assert list(quarantined(store)) == [later.quarantine_key]
    for upload in earlier:
        memo = read_memo(store, upload.memo_key)
        assert memo["outcome"] == SUPERSEDED
        assert (memo["superseded_by"], memo["superseding_etag"]) == (good.manifest_key, good.etag)
        assert (memo["run_id"], memo["quarantined_by"]) == ("run-9", "run-1")
        assert memo["evidence"] == {"packed_offset": "415"}
        assert quarantine.find(store, upload.quarantine_key)["reason"] == "truncated", "its old name leads to it"
    assert {upload.memo_key for upload in earlier} <= memo_names(store, good.shard, "0001", "9999"), (
        "it is not tried again"
    )


def test_the_same_manifest_written_anew_settles_its_torn_predecessor(store: LocalStore):
    torn, good = ref("laptop-7", NOON, "torn"), ref("laptop-7", NOON, "good")
    set_aside(store, torn, NOON)
    assert clear(store, (good, NOON)) == [torn.memo_key]
    memo = read_memo(store, torn.memo_key)
    assert (memo["outcome"], memo["replaced_by"]) == (REPLACED, "good")


def test_no_system_settles_the_quarantine_of_another(store: LocalStore):
    neighbour = next(name for name in (f"n{n}" for n in range(9_999)) if layout.shard_of(name) == 77)
    set_aside(store, ref(neighbour, NOON - HOUR), NOON)
    assert clear(store, (ref("laptop-7", NOON), NOON)) == []
    assert len(list(quarantined(store))) == 1


def test_a_shared_system_id_settles_nothing(store: LocalStore):
    set_aside(store, ref("unknown-system", NOON - HOUR), NOON)
    assert clear(store, (ref("unknown-system", NOON), NOON)) == []
    assert len(list(quarantined(store))) == 1


@pytest.mark.parametrize(("manifest_time", "settled"), [(NOON + HOUR, 1), (NOON - HOUR, 0)])
def test_without_a_time_in_the_id_the_manifest_must_be_younger_than_what_was_seen(
    store: LocalStore, manifest_time: datetime, settled: int
):
    set_aside(store, ref("laptop-7", "by-hand"), NOON)
    assert len(clear(store, (ref("laptop-7", NOON - HOUR), manifest_time))) == settled


def test_what_was_found_broken_after_a_run_began_is_left_alone(store: LocalStore):
    """A task that runs twice may end long after another run has found the same manifest torn."""
    set_aside(store, ref("laptop-7", NOON, "torn later"), NOON + 2 * HOUR)
    assert clear(store, (ref("laptop-7", NOON, "good"), NOON), at=NOON + HOUR) == []
    assert len(clear(store, (ref("laptop-7", NOON, "good"), NOON), at=NOON + 2 * HOUR)) == 1


def test_clearing_costs_one_listing_and_reads_only_the_systems_in_question(store: CountingStore):
    neighbour = next(name for name in (f"n{n}" for n in range(9_999)) if layout.shard_of(name) == 77)
    for number in range(20):
        set_aside(store, ref(neighbour, NOON - number * HOUR), NOON)
        write_memo(store, ref("laptop-7", NOON + number * HOUR), APPLIED, {"new": 1})
    set_aside(store, ref("laptop-7", NOON - HOUR), NOON)
    store.lists = store.gets = 0
    assert len(clear(store, (ref("laptop-7", NOON), NOON))) == 1
    assert (store.lists, store.gets) == (1, 1)
    clear(store, (ref("unknown-system", NOON), NOON))
    assert store.lists == 1, "nothing is listed for what is never settled"


def test_a_damaged_memo_is_left_to_fsck_and_counted_as_such(store: LocalStore):
    store.put(set_aside(store, ref("laptop-7", NOON - HOUR), NOON), b"{}")
    set_aside(store, ref("laptop-7", NOON - 2 * HOUR), NOON)
    assert quarantine.count_by_reason(store) == {"damaged-memo": 1, "truncated": 1}
    assert len(clear(store, (ref("laptop-7", NOON), NOON))) == 1
    assert quarantine.count_by_reason(store) == {"damaged-memo": 1}


def test_entries_are_chosen_by_system_and_reason(store: LocalStore):
    kept = [
        set_aside(store, ref("laptop-7", NOON), NOON, "damaged"),
        set_aside(store, ref("laptop-7", NOON + HOUR), NOON, "truncated"),
        set_aside(store, ref("dev box 3", NOON), NOON, "damaged"),
    ]
    assert quarantine.chosen(store, []) == []
    assert quarantine.chosen(store, kept[:1]) == kept[:1]
    assert quarantine.chosen(store, [], system="laptop-7", reason="damaged") == kept[:1]
    assert set(quarantine.chosen(store, [], reason="damaged")) == {kept[0], kept[2]}
    assert quarantine.count_by_reason(store) == {"damaged": 2, "truncated": 1}
    with pytest.raises(UsageError, match="nothing in quarantine has"):
        quarantine.chosen(store, [], reason="timeout")
    with pytest.raises(UsageError, match="not both"):
        quarantine.chosen(store, kept, reason="damaged")


@pytest.mark.parametrize("key", ["", "lake.json", "uploads/../lake.json", "quarantine/077/x.json"])
def test_only_a_memo_that_is_or_was_in_quarantine_is_shown(store: LocalStore, key: str):
    store.put("lake.json", b"{}")
    applied = ref("laptop-7", NOON)
    write_memo(store, applied, APPLIED, {"new": 1})
    for wrong in (key, applied.memo_key):
        with pytest.raises(UsageError, match="not in quarantine"):
            quarantine.find(store, wrong)


def test_the_list_is_grouped_by_system_and_reason_and_says_what_to_do(store: LocalStore):
    for number in range(2):
        set_aside(store, ref("laptop-7", NOON + number * HOUR), NOON + number * HOUR)
    set_aside(store, ref("laptop-7", NOON), NOON + 5 * HOUR)
    set_aside(store, ref("dev box 3", NOON), NOON, "timeout")
    found = [{**memo, "what_to_do": quarantine.WHAT_TO_DO[memo["reason"]]} for memo in quarantine.entries(store)]
    text = "\n".join(lines.uploads(found))
    head = "laptop-7   truncated   2 uploads   first seen 2026-11-20T12:00:00   last seen 2026-11-20T17:00:00"
    assert head in text
    assert "dev box 3   timeout   1 upload " in text
    assert text.count("the gzip data end in the middle") == 2, "one sentence for each group"
    assert "do: replay when the machine is idle" in text
    assert f"    {ref('laptop-7', NOON).quarantine_key}   2x" in text
    assert text.endswith("3 uploads in quarantine")


def test_show_prints_every_piece_of_evidence(store: LocalStore):
    upload = ref("laptop-7", NOON)
    found = quarantine.find(store, set_aside(store, upload, NOON))
    text = "\n".join(lines.evidence({**found, "what_to_do": "upload again"}))
    for wanted in (upload.manifest_key, upload.etag, "415", "truncated", "do: upload again", NOON.isoformat(), "run-1"):
        assert wanted in text
