"""The figures of a real ingest run, as its summary shows them. Cites I7."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.integration.test_bad_uploads import texts
from tests.support.installation import Installation
from tests.support.uploads import database, memory, put_upload

from akosha import jobs
from akosha.errors import IntegrityError
from akosha.lake.documents import unseal
from akosha.lake.lake import Lake

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    made = Installation.local(tmp_path)
    Lake.create(made.settings, now=NOW)
    return made


def test_a_run_that_took_something_in_is_judged_and_one_that_did_not_is_not(
    installation: Installation, caplog: pytest.LogCaptureFixture
):
    blank = [memory(f"blank-{number}", " ", NOW) for number in range(60)]
    for system_id, rows in (("laptop-7", texts("laptop-7", 60) + blank), ("dev box 3", texts("dev box 3"))):
        put_upload(installation.uploads, system_id, NOW, database({"conversations_v2": rows}))
    with caplog.at_level(logging.INFO, logger="akosha.quality.ingest_figures"):
        summary = installation.ingest()
    assert summary["ok"]
    assert (summary["counts"]["rows_read"], summary["counts"]["refused_rows"]) == (123, 60)
    assert summary["figures"]["judged"]
    assert "warning: 48.8% of the rows read were refused (shard 077, expected at most 1.0%)" in summary["message"]
    assert "48.8% of the rows read were refused" in caplog.text
    assert {"uploads_unplanned", "uploads_unaccounted", "rows_unaccounted"}.isdisjoint(
        summary["figures"]["not_checked"]
    )

    put_upload(installation.uploads, "laptop-7", NOW + timedelta(hours=1), None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "great_expectations", None)  # importing it raises
        summary = installation.ingest()
    assert (summary["figures"]["judged"], summary["counts"]["quarantined"]) == (False, 1)


def test_figures_that_do_not_add_up_turn_the_run_red_after_its_summary_is_written(installation: Installation):
    put_upload(installation.uploads, "laptop-7", NOW, database({"conversations_v2": texts("laptop-7")}))
    with installation.applied():
        plan = jobs.plan_ingest("run-1", listing="full")
        result = jobs.run_batch(plan["plan_key"], 0)
        result["shards"][0]["accepted_rows"] -= 1
        with pytest.raises(IntegrityError, match=r"NOT CONSERVED: \+1 rows read and neither accepted nor refused"):
            jobs.finish(plan["plan_key"], [result])
    key = "runs/run-1/summary-ingest.json"
    summary = unseal(installation.lake.store.get(key), kind="summary", key=key)
    assert summary["ok"] is False
    assert summary["counts"]["new"] == 3
