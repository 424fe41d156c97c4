"""The broker loses some or all of its data: a sweep of the bucket enqueues the recordings again."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.soak.faulty_worker import STARTS_FILE, with_fault
from tests.support.deployment import Deployment
from tests.support.sounds import wav
from tests.support.waiting import wait_until
from tussis.shared.messages import Job, job_id_for, normalise_etag
from tussis.shared.states import AnalysisState
from tussis.worker.embedded.servers import Servers

#: Bytes at the end of the append-only file that a power failure loses: about fifteen jobs.
CUT_BYTES = 60_000


def sweep(deployment: Deployment, *arguments: str) -> dict[str, Any]:
    """Run the command and return its summary."""
    run = deployment.tussis("sweep", f"s3://{deployment.bucket.name}", "--json", *arguments)
    assert run.wait(90) == 0, run.text
    summary: dict[str, Any] = json.loads(run.stdout[0])
    return summary


def upload(deployment: Deployment, count: int) -> list[Job]:
    """Store recordings, and return jobs for them that are not enqueued."""
    jobs = []
    for number in range(count):
        key = f"{number:03d}.wav"
        deployment.bucket.put(key, wav(0.3, seed=number))
        head = deployment.bucket.client.head_object(Bucket=deployment.bucket.name, Key=key)
        etag = normalise_etag(head["ETag"])
        job_id = job_id_for(deployment.bucket.name, key, version_id=None, etag=etag, model=None, profile=None)
        jobs.append(Job(job_id=job_id, bucket=deployment.bucket.name, key=key, etag=etag, enqueued_at=time.time()))
    return jobs


@pytest.mark.scenario(10)
def test_a_wiped_broker_s_recordings_come_back_with_one_sweep(
    deployment: Deployment, broker_url: str, tmp_path: Path
) -> None:
    starts_file = tmp_path / "starts"
    deployment.environment[STARTS_FILE] = str(starts_file)
    good = [deployment.enqueue(f"{number}.wav", wav(0.3, seed=number)) for number in range(16)]
    broken = deployment.enqueue("broken.wav", b"RIFF but no audio")
    aside = deployment.enqueue("aside.wav", b"RIFF, put aside on purpose")
    deployment.worker(concurrency=2, faulty=True, visibility_timeout_s=10)
    deployment.wait_drained(60)
    deployment.store.discard([deployment.analysis(aside).id])
    # Add more: one is in flight, the others wait.
    slow = deployment.enqueue("slow.wav", with_fault("slow-5", wav(0.3, seed=90)), priority=0)
    waiting = [
        deployment.enqueue(f"w{number}.wav", with_fault("slow-1", wav(0.3, seed=100 + number))) for number in range(8)
    ]
    wait_until(starts_file.exists, 30, "the slow recording to be begun")

    redis.Redis.from_url(broker_url).flushdb()
    summary = sweep(deployment)

    assert summary["listed"] == len(good) + 2 + 1 + len(waiting)
    assert (summary["failed"], summary["discarded"]) == (1, 1)
    assert summary["enqueued"] + summary["stranded"] > 0
    deployment.wait_drained(120)
    deployment.jobs.pop(aside.job_id)
    for job in (*good, slow, *waiting):
        analysis = deployment.analysis(job)
        assert analysis.state is AnalysisState.SUCCEEDED, job.uri
        assert len(deployment.store.segments_of(analysis.id)) == analysis.segments
    assert deployment.analysis(broken).state is AnalysisState.FAILED
    assert len(deployment.analyses()) == len(good) + 2 + 1 + len(waiting)
    assert not deployment.ledger.depth().open
    # Nothing is left to do: one sweep was enough.
    again = sweep(deployment)
    assert (again["enqueued"], again["stranded"], again["open"]) == (0, 0, 0)
    assert again["answered"] == len(good) + 1 + len(waiting)


@pytest.mark.scenario(11)
def test_what_enqueue_returned_for_survives_kill_9_of_the_broker(deployment: Deployment) -> None:
    jobs = upload(deployment, 30)
    for job in jobs:
        assert deployment.ledger.open(job)
        deployment.jobs[job.job_id] = job
    deployment.servers.broker.kill()
    deployment.servers.broker.start()

    assert deployment.ledger.depth().open == len(jobs)
    deployment.worker(concurrency=2)
    deployment.wait_drained(90)
    deployment.assert_accounted()


@pytest.mark.scenario(11)
def test_with_everysec_the_loss_is_reported_by_one_sweep_and_all_end(deployment: Deployment, broker_url: str) -> None:
    """After kill -9 the kernel still has what the broker wrote. The test cuts off what a power failure loses."""
    jobs = upload(deployment, 40)
    client = redis.Redis.from_url(broker_url)
    client.config_set("appendfsync", "everysec")
    for job in jobs:
        assert deployment.ledger.open(job)
        deployment.jobs[job.job_id] = job
    deployment.servers.broker.kill()
    cut_append_only_file(deployment.servers)
    deployment.servers.broker.start()
    # The broker has read its own configuration file again.
    assert client.config_get("appendfsync") == {"appendfsync": "always"}

    lost = len(jobs) - deployment.ledger.depth().open
    assert 0 < lost < len(jobs)
    summary = sweep(deployment)
    assert (summary["enqueued"], summary["open"], summary["listed"]) == (lost, len(jobs) - lost, len(jobs))

    deployment.worker(concurrency=2)
    deployment.wait_drained(120)
    deployment.assert_accounted()


def cut_append_only_file(servers: Servers) -> None:
    """Cut the last bytes off the file that the broker writes at present."""
    files = sorted(
        (servers.broker.log.parent).rglob("appendonly.aof.*.incr.aof"), key=lambda file: int(file.name.split(".")[2])
    )
    assert files, "no append-only file"
    with files[-1].open("r+b") as file:
        file.truncate(files[-1].stat().st_size - CUT_BYTES)
