"""Texts are read only of the rows that are new, and must be the ones whose keys were read. Cites I5, I21."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.installation import Installation
from tests.support.uploads import database, put_upload

from akosha.errors import InvalidUploadError
from akosha.lake.lake import Lake
from akosha.lake.layout import shard_of
from akosha.lake.shard_log import Writer
from akosha.uploads import prepare
from akosha.uploads.ingest import Ingester, IngestOutcome
from akosha.uploads.memos import UploadRef
from akosha.uploads.prepare import PreparedUpload, Source, fetch, read_keys
from akosha.uploads.sandbox import INLINE_ROWS, Ranges, Sandbox
from akosha.uploads.sources import RowFaults, text_batches
from akosha.uploads.texts import MAX_RANGES, NEAR_ROWS, ranges_of, wanted_rows

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
TABLE = "conversations_v2"
LARGE = INLINE_ROWS + 2_000
ROWS = "SELECT 'r' || i AS id, {text} AS content, TIMESTAMP '2026-11-20 10:00:00' + i * INTERVAL 1 SECOND AS timestamp FROM range({count}) r(i)"


class Watched(Sandbox):
    """Remembers which ranges it was asked for."""

    def __init__(self) -> None:
        super().__init__(timeout_seconds=60)
        self.asked: list[Ranges] = []

    def read_rows(self, database: Path, out_dir: Path, ranges: Ranges) -> dict[str, Path]:
        self.asked.append(ranges)
        return super().read_rows(database, out_dir, ranges)


@pytest.fixture
def sandbox() -> Iterator[Watched]:
    with Watched() as prepared:
        yield prepared


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    made = Installation.local(tmp_path)
    Lake.create(made.settings, now=NOW)
    return made


def snapshot(count: int, text: str = "'note ' || i") -> bytes:
    return database({TABLE: ROWS.format(text=text, count=count)})


def upload(installation: Installation, data: bytes, moment: datetime = NOW, system_id: str = "laptop-7") -> UploadRef:
    key = put_upload(installation.uploads, system_id, moment, data)
    found = installation.uploads.stat(key)
    assert found is not None
    return UploadRef(key, found.etag, system_id, key.split("/")[3])


def ingest(installation: Installation, sandbox: Sandbox, ref: UploadRef) -> IngestOutcome:
    ingester = Ingester(installation.lake, Source(installation.uploads), sandbox, Writer("run-1", 1, NOW))
    return ingester.ingest_shard(shard_of("laptop-7"), [ref])


# ---- what is read


def test_a_large_upload_of_which_a_few_rows_are_new_reads_only_those(installation: Installation, sandbox: Watched):
    assert ingest(installation, sandbox, upload(installation, snapshot(LARGE))).new == LARGE
    assert sandbox.asked == [{TABLE: [(0, LARGE - 1)]}]
    outcome = ingest(installation, sandbox, upload(installation, snapshot(LARGE + 3), NOW + timedelta(hours=1)))
    assert (outcome.new, outcome.unchanged_rows, outcome.rows_read) == (3, LARGE, LARGE + 3)
    assert sandbox.asked[1:] == [{TABLE: [(LARGE, LARGE + 2)]}]
    texts = {row["record_id"]: row["content"] for row in installation.export().to_pylist()}
    assert texts == {f"r{number}": f"note {number}" for number in range(LARGE + 3)}


def test_a_large_upload_of_which_nothing_is_new_reads_no_text(installation: Installation, sandbox: Watched):
    ingest(installation, sandbox, upload(installation, snapshot(LARGE)))
    counted = database(
        {TABLE: ROWS.format(text="'note ' || i", count=LARGE).replace(" FROM", ", 5 AS access_count FROM")}
    )
    outcome = ingest(installation, sandbox, upload(installation, counted, NOW + timedelta(hours=1)))
    assert (outcome.applied, outcome.unchanged_rows, len(sandbox.asked)) == (1, LARGE, 1)


def test_a_small_upload_is_read_at_once(installation: Installation, sandbox: Watched):
    assert ingest(installation, sandbox, upload(installation, snapshot(INLINE_ROWS))).new == INLINE_ROWS
    assert sandbox.asked == []


def test_changed_rows_far_apart_are_read_in_ranges_of_their_own(installation: Installation, sandbox: Watched):
    count = 2 * NEAR_ROWS
    ingest(installation, sandbox, upload(installation, snapshot(count)))
    changed = f"CASE WHEN i IN (5, 9, {count - 2}) THEN 'changed ' || i ELSE 'note ' || i END"
    outcome = ingest(installation, sandbox, upload(installation, snapshot(count, changed), NOW + timedelta(hours=1)))
    assert outcome.changed == 3
    assert sandbox.asked[1:] == [{TABLE: [(5, 9), (count - 2, count - 2)]}]
    texts = {row["content"] for row in installation.export().to_pylist() if row["content"].startswith("changed")}
    assert texts == {"changed 5", "changed 9", f"changed {count - 2}"}


def test_a_repeated_snapshot_gives_the_same_whether_known_texts_are_looked_up_or_digested(
    installation: Installation, sandbox: Watched, monkeypatch: pytest.MonkeyPatch
):
    ingest(installation, sandbox, upload(installation, snapshot(LARGE)))
    before = installation.export()
    monkeypatch.setattr(prepare, "KNOWN_FROM_BYTES", 0)
    changed = "CASE WHEN i IN (5, 9) THEN 'changed ' || i WHEN i = 7 THEN 'note 8' ELSE 'note ' || i END"
    outcome = ingest(installation, sandbox, upload(installation, snapshot(LARGE, changed), NOW + timedelta(hours=1)))
    assert (outcome.changed, outcome.unchanged_rows) == (3, LARGE - 3)
    back = ingest(installation, sandbox, upload(installation, snapshot(LARGE), NOW + timedelta(hours=2)))
    assert back.changed == 3
    columns = ["record_id", "content", "content_sha256", "created_at"]
    assert installation.export().select(columns).equals(before.select(columns))


def test_of_a_key_given_twice_in_a_large_upload_the_row_written_last_is_read(
    installation: Installation, sandbox: Watched
):
    doubled = ROWS.format(text="'note ' || i", count=LARGE).replace("'r' || i AS", "'r' || (i % 5000) AS")
    outcome = ingest(installation, sandbox, upload(installation, database({TABLE: doubled})))
    assert (outcome.new, outcome.refused_rows) == (5_000, LARGE - 5_000)
    texts = {row["record_id"]: row["content"] for row in installation.export().to_pylist()}
    assert (texts["r0"], texts["r4999"]) == ("note 5000", "note 4999")


def test_ranges_are_read_as_asked(installation: Installation, sandbox: Watched, tmp_path: Path):
    (tmp_path / "made.duckdb").write_bytes(snapshot(LARGE))
    asked = {TABLE: [(0, 1), (2_047, 2_049), (LARGE - 1, LARGE - 1)]}
    found = sandbox.read_rows(tmp_path / "made.duckdb", tmp_path / "out", asked)
    batches = list(text_batches(TABLE, found[TABLE]))
    numbers = [number for batch in batches for number in batch.column("source_row").to_pylist()]
    assert numbers == [0, 1, 2_047, 2_048, 2_049, LARGE - 1]
    assert [text for batch in batches for text in batch.column("content").to_pylist()] == [f"note {n}" for n in numbers]


# ---- rows that are not what their keys promised


@pytest.fixture
def prepared(installation: Installation, sandbox: Watched, tmp_path: Path) -> PreparedUpload:
    folder = tmp_path / "fetched"
    folder.mkdir()
    ref = upload(installation, snapshot(LARGE))
    return read_keys(fetch(Source(installation.uploads), ref, folder, max_bytes=1 << 30), sandbox)


def all_rows(prepared: PreparedUpload) -> pa.Table:
    return prepared.arrived.select(["position", "source_table", "record_id"])


def test_rows_that_are_what_their_keys_promised_come_in_order(prepared: PreparedUpload, sandbox: Watched):
    found = list(wanted_rows(prepared, all_rows(prepared), sandbox, RowFaults()))
    texts = [text for rows in found for text in rows.texts.column("content").to_pylist()]
    assert texts == [f"note {number}" for number in range(LARGE)]
    assert [name for rows in found for name in rows.wanted.column("record_id").to_pylist()] == [
        f"r{number}" for number in range(LARGE)
    ]


@pytest.mark.parametrize(
    "other",
    [
        ROWS.format(text="if(i = 6000, 'other', 'note ' || i)", count=LARGE),
        ROWS.format(text="if(i = 6000, NULL, 'note ' || i)", count=LARGE),
        ROWS.format(text="'note ' || i", count=LARGE - 1),
        ROWS.format(text="'note ' || (i + 1)", count=LARGE),
        ROWS.format(text="'note ' || i", count=0),
    ],
    ids=["another text", "no text", "fewer rows", "rows moved", "no rows"],
)
def test_a_file_that_gives_other_rows_the_second_time_is_damaged(
    other: str, prepared: PreparedUpload, sandbox: Watched, tmp_path: Path
):
    """I5: nothing of such an upload is taken."""
    database_path = prepared.fetched.records
    assert database_path is not None
    (tmp_path / "other.duckdb").write_bytes(database({TABLE: other}))
    shutil.move(tmp_path / "other.duckdb", database_path)
    with pytest.raises(InvalidUploadError, match="upload again") as caught:
        list(wanted_rows(prepared, all_rows(prepared), sandbox, RowFaults()))
    assert caught.value.reason == "damaged"


# ---- ranges


ASCENDING = st.lists(st.integers(1, 3 * NEAR_ROWS), min_size=1, max_size=80).map(np.cumsum)


@given(ASCENDING)
def test_ranges_hold_every_wanted_row_and_few_others(rows: np.ndarray):
    ranges = ranges_of(rows)
    wanted = rows.tolist()
    assert 1 <= len(ranges) <= MAX_RANGES
    assert all(any(first <= row <= last for first, last in ranges) for row in wanted)
    assert {end for pair in ranges for end in pair} <= set(wanted), "no range reaches beyond what is wanted"
    gaps = [later[0] - earlier[1] for earlier, later in pairwise(ranges)]
    assert all(gap > NEAR_ROWS for gap in gaps)
    bridged = [gap for gap in np.diff(rows).tolist() if gap > NEAR_ROWS]
    if len(ranges) < MAX_RANGES:
        assert len(bridged) == len(gaps), "every wide gap is left out"
    else:
        assert sorted(gaps) == sorted(bridged)[len(bridged) - len(gaps) :], "the widest gaps are left out"
