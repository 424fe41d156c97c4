"""`tussis listen sqs` with real SQS queues: every shape that arrives there, and the ids of `tussis enqueue`."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.aws import KEYS, Aws, SqsTrial, redrive_to
from tests.support.processes import Spawn
from tests.support.s3_events import eventbridge, record, records, sns, test_event
from tests.support.servers import Bucket
from tests.support.waiting import wait_until
from tussis.producer import Producer, listener, sqs
from tussis.producer.listener import Listener, ListenOptions
from tussis.producer.sqs import SqsQueue
from tussis.shared.job_requests import JobRequest
from tussis.shared.s3_events import ObjectFilter


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sqs, "WAIT_S", 1)
    monkeypatch.setattr(listener, "_FULL_S", (0.05, 0.1))


@contextmanager
def listening(
    queue: SqsTrial, producer: Producer, max_depth: int | None = None, visibility_s: int = 60
) -> Iterator[Listener]:
    """A listener in a thread, until the end."""
    found = Listener(
        SqsQueue(queue.url, visibility_s), producer, ListenOptions(JobRequest(""), ObjectFilter(), max_depth)
    )
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.run()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        found.stop()
        thread.join(30)
    assert not thread.is_alive()
    assert failed == []


def open_ids(broker: redis.Redis) -> set[str]:
    found: Any = broker.hkeys("tussis.ledger")
    return set(found)


def told(bucket: str, head: dict[str, Any], key: str, **about: Any) -> dict[str, Any]:
    """The record that S3 sends about an object with this answer to HEAD."""
    version = {"versionId": head["VersionId"]} if "VersionId" in head else {}
    return record(bucket, key, eTag=head["ETag"].strip('"'), size=head["ContentLength"], **version, **about)


def test_the_job_ids_are_those_of_enqueue(
    aws: Aws, broker: redis.Redis, producer: Producer, bucket: Bucket, versioned: Bucket
) -> None:
    """Direct, through SNS with and without raw delivery, through EventBridge, without an entity tag, with versions."""
    queue, topics = aws.queue(), aws.client("sns")
    for raw in ("false", "true"):
        topic = topics.create_topic(Name=f"t-{raw}-{queue.arn.rpartition(':')[2]}")["TopicArn"]
        attributes = {"RawMessageDelivery": raw}
        topics.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue.arn, Attributes=attributes)
        bucket.put(f"sns {raw}.wav", raw.encode())
        head = bucket.client.head_object(Bucket=bucket.name, Key=f"sns {raw}.wav")
        topics.publish(TopicArn=topic, Message=records(told(bucket.name, head, f"sns {raw}.wav")), Subject="S3")
    keys = ["direct+ä.wav", "again.wav", "bridge.wav", "no tag.wav"]
    heads = {}
    for key in keys:
        bucket.put(key, key.encode())
        heads[key] = bucket.client.head_object(Bucket=bucket.name, Key=key)
        assert heads[key]["VersionId"]
    direct = records(told(bucket.name, heads["direct+ä.wav"], "direct+ä.wav"))
    tag, version = heads["bridge.wav"]["ETag"].strip('"'), heads["bridge.wav"]["VersionId"]
    queue.send(
        direct,
        direct,
        json.dumps(records(told(bucket.name, heads["again.wav"], "again.wav"))),
        eventbridge(bucket.name, "bridge.wav", etag=tag, **{"version-id": version}),
        records(record(bucket.name, "no tag.wav", eTag=None)),
        json.dumps(sns(test_event(bucket.name))),
        records(record(bucket.name, "gone.wav", event="ObjectRemoved:Delete"), record(bucket.name, "dir/", size=0)),
    )

    with listening(queue, producer):
        queue.wait_empty()

    found = open_ids(broker)
    assert len(found) == 6
    assert {producer.enqueue(bucket.uri(key)) for key in [*keys, "sns false.wav", "sns true.wav"]} == found
    assert open_ids(broker) == found


def test_without_versions_the_ids_are_those_of_enqueue_too(
    aws: Aws, broker: redis.Redis, producer: Producer, bucket: Bucket
) -> None:
    uri = bucket.put("a.wav", b"sound")
    head = bucket.client.head_object(Bucket=bucket.name, Key="a.wav")
    queue = aws.queue()
    queue.send(records(told(bucket.name, head, "a.wav")), records(record(bucket.name, "a.wav", eTag=None)))

    with listening(queue, producer):
        queue.wait_empty()

    assert open_ids(broker) == {producer.enqueue(uri)}
    (listed,) = producer.listed(f"s3://{bucket.name}/")
    assert [item.sent for item in producer.enqueue_many([listed])] == [False]


def test_events_that_a_bucket_sends_are_enqueued(aws: Aws, broker: redis.Redis, broker_url: str) -> None:
    """From the put to the job: moto's S3 writes the event."""
    queue, store = aws.queue(), aws.client("s3")
    name = f"uploads-{queue.arn.rpartition('-')[2]}"
    store.create_bucket(Bucket=name)
    notify = {"QueueConfigurations": [{"QueueArn": queue.arn, "Events": ["s3:ObjectCreated:*"]}]}
    store.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration=notify)
    store.put_object(Bucket=name, Key="2026/a b+ä.wav", Body=b"sound")
    store.put_object(Bucket=name, Key="2026/", Body=b"")

    with Producer(broker_url, s3_client=store) as producer:
        with listening(queue, producer):
            wait_until(lambda: broker.hlen("tussis.ledger"), 30, "the job")
            queue.wait_empty()
        assert open_ids(broker) == {producer.enqueue(f"s3://{name}/2026/a b+ä.wav")}


