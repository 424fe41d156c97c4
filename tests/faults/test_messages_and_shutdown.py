"""Messages that cannot be read, and workers that are told to stop."""

from __future__ import annotations

import json
import signal
import time
import uuid
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from tests.soak.faulty_worker import STARTS_FILE, STUCK_STOP, with_fault
from tests.support.deployment import Deployment
from tests.support.sounds import wav
from tests.support.waiting import wait_until
from tussis.shared.messages import envelope, envelope_around
from tussis.shared.queues import LEDGER_KEY, OPEN_KEY
from tussis.shared.states import AttemptOutcome


def lives(pid: int) -> bool:
    """Return whether a process runs. A zombie does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.scenario(18)
def test_unreadable_messages_are_visible_and_the_queue_moves_on(deployment: Deployment, broker_url: str) -> None:
    client = redis.Redis.from_url(broker_url)
    first = deployment.enqueue("first.wav", wav(0.5, seed=1))
    client.lpush("tussis.any:5", b"\xffnot a message", envelope(first).replace("tussis.analyze", "tussis.other"))
    deployment.enqueue("last.wav", wav(0.5, seed=2))
    worker = deployment.worker(concurrency=1)
    deployment.wait_drained(60)
    deployment.assert_accounted()
    assert deployment.store.counts().dead_letters == 2
    assert worker.running


def open_malformed(deployment: Deployment, client: redis.Redis, **changes: object) -> str:
    """Enqueue a job as a producer in another language may do: through the ledger and a list, with an error in it."""
    job_id = str(uuid.uuid4())
    message = {"v": 1, "job_id": job_id, "bucket": deployment.bucket.name, "key": "a.wav", "enqueued_at": 1.7e9}
    message |= changes
    client.hset(LEDGER_KEY, job_id, json.dumps(message))
    client.zadd(OPEN_KEY, {job_id: 1.7e9})
    client.lpush("tussis.any:5", envelope_around(message))
    return job_id


@pytest.mark.scenario(33)
def test_a_malformed_job_is_a_failure_for_whoever_holds_its_id(deployment: Deployment, broker_url: str) -> None:
    """Given unreadable jobs, and a message with only the id of a good job, then the unreadable jobs end as failures."""
    client = redis.Redis.from_url(broker_url)
    good = deployment.enqueue("a.wav", wav(0.5, seed=1))
    malformed = open_malformed(deployment, client, priority=99)
    nowhere = open_malformed(deployment, client, bucket="")
    newer = open_malformed(deployment, client, v=2, key="b.wav")
    quoted = open_malformed(deployment, client, etag=f'"{good.etag}"')
    client.rpush("tussis.any", envelope_around({"v": 1, "job_id": good.job_id, "bucket": 7}))
    deployment.worker(concurrency=1)
    deployment.wait_drained(60)

    states = {job_id: told(deployment, job_id) for job_id in (good.job_id, quoted, malformed, newer, nowhere)}
    assert [one["state"] for one in states.values()] == ["succeeded"] * 2 + ["failed"] * 3
    assert states[malformed]["error"]["class"] == states[nowhere]["error"]["class"] == "malformed_message"
    assert states[newer]["error"]["class"] == "unknown_message_version"
    assert states[malformed]["uri"] == good.uri
    listed = deployment.tussis("failures", "list", "--json")
    assert listed.wait(60) == 0
    assert {json.loads(line)["job_id"] for line in listed.stdout} == {malformed, newer}
    assert deployment.sql("SELECT count(*) FILTER (WHERE ended_job), count(*) FROM dead_letters") == [(3, 4)]
    # The good answer stays the current one of its object.
    assert deployment.sql("SELECT state FROM current WHERE key = 'a.wav'") == [("succeeded",)]


def told(deployment: Deployment, job_id: str) -> dict[str, Any]:
    """Return the output of ``tussis job``."""
    command = deployment.tussis("job", job_id, "--json")
    assert command.wait(60) in (0, 1), command.text
    answer: dict[str, Any] = json.loads(command.stdout[0])
    return answer


@pytest.mark.scenario(19)
def test_rolling_restarts_under_load_lose_nothing(deployment: Deployment) -> None:
    for number in range(120):
        deployment.enqueue(f"{number}.wav", with_fault("slow-0.5", wav(0.5, seed=number)))
    workers = [deployment.worker(concurrency=1, faulty=True) for _ in range(2)]
    for round_ in range(4):
        done = deployment.store.counts().succeeded
        deployment.wait_results(done + 4, 60)
        old = workers.pop(0)
        old.signal(signal.SIGTERM)
        assert old.wait(45) == 0, round_
        workers.append(deployment.worker(concurrency=1, faulty=True))
    deployment.wait_drained(180)
    deployment.assert_accounted()
    assert all(analysis.attempts == 1 for analysis in deployment.analyses())


@pytest.mark.scenario(19)
def test_a_recording_that_outlasts_the_grace_period_is_run_by_another(deployment: Deployment, tmp_path: Path) -> None:
    starts_file = tmp_path / "starts"
    deployment.environment[STARTS_FILE] = str(starts_file)
    # The fault is slow only once: the next worker finishes the recording fast.
    job = deployment.enqueue("slow.wav", with_fault("once-60", wav(0.5)))
    worker = deployment.worker(concurrency=1, faulty=True, soft_shutdown_s=1, visibility_timeout_s=10)
    wait_until(starts_file.exists, 30, "the recording to be begun")
    worker.signal(signal.SIGTERM)
    told = time.monotonic()
    worker.wait(20)
    assert time.monotonic() - told < 50
    deployment.worker(concurrency=1, faulty=True, visibility_timeout_s=10)
    deployment.wait_drained(120)
    deployment.assert_accounted()
    outcomes = [attempt.outcome for attempt in deployment.store.attempts_of(deployment.analysis(job).id)]
    assert outcomes[-1] == AttemptOutcome.SUCCEEDED
    assert len(outcomes) == 2


@pytest.mark.scenario(19)
def test_a_stop_that_hangs_is_forced(deployment: Deployment) -> None:
    deployment.environment[STUCK_STOP] = "yes"
    deployment.enqueue("a.wav", wav(0.5))
    worker = deployment.worker(concurrency=1, faulty=True)
    deployment.wait_drained(60)
    children = worker.children()
    worker.signal(signal.SIGTERM)
    assert worker.wait(40) == 0
    assert any(event.get("event") == "stop_forced" for event in worker.events)
    wait_until(lambda: not any(lives(pid) for pid in children), 10, "the children's end")
    deployment.assert_accounted()
