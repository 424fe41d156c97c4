"""An open job that is enqueued again for another device moves to the lists of that device."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis

from tests.support.outcomes import a_job
from tussis.shared.depth import read_sent_jobs
from tussis.shared.ledger import Ledger, prepare_opening
from tussis.shared.messages import Job, parse_message_text
from tussis.shared.queues import LEDGER_KEY, QUEUES, Device, list_key, sent_key
from tussis.worker.parent.entries import popped

METADATA = {"device": "gpu", "of": {"device": "gpu", "ä": [[], {}, 0.1, 12345678901234.56]}}


def taken(client: Any, queue: str, priority: int) -> Job:
    """The job of the next message of a list, as a worker reads it."""
    name = list_key(queue, priority)
    _, entry = popped((name.encode(), client.rpop(name))) or (b"", b"")
    envelope = json.loads(entry)
    assert envelope["properties"]["delivery_info"]["routing_key"] == queue
    assert envelope["properties"]["priority"] == priority
    job = parse_message_text(json.dumps(json.loads(base64.b64decode(envelope["body"]))[1]["message"]))
    assert envelope["headers"]["id"] == job.job_id
    return job


@pytest.mark.parametrize("priority", [0, 5])
@pytest.mark.parametrize("batch", [None, "b1"])
def test_an_open_job_moves_with_all_it_has(client: Any, priority: int, batch: str | None) -> None:
    first = a_job(device=Device.GPU, priority=priority, metadata=METADATA, reopen=True)
    ledger = Ledger(client)
    assert ledger.open(first)

    real = replace(first, device=Device.CPU, metadata={}, reopen=False, priority=3, enqueued_at=time.time() + 9)
    assert ledger.open_many([real], batch) == [False]

    moved = replace(first, device=Device.CPU)
    assert ledger.find(first.job_id) == moved
    assert client.zscore(sent_key("tussis.gpu", priority), first.job_id) is None
    assert client.zscore(sent_key("tussis.cpu", priority), first.job_id) is not None
    assert taken(client, "tussis.cpu", priority) == moved
    # Again for the same device: nothing more is sent.
    assert ledger.open_many([real], batch) == [False]
    assert client.llen(list_key("tussis.cpu", priority)) == 0
    # What is left in the old list ends at the claim.
    assert taken(client, "tussis.gpu", priority) == first
    assert ledger.close(moved)
    assert ledger.depth().open == 0


def test_a_prepared_opening_moves_too(client: Any) -> None:
    first = a_job(device=Device.GPU)
    ledger = Ledger(client)
    ledger.open(first)
    real = replace(first, device=Device.ANY)

    sent = ledger.send_prepared(prepare_opening([real, a_job()]))

    assert sent.answers() == [False, True]
    assert ledger.find(first.job_id) == real


@pytest.mark.parametrize(
    "text",
    [
        '{"v": 1, "job_id": "%s", "bucket": "clinic", "key": "a\\"device\\":\\"gpu", "enqueued_at": 1.25,'
        ' "metadata": {"device": "gpu"}, "device" : "gpu"}',
        '{"v":1,"job_id":"%s","bucket":"clinic","key":"a","enqueued_at":1.25}',
    ],
)
def test_a_message_of_another_language_moves(client: Any, text: str) -> None:
    wanted = a_job(bucket="clinic", device=Device.CPU)
    client.hset(LEDGER_KEY, wanted.job_id, text % wanted.job_id)
    before = parse_message_text(text % wanted.job_id)
    ledger = Ledger(client)

    ledger.open(wanted)

    assert ledger.find(wanted.job_id) == replace(before, device=Device.CPU)
    assert taken(client, "tussis.cpu", 5) == replace(before, device=Device.CPU)


@pytest.mark.parametrize(
    "text", ["not json", "[]", "7", '{"device":7}', '{"device":"gpu"}', '{"job_id":"%s","device":"gpu","priority":{}}']
)
def test_what_is_no_message_stays(client: Any, text: str) -> None:
    job = a_job(device=Device.CPU)
    text = text.replace("%s", job.job_id)
    client.hset(LEDGER_KEY, job.job_id, text)

    assert not Ledger(client).open(job)

    assert client.hget(LEDGER_KEY, job.job_id) == text.encode()
    assert not any(client.llen(list_key(queue, 5)) for queue in QUEUES)


def test_a_login_without_the_right_leaves_the_job(client: Any, broker_url: str) -> None:
    job = a_job(device=Device.GPU)
    Ledger(client).open(job)
    rights = "resetkeys ~tussis.* -@all +fcall +hsetnx +zadd +zrange +lpush +time +ping +client|setinfo +select"
    client.execute_command("ACL", "SETUSER", "poor", "reset", "on", ">secret", *rights.split())
    try:
        parts = urlsplit(broker_url)
        url = urlunsplit(parts._replace(netloc=f"poor:secret@{parts.hostname}:{parts.port}"))
        with redis.Redis.from_url(url) as poor:
            assert not Ledger(poor).open(replace(job, device=Device.CPU))
    finally:
        client.execute_command("ACL", "DELUSER", "poor")

    assert Ledger(client).find(job.job_id) == job


def test_the_jobs_of_a_queue_are_counted_with_the_time_of_the_oldest(client: Any) -> None:
    began = time.time()
    ledger = Ledger(client)
    ledger.open_many([a_job(device=Device.GPU, priority=priority) for priority in (0, 5, 5)])

    (found,) = read_sent_jobs(client, QUEUES)

    assert (found.queue, found.jobs) == ("tussis.gpu", 3)
    assert abs(found.oldest - began) < 60
