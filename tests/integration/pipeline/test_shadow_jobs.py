"""The job of the shadow model: opened in the step that closes the first one, and answered by a worker of its model."""

from __future__ import annotations

import hashlib
import signal
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.deployment import Deployment
from tests.support.sounds import wav
from tests.support.store import a_claim, a_job, a_result, claimed, model_facts
from tussis.shared.errors import MalformedMessage
from tussis.shared.ledger import MOST_MODEL_QUEUES, Ledger
from tussis.shared.messages import Job, parse_message_text, shadow_job
from tussis.shared.queues import MODEL_QUEUES_KEY, list_key, sent_key
from tussis.shared.store.records import FailureFilter
from tussis.worker.detector.manifest import sha256_of

QUEUE = "tussis.any@cough@2"


def of(job: Job) -> Job:
    return shadow_job(job, "cough@2", etag="e1", version_id="v1")


@pytest.fixture
def client(broker_url: str) -> Any:
    with redis.Redis.from_url(broker_url) as client:
        yield client


def test_closing_opens_the_shadow_job_in_the_queue_of_its_model(client: Any) -> None:
    ledger, job = Ledger(client), a_job()
    ledger.open(job)
    client.rpop(list_key(job.queue, job.priority))
    assert ledger.close(job, then=of(job))
    assert ledger.find(job.job_id) is None
    assert ledger.find(of(job).job_id) == of(job)
    assert ledger.depth().open == 1
    assert client.llen(list_key(QUEUE, 9)) == 1
    assert client.zscore(sent_key(QUEUE, 9), of(job).job_id) is not None
    assert client.zscore(MODEL_QUEUES_KEY, QUEUE) is not None
    # The same step again, after its reply was lost.
    assert not ledger.close(job, then=of(job))
    assert client.llen(list_key(QUEUE, 9)) == 1
    assert ledger.close(of(job))
    assert (ledger.depth().open, client.zcard(sent_key(QUEUE, 9))) == (0, 0)


def test_nothing_more_is_opened_if_there_are_too_many_queues_or_a_later_job(client: Any) -> None:
    ledger, job = Ledger(client), a_job()
    ledger.open(job)
    client.zadd(MODEL_QUEUES_KEY, {f"tussis.any@m{number}": number for number in range(MOST_MODEL_QUEUES)})
    assert ledger.close(job, then=of(job))
    assert ledger.find(of(job).job_id) is None
    client.delete(MODEL_QUEUES_KEY)
    later = a_job(job_id=job.job_id, enqueued_at=job.enqueued_at + 60)
    ledger.open(later)
    assert not ledger.close(job, then=of(job))
    assert ledger.find(job.job_id) == later
    assert ledger.find(of(job).job_id) is None


def test_only_workers_can_make_a_shadow_message() -> None:
    job = of(a_job())
    assert parse_message_text(job.to_json()) == job
    assert (job.priority, job.metadata, job.enqueued_at) == (9, {}, a_job().enqueued_at)
    assert "shadow" not in a_job().to_json()
    for wrong, words in (
        (job.to_json().replace(job.job_id, a_job().job_id), "shadow is set by workers only"),
        (job.to_json().replace('"e1"', '"e2"'), "shadow is set by workers only"),
        (job.to_json().replace('"again":false', '"again":true'), "a job with shadow names a model"),
        (job.to_json().replace('"shadow":true', '"shadow":"yes"'), "shadow must be true or false"),
    ):
        assert wrong != job.to_json()
        with pytest.raises(MalformedMessage, match=words):
            parse_message_text(wrong)


def test_two_workers(deployment: Deployment, other_model: Path) -> None:
    store = deployment.store
    first = deployment.worker(concurrency=1)
    [mine] = store.models()
    store.activate(mine.model, activated_by="test", force=True)
    second = deployment.worker(concurrency=1, model=other_model)
    store.start_shadow("other@2", 0.5, started_by="test")
    jobs = [deployment.enqueue(f"{number}.wav", wav(0.5, seed=number)) for number in range(14)]
    broken = deployment.enqueue("broken.wav", b"no audio")
    deployment.wait_drained(90)

    def position(job: Job) -> float:
        return int(hashlib.sha256(f"{job.bucket}/{job.key}".encode()).hexdigest()[:8], 16) / 2**32

    expected = {job.key for job in jobs if position(job) < 0.5}
    assert expected
    assert expected != {job.key for job in jobs}
    hidden = deployment.sql(
        "SELECT recordings.key, analyses.state, models.name FROM analyses JOIN recordings ON "
        "recordings.id = analyses.recording_id JOIN models ON models.id = analyses.model_id WHERE analyses.shadow"
    )
    assert set(hidden) == {(key, "succeeded", "other") for key in expected}
    assert len(hidden) == len(expected)
    deployment.assert_accounted(failures=1)
    assert {analysis.model for analysis in deployment.analyses() if analysis.uri != broken.uri} == {mine.model}
    assert store.counts().succeeded == len(jobs)
    done = [event for event in (*first.events, *second.events) if event.get("event") == "job_done"]
    assert sum(bool(event.get("shadow")) and event["outcome"] == "succeeded" for event in done) == len(expected)
    found = store.shadow_comparison()
    assert found is not None
    assert (found.chosen, found.compared, found.failed) == (len(expected), len(expected), 0)

    store.activate("other@2", activated_by="test")
    shown = deployment.sql("SELECT key FROM current WHERE model = 'other@2'")
    assert {key for (key,) in shown} == expected


def test_a_death_between_the_commit_and_the_closing_loses_no_shadow_job(
    deployment: Deployment, other_model: Path, tiny_model: Path
) -> None:
    store = deployment.store
    first = deployment.worker(concurrency=1)
    [mine] = store.models()
    store.activate(mine.model, activated_by="test", force=True)
    first.signal(signal.SIGTERM)
    assert first.wait(60) == 0
    facts = model_facts(name="other", version="2", sha256=sha256_of(other_model.read_bytes()))
    store.register_model(facts)
    store.start_shadow("other@2", 1.0, started_by="test")
    # A worker has stored the result, and was killed before it closed the job.
    job = deployment.enqueue("a.wav", wav(0.5, seed=1))
    sha256 = sha256_of(tiny_model.read_bytes())
    name, _, version = mine.model.partition("@")
    request = a_claim(job, model_facts(name=name, version=version, sha256=sha256), etag=job.etag)
    claim = claimed(store.claim(request))
    assert claim.shadow == "other@2"
    assert store.complete(claim, a_result())

    deployment.worker(concurrency=1)
    deployment.worker(concurrency=1, model=other_model)
    deployment.wait_drained(90)
    assert deployment.sql("SELECT state FROM analyses WHERE shadow") == [("succeeded",)]
    assert store.counts().succeeded == 1
    assert list(store.failures(FailureFilter())) == []
