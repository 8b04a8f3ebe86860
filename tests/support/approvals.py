"""A person at Airflow's page of required actions: answers what waits, or lets its time run out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

WAIT_SECONDS = 0.3


@dataclass
class Person:
    """Gives `option`, or nothing; keeps what was asked, as (subject, body)."""

    option: str
    asked: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def somebody_answers(option: str) -> Iterator[Person]:
    """Answer ``Approve`` or ``Reject`` to every approval within the block, or ``nothing``: then its time runs out."""
    person = Person(option)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(WAIT_SECONDS):
            _answer(person)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield person
    finally:
        over.set()
        thread.join()


def _answer(person: Person) -> None:
    """What the API does with an answer, or the scheduler when there is none in time."""
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import handle_event_submit
    from airflow.sdk import timezone
    from airflow.triggers.base import TriggerEvent
    from airflow.utils.session import create_session
    from airflow.utils.state import TaskInstanceState
    from sqlalchemy import select
    from sqlalchemy.orm import joinedload

    parked = select(TaskInstance).where(TaskInstance.state == TaskInstanceState.AWAITING_INPUT)
    with create_session() as session:
        waiting: list[Any] = list(session.scalars(parked.options(joinedload(TaskInstance.hitl_detail))))
        for instance in waiting:
            detail = instance.hitl_detail
            person.asked.append((detail.subject, detail.body))
            if person.option == "nothing":
                instance.trigger_timeout = timezone.utcnow() - timedelta(seconds=1)
                continue
            detail.chosen_options, detail.responded_at = [person.option], timezone.utcnow()
            detail.responded_by = {"id": "7", "name": "jo"}
            session.flush()
            handle_event_submit(TriggerEvent(detail.as_resume_event_payload()), task_instance=instance, session=session)
    if waiting and person.option == "nothing":
        SchedulerJobRunner.check_awaiting_input_timeouts(SimpleNamespace(log=logging.getLogger(__name__)))  # type: ignore[arg-type]
