"""Claims on a recording: many deliveries for one analysis, workers that stop, a database that was restored."""

from __future__ import annotations

import signal
import uuid
from functools import partial
from pathlib import Path

import pytest
import redis

from tests.soak.faulty_worker import STARTS_FILE, with_fault
from tests.soak.s3_proxy import S3Fault, S3Proxy
from tests.support.deployment import Deployment
from tests.support.processes import Running
from tests.support.sounds import wav
from tests.support.store import execute, model_facts
from tests.support.waiting import wait_until
from tussis.shared.messages import Job, envelope
from tussis.shared.queues import UNACKED_INDEX_KEY, list_key
from tussis.shared.states import AttemptOutcome

#: Short, so that a test can wait for the end of a lease (half of it); the default is 60 s.
VISIBILITY_S = 8


@pytest.fixture
def starts_file(deployment: Deployment, tmp_path: Path) -> Path:
    file = tmp_path / "starts"
    deployment.environment[STARTS_FILE] = str(file)
    return file


def starts(file: Path) -> int:
    """Return how many recordings were started."""
    return len(file.read_text().splitlines()) if file.exists() else 0


def begun(file: Path, count: int) -> bool:
    """Whether so many recordings were begun."""
    return starts(file) == count


def outcomes(deployment: Deployment, job: Job) -> list[AttemptOutcome | None]:
    return [attempt.outcome for attempt in deployment.store.attempts_of(deployment.analysis(job).id)]


@pytest.mark.scenario(21)
def test_a_job_that_is_pushed_many_times_is_one_attempt(
    deployment: Deployment, broker_url: str, starts_file: Path
) -> None:
    """Given work that takes longer than a lease, when its message comes a hundred times, then there is one attempt."""
    job = deployment.enqueue("slow.wav", with_fault("slow-6", wav(1.0)))
    redis.Redis.from_url(broker_url).lpush(list_key(job.queue, job.priority), *(envelope(job) for _ in range(99)))
    for _ in range(2):
        deployment.start_worker(concurrency=2, faulty=True, visibility_timeout_s=VISIBILITY_S, max_attempts=2)
    wait_until(lambda: starts(starts_file), 90, "the recording to be begun")
    deployment.wait_drained(60)
    deployment.assert_accounted()
    assert starts(starts_file) == 1
    assert outcomes(deployment, job) == [AttemptOutcome.SUCCEEDED]
    assert deployment.ledger.faults(job.job_id) == 0


@pytest.mark.scenario(21)
def test_jobs_that_ask_one_question_at_once_are_one_attempt(deployment: Deployment, starts_file: Path) -> None:
    deployment.bucket.put("slow.wav", with_fault("slow-3", wav(1.0)))
    first = deployment.enqueue("slow.wav", with_fault("slow-3", wav(1.0)))
    others = [deployment.enqueue("slow.wav", None, etag=first.etag, job_id=str(uuid.uuid4())) for _ in range(5)]
    deployment.worker(concurrency=2, faulty=True, visibility_timeout_s=VISIBILITY_S, max_attempts=1)
    deployment.wait_drained(60)
    deployment.assert_accounted()
    assert starts(starts_file) == 1
    assert {deployment.analysis(job).id for job in others} == {deployment.analysis(first).id}


@pytest.mark.scenario(21)
def test_a_message_that_is_taken_from_a_living_worker_counts_nowhere(
    deployment: Deployment, broker_url: str, starts_file: Path
) -> None:
    """The messages look old, as when the worker's clock is behind by more than the visibility timeout."""
    job = deployment.enqueue("slow.wav", with_fault("slow-10", wav(1.0)))
    for _ in range(2):
        deployment.worker(concurrency=1, faulty=True, visibility_timeout_s=VISIBILITY_S, max_attempts=1)
    wait_until(lambda: starts(starts_file), 30, "the recording to be begun")
    client = redis.Redis.from_url(broker_url)

    def age() -> bool:
        client.zunionstore(UNACKED_INDEX_KEY, {UNACKED_INDEX_KEY: 0.0})
        return deployment.store.counts().succeeded == 1

    wait_until(age, 60, "the answer")
    deployment.wait_drained(60)
    deployment.assert_accounted()
    assert starts(starts_file) == 1
    assert outcomes(deployment, job) == [AttemptOutcome.SUCCEEDED]


def stopped_in_turn(deployment: Deployment, starts_file: Path, count: int) -> None:
    """Start workers one by one, and stop each one in the middle of the recording."""
    for number in range(1, count + 1):
        worker = deployment.worker(concurrency=1, faulty=True, soft_shutdown_s=1, max_attempts=1)
        wait_until(partial(begun, starts_file, number), 60, f"start {number}")
        worker.signal(signal.SIGTERM)
        worker.wait(30)


@pytest.mark.scenario(22)
@pytest.mark.parametrize("count", [1, 2])
def test_workers_that_are_stopped_in_a_recording_make_it_no_crash(
    deployment: Deployment, starts_file: Path, count: int
) -> None:
    """Given native code that a stop cannot interrupt, when workers are stopped in it, then no attempt is a crash."""
    job = deployment.enqueue("slow.wav", with_fault("slow-60", wav(0.5)))
    stopped_in_turn(deployment, starts_file, count)
    assert outcomes(deployment, job) == [AttemptOutcome.HANDED_BACK] * count
    assert deployment.analysis(job).state == "waiting"
    assert deployment.ledger.which_open([job.job_id]) == {job.job_id}


