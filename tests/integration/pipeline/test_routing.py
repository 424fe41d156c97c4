"""Jobs that name a model, with workers of two models on real servers: the right one answers, or they fail in time."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.support.deployment import Deployment
from tests.support.sounds import wav
from tests.support.waiting import wait_until
from tussis.shared.broker import connect
from tussis.shared.queues import MODEL_QUEUES_KEY, UNSERVED_KEY

#: Seconds after which a job fails whose model nobody serves, in these tests.
WAIT_S = 6.0


def test_jobs_that_name_a_model_are_answered_by_it_whoever_takes_them(
    deployment: Deployment, other_model: Path
) -> None:
    names = ("tiny", "tiny@1", "other", "other@2", None)
    jobs = [
        deployment.enqueue(f"{number}.wav", wav(0.5, seed=number), model=names[number % 5], priority=number % 3)
        for number in range(25)
    ]
    first = deployment.worker(concurrency=1)
    # Only this worker takes messages: all jobs of the other model are routed, and none is answered.
    routed = {"tussis.any@other": 5, "tussis.any@other@2": 5}

    def waiting() -> dict[str, int]:
        return {queue: sum(steps.values()) for queue, steps in deployment.ledger.depth().waiting.items() if steps}

    wait_until(lambda: deployment.ledger.depth().open == 10 and waiting() == routed, 90, "the first model's answers")
    assert deployment.store.counts().succeeded == 15
    depth = deployment.ledger.depth()

    status = deployment.tussis("status", "--json")
    assert status.wait(60) == 0, status.text
    told = json.loads("".join(status.stdout))
    assert told["unserved_queues"] == ["tussis.any@other", "tussis.any@other@2"]
    assert told["waiting"]["tussis.any@other@2"] == {
        str(priority): count for priority, count in depth.waiting["tussis.any@other@2"].items()
    }
    status = deployment.tussis("status")
    assert status.wait(60) == 0, status.text
    assert "tussis.any@other@2: no live worker takes its messages: 5 open jobs wait" in " ".join(status.text.split())

    deployment.worker(concurrency=1, model=other_model)
    deployment.wait_drained(60)

    deployment.assert_accounted()
    answers = {job.job_id: deployment.analysis(job) for job in jobs}
    for job in jobs:
        assert str(answers[job.job_id].model).startswith(job.model or "tiny@1")
        assert answers[job.job_id].attempts == 1
    others = [job for job in jobs if str(job.model).startswith("other")]
    started = sorted(others, key=lambda job: deployment.store.attempts_of(answers[job.job_id].id)[0].started_at)
    assert [job.priority for job in started] == sorted(job.priority for job in others)
    passed_on = [event for event in first.events if event.get("outcome") == "routed"]
    assert len(passed_on) == len(others)


def test_a_job_for_a_model_that_nobody_serves_fails_after_the_wait_and_not_before(deployment: Deployment) -> None:
    client = connect(deployment.environment["TUSSIS_BROKER_URL"])
    deployment.environment["TUSSIS_MODEL_WAIT_S"] = str(WAIT_S)
    deployment.worker(concurrency=1)
    began = time.monotonic()
    nobody = deployment.enqueue("a.wav", wav(0.5, seed=1), model="nobody@1")
    wait_until(lambda: deployment.ledger.depth().waiting.get("tussis.any@nobody@1"), 30, "the message in its queue")
    good = deployment.enqueue("b.wav", wav(0.5, seed=2))
    wait_until(lambda: deployment.store.job(good.job_id), 30, "an answer of the worker's own model")

    wait_until(lambda: deployment.store.job(nobody.job_id), 60, "the failure")
    assert time.monotonic() - began >= WAIT_S
    deployment.wait_drained(60)

    failure = deployment.analysis(nobody)
    assert (failure.error_class, failure.model, failure.attempts) == ("model_not_served", "nobody@1", 1)
    assert failure.error_message == "the job names model 'nobody@1', and no worker has served it (limit 6 s)"
    wait_until(lambda: not client.exists(MODEL_QUEUES_KEY), 30, "the empty queue to be forgotten")
    assert not client.exists(UNSERVED_KEY)
    client.close()
    deployment.assert_accounted(failures=1)
