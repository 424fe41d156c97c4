"""The counters of batches are exact: each job counts once when it is opened, and once when it ends."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import redis

from tests.support.outcomes import a_job, failed, succeeded
from tussis.shared import batch_scripts
from tussis.shared.admission import Admission
from tussis.shared.batches import Batches, BatchOutcome, BatchStatus
from tussis.shared.broker import connect
from tussis.shared.errors import BatchUnknown, BrokerUnavailable, InvalidJob, OutcomesGap, TooManyBatches, WaitTimeout
from tussis.shared.ledger import Ledger
from tussis.shared.ledger_repair import LedgerRepair, Seen
from tussis.shared.messages import Job, shadow_job
from tussis.shared.outcome_group import OutcomeGroup
from tussis.shared.outcome_reader import OutcomeReader
from tussis.shared.outcomes import OutcomeBounds, OutcomeState
from tussis.shared.queues import (
    BATCH_OF_KEY,
    BATCHES_KEY,
    BATCHES_TO_TELL_KEY,
    LEDGER_KEY,
    OUTCOMES_KEY,
    batch_key,
    list_key,
    sent_key,
)
from tussis.worker.parent.reconciler import Reconciler


@pytest.fixture
def ledger(client: redis.Redis) -> Ledger:
    return Ledger(client)


@pytest.fixture
def batches(client: redis.Redis) -> Batches:
    return Batches(client)


def opened(ledger: Ledger, count: int = 1, batch: str = "night") -> list[Job]:
    jobs = [a_job() for _ in range(count)]
    assert ledger.open_many(jobs, batch) == [True] * count
    return jobs


def counters(status: BatchStatus) -> tuple[int, int, int, int, int]:
    assert status.total == status.succeeded + status.failed + status.cancelled + status.open
    return status.total, status.succeeded, status.failed, status.cancelled, status.open


def ends(client: Any) -> list[dict[str, Any]]:
    """The ends of batches in the stream, the oldest first."""
    return [json.loads(fields[b"batch"]) for _, fields in client.xrange(OUTCOMES_KEY) if b"batch" in fields]


def test_each_end_counts_once(client: Any, ledger: Ledger, batches: Batches) -> None:
    one, two, three = opened(ledger, 3)
    ledger.close(one, succeeded(one))
    ledger.close(two, failed(two))
    assert counters(batches.status("night")) == (3, 1, 1, 0, 1)
    # A late copy of the message, and a redelivery after a kill between the commit and the closing.
    ledger.close(one, succeeded(one))
    ledger.close(two, failed(two))
    assert counters(batches.status("night")) == (3, 1, 1, 0, 1)
    ledger.close(three, replace(failed(three), state=OutcomeState.CANCELLED))
    assert counters(batches.status("night")) == (3, 1, 1, 1, 0)
    assert client.exists(BATCH_OF_KEY) == 0
    assert batches.status("night").state == "open"
    assert ends(client) == []


def test_what_happens_between_opening_and_closing_counts_nothing(client: Any, ledger: Ledger, batches: Batches) -> None:
    """A retry after a fault, a job that is handed back, routed, lost and sent again; then its end."""
    (job,) = opened(ledger)
    ledger.defer(job, 0.0)
    LedgerRepair(client).resend_due()
    ledger.send_again(job)
    assert ledger.route(job, "cough@2", 900) is None
    sent = sent_key("tussis.any@cough@2", job.priority)
    assert LedgerRepair(client).resend({job.job_id.encode(): Seen(sent, client.zscore(sent, job.job_id))}) == 1
    assert counters(batches.status("night")) == (1, 0, 0, 0, 1)
    ledger.close(job, failed(job))
    assert counters(batches.status("night")) == (1, 0, 1, 0, 0)


def test_a_message_that_cannot_be_read_counts_as_failed(client: Any, ledger: Ledger, batches: Batches) -> None:
    dead, junk = opened(ledger, 2)
    held = {"v": 9, "job_id": dead.job_id}
    client.hset(LEDGER_KEY, mapping={dead.job_id: json.dumps(held), junk.job_id: "junk"})
    ledger.discard(dead.job_id, held, failed(dead, "unknown_message_version"))
    sent = sent_key(junk.queue, junk.priority)
    LedgerRepair(client).resend({junk.job_id.encode(): Seen(sent, client.zscore(sent, junk.job_id))})
    assert counters(batches.status("night")) == (2, 0, 2, 0, 0)
    # `tussis failures retry` enqueues without the batch.
    again = replace(dead, enqueued_at=dead.enqueued_at + 9)
    assert ledger.open(again)
    ledger.close(again, succeeded(again))
    assert counters(batches.status("night")) == (2, 0, 2, 0, 0)


def test_a_shadow_job_is_in_no_batch(client: Any, ledger: Ledger, batches: Batches) -> None:
    (job,) = opened(ledger)
    shadow = shadow_job(replace(job, etag="e1"), "cough@2", etag="e1", version_id=None)
    ledger.close(job, succeeded(job), shadow)
    assert client.exists(BATCH_OF_KEY) == 0
    assert counters(batches.status("night")) == (1, 1, 0, 0, 0)
    ledger.close(shadow)
    assert counters(batches.status("night")) == (1, 1, 0, 0, 0)


def test_jobs_that_are_open_already_join_and_those_that_ended_count_again(ledger: Ledger, batches: Batches) -> None:
    alone, other = a_job(), a_job()
    ledger.open(alone)
    ledger.open_many([other], "day")
    fresh = a_job()
    assert ledger.open_many([alone, other, fresh, fresh], "night") == [False, False, True, False]
    assert counters(batches.status("night")) == (3, 0, 0, 0, 3)
    assert counters(batches.status("day")) == (1, 0, 0, 0, 1)
    assert ledger.find(other.job_id) == other
    # The same jobs again: nothing changes.
    ledger.open_many([alone, other, fresh], "night")
    assert counters(batches.status("night")) == (3, 0, 0, 0, 3)
    ledger.close(other, succeeded(other))
    assert counters(batches.status("night")) == (3, 1, 0, 0, 2)
    assert counters(batches.status("day")) == (1, 1, 0, 0, 0)
    again = replace(other, enqueued_at=other.enqueued_at + 1)
    assert ledger.open_many([again], "night") == [True]
    assert counters(batches.status("night")) == (4, 1, 0, 0, 3)
    # A late copy of the first message does not end the second job.
    assert not ledger.close(other, succeeded(other))
    assert counters(batches.status("night")) == (4, 1, 0, 0, 3)


def test_a_batch_is_told_in_the_step_that_closes_its_last_job(client: Any, ledger: Ledger, batches: Batches) -> None:
    one, two = opened(ledger, 2)
    ledger.close(one, succeeded(one))
    closed = batches.close("night")
    assert (closed.state, closed.done) == ("closed", False)
    assert ends(client) == []
    ledger.close(two, failed(two))
    status = batches.status("night")
    assert status.state == "done"
    (end,) = ends(client)
    assert end == {
        "v": 1,
        "batch": "night",
        "total": 2,
        "succeeded": 1,
        "failed": 1,
        "cancelled": 0,
        "opened_at": status.opened_at,
        "closed_at": status.closed_at,
        "done_at": status.done_at,
    }
    assert [entry_id.split(b"-")[1] for entry_id, _ in client.xrange(OUTCOMES_KEY)] == [b"1", b"2", b"3"]
    assert batches.close("night") == replace(batches.status("night"), closed_at=closed.closed_at)
    assert client.exists(BATCHES_TO_TELL_KEY) == 0
    # A further job opens it again. It is told again.
    (three,) = opened(ledger)
    assert batches.status("night").state == "open"
    ledger.close(three, succeeded(three))
    batches.close("night")
    Reconciler(client, LedgerRepair(client), "one").look()
    assert [end["total"] for end in ends(client)] == [2, 3]


def test_the_leader_tells_a_batch_that_is_closed_after_its_last_job(
    client: Any, ledger: Ledger, batches: Batches
) -> None:
    (job,) = opened(ledger)
    ledger.close(job, succeeded(job))
    assert batches.close("night").done
    batches.close("night")
    assert batches.close("nothing", make=True).done
    opened(ledger, batch="more")
    batches.close("more")
    client.zadd(BATCHES_TO_TELL_KEY, {"more": 1.0, "unknown": 2.0})
    leader = Reconciler(client, LedgerRepair(client, bounds=OutcomeBounds(kept=2)), "one")
    leader.look()
    leader.look()
    assert sorted((end["batch"], end["total"]) for end in ends(client)) == [("night", 1), ("nothing", 0)]
    assert client.exists(BATCHES_TO_TELL_KEY) == 0


def test_readers_get_the_ends_of_batches_only_if_they_want_them(client: Any, ledger: Ledger, batches: Batches) -> None:
    one, two = opened(ledger, 2)
    batches.close("night")
    ledger.close(one, succeeded(one))
    ledger.close(two, succeeded(two))
    (three,) = opened(ledger, batch="day")
    ledger.close(three, failed(three))

    jobs = [one.job_id, two.job_id, three.job_id]
    assert [outcome.job_id for outcome in OutcomeGroup(client, "it", "jobs", idle_s=0.1)] == jobs
    assert client.xpending(OUTCOMES_KEY, "jobs")["pending"] == 0
    seen: list[str | BatchOutcome] = []
    for outcome in OutcomeGroup(client, "it", "both", idle_s=0.1, on_batch=seen.append):
        seen.append(outcome.job_id)
    status = batches.status("night")
    assert status.closed_at is not None
    assert status.done_at is not None
    end = BatchOutcome(
        batch="night",
        total=2,
        succeeded=2,
        failed=0,
        cancelled=0,
        opened_at=status.opened_at,
        closed_at=status.closed_at,
        done_at=status.done_at,
    )
    assert seen == [one.job_id, two.job_id, end, three.job_id]
    assert {outcome.job_id for outcome in OutcomeReader(client).wait_each(jobs, 5)} == set(jobs)

    # One that was not acknowledged comes again: its handling failed.
    def fails(end: BatchOutcome) -> None:
        raise LookupError

    broken = OutcomeGroup(client, "it", "again", "me", idle_s=0.1, on_batch=fails)
    with pytest.raises(LookupError):
        list(broken)
    seen.clear()
    list(OutcomeGroup(client, "it", "again", "me", idle_s=0.1, on_batch=seen.append))
    assert seen == [end]
    # The end of a batch that left the stream is a gap, as an outcome is.
    other = OutcomeGroup(client, "it", "gap", "me", idle_s=0.1, on_batch=fails)
    with pytest.raises(LookupError):
        list(other)
    client.xtrim(OUTCOMES_KEY, maxlen=0)
    with pytest.raises(OutcomesGap):
        list(OutcomeGroup(client, "it", "gap", "me", idle_s=0.1))


def test_at_random(client: Any, ledger: Ledger, batches: Batches) -> None:
    """Any order of openings, closings and repetitions: the counters are those of a model."""
    draw = random.Random(5)
    names = ["a", "b", "c"]
    jobs = [a_job() for _ in range(12)]
    open_in: dict[str, set[str]] = {}
    totals, states, told = Counter[str](), Counter[tuple[str, str]](), Counter[str]()
    closed: set[str] = set()

    def still_open(name: str) -> bool:
        return any(name in members for members in open_in.values())

    for _ in range(600):
        number = draw.randrange(len(jobs))
        job, action, name = jobs[number], draw.random(), draw.choice(names)
        if action < 0.45:
            if job.job_id not in open_in:
                job = jobs[number] = replace(job, enqueued_at=job.enqueued_at + 1)
            ledger.open_many([job], name)
            members = open_in.setdefault(job.job_id, set())
            if name not in members:
                members.add(name)
                totals[name] += 1
                closed.discard(name)
        elif action < 0.9:
            state = draw.choice(list(OutcomeState))
            for _ in range(draw.choice([1, 2])):
                ledger.close(job, replace(succeeded(job), state=state))
            for member in open_in.pop(job.job_id, ()):
                states[member, state] += 1
                told[member] += member in closed and not still_open(member)
        elif totals[name]:
            batches.close(name)
            told[name] += name not in closed and not still_open(name)
            closed.add(name)
            LedgerRepair(client).tell_batches()
    for name in names:
        status = batches.status(name)
        expected = [states[name, state] for state in OutcomeState]
        left = sum(name in members for members in open_in.values())
        assert counters(status) == (totals[name], *expected, left)
        assert (status.closed_at is not None) is (name in closed)
    assert Counter(end["batch"] for end in ends(client)) == told
    assert len(told) == 3
    assert client.hlen(BATCH_OF_KEY) == sum(map(bool, open_in.values()))


def test_old_batches_are_removed_and_open_ones_are_kept(
    client: Any, ledger: Ledger, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = opened(ledger)
    assert client.ttl(batch_key("night")) == -1
    ledger.close(job, succeeded(job))
    assert 0 < client.ttl(batch_key("night")) <= batch_scripts.KEPT_S
    opened(ledger)
    assert client.ttl(batch_key("night")) == -1
    assert 0 < batches.close("empty", make=True).opened_at <= time.time() + 60
    assert 0 < client.ttl(batch_key("empty")) <= batch_scripts.KEPT_S
    client.zadd(BATCHES_KEY, {f"old-{number}": number for number in range(batch_scripts.MOST_BATCHES - 2)})
    client.hset(batch_key("old-0"), mapping={"total": 3, "open": 3, "opened_at": 0})

    opened(ledger, batch="new")

    assert client.zcard(BATCHES_KEY) == batch_scripts.MOST_BATCHES
    assert client.zscore(BATCHES_KEY, "old-0") is not None, "it has open jobs"
    assert client.zscore(BATCHES_KEY, "old-1") is None, "it has expired"
    assert [status.name for status in batches.all()] == ["old-0", "night", "empty", "new"]
    for name in client.zrange(BATCHES_KEY, 0, -1):
        client.hset(batch_key(name.decode()), mapping={"total": 1, "open": 1, "opened_at": 0})
    refused = a_job()
    with pytest.raises(TooManyBatches, match="1000 batches have open jobs"):
        ledger.open_many([refused], "further")
    with pytest.raises(TooManyBatches):
        batches.close("further", make=True)
    assert ledger.find(refused.job_id) is None
    assert client.zcard(BATCHES_KEY) == batch_scripts.MOST_BATCHES


def test_after_a_loss_of_keys_no_job_is_held_back(client: Any, ledger: Ledger, batches: Batches) -> None:
    """An operator removed the batch, or another program overwrote it; then a flush."""
    one, two, three = opened(ledger, 3)
    client.delete(batch_key("night"))
    assert ledger.close(one, succeeded(one))
    assert client.exists(batch_key("night")) == 0
    client.set(batch_key("night"), "another program's")
    assert ledger.close(two, succeeded(two))
    client.set(BATCH_OF_KEY, "another program's")
    assert ledger.close(three, succeeded(three))
    assert ledger.depth().open == 0
    client.flushdb()
    with pytest.raises(BatchUnknown, match=r"no batch 'night': .*`tussis batch`"):
        batches.status("night")
    with pytest.raises(BatchUnknown):
        batches.close("night")
    assert batches.all() == []
    # Enqueued again, it begins anew.
    opened(ledger, 2)
    assert counters(batches.status("night")) == (2, 0, 0, 0, 2)


def test_the_rate_and_the_time_left_come_from_what_ended(client: Any, ledger: Ledger, batches: Batches) -> None:
    jobs = opened(ledger, 40)
    status = batches.status("night")
    assert (status.rate_per_s, status.left_s) == (None, None)
    for job in jobs[:30]:
        ledger.close(job, succeeded(job))
    ledger.close(jobs[30], replace(failed(jobs[30]), state=OutcomeState.CANCELLED))
    # As if the batch had been opened ten seconds ago.
    seconds, microseconds = client.time()
    now = seconds + microseconds / 1e6
    client.hset(batch_key("night"), "resumed_at", now - 10.0)
    status = batches.status("night")
    assert status.rate_per_s == pytest.approx(3.0, rel=0.05)
    assert status.rate_span_s == pytest.approx(10.0, rel=0.05)
    assert status.left_s == pytest.approx(9 / 3.0, rel=0.05)
    for job in jobs[31:]:
        ledger.close(job, succeeded(job))
    assert batches.status("night").left_s == 0.0


def test_waiting(client: Any, ledger: Ledger, batches: Batches) -> None:
    (job,) = opened(ledger)
    with pytest.raises(WaitTimeout, match="batch night is not done after 0 s: 1 jobs are open"):
        batches.wait("night", 0)
    ledger.close(job, succeeded(job))
    with pytest.raises(WaitTimeout, match="it is not closed"):
        batches.wait("night", 0.1)
    looks: list[BatchStatus] = []

    def look(status: BatchStatus) -> None:
        looks.append(status)
        if len(looks) == 2:
            batches.close("night")

    assert batches.wait("night", 60, look).done
    assert len(looks) == 3
    with pytest.raises(BatchUnknown):
        batches.wait("another", 60)


@pytest.mark.parametrize("name", ["", "a b", "-a", "a" * 101, "ä", 'a"', "a\n", 5])
def test_a_wrong_name(ledger: Ledger, batches: Batches, name: Any) -> None:
    with pytest.raises(InvalidJob, match="batch must be 1 to 100 letters"):
        batches.status(name)
    with pytest.raises(InvalidJob, match="batch must be"):
        Admission(name)


def test_without_a_broker() -> None:
    with pytest.raises(BrokerUnavailable):
        Batches(connect("redis://127.0.0.1:1/0"), "it").status(f"batch-{uuid.uuid4()}")


def test_a_full_broker_still_counts(client: Any, ledger: Ledger, batches: Batches) -> None:
    (job,) = opened(ledger)
    batches.close("night")
    limit = client.config_get("maxmemory")["maxmemory"]
    client.config_set("maxmemory", client.info("memory")["used_memory"] // 2)
    try:
        ledger.close(job, succeeded(job))
    finally:
        client.config_set("maxmemory", limit)
    assert batches.status("night").done
    assert len(ends(client)) == 1
    assert client.llen(list_key(job.queue, job.priority)) == 1
