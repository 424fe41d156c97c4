"""Workers of two models: kills of the worker that routes, of the leader, and of the worker that serves a model."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import redis

from tests.soak.faulty_worker import KILL_AFTER_COMMIT, with_fault
from tests.support.deployment import Deployment
from tests.support.processes import Running
from tests.support.sounds import wav
from tests.support.waiting import wait_until
from tussis.shared.broker import connect
from tussis.shared.queues import UNSERVED_KEY
from tussis.worker.parent.reconciler import LEADER_KEY

#: Short, so that a test can wait for it; the default is 60 s.
VISIBILITY_S = 8


@pytest.fixture
def broker(broker_url: str) -> redis.Redis:
    return connect(broker_url)


def waiting_in(deployment: Deployment, queue: str) -> int:
    return sum(deployment.ledger.depth().waiting.get(queue, {}).values())


@pytest.mark.scenario(39)
@pytest.mark.parametrize("whole", [False, True])
def test_a_kill_between_routing_and_acknowledgement_leaves_one_answer(
    deployment: Deployment, other_model: Path, tmp_path: Path, whole: bool
) -> None:
    """The first copy is in the queue of the model. The second comes back, and the claim finds the answer."""
    killed = tmp_path / "killed"
    deployment.environment[KILL_AFTER_COMMIT] = str(killed)
    job = deployment.enqueue("a.wav", wav(0.5), model="other@2")
    router = deployment.worker(concurrency=1, faulty=True, visibility_timeout_s=VISIBILITY_S)
    wait_until(killed.exists, 60, "the kill")
    if whole:
        router.signal(signal.SIGKILL)
    deployment.worker(concurrency=1, model=other_model, visibility_timeout_s=VISIBILITY_S)
    deployment.wait_drained(90)
    deployment.assert_accounted()
    assert (deployment.analysis(job).model, deployment.analysis(job).attempts) == ("other@2", 1)


@pytest.mark.scenario(39)
def test_a_killed_worker_s_routed_recordings_run_on_another_of_its_model(
    deployment: Deployment, other_model: Path, broker: redis.Redis
) -> None:
    """Messages in flight come back to the queue of the model. A lost one is routed again."""
    jobs = [deployment.enqueue(f"{n}.wav", with_fault("slow-3", wav(0.5, seed=n)), model="other") for n in range(6)]
    deployment.worker(concurrency=1, faulty=True, visibility_timeout_s=VISIBILITY_S)
    wait_until(lambda: waiting_in(deployment, "tussis.any@other") == 6, 60, "the routed messages")
    assert broker.rpop("tussis.any@other:5") is not None  # as if a worker died right after it had taken the message
    first = deployment.worker(concurrency=2, faulty=True, model=other_model, visibility_timeout_s=VISIBILITY_S)
    wait_until(lambda: deployment.store.counts().running == 2, 60, "two recordings in work")
    first.signal(signal.SIGKILL)
    deployment.worker(concurrency=2, faulty=True, model=other_model, visibility_timeout_s=VISIBILITY_S)
    deployment.wait_drained(120)
    deployment.assert_accounted()
    assert {deployment.analysis(job).model for job in jobs} == {"other@2"}


@pytest.mark.scenario(39)
def test_a_killed_leader_fails_no_job_early_and_another_one_fails_it_in_time(
    deployment: Deployment, broker: redis.Redis
) -> None:
    deployment.environment["TUSSIS_MODEL_WAIT_S"] = "5"
    workers: list[Running] = [deployment.worker(concurrency=1, visibility_timeout_s=VISIBILITY_S) for _ in range(2)]
    jobs = [deployment.enqueue(f"{number}.wav", wav(0.5), model="nobody") for number in range(10)]
    wait_until(lambda: waiting_in(deployment, "tussis.any@nobody") == 10, 60, "the routed messages")
    leader = broker.get(LEADER_KEY)
    assert isinstance(leader, bytes)
    for worker in workers:
        names = [event["worker"] for event in worker.events if event.get("event") == "worker_ready"]
        if names == [leader.decode()]:
            worker.signal(signal.SIGKILL)
            break
    else:
        pytest.fail(f"no worker has the name {leader!r}")
    deployment.wait_drained(120)
    deployment.assert_accounted(failures=10)
    assert {deployment.analysis(job).error_class for job in jobs} == {"model_not_served"}
    assert not broker.exists(UNSERVED_KEY)
