"""The event lane: notifications of new uploads wake `akosha_ingest` between its scheduled runs. Off unless a queue is set.

An event is a hint: it names systems to look at first. A run that it starts does all that a scheduled run does, and the
listing decides what is due, so a wake-up that is lost, doubled or invented changes nothing but the time of a run.

Airflow executes this file in every one of its processes, tasks included: keep it free of heavy imports.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetOrTimeSchedule, AssetWatcher
from airflow.triggers.base import BaseEventTrigger, TriggerEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow.sdk import Context
    from airflow.sdk.bases.timetable import BaseTimetable

    from akosha.uploads.sqs import NotificationQueue
    from akosha.uploads.wakeups import WakeUp

log = logging.getLogger(__name__)

UPLOADS = "akosha://uploads"
# Seconds that one request waits for a message. Stopping a triggerer waits for it: half of what SQS allows.
POLL_SECONDS = 10
# A burst is over when nothing came for so long.
QUIET_SECONDS = 5
# Wake-ups are at least so far apart, and nothing is gathered for longer. Shorter than a message stays hidden.
SPACING_SECONDS = 60
# The first and the longest wait for a queue that does not answer.
BACK_OFF_SECONDS = (5, 300)


def or_when_uploads_arrive(timetable: BaseTimetable) -> BaseTimetable | AssetOrTimeSchedule:
    """`timetable`, and if a queue is set also whenever a notification arrives in it.

    Reads ``AKOSHA_EVENTS_QUEUE_URL`` and ``AKOSHA_UPLOADS_URL`` from the environment of the process that parses DAGs.
    """
    queue_url = os.environ.get("AKOSHA_EVENTS_QUEUE_URL", "")
    if not queue_url:
        return timetable
    trigger = UploadsQueueTrigger(queue_url, os.environ.get("AKOSHA_UPLOADS_URL", ""))
    uploads = Asset(UPLOADS, watchers=[AssetWatcher(name="akosha uploads queue", trigger=trigger)])
    return AssetOrTimeSchedule(timetable=timetable, assets=[uploads])


def woken_systems(context: Context) -> list[str]:
    """The systems whose uploads started this run, in order; empty for a run that no notification started.

    Several events may stand behind one run: whatever arrives while a run is active is kept for the next.
    """
    names: set[str] = set()
    for asset, events in (context.get("triggering_asset_events") or {}).items():
        if getattr(asset, "name", "") == UPLOADS:
            for event in events:
                names |= _named(event.extra)
    return sorted(names)


def _named(extra: object) -> set[str]:
    """Systems in one event. Anybody who may create asset events may have written it, hence the doubt."""
    payload = extra.get("payload") if isinstance(extra, dict) else None
    systems = payload.get("systems") if isinstance(payload, dict) else None
    return {name for name in systems if isinstance(name, str) and name} if isinstance(systems, list) else set()


def _empty() -> WakeUp:
    """Nothing received yet. In a thread, because the library's import would hold up other triggers."""
    from akosha.uploads.wakeups import WakeUp

    return WakeUp()


class UploadsQueueTrigger(BaseEventTrigger):
    """Receives notifications from an SQS queue and fires once per burst, with the systems that have new manifests.

    A message is deleted after its event was handed over, so it is received again if this process dies before. Messages
    that name nobody are deleted as well, malformed ones too: they hold nothing that the listing does not know, and in a
    queue without a dead-letter policy, the default, they would come back for days. The next event counts them.
    """

    def __init__(
        self,
        queue_url: str,
        uploads_url: str,
        *,
        quiet_seconds: int = QUIET_SECONDS,
        spacing_seconds: float = SPACING_SECONDS,
        back_off_seconds: tuple[float, float] = BACK_OFF_SECONDS,
    ) -> None:
        super().__init__()
        self.queue_url = queue_url
        self.uploads_url = uploads_url
        self.quiet_seconds = quiet_seconds
        self.spacing_seconds = spacing_seconds
        self.back_off_seconds = back_off_seconds
        self._queue: NotificationQueue | None = None
        self._failures = 0

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What Airflow keeps of it. The two URLs are its identity: another queue is another trigger."""
        return (
            "akosha_events.UploadsQueueTrigger",
            {"queue_url": self.queue_url, "uploads_url": self.uploads_url},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire for ever. Never raises but to be cancelled: Airflow would start it again at once, each second."""
        last = -self.spacing_seconds
        while True:
            wake_up = await asyncio.to_thread(_empty)
            await self._gather(wake_up, last)
            yield TriggerEvent(wake_up.payload())
            # Resumed, so Airflow has taken the event.
            last = time.monotonic()
            await self._delete(wake_up)

    async def _gather(self, wake_up: WakeUp, last: float) -> None:
        """Fill `wake_up` until a burst is over, but not before the spacing after `last` is kept."""
        latest = float("inf")
        while not wake_up.full:
            received = await self._receive(wake_up)
            now = time.monotonic()
            if not wake_up.systems:
                await self._delete(wake_up)
                continue
            latest = min(latest, max(now, last) + self.spacing_seconds)
            if now >= latest or (not received and now >= last + self.spacing_seconds):
                return

    async def _receive(self, wake_up: WakeUp) -> int:
        """Take in what the queue has, waiting a little; how many messages that were. After a failure, wait longer."""
        seconds = self.quiet_seconds if wake_up.systems else POLL_SECONDS
        try:
            received = await asyncio.to_thread(self._receive_now, wake_up, seconds)
        except Exception as error:  # whatever it is, this lane must not end: the next request may succeed
            await self._back_off(error)
            return 0
        if self._failures:
            log.info("the uploads queue answers again after %d failures queue=%s", self._failures, self.queue_url)
            self._failures = 0
        return received

    def _receive_now(self, wake_up: WakeUp, seconds: int) -> int:
        """One request, in a thread: neither boto3 nor the library's import may hold up other triggers."""
        from akosha.uploads.notices import Watched, read_notice
        from akosha.uploads.sqs import NotificationQueue

        self._queue = self._queue or NotificationQueue(self.queue_url)
        watched = Watched.of(self.uploads_url)
        messages = self._queue.receive(wait_seconds=seconds)
        for message in messages:
            wake_up.add(read_notice(message.body, watched), message.receipt)
        return len(messages)

    async def _delete(self, wake_up: WakeUp) -> None:
        """Delete what was handed over or names nobody. What the queue keeps comes back and wakes once more: harmless."""
        receipts = wake_up.take_receipts()
        if not receipts or self._queue is None:
            return
        try:
            kept = await asyncio.to_thread(self._queue.delete, receipts)
        except Exception as error:  # as above
            await self._back_off(error)
            return
        if kept:
            log.warning("the uploads queue kept %d of %d messages queue=%s", kept, len(receipts), self.queue_url)

    async def _back_off(self, error: Exception) -> None:
        """Wait longer from failure to failure; say so once. A new client finds rotated credentials."""
        self._failures += 1
        self._queue = None
        first, longest = self.back_off_seconds
        if self._failures == 1:
            log.warning(
                "the uploads queue fails; the ingest runs by its timetable, this is tried again for ever: %s",
                error,
            )
        await asyncio.sleep(min(longest, first * 2 ** min(self._failures - 1, 16)))
