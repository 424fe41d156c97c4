"""A job of the shadow model tells no outcome: closed, as a dead letter, unreadable, or replayed."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support.outcomes import a_job as a_job_of_outcomes
from tests.support.outcomes import an_answer
from tests.support.store import a_claim, a_job, a_refusal, a_result, label, model_facts
from tussis.shared.errors import MalformedMessage
from tussis.shared.ledger import Ledger
from tussis.shared.ledger_repair import LedgerRepair, Seen
from tussis.shared.messages import Job, shadow_job
from tussis.shared.queues import LEDGER_KEY, OPEN_KEY, OUTCOMES_KEY, Device, outcome_key, sent_key
from tussis.shared.settings import load_settings
from tussis.shared.store.records import Claimed
from tussis.shared.store.repository import Store
from tussis.worker.outcome import Failed, Settled, Succeeded
from tussis.worker.pipeline.context import WorkerContext
from tussis.worker.pipeline.dead_letters import dead_letter
from tussis.worker.pipeline.tasks import act
from tussis.worker.status.rundir import RunDir

ONE, TWO = model_facts(), model_facts(version="2", sha256="b" * 64)


@pytest.fixture
def context(client: Any, store: Store, tmp_path: Path) -> WorkerContext:
    folder = RunDir(tmp_path / "run")
    folder.create("one")
    nothing = cast(Any, None)
    return WorkerContext(load_settings(), store, Ledger(client), nothing, nothing, TWO, "one", Device.CPU, folder)


def shadow_of(job: Job) -> Job:
    return shadow_job(job, label(TWO), etag="e1", version_id=None)


def told(client: Any, job_id: str) -> list[Any]:
    return [*client.xrange(OUTCOMES_KEY), *filter(None, [client.get(outcome_key(job_id))])]


def test_each_end_of_a_shadow_job(client: Any, context: WorkerContext) -> None:
    job = shadow_of(a_job_of_outcomes())
    ends = (Succeeded(1, 2.0, an_answer()), Settled(1, cast(Any, "succeeded")), Failed(None, "corrupt", "why"))
    for end in ends:
        assert context.ledger.open(job)
        act(end, job, context)
        assert context.ledger.find(job.job_id) is None
    assert told(client, job.job_id) == []


def test_a_shadow_message_that_cannot_be_read(client: Any, context: WorkerContext, store: Store) -> None:
    job = shadow_of(a_job_of_outcomes())
    for held in (json.loads(job.to_json()) | {"v": 9}, json.loads(job.to_json()) | {"etag": ["e1"]}):
        client.hset(LEDGER_KEY, job.job_id, json.dumps(held))
        client.zadd(OPEN_KEY, {job.job_id: 1.0})
        dead_letter(context, {"message": held}, MalformedMessage("why"))
        assert client.exists(LEDGER_KEY, OPEN_KEY) == 0
    assert told(client, job.job_id) == []
    assert store.counts().dead_letters == 2
    assert store.counts().failed == 0
    assert store.ended_since(datetime.now(UTC) - timedelta(hours=1), 10) == []

    # What the reconciler removes, because the id is that of another job.
    sent = sent_key(job.queue, job.priority)
    client.hset(LEDGER_KEY, "another-id", job.to_json())
    client.zadd(sent, {"another-id": 1.0})
    LedgerRepair(client).resend({b"another-id": Seen(sent, 1.0)})
    assert client.exists(LEDGER_KEY) == 0
    assert told(client, "another-id") == []


def test_a_replay_also_after_the_shadow_model_became_the_active_one(store: Store) -> None:
    for model in (ONE, TWO):
        store.register_model(model)
    store.activate(label(ONE), activated_by="a@test", force=True)
    store.start_shadow(label(TWO), 1.0, started_by="b@test")
    jobs = [a_job(key=f"{number}.wav") for number in range(6)]
    for job in jobs:
        for one, model in ((job, ONE), (shadow_of(job), TWO)):
            claim = store.claim(a_claim(one, model))
            assert isinstance(claim, Claimed)
            assert store.complete(claim, a_result())
    store.refuse(a_refusal(shadow_of(a_job(key="refused.wav")), model=TWO))
    since = datetime.now(UTC) - timedelta(hours=1)
    before = store.ended_since(since, 100)
    assert [end.outcome.job_id for end in before] == [job.job_id for job in jobs]

    store.activate(label(TWO), activated_by="a@test")

    assert store.ended_since(since, 100) == before
    assert [end.outcome.job_id for end in store.ended_since(since, 3)] == [job.job_id for job in jobs[:3]]
    # An ordinary job that is answered by what was the shadow's analysis is told.
    later = replace(a_job(key="0.wav"), enqueued_at=jobs[0].enqueued_at + 60)
    assert not isinstance(store.claim(a_claim(later, TWO)), Claimed)
    assert later.job_id in [end.outcome.job_id for end in store.ended_since(since, 100)]
