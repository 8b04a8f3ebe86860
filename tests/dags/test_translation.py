"""What the library says becomes what Airflow does."""

from __future__ import annotations

import logging
import os
import signal
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowFailException

import akosha_airflow
from akosha import errors

DUE = datetime(2026, 11, 20, 2, 31, tzinfo=UTC)


def context(run_id="scheduled__2026-11-20T02:30:00+00:00", attempt=1, interval_end=None, **params):
    return {
        "params": params,
        "data_interval_end": interval_end,
        "dag_run": SimpleNamespace(dag_id="akosha_ingest", run_id=run_id, run_after=DUE),
        "task_instance": SimpleNamespace(try_number=attempt, task_id="plan", map_index=-1),
    }


@pytest.mark.parametrize(
    "error",
    [
        errors.ConfigurationError("AKOSHA_LAKE_URL is not set", setting="AKOSHA_LAKE_URL"),
        errors.IntegrityError("digests differ", key="warm/x.duckdb"),
        errors.RecallGateError("recall 0.91 is below 0.95"),
        errors.UsageError("shard must lie in 0-255"),
    ],
)
def test_what_a_retry_cannot_mend_fails_the_task_now_with_the_librarys_sentence(error):
    with pytest.raises(AirflowFailException) as raised, akosha_airflow.library_errors():
        raise error
    assert str(raised.value) == error.advice
    assert raised.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [errors.StoreUnavailableError("no answer"), errors.CommitConflictError("head moved"), errors.DiskFullError("full")],
)
def test_what_may_pass_is_left_to_airflows_retries(error):
    with pytest.raises(errors.RetryableError) as raised, akosha_airflow.library_errors():
        raise error
    assert raised.value is error


def work_on_after_sigterm():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
    pytest.fail("the work went on")


def test_sigterm_ends_a_task_with_an_error_that_is_retried():
    """Airflow's own handler lets the work go on until it is killed."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(errors.StoppedError), akosha_airflow.library_errors():
        work_on_after_sigterm()
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_error_nobody_foresaw_is_retried_as_well():
    with pytest.raises(ZeroDivisionError), akosha_airflow.library_errors():
        raise ZeroDivisionError


def test_the_form_decides_the_instant_before_the_interval_and_the_interval_before_the_due_time():
    end = datetime(2026, 11, 20, 2, 30, tzinfo=UTC)
    chosen = "2026-11-01T00:00:00+00:00"
    assert akosha_airflow.as_of(context(interval_end=end, as_of=chosen)) == chosen
    assert akosha_airflow.as_of(context(interval_end=end, as_of=None)) == end.isoformat()
    assert akosha_airflow.as_of(context(as_of=None)) == DUE.isoformat()


def test_only_a_run_of_airflows_own_back_fill_is_limited_to_its_interval():
    begin, end = datetime(2026, 11, 20, 2, 15, tzinfo=UTC), datetime(2026, 11, 20, 2, 30, tzinfo=UTC)
    for run_type, expected in (
        ("backfill", (begin.isoformat(), end.isoformat())),
        ("scheduled", None),
        ("manual", None),
    ):
        made = context(interval_end=end) | {"data_interval_start": begin}
        made["dag_run"].run_type = run_type
        assert akosha_airflow.backfill_interval(made) == expected
    made["dag_run"].run_type = "backfill"
    assert akosha_airflow.backfill_interval(made | {"data_interval_start": None}) is None


def test_run_names_are_path_segments_and_differ_wherever_runs_or_attempts_differ():
    names = [
        akosha_airflow.lake_run_id(context()),
        akosha_airflow.lake_run_id(context(attempt=2)),
        akosha_airflow.lake_run_id(context(run_id="scheduled__2026-11-20T02-30-00-00-00")),
        akosha_airflow.lake_run_id(context(run_id="manual/../é" + "x" * 200)),
    ]
    assert len(set(names)) == len(names)
    assert akosha_airflow.lake_run_id(context()) == names[0]
    for name in names:
        assert name.startswith("akosha_ingest.")
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
        assert len(name) < 128


def test_a_failure_is_one_line_that_names_dag_run_task_and_error(caplog):
    failed = context() | {"exception": errors.IntegrityError("digests differ\nsecond line")}
    with caplog.at_level(logging.ERROR):
        akosha_airflow.FailureNotice().notify(failed)
    [line] = [record.getMessage() for record in caplog.records]
    assert "\n" not in line
    for part in ("dag=akosha_ingest", "task=plan", "run=scheduled__2026", "digests differ"):
        assert part in line


def test_a_run_that_failed_as_a_whole_is_reported_without_a_task(caplog):
    failed = {"dag_run": context()["dag_run"], "reason": "timed_out"}
    with caplog.at_level(logging.ERROR):
        akosha_airflow.FailureNotice().notify(failed)
    assert "error=timed_out" in caplog.text
