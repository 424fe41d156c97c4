"""Waiting for jobs, and reading all outcomes in a group, without a database."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.outcomes import a_job, failed, succeeded
from tests.support.waiting import PATIENCE
from tussis.producer import Producer
from tussis.shared.broker import connect
from tussis.shared.errors import BrokerUnavailable, JobUnknown, OutcomesGap, OutcomeUnreadable, WaitTimeout
from tussis.shared.ledger import Ledger
from tussis.shared.messages import Job
from tussis.shared.outcome_group import OutcomeGroup
from tussis.shared.outcome_reader import Entry, OutcomeReader
from tussis.shared.outcomes import JobOutcome, OutcomeBounds
from tussis.shared.queues import OUTCOMES_KEY, outcome_key

#: Seconds within which something happens that happens at once on a quiet machine.
SOON_S = 10.0 * PATIENCE


@pytest.fixture
def producer(broker_url: str) -> Iterator[Producer]:
    with Producer(broker_url) as producer:
        yield producer


def opened(ledger: Ledger, count: int = 1) -> list[Job]:
    jobs = [a_job() for _ in range(count)]
    ledger.open_many(jobs)
    return jobs


def closed(ledger: Ledger, count: int) -> list[str]:
    """Close so many jobs; returns their ids."""
    jobs = opened(ledger, count)
    for job in jobs:
        ledger.close(job, succeeded(job))
    return [job.job_id for job in jobs]


# --- wait -------------------------------------------------------------------------------------------------


def test_what_has_ended_and_what_ends_meanwhile_is_returned(producer: Producer, ledger: Ledger) -> None:
    jobs = opened(ledger, 3)
    ledger.close(jobs[0], succeeded(jobs[0]))
    got: dict[str, JobOutcome] = {}
    waiting = threading.Thread(target=lambda: got.update(producer.wait([job.job_id for job in jobs], SOON_S)))
    waiting.start()
    closed(ledger, 5)
    ledger.close(jobs[2], failed(jobs[2]))
    ledger.close(jobs[1], succeeded(jobs[1]))
    waiting.join(SOON_S)

    assert got == {
        jobs[0].job_id: succeeded(jobs[0]),
        jobs[1].job_id: succeeded(jobs[1]),
        jobs[2].job_id: failed(jobs[2]),
    }


@pytest.mark.parametrize("when", ["before the look", "after the look"])
def test_a_job_that_ends_between_the_position_the_look_and_the_read_is_not_missed(
    client: Any, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    (job,) = opened(ledger)
    look = OutcomeReader.statuses

    def statuses(reader: OutcomeReader, job_ids: Any) -> Any:
        if when == "before the look":
            ledger.close(job, succeeded(job))
        found = look(reader, job_ids)
        ledger.close(job, succeeded(job))
        return found

    monkeypatch.setattr(OutcomeReader, "statuses", statuses)
    began = time.monotonic()
    assert list(OutcomeReader(client).wait_each([job.job_id], SOON_S)) == [succeeded(job)]
    # Not by the look that comes after some seconds.
    assert time.monotonic() - began < 4 * PATIENCE


def test_a_job_whose_entry_left_the_stream_unread_is_found_by_the_next_look(
    client: Any, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tussis.shared.outcome_reader._LOOK_EVERY_S", 0.1)
    (job,) = opened(ledger)
    reader = OutcomeReader(client)

    def trimmed(*_: object) -> list[Entry]:
        """The job ends, and its entry leaves the stream before it is read."""
        ledger.close(job, succeeded(job))
        return []

    monkeypatch.setattr(reader, "read_after", trimmed)

    assert list(reader.wait_each([job.job_id], SOON_S)) == [succeeded(job)]


def test_an_outcome_of_an_earlier_message_is_not_that_of_an_open_job(producer: Producer, ledger: Ledger) -> None:
    (job,) = opened(ledger)
    ledger.close(job, failed(job))
    ledger.open(job)
    with pytest.raises(WaitTimeout):
        producer.wait([job.job_id], 0.2)
    ledger.close(job, succeeded(job))
    assert producer.wait([job.job_id], 0) == {job.job_id: succeeded(job)}


def test_a_timeout_names_what_is_open_after_what_has_ended(producer: Producer, ledger: Ledger) -> None:
    first, second = opened(ledger, 2)
    ledger.close(first, succeeded(first))
    got: list[JobOutcome] = []
    began = time.monotonic()
    with pytest.raises(WaitTimeout, match=f"^job {second.job_id}: still open after 0.5 s$") as error:
        got.extend(producer.wait_each([first.job_id, second.job_id], 0.5))
    assert 0.5 <= time.monotonic() - began < SOON_S
    assert got == [succeeded(first)]
    assert error.value.open_ids == (second.job_id,)


def test_an_unknown_job_is_an_error_at_once(producer: Producer, ledger: Ledger, client: Any) -> None:
    (job,) = opened(ledger)
    unknown = a_job().job_id
    with pytest.raises(JobUnknown, match="no outcome is kept") as error:
        producer.wait([job.job_id, unknown])
    assert error.value.job_ids == (unknown,)
    ledger.close(job, succeeded(job))
    client.delete(outcome_key(job.job_id))
    with pytest.raises(JobUnknown):
        producer.wait([job.job_id])
    with pytest.raises(JobUnknown, match="is not a job id"):
        producer.wait(["a job"])


def test_waiting_for_nothing_and_for_many(producer: Producer, ledger: Ledger) -> None:
    assert producer.wait([]) == {}
    ids = closed(ledger, 1200)
    assert list(producer.wait(ids * 2, 0)) == ids


def test_an_outcome_of_a_newer_version_ends_only_the_wait_for_its_job(
    producer: Producer, ledger: Ledger, client: Any
) -> None:
    first, second = opened(ledger, 2)
    got: dict[str, JobOutcome] = {}
    waiting = threading.Thread(target=lambda: got.update(producer.wait([second.job_id], SOON_S)))
    waiting.start()
    client.xadd(OUTCOMES_KEY, {"outcome": '{"v": 2}'})
    ledger.close(second, succeeded(second))
    waiting.join(SOON_S)
    assert list(got) == [second.job_id]

    ledger.close(first, succeeded(first))
    client.set(outcome_key(first.job_id), '{"v": 2}')
    with pytest.raises(OutcomeUnreadable, match="version 2"):
        producer.wait([first.job_id], 1)


# --- a group ----------------------------------------------------------------------------------------------


def test_a_group_begins_with_the_oldest_outcome_and_resumes(producer: Producer, ledger: Ledger) -> None:
    ids = closed(ledger, 40)
    group = producer.outcomes("billing", "one", idle_s=0.2)
    first = [next(group).job_id for _ in range(25)]
    # The last one is not acknowledged yet: it comes again, and then the others.
    assert first == ids[:25]
    rest = [outcome.job_id for outcome in producer.outcomes("billing", "one", idle_s=0.2)]
    assert rest == ids[24:]
    assert list(producer.outcomes("billing", "one", idle_s=0)) == []
    ids = closed(ledger, 1)
    assert [outcome.job_id for outcome in producer.outcomes("billing", "one", idle_s=0.2)] == ids
    assert len(list(producer.outcomes("another", idle_s=0.2))) == 41


def test_an_outcome_that_is_acknowledged_does_not_come_again(producer: Producer, ledger: Ledger) -> None:
    ids = closed(ledger, 2)
    group = producer.outcomes("billing", "one")
    next(group)
    group.acknowledge()
    group.acknowledge()
    assert [outcome.job_id for outcome in producer.outcomes("billing", "one", idle_s=0.2)] == ids[1:]


def test_a_group_waits_for_the_next_outcome(producer: Producer, ledger: Ledger) -> None:
    group = producer.outcomes("billing", "one", idle_s=SOON_S)
    threading.Timer(0.5, lambda: closed(ledger, 1)).start()
    began = time.monotonic()
    next(group)
    assert time.monotonic() - began < 4 * PATIENCE


def test_two_consumers_share_the_outcomes(producer: Producer, ledger: Ledger) -> None:
    ids = closed(ledger, 100)
    got: dict[str, list[str]] = {"one": [], "two": []}

    def read(name: str) -> None:
        for outcome in producer.outcomes("billing", name, idle_s=0.5):
            got[name].append(outcome.job_id)
            time.sleep(0.002)

    threads = [threading.Thread(target=read, args=(name,)) for name in got]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON_S)
    assert sorted(got["one"] + got["two"]) == sorted(ids)
    assert got["one"]
    assert got["two"]


def test_what_a_dead_consumer_received_goes_to_another(producer: Producer, ledger: Ledger) -> None:
    ids = closed(ledger, 30)
    dead = producer.outcomes("billing", "dead")
    for _ in range(3):
        next(dead)
    alive = producer.outcomes("billing", "alive", idle_s=2.0, take_over_s=0.5)
    got = [outcome.job_id for outcome in alive]
    # Two were acknowledged.
    assert sorted(got) == sorted(ids[2:])


def test_a_slow_consumer_reads_only_what_it_still_has(producer: Producer, ledger: Ledger) -> None:
    """Given entries that wait in a consumer for long, when another takes them over, then the first drops them."""
    ids = closed(ledger, 10)
    slow = producer.outcomes("billing", "slow", idle_s=0.2, take_over_s=0.4)
    assert next(slow).job_id == ids[0]
    time.sleep(0.5)
    other = [outcome.job_id for outcome in producer.outcomes("billing", "other", idle_s=0.2, take_over_s=0.4)]
    assert other == ids
    assert list(slow) == []


def test_a_group_behind_the_bound_has_one_gap_and_goes_on(client: Any, producer: Producer) -> None:
    ledger = Ledger(client, bounds=OutcomeBounds(kept=5, ttl_s=60))
    read = closed(ledger, 3)
    group = producer.outcomes("billing", "one", idle_s=0.2)
    assert [outcome.job_id for outcome in group] == read
    before = time.time()
    ids = closed(ledger, 12)

    with pytest.raises(OutcomesGap, match=r"7 outcomes .*`tussis outcomes replay --since") as gap:
        next(group)

    assert gap.value.lost == 7
    assert before - 60 < gap.value.after_s <= gap.value.before_s < time.time() + 1
    assert [outcome.job_id for outcome in group] == ids[7:]
    # Also for a reader that starts only now.
    closed(ledger, 6)
    with pytest.raises(OutcomesGap) as gap:
        next(producer.outcomes("billing", "two", idle_s=0.2))
    assert gap.value.lost == 1
    assert len(list(producer.outcomes("billing", "two", idle_s=0.2))) == 5


def test_what_is_kept_in_full_is_no_gap(client: Any, producer: Producer) -> None:
    """Entries that the group has read leave the stream; and a group is new while the stream has lost entries."""
    ledger = Ledger(client, bounds=OutcomeBounds(kept=5, ttl_s=60))
    closed(ledger, 9)
    group = producer.outcomes("billing", "one", idle_s=0.1)
    assert len(list(group)) == 5
    for _ in range(3):
        ids = closed(ledger, 5)
        assert [outcome.job_id for outcome in group] == ids


def test_a_group_made_on_an_empty_stream_notices_what_it_never_read(client: Any, producer: Producer) -> None:
    ledger = Ledger(client, bounds=OutcomeBounds(kept=2, ttl_s=60))
    group = producer.outcomes("billing", "one", idle_s=0.1)
    assert list(group) == []
    closed(ledger, 5)
    with pytest.raises(OutcomesGap) as gap:
        next(group)
    assert gap.value.lost == 3


@pytest.mark.parametrize("restarted", [True, False])
def test_what_left_the_stream_before_it_was_acknowledged_is_a_gap(
    client: Any, producer: Producer, restarted: bool
) -> None:
    ledger = Ledger(client, bounds=OutcomeBounds(kept=5, ttl_s=60))
    closed(ledger, 5)
    dead = producer.outcomes("billing", "dead")
    next(dead)
    next(dead)
    ids = closed(ledger, 3)
    consumer, take_over_s = ("dead", 60.0) if restarted else ("alive", 0.1)
    time.sleep(0.2)
    group = producer.outcomes("billing", consumer, idle_s=0.3, take_over_s=take_over_s)
    got: list[str] = []
    gaps: list[int] = []
    for _ in range(3):
        try:
            got += [outcome.job_id for outcome in group]
        except OutcomesGap as gap:
            gaps.append(gap.lost)
    # Received 5, acknowledged 1, and two of the other four are gone.
    assert sum(gaps) == 2
    assert len(got) == 5
    assert got[2:] == ids


def test_an_unreadable_outcome_is_an_error_once(client: Any, producer: Producer, ledger: Ledger) -> None:
    client.xadd(OUTCOMES_KEY, {"outcome": "junk"}, id="1-1")
    client.set("tussis.outcomes_count", 1)
    ids = closed(ledger, 1)
    group = producer.outcomes("billing", "one", idle_s=0.2)
    with pytest.raises(OutcomeUnreadable):
        next(group)
    assert [outcome.job_id for outcome in group] == ids


def test_a_broker_that_lost_its_data_begins_anew(client: Any, producer: Producer, ledger: Ledger) -> None:
    closed(ledger, 3)
    group = producer.outcomes("billing", "one", idle_s=0.2)
    assert len(list(group)) == 3
    client.flushdb()
    ids = closed(ledger, 2)
    assert [outcome.job_id for outcome in group] == ids


def test_a_broker_that_is_away_is_an_error_and_the_next_call_goes_on() -> None:
    group = OutcomeGroup(connect("redis://127.0.0.1:1/0"), "nowhere", "billing", "one")
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            next(group)


def test_a_group_needs_a_name(producer: Producer) -> None:
    with pytest.raises(ValueError, match="name"):
        producer.outcomes("")
