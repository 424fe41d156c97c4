"""Enqueueing one recording: what reaches the broker, and what is refused."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
import redis

from tests.support.broker_state import entries, open_jobs
from tests.support.servers import Bucket
from tests.support.waiting import PATIENCE
from tussis.producer import Producer
from tussis.shared.errors import (
    BrokerRefused,
    BrokerUnavailable,
    BucketMissing,
    InvalidJob,
    InvalidUri,
    MessageTooLarge,
    ObjectMissing,
    SettingsInvalid,
    StorageCredentials,
    StorageUnavailable,
    TussisError,
)
from tussis.shared.messages import job_id_for, parse_message, parse_message_text
from tussis.shared.queues import LEDGER_KEY, OPEN_KEY, sent_key
from tussis.shared.s3 import s3_client
from tussis.shared.settings import load_settings


def test_a_recording_is_in_the_ledger_and_in_its_list(producer: Producer, bucket: Bucket, broker: redis.Redis) -> None:
    uri = bucket.put("2026/ä b#1.wav", b"RIFF")
    began = time.time()

    job_id = producer.enqueue(uri, priority=2, device="cpu", metadata={"site": "Süd"})

    job = parse_message_text(broker.hget(LEDGER_KEY, job_id) or "")
    assert (job.uri, job.priority, job.device, job.metadata) == (uri, 2, "cpu", {"site": "Süd"})
    assert began <= job.enqueued_at <= time.time()
    assert broker.zscore(OPEN_KEY, job_id) == job.enqueued_at
    assert broker.zscore(sent_key("tussis.cpu", 2), job_id) == pytest.approx(time.time(), abs=60)
    (entry,) = entries(broker)
    assert entry.key == "tussis.cpu:2"
    assert parse_message(entry.body[1]["message"]) == job


def test_the_bytes_that_s3_has_now_are_pinned(producer: Producer, bucket: Bucket, broker: redis.Redis) -> None:
    uri = bucket.put("a.wav", b"first")
    etag = bucket.client.head_object(Bucket=bucket.name, Key="a.wav")["ETag"].strip('"')

    first = producer.enqueue(uri)
    bucket.put("a.wav", b"second")
    second = producer.enqueue(uri)

    assert first == job_id_for(bucket.name, "a.wav", version_id=None, etag=etag, model=None, profile=None)
    assert second != first
    assert json.loads(broker.hget(LEDGER_KEY, first) or "")["etag"] == etag


def test_a_bucket_with_versions_gives_the_version_as_well(
    producer: Producer, versioned: Bucket, broker: redis.Redis
) -> None:
    uri = versioned.put("a.wav", b"first")
    head = versioned.client.head_object(Bucket=versioned.name, Key="a.wav")

    job = parse_message_text(broker.hget(LEDGER_KEY, producer.enqueue(uri)) or "")

    assert job.version_id == head["VersionId"]
    assert job.etag == head["ETag"].strip('"')


def test_an_open_job_is_not_sent_twice(producer: Producer, bucket: Bucket, broker: redis.Redis) -> None:
    uri = bucket.put("a.wav", b"RIFF")

    first = producer.enqueue(uri, priority=3)
    again = producer.enqueue(uri, priority=0, metadata={"n": 2})

    assert again == first
    assert [entry.key for entry in entries(broker)] == ["tussis.any:3"]
    assert json.loads(broker.hget(LEDGER_KEY, first) or "")["metadata"] == {}


def test_a_job_that_was_closed_is_sent_again(producer: Producer, broker: redis.Redis) -> None:
    first = producer.enqueue("s3://clinic/a.wav", etag="e1")
    broker.flushdb()

    assert producer.enqueue("s3://clinic/a.wav", etag="e1") == first
    assert open_jobs(broker) == [first]


def test_again_is_a_new_job_on_the_same_bytes(producer: Producer, bucket: Bucket, broker: redis.Redis) -> None:
    uri = bucket.put("a.wav", b"RIFF")

    ids = {producer.enqueue(uri), producer.enqueue(uri, again=True), producer.enqueue(uri, again=True)}

    jobs = [json.loads(broker.hget(LEDGER_KEY, job_id) or "") for job_id in ids]
    assert len(ids) == 3
    assert sorted(job["again"] for job in jobs) == [False, True, True]
    assert len({job["etag"] for job in jobs}) == 1


def test_told_not_to_ask_it_pins_nothing_and_needs_no_store(broker_url: str, broker: redis.Redis) -> None:
    with Producer(broker_url, head=False) as producer:
        first = producer.enqueue("s3://clinic/nobody-asked.wav")
        second = producer.enqueue("s3://clinic/nobody-asked.wav")

    assert first != second
    assert json.loads(broker.hget(LEDGER_KEY, first) or "")["etag"] is None


def test_ten_priorities_have_ten_lists(producer: Producer, broker: redis.Redis) -> None:
    for priority in range(10):
        producer.enqueue("s3://clinic/a.wav", etag=f"e{priority}", priority=priority)

    assert [entry.key for entry in entries(broker)] == ["tussis.any", *(f"tussis.any:{p}" for p in range(1, 10))]
    assert [entry.envelope["properties"]["priority"] for entry in entries(broker)] == list(range(10))


def test_settings_come_from_the_environment(environment: dict[str, str], bucket: Bucket, broker: redis.Redis) -> None:
    uri = bucket.put("a.wav", b"RIFF")

    with Producer() as producer:
        job_id = producer.enqueue(uri)

    assert open_jobs(broker) == [job_id]


def test_one_producer_serves_several_threads(environment: dict[str, str], bucket: Bucket, broker: redis.Redis) -> None:
    uris = [bucket.put(f"{n}.wav", b"RIFF") for n in range(8)]
    ids: list[str] = []

    with Producer() as producer:
        threads = [threading.Thread(target=lambda uri=uri: ids.append(producer.enqueue(uri))) for uri in uris]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert sorted(ids) == sorted(open_jobs(broker))
    assert len(set(ids)) == 8


# --- refused: one line each, in time, and nothing on the broker -------------------------------------------


def refused(call: Any, kind: type[TussisError], says: str) -> None:
    began = time.monotonic()
    with pytest.raises(TussisError, match=says) as caught:
        call()
    assert time.monotonic() - began < 10 * PATIENCE
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)


def test_what_is_wrong_with_the_call_or_the_object_is_said_and_nothing_is_sent(
    producer: Producer, bucket: Bucket, broker: redis.Redis
) -> None:
    uri = bucket.put("a.wav", b"RIFF")

    refused(lambda: producer.enqueue(bucket.uri("missing.wav")), ObjectMissing, "missing.wav")
    refused(lambda: producer.enqueue("s3://no-such-bucket-here/a.wav"), BucketMissing, "no-such-bucket-here")
    refused(lambda: producer.enqueue("a.wav"), InvalidUri, "S3 URI")
    refused(lambda: producer.enqueue(uri, priority=10), InvalidJob, "priority")
    refused(lambda: producer.enqueue(uri, device="tpu"), InvalidJob, "device")
    refused(lambda: producer.enqueue(uri, metadata={"t": "x" * 70_000}), MessageTooLarge, "shorten")
    refused(lambda: producer.enqueue(uri, metadata={"recorded_at": "2026-11-22T14:30"}), InvalidJob, "no offset")
    refused(lambda: producer.enqueue(uri, metadata={"site": "a\nb"}), InvalidJob, "site must be")
    assert broker.keys() == []


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_said_to_be(
    environment: dict[str, str], bucket: Bucket, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    uri = bucket.put("a.wav", b"RIFF")
    monkeypatch.setenv(name, "wrong")

    with Producer() as producer:
        refused(lambda: producer.enqueue(uri), StorageCredentials, "AWS_ACCESS_KEY_ID")
    assert broker.keys() == []


def test_a_store_that_is_not_there_is_said_to_be(
    environment: dict[str, str], broker: redis.Redis, unused_port: int
) -> None:
    client = s3_client(load_settings(s3_endpoint_url=f"http://127.0.0.1:{unused_port}"))

    with Producer(s3_client=client) as producer:
        refused(lambda: producer.enqueue("s3://clinic/a.wav"), StorageUnavailable, f"127.0.0.1:{unused_port}")
    client.close()
    assert broker.keys() == []


def test_a_broker_that_is_not_there_is_said_to_be(bucket: Bucket, unused_port: int) -> None:
    uri = bucket.put("a.wav", b"RIFF")

    with Producer(f"redis://:secret@127.0.0.1:{unused_port}/0", s3_client=bucket.client) as producer:
        refused(lambda: producer.enqueue(uri), BrokerUnavailable, f"127.0.0.1:{unused_port}")
        with pytest.raises(BrokerUnavailable) as caught:
            producer.enqueue(uri)
    assert "secret" not in str(caught.value)


def test_a_wrong_login_is_refused_by_the_broker(broker_url: str) -> None:
    wrong = broker_url.replace("redis://", "redis://nobody:").replace("nobody::", "nobody:wrong")

    with Producer(wrong, head=False) as producer:
        refused(lambda: producer.enqueue("s3://clinic/a.wav"), BrokerRefused, "login")


def test_no_broker_at_all_is_a_missing_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUSSIS_BROKER_URL", raising=False)

    with Producer(head=False) as producer:
        refused(lambda: producer.enqueue("s3://clinic/a.wav"), SettingsInvalid, "TUSSIS_BROKER_URL is not set")


def test_what_is_no_broker_url_is_a_wrong_setting() -> None:
    with Producer("http://localhost", head=False) as producer:
        refused(lambda: producer.enqueue("s3://clinic/a.wav"), SettingsInvalid, "TUSSIS_BROKER_URL")


def test_a_full_broker_refuses_the_whole_step(producer: Producer, broker: redis.Redis) -> None:
    limit = broker.config_get("maxmemory")["maxmemory"] or "0"
    broker.config_set("maxmemory", "1")
    try:
        refused(lambda: producer.enqueue("s3://clinic/a.wav", etag="e1"), BrokerRefused, "is full")
    finally:
        broker.config_set("maxmemory", limit)

    assert broker.keys() == []
    assert producer.enqueue("s3://clinic/a.wav", etag="e1") == open_jobs(broker)[0]
