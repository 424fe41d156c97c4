"""Webhooks reach their receiver when the notifier or the broker is killed, with one id for each outcome."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import defaultdict

import pytest

from tests.support.deployment import Deployment
from tests.support.notifying import SECRET, end_job
from tests.support.receiver import Handler, Receiver, accept, status
from tests.support.sounds import wav
from tests.support.waiting import wait_until
from tussis.shared.outcomes import JobOutcome

NOTIFY = ("notify", "--allow-network", "127.0.0.0/8", "--connections", "4")


def prepare(deployment: Deployment, receiver: Receiver) -> None:
    deployment.environment |= {"TUSSIS_WEBHOOK_SECRET": SECRET, "TUSSIS_WEBHOOK_URL": receiver.url}


def job_ids(receiver: Receiver) -> set[str]:
    return {request.document["data"]["job_id"] for request in list(receiver.requests)}


@pytest.mark.scenario(43)
def test_a_kill_of_the_notifier_between_delivery_and_acknowledgement(
    deployment: Deployment, receiver: Receiver
) -> None:
    """A worker's outcome arrives, the notifier is killed before it knows, and the same webhook comes again."""
    prepare(deployment, receiver)
    receiver.behaviour = receiver.hang
    notifier = deployment.tussis(*NOTIFY)
    job = deployment.enqueue("a.wav", wav(1.0))
    deployment.worker(concurrency=1)
    wait_until(lambda: receiver.requests, 60, "the request")
    os.kill(notifier.pid, signal.SIGKILL)
    receiver.behaviour = accept
    deployment.tussis(*NOTIFY).wait_for_event("webhook_delivered", 60)

    first, second = receiver.requests
    assert first.webhook_id == second.webhook_id
    assert first.body == second.body
    stored = deployment.store.outcome_of(job.job_id, job.enqueued_at, deployment.analysis(job).id)
    assert isinstance(stored, JobOutcome)
    assert stored.answer is not None
    assert first.document["data"]["answer"] == stored.to_dict()["answer"] | {
        "segments": [list(segment) for segment in stored.answer.segments],
        "events": [list(event) for event in stored.answer.events],
        "warnings": list(stored.answer.warnings),
    }


@pytest.mark.scenario(43)
def test_kills_at_any_time_lose_no_webhook_and_keep_the_order_of_each_recording(
    deployment: Deployment, receiver: Receiver
) -> None:
    prepare(deployment, receiver)
    dice = random.Random(43)

    def fickle(handler: Handler) -> None:
        time.sleep(dice.random() * 0.02)
        dice.choice([accept, accept, accept, accept, status(500), Handler.drop])(handler)

    receiver.behaviour = fickle
    outcomes: list[JobOutcome] = []
    done = threading.Event()

    def end_jobs() -> None:
        for number in range(300):
            outcomes.append(end_job(deployment.ledger, key=f"{number % 30}.wav"))
            time.sleep(0.03)
        done.set()

    ending = threading.Thread(target=end_jobs)
    ending.start()
    kills = 0
    while not done.is_set():
        notifier = deployment.tussis(*NOTIFY)
        time.sleep(1.0 + dice.random() * 2)
        os.kill(notifier.pid, signal.SIGKILL)
        notifier.wait(30)
        kills += 1
        # The lease of a process that was killed expires after 15 s: it is removed here, to have more kills.
        deployment.ledger._client.delete("tussis.notify:webhook:lease")
    ending.join()
    receiver.behaviour = accept
    deployment.tussis(*NOTIFY)
    wait_until(lambda: len(job_ids(receiver)) == 300, 120, "all webhooks")

    assert kills >= 3
    assert job_ids(receiver) == {outcome.job_id for outcome in outcomes}
    ids: dict[str, set[str]] = defaultdict(set)
    order: dict[str, list[str]] = defaultdict(list)
    for request in receiver.requests:
        job_id = request.document["data"]["job_id"]
        ids[job_id].add(request.webhook_id)
        if job_id not in order[request.uri]:
            order[request.uri].append(job_id)
    assert all(len(found) == 1 for found in ids.values())
    for uri, found in order.items():
        assert found == [outcome.job_id for outcome in outcomes if outcome.uri == uri], uri


@pytest.mark.scenario(43)
def test_a_kill_of_the_broker_loses_no_webhook(deployment: Deployment, receiver: Receiver) -> None:
    prepare(deployment, receiver)
    receiver.behaviour = status(503)
    notifier = deployment.tussis(*NOTIFY)
    notifier.wait_for_event("notifier_ready", 60)
    outcomes = [end_job(deployment.ledger) for _ in range(20)]
    notifier.wait_for_event("webhook_failed", 60)
    deployment.servers.broker.kill()
    receiver.behaviour = accept
    deployment.servers.broker.start()
    wait_until(lambda: job_ids(receiver) == {outcome.job_id for outcome in outcomes}, 120, "all webhooks")
    notifier.signal(signal.SIGTERM)
    assert notifier.wait(60) == 0
