"""Enqueueing many: the same as one by one, and one that is refused takes no other along."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.support.broker_state import entries, open_jobs, snapshot
from tests.support.servers import Bucket
from tests.support.waiting import PATIENCE, wait_until
from tussis.producer import Enqueued, JobRequest, Producer
from tussis.shared.errors import (
    BrokerRefused,
    BrokerUnavailable,
    BucketMissing,
    InvalidJob,
    InvalidUri,
    MessageTooLarge,
    ObjectMissing,
    SettingsInvalid,
    StorageUnavailable,
)
from tussis.shared.s3 import s3_client
from tussis.shared.settings import load_settings


def requests_of_all_kinds(uris: list[str]) -> list[JobRequest]:
    return [
        JobRequest(uris[0]),
        JobRequest(uris[1], priority=0, device="gpu"),
        JobRequest(uris[2], etag='"given"', metadata={"site": "north", "deep": [1, {"a": None}]}),
        JobRequest(uris[3], version_id="v1", model="cough@2", profile="legacy", priority=9, device="cpu"),
        JobRequest(uris[0]),  # the same bytes once more
        JobRequest(uris[0], priority=1),
    ]


@pytest.mark.parametrize("batch", [1, 2, 500])
def test_many_leave_the_broker_as_one_by_one_do(
    producer: Producer, bucket: Bucket, broker: redis.Redis, batch: int
) -> None:
    uris = [bucket.put(f"{n}.wav", bytes([n])) for n in range(4)]
    single = [
        producer.enqueue(
            request.uri,
            version_id=request.version_id,
            etag=request.etag,
            model=request.model,
            profile=request.profile,
            priority=request.priority,
            device=request.device,
            metadata=request.metadata,
        )
        for request in requests_of_all_kinds(uris)
    ]
    one_by_one = snapshot(broker)
    broker.flushdb()

    many = list(producer.enqueue_many(requests_of_all_kinds(uris), chunk=batch))

    assert [item.job_id for item in many] == single
    assert [item.sent for item in many] == [True, True, True, True, False, False]
    assert snapshot(broker) == one_by_one
    assert len({entry.delivery_tag for entry in entries(broker)}) == 4


def test_each_is_refused_alone_and_in_its_place(producer: Producer, bucket: Bucket, broker: redis.Redis) -> None:
    there = bucket.put("a.wav", b"RIFF")

    items = list(
        producer.enqueue_many(
            [
                there,
                bucket.uri("missing.wav"),
                "not a uri",
                JobRequest(there, etag="e", priority=11),
                "s3://no-such-bucket-here/a.wav",
                JobRequest(bucket.uri("pinned.wav"), etag="e"),
                JobRequest(bucket.uri("told-too-much.wav"), etag="e", metadata={"t": "x" * 70_000}),
                JobRequest(bucket.uri("no-offset.wav"), etag="e", metadata={"recorded_at": "2026-11-22T14:30"}),
            ]
        )
    )

    assert [type(item.error) for item in items] == [
        type(None),
        ObjectMissing,
        InvalidUri,
        InvalidJob,
        BucketMissing,
        type(None),
        MessageTooLarge,
        InvalidJob,
    ]
    assert [item.sent for item in items] == [True, False, False, False, False, True, False, False]
    assert sorted(item.job_id for item in items if item.job_id) == sorted(open_jobs(broker))
    assert items[1].request.uri == bucket.uri("missing.wav")


def test_it_streams(producer: Producer, broker: redis.Redis) -> None:
    drawn = 0

    def endless() -> Iterator[JobRequest]:
        nonlocal drawn
        while True:
            drawn += 1
            yield JobRequest("s3://clinic/a.wav", etag=f"e{drawn}")

    stream = producer.enqueue_many(endless(), chunk=10)
    first = [next(stream) for _ in range(25)]

    assert drawn == 40  # what was asked for, and the batch that is on its way meanwhile
    wait_until(lambda: broker.zcard("tussis.open") == 40, 30, "the batch that was drawn to be open")
    assert {item.job_id for item in first} < set(open_jobs(broker))


def test_what_was_sent_before_the_stream_broke_is_told_first(producer: Producer, broker: redis.Redis) -> None:
    def breaks() -> Iterator[JobRequest]:
        for number in range(20):
            yield JobRequest("s3://clinic/a.wav", etag=f"e{number}")
        raise LookupError("upstream's own")

    told: list[str | None] = []
    with pytest.raises(LookupError, match="upstream's own"):
        told.extend(item.job_id for item in producer.enqueue_many(breaks(), chunk=10))

    assert len(told) == 20
    assert set(told) == set(open_jobs(broker))


def test_a_batch_that_is_refused_keeps_the_next_one_back(broker: redis.Redis, broker_url: str) -> None:
    drawn = 0

    def requests() -> Iterator[JobRequest]:
        nonlocal drawn
        for number in range(30):
            drawn += 1
            # A broker refuses the whole batch whose list is of another type.
            yield JobRequest("s3://clinic/a.wav", etag=f"e{number}", priority=9 if number == 3 else 5)

    broker.set("tussis.any:9", "not a list")
    with Producer(broker_url, head=False) as producer, pytest.raises(BrokerRefused):
        list(producer.enqueue_many(requests(), chunk=10))

    assert drawn == 20
    sent = {entry.body[1]["message"]["etag"] for entry in entries(broker)}
    assert sent.isdisjoint(f"e{number}" for number in range(10, 30))


def test_nothing_to_do_needs_no_broker(unused_port: int) -> None:
    with Producer(f"redis://127.0.0.1:{unused_port}/0") as producer:
        assert list(producer.enqueue_many([])) == []


def test_a_dry_run_sends_nothing_and_still_finds_what_is_missing(
    bucket: Bucket, broker: redis.Redis, unused_port: int
) -> None:
    uris = [bucket.put("a.wav", b"RIFF"), bucket.uri("missing.wav")]

    with Producer(f"redis://127.0.0.1:{unused_port}/0", s3_client=bucket.client) as producer:
        items = list(producer.enqueue_many(uris, dry_run=True))

    assert [(item.job_id, item.sent, type(item.error)) for item in items] == [
        (None, False, type(None)),
        (None, False, ObjectMissing),
    ]
    assert broker.dbsize() == 0


def test_a_batch_is_at_least_one(producer: Producer) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        list(producer.enqueue_many(["s3://clinic/a.wav"], chunk=0))


def test_who_stops_iterating_leaves_nothing_half_done(producer: Producer, broker: redis.Redis) -> None:
    """The batch behind the one that was told of is on its way by then; its answer must not be read as another's."""
    requests = [JobRequest(f"s3://clinic/{n}.wav", etag=f"e{n}") for n in range(40)]
    items = producer.enqueue_many(requests, chunk=10)
    assert next(items).sent

    items.close()

    assert len(open_jobs(broker)) == len(entries(broker)) == 20
    again = list(producer.enqueue_many(requests, chunk=10))
    assert [item.sent for item in again] == [False] * 20 + [True] * 20
    assert len(open_jobs(broker)) == len(entries(broker)) == 40


