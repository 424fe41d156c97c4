"""Upstream is told how each job ended, once, when processes are killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.faulty_worker import KILL_AFTER_COMMIT, with_fault
from tests.support.deployment import Deployment
from tests.support.sounds import wav
from tests.support.waiting import wait_until
from tussis.producer import Producer


@pytest.mark.scenario(40)
def test_a_kill_between_commit_and_closing_tells_the_outcome_once(deployment: Deployment, tmp_path: Path) -> None:
    deployment.environment[KILL_AFTER_COMMIT] = str(tmp_path / "killed")
    job = deployment.enqueue("a.wav", wav(1.0))
    with Producer(deployment.environment["TUSSIS_BROKER_URL"]) as producer:
        deployment.worker(concurrency=1, faulty=True)
        wait_until(lambda: (tmp_path / "killed").exists(), 60, "the kill")
        waited = producer.wait([job.job_id], 60)
        deployment.wait_drained(60)
        told = list(producer.outcomes("upstream", idle_s=1.0))

    deployment.assert_accounted()
    analysis = deployment.analysis(job)
    assert analysis.attempts == 1
    assert told == [waited[job.job_id]]
    assert told == [deployment.store.outcome_of(job.job_id, job.enqueued_at, analysis.id)]
    assert told[0].answer is not None
    assert len(told[0].answer.segments) == analysis.segments


@pytest.mark.scenario(40)
def test_a_recording_that_crashes_is_told_once(deployment: Deployment) -> None:
    good = deployment.enqueue("good.wav", wav(0.5))
    poison = deployment.enqueue("poison.wav", with_fault("segfault"), priority=4)
    deployment.worker(concurrency=1, faulty=True, max_attempts=2)
    deployment.wait_drained(120)
    with Producer(deployment.environment["TUSSIS_BROKER_URL"]) as producer:
        told = {outcome.job_id: outcome for outcome in producer.outcomes("upstream", idle_s=1.0)}
        assert len(list(producer.outcomes("another", idle_s=1.0))) == len(told) == 2

    deployment.assert_accounted(failures=1)
    assert told[good.job_id].succeeded
    assert (told[poison.job_id].state, told[poison.job_id].error_class) == ("failed", "worker_crashed")
    assert told[poison.job_id].error_message == deployment.analysis(poison).error_message
