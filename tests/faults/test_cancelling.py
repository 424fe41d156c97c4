"""Cancelling against kills: every job ends once, as answered or as cancelled."""

from __future__ import annotations

import signal
from collections import Counter

import pytest

from tests.support.deployment import Deployment
from tests.support.outcomes import a_job
from tests.support.sounds import wav
from tests.support.waiting import wait_until
from tussis.producer import Producer

#: Jobs for objects that do not exist: what is not cancelled fails.
MANY = 6000


@pytest.mark.scenario(41)
def test_a_killed_cancellation_and_working_workers_end_each_job_once(deployment: Deployment) -> None:
    real = [deployment.enqueue(f"real/{number}.wav", wav(0.5, seed=number), priority=9) for number in range(30)]
    prefix = f"s3://{deployment.bucket.name}/"
    many = [
        a_job(bucket=deployment.bucket.name, key=f"many/{number}.wav", etag="e", priority=9) for number in range(MANY)
    ]
    for first in range(0, MANY, 1000):
        deployment.ledger.open_many(many[first : first + 1000])
    deployment.worker(concurrency=2)

    killed = deployment.tussis("cancel", "--prefix", prefix, "--yes")
    wait_until(lambda: deployment.store.counts().cancelled > 0, 120, "the first cancelled jobs")
    killed.signal(signal.SIGKILL)
    killed.wait(60)
    left = deployment.ledger.depth().open
    assert left, "the kill came too late"

    for _ in range(2):  # two at once, beside the workers
        runs = [deployment.tussis("cancel", "--prefix", prefix, "--yes") for _ in range(2)]
        for run in runs:
            assert run.wait(300) == 0, run.text
    deployment.wait_drained(120)

    with Producer(deployment.environment["TUSSIS_BROKER_URL"]) as producer:
        told = list(producer.outcomes("upstream", idle_s=1.0))
    states = {str(job_id): state for job_id, state in deployment.sql("SELECT job_id, state FROM job_answers")}
    assert Counter(outcome.job_id for outcome in told) == Counter(job.job_id for job in (*real, *many))
    assert {outcome.job_id: outcome.state.value for outcome in told} == states
    assert deployment.store.counts().cancelled == sum(state == "cancelled" for state in states.values()) > 0
