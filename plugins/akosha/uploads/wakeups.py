"""Messages of the notification queue, gathered into one wake-up of the ingest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from akosha.uploads.notices import Notice

# An event is a row of Airflow's database: the names in it stay below half a megabyte even if each is as long as a key.
MAX_SYSTEMS: Final = 500
# All are deleted, ten at a time, while they are still invisible to others: a thousand requests take about 20 s.
MAX_MESSAGES: Final = 10_000


@dataclass(slots=True)
class WakeUp:
    """What was received since the last wake-up.

    Attributes:
        systems: those that have a new manifest.
        receipts: what the queue needs to delete the messages.
        messages: how many were received.
        other: how many were about anything but a new manifest of ours: other files, other buckets, S3's test event.
        malformed: how many could not be read.
        malformed_example: why the first of them could not.
    """

    systems: set[str] = field(default_factory=set)
    receipts: list[str] = field(default_factory=list)
    messages: int = 0
    other: int = 0
    malformed: int = 0
    malformed_example: str = ""

    def add(self, notice: Notice, receipt: str) -> None:
        """Take in one message."""
        self.messages += 1
        self.receipts.append(receipt)
        self.systems |= notice.systems
        if notice.problem:
            self.malformed += 1
            self.malformed_example = self.malformed_example or notice.problem
        elif not notice.systems:
            self.other += 1

    @property
    def full(self) -> bool:
        """Whether to hand it over now, however many messages still wait."""
        return len(self.systems) >= MAX_SYSTEMS or self.messages >= MAX_MESSAGES

    def take_receipts(self) -> list[str]:
        """The messages to delete; they are forgotten here, the counts stay."""
        taken, self.receipts = self.receipts, []
        return taken

    def payload(self) -> dict[str, Any]:
        """The event: systems in order, and the counts of everything received for it. JSON."""
        return {
            "systems": sorted(self.systems),
            "messages": self.messages,
            "other": self.other,
            "malformed": self.malformed,
            "malformed_example": self.malformed_example,
        }
