"""One SQS queue: receive, delete and keep messages, with the errors of Tussis."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from tussis.shared.errors import SettingsInvalid, SqsRefused, SqsUnavailable
from tussis.shared.redaction import is_plain
from tussis.shared.s3 import s3_tls_reason
from tussis.shared.s3_refusals import CHECK_CREDENTIALS, line

#: The most messages that SQS hands out, deletes or changes in one request.
MOST_MESSAGES: Final = 10
#: Seconds that SQS waits for a message. SIGTERM waits as long.
WAIT_S: Final = 5
_CONNECT_TIMEOUT_S: Final = 3.0
_READ_TIMEOUT_S: Final = 10.0
_TRIES: Final = 2
#: The region in the host names of Amazon: sqs.REGION.amazonaws.com (also behind the name of a VPC endpoint), and
#: REGION.queue.amazonaws.com.
_REGION: Final = re.compile(r"(?:^|\.)sqs(?:-fips)?\.([a-z]+-[a-z0-9-]+)\.|^([a-z]+-[a-z0-9-]+)\.queue\.")
_DEFAULT_REGION: Final = "us-east-1"
#: Error codes of conditions that end without the operator. Otherwise an answer below 500 is a refusal.
_PASSING: Final = frozenset(
    {"RequestThrottled", "Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded"}
    | {"OverLimit", "InternalError", "InternalFailure", "ServiceUnavailable", "RequestTimeout", "KmsThrottled"}
)


@dataclass(frozen=True)
class SqsMessage:
    """A message that SQS handed out. ``receipt`` names this delivery of it."""

    id: str
    receipt: str
    body: str


class SqsQueue:
    """An SQS queue, or one of a server with the same API. The host of its URL is the endpoint.

    ``visibility_s``: how long a received message is hidden from other receivers. boto3 finds the credentials. Every
    method raises :class:`SqsUnavailable` and :class:`SqsRefused`. Raises :class:`SettingsInvalid` for a wrong URL.
    """

    def __init__(self, url: str, visibility_s: int) -> None:
        import boto3
        from botocore.config import Config

        parts = urlsplit(url if is_plain(url) else "")
        if not is_plain(url) or not parts.hostname or not parts.path.strip("/"):
            raise SettingsInvalid(
                "TUSSIS_SQS_QUEUE_URL is not the URL of an SQS queue: write https://sqs.REGION.amazonaws.com/N/NAME, "
                "without user, password and options"
            )
        self.url = url
        self.visibility_s = visibility_s
        config = Config(
            connect_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=WAIT_S + _READ_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": _TRIES},
            tcp_keepalive=True,
        )
        found = _REGION.search(parts.hostname)
        with sqs_errors(url):
            session = boto3.session.Session()
            region = (found and (found[1] or found[2])) or session.region_name or _DEFAULT_REGION
            endpoint = f"{parts.scheme}://{parts.netloc}"
            self._client: Any = session.client("sqs", endpoint_url=endpoint, region_name=region, config=config)

    def receive(self) -> list[SqsMessage]:
        """Wait some seconds for messages. Returns an empty list if none came."""
        with sqs_errors(self.url):
            answer = self._client.receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=MOST_MESSAGES,
                WaitTimeSeconds=WAIT_S,
                VisibilityTimeout=self.visibility_s,
            )
        return [
            SqsMessage(found["MessageId"], found["ReceiptHandle"], found["Body"])
            for found in answer.get("Messages", [])
        ]

    def delete(self, messages: Sequence[SqsMessage]) -> list[SqsMessage]:
        """Delete at most ten messages. Returns those that SQS could not delete now.

        A message that it refuses to delete is not among them: it was delivered again meanwhile.
        """
        with sqs_errors(self.url):
            answer = self._client.delete_message_batch(QueueUrl=self.url, Entries=_entries(messages))
        failed = {entry["Id"] for entry in answer.get("Failed", []) if not entry.get("SenderFault")}
        return [message for number, message in enumerate(messages) if str(number) in failed]

    def hide(self, messages: Sequence[SqsMessage], seconds: int) -> None:
        """Hide at most ten messages from other receivers, for so many seconds from now. 0 gives them back."""
        entries = [{**entry, "VisibilityTimeout": seconds} for entry in _entries(messages)]
        with sqs_errors(self.url):
            self._client.change_message_visibility_batch(QueueUrl=self.url, Entries=entries)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _entries(messages: Sequence[SqsMessage]) -> list[dict[str, Any]]:
    return [{"Id": str(number), "ReceiptHandle": message.receipt} for number, message in enumerate(messages)]


@contextmanager
def sqs_errors(url: str) -> Iterator[None]:
    """Convert botocore's errors to :class:`SqsUnavailable` and :class:`SqsRefused`, with the URL in the message."""
    from botocore import exceptions as botocore
    from botocore.parsers import ResponseParserError

    try:
        yield
    except botocore.ClientError as error:
        answer = error.response.get("Error", {})
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        code = str(answer.get("Code", ""))
        detail = f"{error.operation_name}: {line(answer.get('Message') or code or status)}"
        if status >= 500 or status == 429 or code.rpartition(".")[2] in _PASSING:
            raise SqsUnavailable(f"SQS does not serve {url} at the moment ({detail})") from error
        if "NonExistentQueue" in code or "QueueDoesNotExist" in code:
            raise SqsRefused(f"the SQS queue {url} does not exist ({detail}): check the URL") from error
        raise SqsRefused(
            f"SQS refuses a request for {url} ({detail}): allow sqs:ReceiveMessage, sqs:DeleteMessage and "
            f"sqs:ChangeMessageVisibility, and kms:Decrypt if the SQS queue is encrypted; {CHECK_CREDENTIALS}"
        ) from error
    except (
        botocore.NoCredentialsError,
        botocore.PartialCredentialsError,
        botocore.TokenRetrievalError,
        botocore.SSOError,
    ) as error:
        raise SqsRefused(f"no credentials for {url} ({line(error)}): {CHECK_CREDENTIALS}") from error
    except botocore.SSLError as error:
        # Only the operator can fix a wrong certificate, CA or port. A connection that was cut may work later.
        kind = SqsUnavailable if "EOF occurred" in str(error) else SqsRefused
        raise kind(f"no TLS connection to SQS for {url} ({line(error)}): {s3_tls_reason(error)}") from error
    except (botocore.ParamValidationError, botocore.InvalidRegionError, ValueError) as error:
        raise SqsRefused(f"{url} cannot be used ({line(error)}): check the URL of the SQS queue") from error
    except (botocore.BotoCoreError, ResponseParserError) as error:
        raise SqsUnavailable(f"SQS does not answer for {url} ({line(error)})") from error
