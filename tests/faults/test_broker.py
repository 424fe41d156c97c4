"""The broker dies, drops its connections, or stops answering."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis

from tests.soak.faulty_worker import STARTS_FILE, with_fault
from tests.soak.tcp_proxy import TcpProxy
from tests.support.deployment import Deployment
from tests.support.sounds import wav
from tests.support.waiting import PATIENCE, wait_until


@pytest.fixture
def starts_file(deployment: Deployment, tmp_path: Path) -> Path:
    file = tmp_path / "starts"
    deployment.environment[STARTS_FILE] = str(file)
    return file


@pytest.mark.scenario(6)
def test_an_idle_worker_consumes_again_within_15_s(deployment: Deployment) -> None:
    worker = deployment.worker(concurrency=1)
    deployment.enqueue("before.wav", wav(0.5, seed=1))
    deployment.wait_drained(30)
    deployment.servers.broker.kill()
    deployment.servers.broker.start()
    began = time.monotonic()
    deployment.enqueue("after.wav", wav(0.5, seed=2))
    deployment.wait_drained(45)
    assert time.monotonic() - began < 15 * PATIENCE
    deployment.assert_accounted()
    assert worker.running


@pytest.mark.scenario(7)
def test_a_partly_busy_worker_survives_the_broker_s_restart(deployment: Deployment, starts_file: Path) -> None:
    deployment.enqueue("slow.wav", with_fault("slow-6", wav(0.5)))
    worker = deployment.worker(concurrency=2, faulty=True, visibility_timeout_s=10)
    wait_until(starts_file.exists, 30, "the recording to be begun")
    deployment.servers.broker.kill()
    deployment.servers.broker.start()
    deployment.enqueue("after.wav", wav(0.5, seed=2))
    deployment.wait_drained(90)
    deployment.assert_accounted()
    assert worker.running


@pytest.mark.scenario(8)
def test_dropped_connections_while_busy_leave_one_result(
    deployment: Deployment, starts_file: Path, broker_url: str
) -> None:
    for number in range(4):
        deployment.enqueue(f"{number}.wav", with_fault("slow-2", wav(0.5, seed=number)))
    worker = deployment.worker(concurrency=2, faulty=True, visibility_timeout_s=10)
    wait_until(starts_file.exists, 30, "a recording to be begun")
    client = redis.Redis.from_url(broker_url)
    client.client_kill_filter(_type="normal", skipme=True)
    deployment.wait_drained(90)
    deployment.assert_accounted()
    assert worker.running


@pytest.mark.scenario(9)
def test_a_half_open_connection_is_noticed(deployment: Deployment, broker_url: str) -> None:
    parts = urlsplit(broker_url)
    assert parts.hostname is not None
    assert parts.port is not None
    with TcpProxy(parts.hostname, parts.port) as proxy:
        through = parts._replace(netloc=f":{parts.password}@127.0.0.1:{proxy.port}")
        deployment.environment["TUSSIS_BROKER_URL"] = urlunsplit(through)
        worker = deployment.worker(concurrency=1, visibility_timeout_s=10)
        deployment.enqueue("before.wav", wav(0.5, seed=1))
        deployment.wait_drained(30)
        for connection in proxy.connections:
            connection.freeze()
        began = time.monotonic()
        jobs = [deployment.enqueue(f"after-{number}.wav", wav(0.5, seed=10 + number)) for number in range(5)]
        wait_until(lambda: deployment.store.counts().succeeded >= 2, 60, "a result after the freeze")
        assert time.monotonic() - began < 20 * PATIENCE
        deployment.wait_drained(60)
        deployment.assert_accounted()
        assert len(jobs) == 5
        assert worker.running
        worker.end()


@pytest.mark.scenario(20)
def test_depth_is_the_sum_over_the_steps_and_what_is_in_flight(deployment: Deployment, starts_file: Path) -> None:
    order = [9, 2, 5, 0, 7, 2]
    # Upload before the slow recording starts: on a busy machine, the uploads could take longer than the recording.
    for number in range(len(order)):
        deployment.bucket.put(f"{number}.wav", wav(0.3, seed=number))
    deployment.enqueue("slow.wav", with_fault("slow-5", wav(0.5)), priority=0)
    deployment.worker(concurrency=1, faulty=True)
    wait_until(starts_file.exists, 30, "the recording to be begun")
    jobs = [deployment.enqueue(f"{number}.wav", None, priority=priority) for number, priority in enumerate(order)]
    depth = deployment.ledger.depth()
    assert depth.waiting["tussis.any"] == {0: 1, 2: 2, 5: 1, 7: 1, 9: 1}
    assert (depth.total_waiting, depth.in_flight, depth.open) == (6, 1, 7)
    deployment.wait_drained(60)
    deployment.assert_accounted()
    started = sorted(jobs, key=lambda job: deployment.analysis(job).started_at)
    assert [job.priority for job in started] == sorted(order)
    assert [job.key for job in started if job.priority == 2] == ["1.wav", "5.wav"]
