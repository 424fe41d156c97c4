"""Uploads that S3 reports are enqueued once, when the listener or the broker is killed."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import Any

import pytest

from tests.support.aws import Aws, SqsTrial
from tests.support.deployment import Deployment
from tests.support.processes import Running
from tests.support.s3_events import record, records
from tests.support.sounds import wav
from tests.support.sqs_proxy import SqsProxy
from tests.support.waiting import wait_until
from tussis.shared.messages import Job, job_id_for

#: Seconds for which SQS hides a message: the shortest that the command takes.
VISIBILITY = ("--visibility", "10")


def upload(deployment: Deployment, *keys: str) -> list[str]:
    """Upload recordings. Returns the bodies that S3 sends about them."""
    bodies = []
    for number, key in enumerate(keys):
        deployment.bucket.put(key, wav(1.0 + number / 100))
        head = deployment.bucket.client.head_object(Bucket=deployment.bucket.name, Key=key)
        etag = head["ETag"].strip('"')
        bodies.append(records(record(deployment.bucket.name, key, eTag=etag, size=head["ContentLength"])))
        job_id = job_id_for(deployment.bucket.name, key, version_id=None, etag=etag, model=None, profile=None)
        deployment.jobs[job_id] = Job(
            job_id=job_id, bucket=deployment.bucket.name, key=key, etag=etag, enqueued_at=time.time()
        )
    return bodies


def listen(deployment: Deployment, queue: SqsTrial, *options: str) -> Running:
    command = ("listen", "sqs", "--queue-url", queue.url, *VISIBILITY, *options)
    return deployment.spawn(*command, environment=deployment.environment | {"TUSSIS_LOG_LEVEL": "debug"})


def open_ids(deployment: Deployment) -> set[str]:
    client: Any = deployment.ledger._client
    return {job.decode() for job in client.hkeys("tussis.ledger")}


@pytest.fixture
def queue(aws: Aws) -> SqsTrial:
    """A new SQS queue."""
    return aws.queue()


@pytest.mark.scenario(44)
def test_a_kill_between_enqueue_and_deletion_doubles_nothing(deployment: Deployment, aws: Aws, queue: SqsTrial) -> None:
    """The objects are enqueued, the listener is killed before the deletion, and SQS delivers the messages again."""
    queue.send(*upload(deployment, "a.wav", "b.wav", "c.wav"))
    with SqsProxy(aws.url) as proxy:
        proxy.kept = "DeleteMessageBatch"
        behind = SqsTrial(queue.sqs, queue.url.replace(aws.url, proxy.url))
        listener = listen(deployment, behind)
        wait_until(proxy.arrived.is_set, 60, "the deletion")
        assert open_ids(deployment) == set(deployment.jobs)
        os.kill(listener.pid, signal.SIGKILL)
    # One job ends before the message comes again, the others are open then.
    deployment.worker(concurrency=1)
    deployment.wait_results(1, 60)

    second = listen(deployment, queue)
    second.wait_for_event("s3_events", 60)
    queue.wait_empty(60)

    deployment.wait_drained(120)
    deployment.assert_accounted()
    assert deployment.sql("SELECT count(*) FROM attempts") == [(3,)]


@pytest.mark.scenario(44)
def test_a_kill_while_the_broker_is_away_loses_nothing(deployment: Deployment, queue: SqsTrial) -> None:
    listener = listen(deployment, queue)
    listener.wait_for_event("listener_ready", 60)
    deployment.servers.broker.kill()
    queue.send(*upload(deployment, *(f"{number}.wav" for number in range(15))))
    listener.wait_for_event("holding", 60, error_class="broker_unavailable")
    held_until = time.monotonic() + 12  # longer than SQS hides a message
    while time.monotonic() < held_until:
        waiting, hidden = queue.counts()
        assert waiting + hidden == 15
        assert hidden <= 10
        time.sleep(0.5)
    os.kill(listener.pid, signal.SIGKILL)
    second = listen(deployment, queue)
    second.wait_for_event("holding", 60, error_class="broker_unavailable")

    deployment.servers.broker.start()
    queue.wait_empty(120)

    assert open_ids(deployment) == set(deployment.jobs)
    deployment.worker(concurrency=2)
    deployment.wait_drained(120)
    deployment.assert_accounted()


@pytest.mark.scenario(44)
def test_kills_at_any_time_lose_and_double_nothing(deployment: Deployment, queue: SqsTrial) -> None:
    dice = random.Random(44)
    bodies = upload(deployment, *(f"{number}.wav" for number in range(60)))
    bodies += dice.sample(bodies, 20)  # S3 may report an upload twice
    dice.shuffle(bodies)
    queue.send(*bodies)
    deployment.worker(concurrency=2)
    for _ in range(4):
        listener = listen(deployment, queue, "--max-depth", "5")
        listener.wait_for_event("s3_event_enqueued", 60)
        time.sleep(dice.random())
        os.kill(listener.pid, signal.SIGKILL)
        listener.wait(30)
    last = listen(deployment, queue, "--max-depth", "5")
    queue.wait_empty(240)
    last.signal(signal.SIGTERM)
    assert last.wait(60) == 0

    deployment.wait_drained(240)
    deployment.assert_accounted()
