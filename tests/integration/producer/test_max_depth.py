"""``max_depth``: jobs are opened only while the broker has room for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from click.testing import CliRunner

from tests.support.broker_state import entries, open_jobs
from tests.support.outcomes import a_job, succeeded
from tests.support.servers import Bucket
from tests.support.waiting import wait_until
from tussis.producer import JobRequest, Producer
from tussis.producer.cli import root
from tussis.shared.admission import Admission, admit
from tussis.shared.broker import connect
from tussis.shared.errors import InvalidJob, QueueFull
from tussis.shared.ledger import Ledger
from tussis.shared.queues import OPEN_KEY


@pytest.fixture
def ledger(broker_url: str) -> Iterator[Ledger]:
    client = connect(broker_url)
    yield Ledger(client)
    client.close()


def requests(count: int, start: int = 0) -> list[JobRequest]:
    return [JobRequest(f"s3://clinic/{number}.wav", etag=f"e{number}") for number in range(start, start + count)]


def close(ledger: Ledger, job_ids: list[str]) -> None:
    for job_id in job_ids:
        job = ledger.find(job_id)
        assert job is not None
        ledger.close(job, succeeded(job))


def test_one_is_refused_while_the_queue_is_full(producer: Producer, broker: redis.Redis, ledger: Ledger) -> None:
    first = producer.enqueue("s3://clinic/0.wav", etag="e0", max_depth=2)
    producer.enqueue("s3://clinic/1.wav", etag="e1", max_depth=2)
    with pytest.raises(QueueFull, match=r"2 jobs are open, and max_depth is 2: s3://clinic/2.wav was not enqueued"):
        producer.enqueue("s3://clinic/2.wav", etag="e2", max_depth=2)
    assert len(open_jobs(broker)) == len(entries(broker)) == 2
    # A job that is open already needs no room, and neither does a call without a bound.
    assert producer.enqueue("s3://clinic/0.wav", etag="e0", max_depth=1) == first
    producer.enqueue("s3://clinic/3.wav", etag="e3")
    assert len(open_jobs(broker)) == 3
    close(ledger, open_jobs(broker)[:2])
    producer.enqueue("s3://clinic/2.wav", etag="e2", max_depth=2)


def test_it_counts_jobs_wherever_their_message_is(producer: Producer, broker: redis.Redis, ledger: Ledger) -> None:
    taken, deferred, waiting = a_job(), a_job(), a_job()
    ledger.open_many([taken, deferred, waiting])
    broker.rpop("tussis.any:5")
    ledger.defer(deferred, 600)
    assert ledger.open_jobs() == 3
    with pytest.raises(QueueFull):
        producer.enqueue("s3://clinic/0.wav", etag="e0", max_depth=3)


def test_it_waits_for_room_for_a_time(producer: Producer, broker: redis.Redis, ledger: Ledger) -> None:
    producer.enqueue("s3://clinic/0.wav", etag="e0")
    with pytest.raises(QueueFull, match=r"after a wait of 0\.2 s"):
        producer.enqueue("s3://clinic/1.wav", etag="e1", max_depth=1, max_wait_s=0.2)
    timer = threading.Timer(0.3, lambda: close(ledger, open_jobs(broker)))
    timer.start()
    assert [producer.enqueue("s3://clinic/1.wav", etag="e1", max_depth=1, max_wait_s=60)] == open_jobs(broker)
    timer.join()


def test_many_are_enqueued_in_order_up_to_the_bound(producer: Producer, broker: redis.Redis) -> None:
    told: list[Any] = []
    with pytest.raises(QueueFull):
        told.extend(producer.enqueue_many(requests(20), max_depth=7, chunk=5, batch="night"))
    assert [item.request.uri for item in told] == [f"s3://clinic/{number}.wav" for number in range(7)]
    assert all(item.sent for item in told)
    assert {item.job_id for item in told} == set(open_jobs(broker))
    assert producer.batch("night").total == 7
    # The same requests again: the first seven need no room.
    told.clear()
    with pytest.raises(QueueFull):
        told.extend(producer.enqueue_many(requests(20), max_depth=7, batch="night"))
    assert [item.sent for item in told] == [False] * 7
    assert producer.batch("night").total == 7
    assert len(list(producer.enqueue_many(requests(20), max_depth=7, dry_run=True))) == 20


def test_a_refused_request_keeps_its_place(producer: Producer) -> None:
    wrong = JobRequest("clinic/x.wav", etag="e")
    stream = producer.enqueue_many([wrong, *requests(2), wrong, *requests(5, 2)], max_depth=3, chunk=3)
    told: list[str] = []
    with pytest.raises(QueueFull):
        told.extend("refused" if item.error else item.request.uri[-5:] for item in stream)
    assert told == ["refused", "0.wav", "1.wav", "refused", "2.wav"]
    assert [item.error is not None for item in producer.enqueue_many([wrong], max_depth=1)] == [True]


def test_many_go_on_as_jobs_end(producer: Producer, broker: redis.Redis, ledger: Ledger) -> None:
    depths: list[int] = []
    told = []

    def full(depth: int) -> None:
        depths.append(depth)
        close(ledger, open_jobs(broker)[:3])

    for item in producer.enqueue_many(requests(50), max_depth=5, max_wait_s=60.0, chunk=8, on_full=full):
        assert ledger.open_jobs() <= 5
        told.append(item.request.uri)
        if len(told) >= 48:
            break
    assert told == [f"s3://clinic/{number}.wav" for number in range(48)]
    assert set(depths) == {5}


def test_ten_producers_together_stay_below_the_bound(broker_url: str, broker: redis.Redis, ledger: Ledger) -> None:
    """Ten threads with a producer each, while a worker ends jobs. The broker itself is asked for the highest number."""
    seen: list[int] = []
    stop = threading.Event()

    def work() -> None:
        with redis.Redis.from_url(broker_url, decode_responses=True) as client:
            while not stop.is_set():
                seen.append(client.zcard(OPEN_KEY))
                close(ledger, list(client.zrange(OPEN_KEY, 0, 3)))

    def enqueue(number: int) -> int:
        with Producer(broker_url, head=False) as producer:
            wanted = requests(30, 100 * number)
            return sum(item.sent for item in producer.enqueue_many(wanted, max_depth=12, max_wait_s=60, chunk=7))

    worker = threading.Thread(target=work)
    worker.start()
    try:
        with ThreadPoolExecutor(10) as pool:
            sent = list(pool.map(enqueue, range(10)))
        wait_until(lambda: not open_jobs(broker), 60, "the last jobs")
    finally:
        stop.set()
        worker.join()
    assert sent == [30] * 10
    assert 8 <= max(seen) <= 12


def test_ten_producers_at_once_open_exactly_as_many_as_there_is_room_for(broker_url: str, broker: redis.Redis) -> None:
    barrier = threading.Barrier(10)

    def enqueue(number: int) -> int:
        with Producer(broker_url, head=False) as producer:
            barrier.wait()
            sent = 0
            try:
                for item in producer.enqueue_many(requests(20, 100 * number), max_depth=33):
                    sent += item.sent
            except QueueFull:
                return sent
            return sent

    with ThreadPoolExecutor(10) as pool:
        assert sum(pool.map(enqueue, range(10))) == 33
    assert len(open_jobs(broker)) == len(entries(broker)) == 33


def test_the_time_to_wait_begins_again_with_each_job_that_gets_room(ledger: Ledger) -> None:
    """Without a clock: each look takes one second, and a job ends at every third one."""
    now = [0.0]
    jobs = [a_job() for _ in range(8)]
    ledger.open_many(jobs[:2])

    def pause(seconds: float) -> None:
        assert seconds <= 0.25
        now[0] += 1.0
        if now[0] % 3 == 0 and now[0] < 13:
            job = next(job for job in jobs if ledger.find(job.job_id))
            ledger.close(job, succeeded(job))

    admitted: list[tuple[bool, float]] = []
    answers = admit(ledger, jobs[2:], Admission(None, 2, 5.0), pause=pause, clock=lambda: now[0])
    with pytest.raises(QueueFull, match=r"after a wait of 5 s"):
        admitted.extend((answer, now[0]) for answer in answers)
    assert admitted == [(True, 3.0), (True, 6.0), (True, 9.0), (True, 12.0)]
    assert now[0] == 17.0


@pytest.mark.parametrize("wrong", [{"max_depth": 0}, {"max_depth": 1.5}, {"max_depth": True}, {"max_wait_s": -1.0}])
def test_a_wrong_bound(producer: Producer, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidJob):
        producer.enqueue("s3://clinic/0.wav", etag="e0", **({"max_depth": 1} | wrong))
    with pytest.raises(InvalidJob):
        list(producer.enqueue_many(requests(1), **({"max_depth": 1} | wrong)))


def test_the_command(environment: dict[str, str], bucket: Bucket, broker: redis.Redis) -> None:
    uris = [bucket.put(f"{number}.wav", bytes([number])) for number in range(4)]
    run: Callable[..., Any] = lambda *words: CliRunner().invoke(root, ["enqueue", *words])  # noqa: E731
    full = run(*uris, "--max-depth", "3", "--max-wait", "0", "--batch", "night")
    assert full.exit_code == 1
    assert [line.split("\t")[1] for line in full.stdout.splitlines()] == uris[:3]
    error, summary = full.stderr.splitlines()[::-1]
    assert error.startswith("tussis: 3 jobs are open, and max_depth is 3: ")
    assert summary == "3 enqueued"
    assert broker.hexists("tussis.batch:night", "closed_at") is False, "it ended with an error"
    assert run(*uris[:3], "--max-depth", "3", "--max-wait", "0", "--batch", "night").exit_code == 0
    assert broker.hexists("tussis.batch:night", "closed_at")
