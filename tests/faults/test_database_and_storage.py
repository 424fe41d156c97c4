"""PostgreSQL and S3 down, slow, cut or refusing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.soak.faulty_worker import STARTS_FILE, with_fault
from tests.soak.s3_proxy import S3Fault, S3Proxy
from tests.support.deployment import Deployment
from tests.support.sounds import wav
from tests.support.waiting import PATIENCE, wait_until
from tussis.shared.states import AnalysisState, AttemptOutcome
from tussis.worker.pipeline.access import DENIED_IN_A_ROW


@pytest.fixture
def starts_file(deployment: Deployment, tmp_path: Path) -> Path:
    file = tmp_path / "starts"
    deployment.environment[STARTS_FILE] = str(file)
    return file


@pytest.mark.scenario(12)
def test_a_restart_before_the_commit_repeats_no_inference(deployment: Deployment, starts_file: Path) -> None:
    deployment.enqueue("slow.wav", with_fault("slow-4", wav(0.5)))
    deployment.worker(concurrency=1, faulty=True)
    wait_until(starts_file.exists, 30, "the recording to be begun")
    deployment.servers.postgres.kill()
    deployment.servers.postgres.start()
    deployment.wait_drained(60)
    deployment.assert_accounted()
    assert len(starts_file.read_text().splitlines()) == 1
    assert deployment.analyses()[0].attempts == 1


@pytest.mark.scenario(12)
def test_a_database_away_for_long_costs_nothing(deployment: Deployment) -> None:
    jobs = [deployment.enqueue(f"{number}.wav", wav(0.3, seed=number)) for number in range(200)]
    worker = deployment.worker(concurrency=2, retry_total_s=2, retry_base_s=0.5, visibility_timeout_s=5)
    wait_until(lambda: deployment.store.counts().succeeded >= 5, 60, "the first results")
    deployment.servers.postgres.stop()
    worker.wait_for_event("holding", 30)
    before = deployment.ledger.depth()
    # Ten times the retry limit, four times the visibility timeout. The condition must not become true in that time.
    with pytest.raises(TimeoutError):
        wait_until(
            lambda: deployment.ledger.depth().open < before.open - 2, 20 / PATIENCE, "jobs to end without a database"
        )
    deployment.servers.postgres.start()
    deployment.wait_drained(180)
    deployment.assert_accounted()
    assert deployment.store.counts().succeeded == len(jobs) == 200


@pytest.mark.scenario(12)
def test_a_stop_while_the_database_is_away_counts_towards_nothing(deployment: Deployment, starts_file: Path) -> None:
    job = deployment.enqueue("slow.wav", with_fault("slow-3", wav(0.5)))
    worker = deployment.worker(concurrency=1, faulty=True, visibility_timeout_s=60)
    wait_until(starts_file.exists, 30, "the recording to be begun")
    deployment.servers.postgres.stop()
    worker.wait_for_event("holding", 60)
    worker.signal(signal.SIGTERM)
    assert worker.wait(40) == 0
    deployment.servers.postgres.start()
    deployment.worker(concurrency=1, faulty=True)
    deployment.wait_drained(30)
    deployment.assert_accounted()
    outcomes = [attempt.outcome for attempt in deployment.store.attempts_of(deployment.analysis(job).id)]
    assert outcomes == [AttemptOutcome.HANDED_BACK, AttemptOutcome.SUCCEEDED]


@pytest.mark.scenario(12)
def test_a_child_that_dies_while_the_database_is_away_is_replaced(deployment: Deployment) -> None:
    deployment.enqueue("before.wav", wav(0.5, seed=1))
    worker = deployment.worker(concurrency=1)
    deployment.wait_drained(60)
    deployment.servers.postgres.stop()
    [child] = [event["pid"] for event in worker.events if event.get("event") == "child_ready"]
    os.kill(child, signal.SIGKILL)
    worker.wait_for_event("holding", 60)
    deployment.servers.postgres.start()
    deployment.enqueue("after.wav", wav(0.5, seed=2))
    deployment.wait_drained(60)
    deployment.assert_accounted()
    assert worker.running


@pytest.mark.scenario(17)
@pytest.mark.parametrize("slow", [False, True], ids=["fast", "slow"])
def test_storage_faults_are_waited_out_and_a_missing_object_is_not(deployment: Deployment, slow: bool) -> None:
    faults = {
        "unavailable.wav": S3Fault.UNAVAILABLE,
        "cut.wav": S3Fault.CUT,
        "denied.wav": S3Fault.DENIED,
    }
    if slow:
        faults["slow.wav"] = S3Fault.SLOW

    def plan(method: str, path: str, count: int) -> S3Fault | None:
        # boto3 sends two requests before it gives up on a 503.
        return faults.get(path.rsplit("/", 1)[-1].split("?")[0]) if count < 3 else None

    with S3Proxy(deployment.servers.endpoints.s3_endpoint_url, plan, slow_s=8) as proxy:
        deployment.environment["TUSSIS_S3_ENDPOINT_URL"] = proxy.url
        jobs = {name: deployment.enqueue(name, wav(0.5, seed=number)) for number, name in enumerate(faults)}
        missing = deployment.enqueue("missing.wav", None, etag="0" * 32)
        worker = deployment.worker(concurrency=2, retry_base_s=0.2, retry_cap_s=1)
        wait_until(lambda: deployment.store.counts().failed == 1, 30, "the failure of the missing object")
        deployment.wait_drained(120)
        worker.end()
    deployment.assert_accounted(failures=1)
    assert deployment.analysis(missing).error_class == "object_missing"
    for name, job in jobs.items():
        outcomes = [attempt.outcome for attempt in deployment.store.attempts_of(deployment.analysis(job).id)]
        assert outcomes[0] == AttemptOutcome.TRANSIENT, name
        assert outcomes[-1] == AttemptOutcome.SUCCEEDED, name


@pytest.mark.scenario(17)
def test_credentials_that_expire_pause_the_worker_and_fail_nothing(deployment: Deployment) -> None:
    with S3Proxy(deployment.servers.endpoints.s3_endpoint_url) as proxy:
        deployment.environment["TUSSIS_S3_ENDPOINT_URL"] = proxy.url
        proxy.plan = lambda method, path, count: S3Fault.EXPIRED
        jobs = [deployment.enqueue(f"{number}.wav", wav(0.3, seed=number)) for number in range(10)]
        worker = deployment.worker(concurrency=2)
        paused = worker.wait_for_event("paused", 60)
        assert paused["error_class"] == "credentials"
        assert sum(proxy.requests.values()) < len(jobs)
        proxy.plan = lambda method, path, count: None
        deployment.wait_drained(120)
        worker.end()
    deployment.assert_accounted()
    attempts = [attempt for job in jobs for attempt in deployment.store.attempts_of(deployment.analysis(job).id)]
    assert {attempt.outcome for attempt in attempts} == {AttemptOutcome.HANDED_BACK, AttemptOutcome.SUCCEEDED}


@pytest.mark.scenario(17)
def test_access_denied_for_one_is_deferred_and_for_twenty_in_a_row_pauses(deployment: Deployment) -> None:
    with S3Proxy(deployment.servers.endpoints.s3_endpoint_url) as proxy:
        deployment.environment["TUSSIS_S3_ENDPOINT_URL"] = proxy.url
        proxy.plan = lambda method, path, count: S3Fault.DENIED
        for number in range(25):
            deployment.enqueue(f"{number}.wav", wav(0.3, seed=number))
        worker = deployment.worker(concurrency=1, retry_base_s=60)
        paused = worker.wait_for_event("paused", 60)
        assert paused["error_class"] == "access_denied"
        assert deployment.ledger.depth().deferred == DENIED_IN_A_ROW - 1
        assert deployment.store.counts().failed == 0
        proxy.plan = lambda method, path, count: None
        wait_until(lambda: deployment.store.counts().succeeded >= 6, 60, "what was not deferred")
        worker.end()
    assert deployment.store.counts().failed == 0


@pytest.mark.scenario(28)
def test_jobs_of_a_bucket_elsewhere_fail_and_hold_up_no_other(deployment: Deployment) -> None:
    """Recordings whose requests a gateway signs wrongly are tried again, and the worker does not pause for them."""
    faults = {"elsewhere": S3Fault.ELSEWHERE, "odd": S3Fault.SIGNATURE}

    def plan(method: str, path: str, count: int) -> S3Fault | None:
        fault = faults.get(path.rsplit("/", 1)[-1].split("-")[0])
        return None if fault is S3Fault.SIGNATURE and count >= 2 else fault

    with S3Proxy(deployment.servers.endpoints.s3_endpoint_url, plan) as proxy:
        deployment.environment["TUSSIS_S3_ENDPOINT_URL"] = proxy.url
        bad = [deployment.enqueue(f"elsewhere-{number}.wav", wav(0.3, seed=number)) for number in range(4)]
        odd = [deployment.enqueue(f"odd-{number}.wav", wav(0.3, seed=10 + number)) for number in range(4)]
        good = [deployment.enqueue(f"good-{number}.wav", wav(0.3, seed=20 + number)) for number in range(10)]
        worker = deployment.worker(concurrency=2, retry_base_s=0.2, retry_cap_s=1)
        deployment.wait_drained(120)
        worker.end()
    deployment.assert_accounted(failures=len(bad))
    assert {deployment.analysis(job).error_class for job in bad} == {"bucket_elsewhere"}
    assert {deployment.analysis(job).state for job in (*odd, *good)} == {AnalysisState.SUCCEEDED}
    assert [event for event in worker.events if event.get("event") == "paused"] == []


@pytest.mark.scenario(34)
def test_a_body_cut_with_a_length_of_its_own_becomes_no_answer(deployment: Deployment) -> None:
    """Given a gateway that first returns half of each recording, then every answer is for the whole recording."""

    def plan(method: str, path: str, count: int) -> S3Fault | None:
        return S3Fault.SHORT if method == "GET" and (count == 0 or "always" in path) else None

    with S3Proxy(deployment.servers.endpoints.s3_endpoint_url, plan) as proxy:
        deployment.environment["TUSSIS_S3_ENDPOINT_URL"] = proxy.url
        jobs = [deployment.enqueue(f"{number}.wav", wav(1.0, seed=number)) for number in range(10)]
        always = deployment.enqueue("always.wav", wav(1.0, seed=11))
        worker = deployment.worker(concurrency=2, retry_base_s=0.2, retry_cap_s=1, retry_total_s=2)
        deployment.wait_drained(120)
        worker.end()
    deployment.assert_accounted(failures=1)
    assert [deployment.analysis(job).duration_s for job in jobs] == [1.0] * len(jobs)
    for job in jobs:
        attempts = deployment.store.attempts_of(deployment.analysis(job).id)
        assert [attempt.outcome for attempt in attempts] == [AttemptOutcome.TRANSIENT, AttemptOutcome.SUCCEEDED]
    assert deployment.analysis(always).error_class == "expired"
    assert "do not have the checksum" in (deployment.analysis(always).error_message or "")


def test_transient_faults_past_the_limit_become_a_failure(deployment: Deployment) -> None:
    with S3Proxy(deployment.servers.endpoints.s3_endpoint_url) as proxy:
        deployment.environment["TUSSIS_S3_ENDPOINT_URL"] = proxy.url
        job = deployment.enqueue("a.wav", wav(0.3))
        proxy.plan = lambda method, path, count: S3Fault.UNAVAILABLE
        worker = deployment.worker(concurrency=1, retry_base_s=0.1, retry_cap_s=1, retry_total_s=0.5)
        deployment.wait_drained(120)
        worker.end()
    deployment.assert_accounted(failures=1)
    assert deployment.analysis(job).error_class == "expired"
    assert "storage" in (deployment.analysis(job).error_message or "").lower() or "503" in (
        deployment.analysis(job).error_message or ""
    )
