"""A worker gets messages with foreign job ids: they fail by name, and the job of the id keeps its answer."""

from __future__ import annotations

import json
import time
from dataclasses import replace

from tests.support.deployment import Deployment
from tests.support.sounds import wav
from tests.support.waiting import wait_until
from tussis.shared.broker import connect
from tussis.shared.messages import Job, envelope
from tussis.shared.queues import list_key, outcome_key
from tussis.shared.store.records import FailureFilter


def test_a_message_with_the_id_of_another_recording_fails_and_moves_nothing(deployment: Deployment) -> None:
    deployment.worker(concurrency=1)
    jobs = [
        deployment.enqueue("derived.wav", wav(0.5, seed=1)),
        deployment.enqueue("random.wav", wav(0.5, seed=2), again=True),
    ]
    deployment.wait_drained(90)
    before = [deployment.analysis(job) for job in jobs]
    client = connect(deployment.environment["TUSSIS_BROKER_URL"])
    kept = [client.get(outcome_key(job.job_id)) for job in jobs]
    deployment.bucket.put("foreign.wav", wav(0.5, seed=3))

    for job in jobs:
        foreign = Job(job_id=job.job_id, bucket=job.bucket, key="foreign.wav", enqueued_at=time.time())
        deployment.ledger.open(foreign)
        # The same without the ledger, and a redelivery.
        client.lpush(list_key(foreign.queue, foreign.priority), envelope(foreign))
    never = replace(jobs[0], key="never.wav", etag="e1", enqueued_at=time.time(), metadata={"of": "never"})
    never = replace(never, job_id=f"{never.job_id[:-1]}{'1' if never.job_id[-1] != '1' else '2'}")
    deployment.ledger.open(never)
    deployment.wait_drained(90)

    assert [deployment.analysis(job) for job in jobs] == before
    assert [client.get(outcome_key(job.job_id)) for job in jobs] == kept
    failures = {failure.job_id: failure for failure in deployment.store.failures(FailureFilter())}
    assert {job_id: failure.error_class for job_id, failure in failures.items()} == {
        jobs[0].job_id: "job_id_taken",
        jobs[1].job_id: "job_id_taken",
        never.job_id: "job_id_mismatch",
    }
    assert deployment.store.job(never.job_id) is None
    told = json.loads(client.get(outcome_key(never.job_id)) or "")
    assert (told["uri"], told["error"]["class"]) == (never.uri, "job_id_mismatch")
    shown = deployment.tussis("job", jobs[0].job_id, "--json")
    assert shown.wait(60) == 0, shown.text
    assert json.loads("".join(shown.stdout))["uri"] == jobs[0].uri
    # The job itself can be sent again.
    again = deployment.enqueue("derived.wav", None, etag=jobs[0].etag)
    assert again.job_id == jobs[0].job_id
    deployment.wait_drained(90)
    assert deployment.analysis(again).id == before[0].id
    wait_until(lambda: deployment.ledger.depth().open == 0, 30, "the job to be closed")
    client.close()
