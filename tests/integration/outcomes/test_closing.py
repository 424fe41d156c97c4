"""Closing a job tells its outcome, in one step of the broker."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from typing import Any

import pytest
import redis

from tests.support.brokers import own_broker
from tests.support.outcomes import a_job, failed, succeeded, told
from tussis.shared.broker import connect
from tussis.shared.errors import BrokerRefused
from tussis.shared.ledger import Ledger
from tussis.shared.ledger_repair import LedgerRepair, Seen
from tussis.shared.messages import Job
from tussis.shared.outcomes import OutcomeBounds, parse_outcome
from tussis.shared.queues import LEDGER_KEY, OUTCOMES_COUNT_KEY, OUTCOMES_KEY, outcome_key, sent_key


@pytest.fixture
def ledger(client: redis.Redis) -> Ledger:
    return Ledger(client)


def opened(ledger: Ledger, count: int = 1) -> list[Job]:
    jobs = [a_job() for _ in range(count)]
    ledger.open_many(jobs)
    return jobs


def test_a_job_that_is_closed_is_told_once_and_kept_for_a_while(client: Any, ledger: Ledger) -> None:
    (job,) = opened(ledger)
    outcome = succeeded(job)

    assert ledger.close(job, outcome)
    assert not ledger.close(job, outcome)

    assert told(client) == [outcome]
    assert parse_outcome(client.get(outcome_key(job.job_id))) == outcome
    assert 3500 < client.ttl(outcome_key(job.job_id)) <= 3600
    assert ledger.depth().open == 0


def test_a_message_without_a_ledger_entry_and_a_late_copy_tell_nothing(client: Any, ledger: Ledger) -> None:
    pushed_past_the_ledger = a_job()
    ledger.close(pushed_past_the_ledger, succeeded(pushed_past_the_ledger))
    (job,) = opened(ledger)
    again = replace(job, enqueued_at=job.enqueued_at + 1)
    ledger.close(job, failed(job))
    ledger.open(again)

    assert not ledger.close(job, failed(job))

    assert told(client) == [failed(job)]
    assert ledger.find(job.job_id) == again
    assert ledger.close(again, succeeded(again))
    assert told(client) == [failed(job), succeeded(again)]
    assert parse_outcome(client.get(outcome_key(job.job_id))) == succeeded(again)


def test_the_stream_keeps_exactly_the_newest_and_counts_all(client: Any) -> None:
    ledger = Ledger(client, bounds=OutcomeBounds(kept=3, ttl_s=60))
    jobs = opened(ledger, 5)
    for job in jobs:
        ledger.close(job, succeeded(job))

    assert [outcome.job_id for outcome in told(client)] == [job.job_id for job in jobs[2:]]
    assert [entry_id.split(b"-")[1] for entry_id, _ in client.xrange(OUTCOMES_KEY)] == [b"3", b"4", b"5"]
    assert client.get(OUTCOMES_COUNT_KEY) == b"5"
    assert client.ttl(outcome_key(jobs[0].job_id)) <= 60


def test_a_clock_that_was_set_back_changes_nothing(client: Any, ledger: Ledger) -> None:
    first, second = opened(ledger, 2)
    ledger.close(first, succeeded(first))
    client.xadd(OUTCOMES_KEY, {"outcome": succeeded(first).to_json()}, id="9999999999999-2")
    client.set(OUTCOMES_COUNT_KEY, 2)

    assert ledger.close(second, succeeded(second))

    assert client.xrevrange(OUTCOMES_KEY, count=1)[0][0] == b"9999999999999-3"
    assert told(client)[-1] == succeeded(second)


def test_what_cannot_be_told_stays_open(client: Any, ledger: Ledger) -> None:
    (job,) = opened(ledger)
    client.set(OUTCOMES_KEY, "another program's")
    with pytest.raises(BrokerRefused):
        ledger.close(job, succeeded(job))
    assert ledger.find(job.job_id) == job
    client.delete(OUTCOMES_KEY)

    assert ledger.close(job, succeeded(job))

    assert client.xrange(OUTCOMES_KEY)[0][0].endswith(b"-1"), "the try that failed has no number"


def test_a_full_broker_closes_and_tells() -> None:
    with own_broker() as broker:
        client: Any = connect(broker.url)
        ledger = Ledger(client)
        jobs = opened(ledger, 20)
        client.config_set("maxmemory", client.info("memory")["used_memory"] // 2)
        with pytest.raises(BrokerRefused, match="full"):
            opened(ledger)
        for job in jobs:
            assert ledger.close(job, succeeded(job))
        assert [outcome.job_id for outcome in told(client)] == [job.job_id for job in jobs]
        client.close()


def test_an_unreadable_message_that_is_discarded_is_told(client: Any, ledger: Ledger) -> None:
    job = a_job()
    held = {"v": 2, "job_id": job.job_id, "enqueued_at": 5.0}
    client.hset(LEDGER_KEY, job.job_id, json.dumps(held))
    client.zadd(sent_key("tussis.gpu", 3), {job.job_id: 1.0})
    ledger.discard(job.job_id, held | {"v": 3}, failed(job))
    assert told(client) == []

    ledger.discard(job.job_id, held, failed(job, "unknown_message_version"))

    assert told(client) == [failed(job, "unknown_message_version")]
    assert client.exists(LEDGER_KEY, sent_key("tussis.gpu", 3)) == 0


@pytest.mark.parametrize("name", [str(uuid.uuid4()).encode(), b"\xff"], ids=["a job id", "no UTF-8"])
def test_an_entry_of_the_ledger_that_the_reconciler_removes_is_told(client: Any, name: bytes) -> None:
    sent = sent_key("tussis.any", 5)
    client.hset(LEDGER_KEY, name, "junk")
    client.zadd(sent, {name: 1.0})

    assert LedgerRepair(client).resend({name: Seen(sent, 1.0)}) == 1

    (outcome,) = told(client)
    assert outcome.job_id == name.decode("utf-8", "replace")
    assert (outcome.error_class, outcome.succeeded) == ("malformed_message", False)
    assert client.exists(LEDGER_KEY) == 0


def test_a_message_of_another_object_closes_no_job_that_has_its_id(client: Any, ledger: Ledger) -> None:
    (job,) = opened(ledger)
    foreign = replace(job, key="foreign.wav")

    assert not ledger.close(foreign, failed(foreign))
    assert not any(ledger.close_each([(foreign, failed(foreign))]))

    assert ledger.find(job.job_id) == job
    assert told(client) == []


@pytest.mark.parametrize("error_class", ["job_id_mismatch", "job_id_taken"])
def test_the_outcome_of_a_message_with_the_id_of_another_does_not_replace_the_kept_one(
    client: Any, ledger: Ledger, error_class: str
) -> None:
    (job,) = opened(ledger)
    ledger.close(job, succeeded(job))
    foreign = replace(job, key="foreign.wav")
    ledger.open(foreign)
    outcome = replace(failed(foreign), error_class=error_class)

    assert ledger.close(foreign, outcome)

    assert told(client) == [succeeded(job), outcome]
    assert parse_outcome(client.get(outcome_key(job.job_id))) == succeeded(job)
    # Without a kept outcome it is kept, and the next outcome of the job replaces it.
    client.delete(outcome_key(job.job_id))
    ledger.open(foreign)
    ledger.close(foreign, outcome)
    assert parse_outcome(client.get(outcome_key(job.job_id))) == outcome
    ledger.open(job)
    ledger.close(job, succeeded(job))
    assert parse_outcome(client.get(outcome_key(job.job_id))) == succeeded(job)
