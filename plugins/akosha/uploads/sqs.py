"""The SQS queue that S3's notifications arrive in: receive, delete, ask how it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from akosha.errors import ConfigurationError, QueueUnavailableError
from akosha.lake.s3_store import CREDENTIAL_CODES

SETTING: Final = "AKOSHA_EVENTS_QUEUE_URL"
BATCH: Final = 10  # the most that SQS gives or takes in one request
# Longer than a wake-up is gathered and its messages are deleted; what a killed reader held comes back after it.
VISIBILITY_SECONDS: Final = 180
READ_TIMEOUT: Final = 40  # seconds; SQS holds a request open for up to 20
MISSING_QUEUE: Final = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "InvalidAddress"})
REFUSED: Final = CREDENTIAL_CODES | {
    "AccessDeniedException",
    "ExpiredTokenException",
    "InvalidSecurity",
    "UnrecognizedClientException",
}


@dataclass(frozen=True, slots=True)
class Message:
    """A received message. `receipt` is good for deleting it once, until the queue shows it to others again."""

    body: str
    receipt: str


class NotificationQueue:
    """A queue by its URL. Credentials, region and endpoint (``AWS_ENDPOINT_URL_SQS``) come the usual AWS ways."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = _call(url, _make_client)

    def receive(self, *, wait_seconds: int) -> list[Message]:
        """Up to ten messages; they are hidden from others for a while, and come back unless they are deleted.

        Args:
            wait_seconds: how long to wait for the first, 0-20.

        Raises:
            ConfigurationError: there is no such queue, or it refuses the credentials.
            QueueUnavailableError: it did not answer.
        """
        answer = _call(
            self.url,
            lambda: self._client.receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=BATCH,
                WaitTimeSeconds=wait_seconds,
                VisibilityTimeout=VISIBILITY_SECONDS,
            ),
        )
        return [Message(found["Body"], found["ReceiptHandle"]) for found in answer.get("Messages", ())]

    def delete(self, receipts: Sequence[str]) -> int:
        """Delete messages.

        Returns:
            How many the queue kept; they come back.

        Raises:
            ConfigurationError: there is no such queue, or it refuses the credentials.
            QueueUnavailableError: it did not answer; some may be deleted.
        """
        kept = 0
        for start in range(0, len(receipts), BATCH):
            part = receipts[start : start + BATCH]
            entries = [{"Id": str(number), "ReceiptHandle": receipt} for number, receipt in enumerate(part)]
            answer = _call(self.url, lambda: self._client.delete_message_batch(QueueUrl=self.url, Entries=entries))  # noqa: B023 - called at once
            kept += len(answer.get("Failed", ()))
        return kept

    def counts(self) -> tuple[int, int]:
        """About how many messages wait, and how many were received but not deleted.

        Raises:
            ConfigurationError: there is no such queue, or it refuses the credentials.
            QueueUnavailableError: it did not answer.
        """
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = _call(self.url, lambda: self._client.get_queue_attributes(QueueUrl=self.url, AttributeNames=names))
        waiting, held = (int(answer["Attributes"][name]) for name in names)
        return waiting, held


def _make_client() -> Any:  # noqa: ANN401 - boto3 clients are untyped
    import boto3
    from botocore.config import Config

    config = Config(connect_timeout=5, read_timeout=READ_TIMEOUT, retries={"mode": "standard", "total_max_attempts": 2})
    # Not the default session: it would keep the credentials that it found first.
    return boto3.session.Session().client("sqs", config=config)


def _call(url: str, request: Callable[[], Any]) -> Any:  # noqa: ANN401 - boto3 answers are untyped
    try:
        return request()
    except Exception as error:
        raise _translate(error, url) from error


def _translate(error: Exception, url: str) -> Exception:
    """The `AkoshaError` that says what an operator can do about a botocore error."""
    from botocore import exceptions as botocore

    if isinstance(error, botocore.ClientError):
        return _translate_answer(str(error.response.get("Error", {}).get("Code", "")), url)
    if isinstance(error, (botocore.NoCredentialsError, botocore.PartialCredentialsError)):
        message = f"no credentials for the queue {url}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        return ConfigurationError(message, setting="AWS_ACCESS_KEY_ID")
    if isinstance(error, (botocore.NoRegionError, botocore.InvalidRegionError)):
        message = f"no region for the queue {url}: set AWS_DEFAULT_REGION to the one the queue is in"
        return ConfigurationError(message, setting="AWS_DEFAULT_REGION")
    if isinstance(error, (botocore.BotoCoreError, OSError)):
        message = f"the queue {url} did not answer: check {SETTING}, AWS_ENDPOINT_URL_SQS and that it is up"
        return QueueUnavailableError(message, setting=SETTING, cause=str(error)[:200])
    if isinstance(error, ValueError):
        message = f"AWS_ENDPOINT_URL_SQS must be a URL such as http://127.0.0.1:9324: {error}"
        return ConfigurationError(message, setting="AWS_ENDPOINT_URL_SQS")
    return error


def _translate_answer(code: str, url: str) -> Exception:
    if code in MISSING_QUEUE:
        message = f"there is no queue {url}: create it, or change {SETTING}, AWS_DEFAULT_REGION or AWS_ENDPOINT_URL_SQS"
        return ConfigurationError(message, setting=SETTING)
    if code in REFUSED:
        message = (
            f"the queue {url} refuses these credentials ({code}): grant sqs:ReceiveMessage, sqs:DeleteMessage and "
            "sqs:GetQueueAttributes, or check AWS_ACCESS_KEY_ID"
        )
        return ConfigurationError(message, setting="AWS_ACCESS_KEY_ID")
    message = f"the queue {url} answered {code}: try again; if it stays, check {SETTING}"
    return QueueUnavailableError(message, setting=SETTING)
