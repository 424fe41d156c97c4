"""No entry that a client with a producer's rights, or an older version, writes to the broker ends a worker."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

import pytest
import redis
from celery import Celery

from tests.support.deployment import Deployment
from tests.support.sounds import wav
from tussis.shared.messages import Job, envelope
from tussis.shared.queues import UNACKED_INDEX_KEY, UNACKED_KEY

#: Each one ended a worker, and the next worker at its start.
POISON: list[dict[str, Any]] = [
    {"stamped_headers": 5},
    {"timelimit": "xx"},
    {"timelimit": [1, 2, 3]},
    {"retries": {}, "stamps": {"__type__": "uuid", "__value__": 5}},
]
#: A message that the worker published for the sender after the task.
CALLBACK: dict[str, Any] = {
    "task": "foreign.task",
    "args": [],
    "kwargs": {},
    "options": {"queue": "foreign"},
    "subtask_type": None,
}


def poisoned(job: Job, headers: dict[str, Any], **properties: Any) -> str:
    entry = json.loads(envelope(job))
    entry["headers"] |= headers
    entry["properties"] |= properties
    return json.dumps(entry)


def with_callback(job: Job) -> str:
    entry = json.loads(envelope(job))
    body = [[], {"message": json.loads(job.to_json())}, {"callbacks": [CALLBACK], "chain": [CALLBACK]}]
    entry["body"] = base64.b64encode(json.dumps(body).encode()).decode()
    return json.dumps(entry)


@pytest.mark.scenario(36)
def test_a_poisoned_envelope_is_processed_as_its_message_says(deployment: Deployment, broker_url: str) -> None:
    client = redis.Redis.from_url(broker_url)
    worker = deployment.worker(concurrency=1)
    for number, headers in enumerate(POISON):
        job = deployment.enqueue(f"{number}.wav", wav(0.5, seed=number))
        client.lpush("tussis.any", poisoned(job, headers))
    called = deployment.enqueue("called.wav", wav(0.5, seed=8))
    client.lpush("tussis.any", with_callback(called), poisoned(called, {}, delivery_tag=[5]), poisoned(called, {}))
    client.lpush("tussis.any", poisoned(called, {}), "[" * 100_000, json.dumps({"headers": {"id": "\ud800"}}))
    deployment.enqueue("last.wav", wav(0.5, seed=9))
    deployment.wait_drained(60)
    deployment.assert_accounted()
    assert deployment.store.counts().dead_letters == 2
    assert worker.running
    assert not client.keys("*foreign*") + client.keys("*undeliver*")


@pytest.mark.scenario(36)
def test_a_poisoned_entry_filed_by_an_older_version_ends_no_worker(deployment: Deployment, broker_url: str) -> None:
    """The entry stayed unacknowledged and ended the next worker at its start."""
    client: Any = redis.Redis.from_url(broker_url)
    job = deployment.enqueue("a.wav", wav(0.5))
    places: list[list[Any]] = [["", "tussis.any"], ["foreign", "foreign"], [5, {}], [None, None]]
    for headers, place in zip(POISON, places, strict=True):
        client.hset(UNACKED_KEY, str(uuid.uuid4()), json.dumps([json.loads(poisoned(job, headers)), *place]))
    for text in ("not json", "[]", "{}", "[[]]", '[{"properties": 5}, "", ""]', "[" * 100_000):
        client.hset(UNACKED_KEY, str(uuid.uuid4()), text)
    client.zadd(UNACKED_INDEX_KEY, dict.fromkeys(client.hkeys(UNACKED_KEY), 1.0))
    worker = deployment.worker(concurrency=1)
    deployment.wait_drained(60)
    deployment.assert_accounted()
    assert deployment.store.counts().dead_letters == 6
    assert worker.running


@pytest.mark.scenario(36)
def test_remote_control_through_the_broker_has_no_effect(deployment: Deployment, broker_url: str) -> None:
    client = redis.Redis.from_url(broker_url)
    worker = deployment.worker(concurrency=1)
    job = deployment.enqueue("a.wav", wav(0.5, seed=1))
    deployment.wait_drained(60)
    # No subscriber for broadcasts, and no keys of kombu in the broker.
    assert (client.pubsub_numpat(), client.pubsub_channels()) == (0, [])
    assert [key for key in client.scan_iter() if not key.startswith(b"tussis.")] == []
    # Another Celery application on the same broker, with remote control at its defaults.
    with Celery("theirs", broker=broker_url, set_as_current=False) as theirs:
        theirs.control.revoke(job.job_id, terminate=True)
        theirs.control.cancel_consumer("tussis.any")
        theirs.control.cancel_consumer("tussis.cpu")
        theirs.control.pool_shrink(1)
        theirs.control.rate_limit("tussis.analyze", "1/h")
        theirs.control.shutdown()
        assert theirs.control.inspect(timeout=2).ping() is None
    client.lpush("tussis.any", envelope(job))
    deployment.enqueue("b.wav", wav(0.5, seed=2))
    deployment.wait_drained(60)
    deployment.assert_accounted()
    assert worker.running
