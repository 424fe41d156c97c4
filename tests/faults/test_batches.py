"""A batch counts each of its jobs once when processes are killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.soak.faulty_worker import KILL_AFTER_COMMIT, with_fault
from tests.support.deployment import Deployment
from tests.support.sounds import wav
from tests.support.waiting import wait_until
from tussis.producer import Producer
from tussis.shared.broker import connect
from tussis.shared.queues import OUTCOMES_KEY


@pytest.mark.scenario(42)
def test_a_batch_counts_each_job_once_when_processes_are_killed(deployment: Deployment, tmp_path: Path) -> None:
    """The first child is killed after its commit, and one recording crashes every process that decodes it."""
    killed = tmp_path / "killed"
    deployment.environment[KILL_AFTER_COMMIT] = str(killed)
    sounds = {f"{number}.wav": wav(0.5, seed=number) for number in range(3)}
    sounds |= {"poison.wav": with_fault("segfault"), "broken.wav": b"not audio"}
    uris = [deployment.bucket.put(key, data) for key, data in sounds.items()]
    client: Any = connect(deployment.environment["TUSSIS_BROKER_URL"])
    with Producer(deployment.environment["TUSSIS_BROKER_URL"], s3_client=deployment.bucket.client) as producer:
        items = list(producer.enqueue_many(uris, batch="night"))
        assert all(item.sent for item in items)
        assert not producer.close_batch("night").done
        deployment.worker(concurrency=1, faulty=True, max_attempts=2)
        wait_until(killed.exists, 60, "the kill")
        status = producer.wait_batch("night", 120)
        deployment.wait_drained(60)
        assert (status.total, status.succeeded, status.failed, status.open) == (5, 3, 2, 0)
        assert producer.batch("night") == status

    entries = client.xrange(OUTCOMES_KEY)
    told = [json.loads(fields[b"outcome"])["job_id"] for _, fields in entries if b"outcome" in fields]
    assert sorted(told) == sorted(str(item.job_id) for item in items)
    assert [b"batch" in fields for _, fields in entries] == [False] * 5 + [True]
    end = json.loads(entries[-1][1][b"batch"])
    assert (end["total"], end["succeeded"], end["failed"]) == (5, 3, 2)