def test_a_message_that_cannot_be_read_goes_to_the_dead_letter_queue(
    aws: Aws, broker: redis.Redis, producer: Producer
) -> None:
    dead = aws.queue()
    queue = aws.queue(RedrivePolicy=redrive_to(dead, deliveries=2))
    queue.send("hello", records(record("clinic", "a.wav")))

    with listening(queue, producer, visibility_s=1):
        wait_until(lambda: dead.counts()[0] == 1, 60, "the message in the dead-letter queue")

    assert queue.counts() == (0, 0)
    assert len(open_ids(broker)) == 1
    (message,) = dead.sqs.receive_message(QueueUrl=dead.url)["Messages"]
    assert message["Body"] == "hello"


def test_messages_stay_hidden_while_too_many_jobs_are_open(aws: Aws, broker: redis.Redis, producer: Producer) -> None:
    queue = aws.queue()
    producer.enqueue("s3://clinic/first.wav", etag="x")
    queue.send(*(records(record("clinic", f"{number}.wav")) for number in range(3)))

    with listening(queue, producer, max_depth=3, visibility_s=2):
        wait_until(lambda: broker.zcard("tussis.open") == 3, 30, "the jobs for which there is room")
        held_until = time.monotonic() + 5
        while time.monotonic() < held_until:
            assert queue.counts() == (0, 3)  # another listener would get none of them
            assert broker.zcard("tussis.open") == 3
            time.sleep(0.2)
        for job_id in open_ids(broker):
            broker.hdel("tussis.ledger", job_id)
            broker.zrem("tussis.open", job_id)
        queue.wait_empty()
    assert broker.zcard("tussis.open") == 1


@pytest.mark.acceptance
def test_the_command_runs_until_sigterm(
    aws: Aws, broker: redis.Redis, broker_url: str, spawn: Spawn, tmp_path: Path
) -> None:
    queue, alive = aws.queue(), tmp_path / "alive"
    environment = KEYS | {"TUSSIS_BROKER_URL": broker_url, "TUSSIS_SQS_QUEUE_URL": queue.url}
    options = ("--bucket", "clinic", "--suffix", ".wav", "--priority", "2", "--metadata", '{"site": "north"}')
    command = spawn("listen", "sqs", *options, "--alive-file", alive, environment=environment)
    ready = command.wait_for_event("listener_ready", 60)
    assert ready["sqs_queue"] == queue.url
    queue.send(records(record("clinic", "a.wav"), record("clinic", "a.txt"), record("other", "b.wav")), "hello")
    unreadable = command.wait_for_event("s3_event_unreadable", 60)
    assert unreadable["reason"] == "the body is not JSON (5 characters)"
    wait_until(lambda: queue.counts() == (0, 1), 60, "the message to be deleted")
    (text,) = broker.hvals("tussis.ledger")
    job = json.loads(text)
    assert (job["key"], job["priority"], job["metadata"]) == ("a.wav", 2, {"site": "north"})
    assert time.time() - alive.stat().st_mtime < 30

    command.signal(signal.SIGTERM)

    assert command.wait(30) == 0
    sums = command.wait_for_event("listener_stopped", 1)
    assert (sums["messages"], sums["enqueued"], sums["left_out"], sums["kept"]) == (2, 1, {"filtered": 2}, 1)


@pytest.mark.acceptance
@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--queue-url", "MOTO/123456789012/absent"], "does not exist"),
        (["--queue-url", "uploads"], "not the URL of an SQS queue"),
        ([], "use --queue-url URL, or set TUSSIS_SQS_QUEUE_URL"),
        (["--queue-url", "MOTO/1/q", "--profile", "No Such"], "profile must be"),
        (["--queue-url", "MOTO/1/q", "--broker-url", "BROKER"], "refuses the login"),
    ],
    ids=range(5),
)
def test_a_wrong_configuration_is_one_line(
    aws: Aws, broker_url: str, spawn: Spawn, options: list[str], part: str
) -> None:
    without_login = broker_url.replace(broker_url.partition("//")[2].partition("@")[0] + "@", "")
    words = [word.replace("MOTO", aws.url).replace("BROKER", without_login) for word in options]
    command = spawn("listen", "sqs", *words, environment=KEYS | {"TUSSIS_BROKER_URL": broker_url})
    assert command.wait(60) == 1
    (line,) = [line for line in command.stderr if not line.startswith("{")]
    assert line.startswith("tussis: ")
    assert part in line
