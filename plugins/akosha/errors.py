"""Errors raised by Akosha.

Callers decide on *category*, never on message text::

    AkoshaError
    |-- PermanentError              retrying cannot help: fail the task now
    |   |-- ConfigurationError      a setting is missing or wrong; the message names it
    |   |-- UsageError              a parameter of a command or form is out of range
    |   |-- InvalidUploadError      the upload breaks its contract -> quarantine, the run goes on
    |   |-- IntegrityError          bytes or digests differ from what was promised
    |   |-- FormatVersionError      written by a newer Akosha than this one
    |   `-- RecallGateError         a move would lose more recall than the floor allows
    `-- RetryableError              the same call may succeed later
        |-- ObjectMissingError      an object named by somebody else is not there
        |-- StoreUnavailableError   the object store did not answer
        |-- QueueUnavailableError   the queue of notifications did not answer
        |-- DiskFullError           no room on the local disk
        |-- WorkerLostError         a process of this job was killed from outside
        |-- CommitConflictError     another writer moved the shard head; plan again
        |   |-- ShardHeldError      the shard is held after an undo; nothing is lost, it goes on after a release
        |   `-- CommitVoidError     our number had been swept and was used again; staged files are left to the sweep
        `-- CommitUnknownError      outcome not known; delete nothing, plan nothing
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

RUNBOOK: Final = "docs/runbooks/operate.md"


def runbook_of(anchor: str) -> str:
    """Where the runbook tells what to do, for people."""
    return f"{RUNBOOK}#{anchor}"


def _rebuild(kind: type[AkoshaError], message: str, context: dict[str, Any]) -> AkoshaError:
    return kind(message, **context)


class AkoshaError(Exception):
    """Base class. `context` holds the identifiers an operator needs to find the object.

    `anchor` names the section of the runbook that tells what to do; subclasses name their own.
    """

    anchor: ClassVar[str] = "a-failed-night"

    def __init__(self, message: str, **context: object) -> None:
        super().__init__(message)
        self.message = message
        self.context = context

    @property
    def runbook(self) -> str:
        """Where the runbook tells what to do."""
        return runbook_of(self.anchor)

    @property
    def advice(self) -> str:
        """The message with its context, and where to read on: what the command line and Airflow show."""
        return f"{self}; see {self.runbook}"

    def __str__(self) -> str:
        pairs = " ".join(f"{k}={v!r}" for k, v in self.context.items())
        return f"{self.message} [{pairs}]" if pairs else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.context)


class PermanentError(AkoshaError):
    """Retrying cannot help."""


class ConfigurationError(PermanentError):
    """A setting is missing or wrong; the message names the setting to change."""

    anchor: ClassVar[str] = "a-setting-is-missing-or-wrong"


class UsageError(PermanentError):
    """A parameter of a command or form is out of range."""

    anchor: ClassVar[str] = "a-command-or-form-was-refused"


class InvalidUploadError(PermanentError):
    """The upload breaks its contract. `reason` is a stable code, the message a plain sentence."""

    anchor: ClassVar[str] = "quarantine"

    def __init__(self, message: str, *, reason: str, **context: object) -> None:
        super().__init__(message, reason=reason, **context)
        self.reason = reason


class IntegrityError(PermanentError):
    """Stored bytes or digests differ from what was promised."""

    anchor: ClassVar[str] = "damage-found-by-fsck"


class FormatVersionError(PermanentError):
    """Written by a newer Akosha than this one."""

    anchor: ClassVar[str] = "written-by-a-newer-akosha"


class RecallGateError(PermanentError):
    """A move would lose more recall than the floor allows; nothing was committed."""

    anchor: ClassVar[str] = "the-recall-gate-refused-a-move"


class RetryableError(AkoshaError):
    """The same call may succeed later."""


class ObjectMissingError(RetryableError):
    """An object named by a document is not in the store."""

    anchor: ClassVar[str] = "an-object-is-not-there"


class StoreUnavailableError(RetryableError):
    """The object store did not answer, or answered with a passing fault."""

    anchor: ClassVar[str] = "the-store-does-not-answer"


class QueueUnavailableError(RetryableError):
    """The queue of notifications did not answer, or answered with a passing fault."""

    anchor: ClassVar[str] = "events-do-not-wake-the-ingest"


class DiskFullError(RetryableError):
    """No room on the local disk."""

    anchor: ClassVar[str] = "a-disk-is-full"


class WorkerLostError(RetryableError):
    """A process of this job was killed from outside."""

    anchor: ClassVar[str] = "a-process-was-killed"


class CommitConflictError(RetryableError):
    """Another writer moved the shard head, and the change no longer fits on top."""

    anchor: ClassVar[str] = "another-writer-was-faster"


class ShardHeldError(CommitConflictError):
    """The shard is held after an undo: every other change waits until somebody lets it go."""

    anchor = "a-held-shard"


class CommitVoidError(CommitConflictError):
    """What was published does not descend from the chain any more. Delete nothing that it named: it may stand there."""


class CommitUnknownError(RetryableError):
    """The outcome of a commit is not known: delete nothing, plan nothing."""

    anchor: ClassVar[str] = "the-outcome-of-a-commit-is-unknown"
