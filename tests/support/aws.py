"""SQS, SNS and an S3 with notifications: moto, as a server of its own on loopback."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import boto3
import pytest

from tests.support.processes import Running
from tests.support.waiting import wait_until
from tussis.worker.embedded.s3 import REGION

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": REGION}


@dataclass(frozen=True)
class Aws:
    """The server of the session. Names are different in each test."""

    url: str

    def client(self, service: str) -> Any:
        """A boto3 client."""
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    @cached_property
    def sqs(self) -> Any:
        """A client of SQS."""
        return self.client("sqs")

    def queue(self, **attributes: str) -> SqsTrial:
        """A new SQS queue."""
        name = f"q-{uuid.uuid4().hex}"
        url = self.sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        return SqsTrial(self.sqs, url)


@dataclass(frozen=True)
class SqsTrial:
    """An SQS queue of a test."""

    sqs: Any
    url: str

    @property
    def arn(self) -> str:
        return str(self._attributes()["QueueArn"])

    def send(self, *bodies: str) -> None:
        """Send messages."""
        for body in bodies:
            self.sqs.send_message(QueueUrl=self.url, MessageBody=body)

    def counts(self) -> tuple[int, int]:
        """The number of messages that wait, and that are hidden."""
        found = self._attributes()
        return int(found["ApproximateNumberOfMessages"]), int(found["ApproximateNumberOfMessagesNotVisible"])

    def wait_empty(self, timeout_s: float = 30) -> None:
        """Wait until every message is deleted."""
        wait_until(lambda: self.counts() == (0, 0), timeout_s, "the SQS queue to be empty")

    def _attributes(self) -> dict[str, str]:
        answer = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["All"])
        attributes: dict[str, str] = answer["Attributes"]
        return attributes


def redrive_to(dead: SqsTrial, deliveries: int) -> str:
    """The attribute RedrivePolicy."""
    return json.dumps({"deadLetterTargetArn": dead.arn, "maxReceiveCount": deliveries})


@pytest.fixture(scope="session")
def aws() -> Iterator[Aws]:
    """The server."""
    # -W: moto's own imports warn.
    words = ["-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    server = Running([sys.executable, *words], KEYS)
    try:
        line = server.wait_for_line("Running on http://127.0.0.1:", 90)
        yield Aws(line.rpartition(" ")[2].strip())
    finally:
        server.end()