@pytest.mark.scenario(22)
def test_a_stop_in_a_recording_while_the_database_is_away_is_no_crash(
    deployment: Deployment, starts_file: Path
) -> None:
    job = deployment.enqueue("slow.wav", with_fault("once-60", wav(0.5)))
    worker = deployment.worker(
        concurrency=1, faulty=True, soft_shutdown_s=1, max_attempts=1, visibility_timeout_s=VISIBILITY_S
    )
    wait_until(lambda: starts(starts_file), 30, "the recording to be begun")
    deployment.servers.postgres.stop()
    worker.signal(signal.SIGTERM)
    worker.wait(40)
    deployment.servers.postgres.start()
    deployment.worker(concurrency=1, faulty=True, max_attempts=1, visibility_timeout_s=VISIBILITY_S)
    deployment.wait_drained(60)
    deployment.assert_accounted()
    assert outcomes(deployment, job)[-1] == AttemptOutcome.SUCCEEDED
    assert AttemptOutcome.VANISHED not in outcomes(deployment, job)


@pytest.mark.scenario(22)
def test_a_stop_breaks_a_slow_download_off(deployment: Deployment) -> None:
    """The recording is small, its download slow. The stop comes between two reads, and the message is handed back."""
    with S3Proxy(deployment.servers.endpoints.s3_endpoint_url, slow_s=45.0) as proxy:
        deployment.environment["TUSSIS_S3_ENDPOINT_URL"] = proxy.url
        job = deployment.enqueue("a.wav", wav(4.0))
        proxy.plan = lambda method, path, count: S3Fault.TRICKLE if method == "GET" else None
        worker = deployment.worker(concurrency=1, soft_shutdown_s=1, max_attempts=1)
        wait_until(lambda: deployment.store.counts().running == 1, 30, "the claim")
        wait_until(lambda: sum(proxy.requests.values()), 30, "the download")
        worker.signal(signal.SIGTERM)
        assert worker.wait(30) == 0
    assert outcomes(deployment, job) == [AttemptOutcome.HANDED_BACK]
    assert not any(event.get("event") == "grace_exceeded" for event in worker.events)


@pytest.mark.scenario(23)
@pytest.mark.parametrize("fault", ["no-memory", "no-torch-memory"])
def test_a_recording_without_enough_memory_costs_its_child_and_nothing_else(
    deployment: Deployment, starts_file: Path, fault: str
) -> None:
    """Given a recording that never gets enough memory, then the other jobs finish, and it fails as `needs_memory`."""
    good = [deployment.enqueue(f"{number}.wav", wav(0.5, seed=number)) for number in range(4)]
    short = deployment.enqueue("short.wav", with_fault(fault), priority=4)
    worker = deployment.worker(concurrency=1, faulty=True, max_attempts=1, retry_base_s=0.1, retry_total_s=0.25)
    deployment.wait_drained(120)
    deployment.assert_accounted(failures=1)
    assert deployment.analysis(short).error_class == "needs_memory"
    assert outcomes(deployment, short) == [AttemptOutcome.TRANSIENT, AttemptOutcome.FAILED]
    pids = [line.split()[0] for line in starts_file.read_text().splitlines()]
    assert len(set(pids)) == len(pids) == 2
    assert all(deployment.analysis(job).state == "succeeded" for job in good)
    assert worker.running


def stopped_while_the_letter_waits(deployment: Deployment, worker: Running) -> None:
    worker.wait_for_event("holding", 60)
    worker.signal(signal.SIGTERM)
    worker.wait(40)


@pytest.mark.scenario(31)
def test_a_dead_letter_outlives_a_stop_while_the_database_is_away(deployment: Deployment, broker_url: str) -> None:
    worker = deployment.worker(concurrency=1)
    deployment.servers.postgres.stop()
    redis.Redis.from_url(broker_url).lpush("tussis.any:5", b"\xffnot a message")
    stopped_while_the_letter_waits(deployment, worker)
    deployment.servers.postgres.start()
    assert deployment.store.counts().dead_letters == 0
    deployment.worker(concurrency=1)
    deployment.wait_drained(60)
    assert deployment.store.counts().dead_letters == 1


@pytest.mark.scenario(32)
def test_a_database_that_was_restored_under_a_worker_keeps_the_models_apart(deployment: Deployment) -> None:
    """Given another model with the number that the worker's model had, then results have the worker's model."""
    before = deployment.enqueue("before.wav", wav(0.5, seed=1))
    deployment.worker(concurrency=1)
    deployment.wait_drained(60)
    named = deployment.analysis(before).model
    del deployment.jobs[before.job_id]

    url = deployment.environment["TUSSIS_DATABASE_URL"]
    execute(
        url,
        "TRUNCATE models, recordings, analyses, attempts, jobs, bags, segments, events, bag_progress "
        "RESTART IDENTITY CASCADE",
    )
    for number in range(3):
        deployment.store.register_model(model_facts(version=str(number), sha256=f"{number}" * 64))
    after = [deployment.enqueue(f"{number}.wav", wav(0.5, seed=number)) for number in range(3)]
    deployment.wait_drained(60)

    deployment.assert_accounted()
    assert {deployment.analysis(job).model for job in after} == {named}