def test_a_connection_that_is_lost_between_batches_loses_and_doubles_nothing(
    producer: Producer, broker: redis.Redis
) -> None:
    """Whether an answer was on its way or had come: a batch is taken whole, once, and its jobs are told of."""
    requests = [JobRequest(f"s3://clinic/{n}.wav", etag=f"e{n}") for n in range(60)]
    told: list[Enqueued] = []
    for item in producer.enqueue_many(requests, chunk=5):
        told.append(item)
        if len(told) % 5 == 1:
            broker.client_kill_filter(_type="normal", skipme=True)

    assert [item.request for item in told] == requests
    assert sorted(open_jobs(broker)) == sorted(item.job_id for item in told if item.job_id)
    assert len(entries(broker)) == len(requests)


def test_a_broker_that_is_away_ends_the_iteration(unused_port: int) -> None:
    with (
        Producer(f"redis://127.0.0.1:{unused_port}/0", head=False) as producer,
        pytest.raises(BrokerUnavailable),
    ):
        list(producer.enqueue_many(["s3://clinic/a.wav"]))


def test_a_full_broker_ends_the_iteration_after_what_it_took(producer: Producer, broker: redis.Redis) -> None:
    limit = broker.config_get("maxmemory")["maxmemory"] or "0"
    # For some batches: what comes in as one command, 300 kB, the broker holds twice and more while it reads it.
    room = int(broker.info("memory")["used_memory"]) + 2_500_000
    large = (JobRequest("s3://clinic/a.wav", etag=f"e{n}", metadata={"t": "x" * 2000}) for n in range(1000))
    items: list[Enqueued] = []
    broker.config_set("maxmemory", room)
    try:
        with pytest.raises(BrokerRefused, match="is full"):
            items.extend(producer.enqueue_many(large, chunk=50))
    finally:
        broker.config_set("maxmemory", limit)

    assert 0 < len(items) < 1000
    assert len(items) % 50 == 0
    assert all(item.sent for item in items)
    assert sorted(open_jobs(broker)) == sorted(item.job_id for item in items if item.job_id)
    assert len(entries(broker)) == len(items)


def test_a_store_that_is_away_does_not_cost_its_timeout_for_every_key(
    environment: dict[str, str], broker: redis.Redis, silent_port: int
) -> None:
    client = s3_client(load_settings(s3_endpoint_url=f"http://127.0.0.1:{silent_port}"))
    began = time.monotonic()

    with (
        Producer(s3_client=client, head_threads=4) as producer,
        pytest.raises(StorageUnavailable),
    ):
        list(producer.enqueue_many(f"s3://clinic/{n}.wav" for n in range(50)))

    assert time.monotonic() - began < 10 * PATIENCE
    assert broker.dbsize() == 0
    client.close()


def test_a_wrong_setting_is_no_recordings_fault(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUSSIS_S3_ENDPOINT_URL", "no url")

    with Producer() as producer, pytest.raises(SettingsInvalid, match="TUSSIS_S3_ENDPOINT_URL"):
        list(producer.enqueue_many(["s3://clinic/a.wav"]))


def test_many_keys_are_asked_about_at_a_time(producer: Producer, bucket: Bucket, broker: redis.Redis) -> None:
    uris = [bucket.put(f"{n:03}.wav", b"RIFF") for n in range(40)]

    items = list(producer.enqueue_many(uris))

    assert [item.request.uri for item in items] == uris
    assert all(item.sent for item in items)
    assert broker.zcard("tussis.open") == 40


# --- a prefix ---------------------------------------------------------------------------------------------


def test_a_prefix_gives_every_object_with_its_entity_tag(
    producer: Producer, bucket: Bucket, broker: redis.Redis
) -> None:
    for key in ("in/a.wav", "in/b c#.wav", "in/deep/c.wav", "other/d.wav"):
        bucket.put(key, key.encode())
    bucket.put("in/folder/", b"")

    items = list(producer.enqueue_many(producer.listed(bucket.uri("in/"), JobRequest("", priority=8))))

    assert [item.request.uri for item in items] == [
        bucket.uri(key) for key in ("in/a.wav", "in/b c#.wav", "in/deep/c.wav")
    ]
    etag = bucket.client.head_object(Bucket=bucket.name, Key="in/a.wav")["ETag"].strip('"')
    assert items[0].request.etag == etag
    assert {entry.key for entry in entries(broker)} == {"tussis.any:8"}


def test_a_listing_and_a_head_agree_on_the_id(producer: Producer, bucket: Bucket) -> None:
    uri = bucket.put("in/a.wav", b"RIFF")

    (item,) = producer.enqueue_many(producer.listed(bucket.uri("in/")))

    assert producer.enqueue(uri) == item.job_id


def test_a_listing_of_several_pages_is_whole(producer: Producer, bucket: Bucket, monkeypatch: Any) -> None:
    keys = [f"{n:02}.wav" for n in range(7)]
    for key in keys:
        bucket.put(key, b"RIFF")
    pages = bucket.client.get_paginator("list_objects_v2")
    paginate = pages.paginate
    monkeypatch.setattr(pages, "paginate", lambda **which: paginate(**which, PaginationConfig={"PageSize": 3}))
    monkeypatch.setattr(bucket.client, "get_paginator", lambda name: pages)

    assert [request.uri for request in producer.listed(f"s3://{bucket.name}")] == [bucket.uri(key) for key in keys]


def test_a_prefix_in_a_bucket_that_does_not_exist_is_said_to_be(producer: Producer) -> None:
    with pytest.raises(BucketMissing, match="no-such-bucket-here"):
        next(producer.listed("s3://no-such-bucket-here/in/"))
