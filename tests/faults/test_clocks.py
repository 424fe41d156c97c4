"""Wrong clocks: the broker's is set back, a worker's is an hour behind or ahead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.soak.faulty_worker import CLOCK_OFF, STARTS_FILE, with_fault
from tests.support.deployment import Deployment
from tests.support.sounds import wav
from tests.support.waiting import wait_until
from tussis.shared.broker import connect
from tussis.shared.queues import sent_key

SENT = sent_key("tussis.any", 5)


@pytest.fixture
def starts_file(deployment: Deployment, tmp_path: Path) -> Path:
    file = tmp_path / "starts"
    deployment.environment[STARTS_FILE] = str(file)
    return file


@pytest.mark.scenario(30)
def test_a_broker_s_clock_that_was_set_back_multiplies_no_message(deployment: Deployment, starts_file: Path) -> None:
    """For several looks of the reconciler, the next message appears pushed an hour after the ones behind it."""
    client: Any = connect(deployment.environment["TUSSIS_BROKER_URL"])
    deployment.enqueue("first.wav", with_fault("slow-12", wav(0.5)))
    for number in range(4):
        deployment.enqueue(f"ahead-{number}.wav", wav(0.5, seed=100 + number))
    for job_id, score in client.zrange(SENT, 0, -1, withscores=True):
        client.zadd(SENT, {job_id: score + 3600})
    for number in range(20):
        deployment.enqueue(f"{number}.wav", wav(0.3, seed=2 + number))
    worker = deployment.worker(concurrency=1, faulty=True, visibility_timeout_s=30)
    wait_until(lambda: deployment.ledger.depth().in_flight, 30, "the first to be in work")
    deployment.wait_drained(60)
    deployment.assert_accounted()
    assert not [event for event in worker.events if event.get("event") == "lost_messages_sent_again"]
    client.close()


@pytest.mark.scenario(30)
@pytest.mark.parametrize("off_s", [-3600, 3600])
def test_a_worker_whose_clock_is_off_keeps_its_messages_and_leaves_others_theirs(
    deployment: Deployment, starts_file: Path, off_s: int
) -> None:
    """Two recordings last longer than the visibility timeout. One worker's clock is wrong, the other's is right."""
    for number in range(2):
        deployment.enqueue(f"{number}.wav", with_fault(f"slow-{24 + number}", wav(0.5, seed=number)))
    right = deployment.worker(concurrency=2, faulty=True, visibility_timeout_s=10)
    deployment.environment[CLOCK_OFF] = str(off_s)
    wrong = deployment.worker(concurrency=2, faulty=True, visibility_timeout_s=10)
    for number in range(2, 4):
        deployment.enqueue(f"{number}.wav", with_fault(f"slow-{24 + number}", wav(0.5, seed=number)))
    deployment.wait_drained(90)
    deployment.assert_accounted()
    assert len(starts_file.read_text().splitlines()) == 4
    assert right.running
    assert wrong.running
    assert any(event.get("event") == "clock_skew" and event["server"] == "broker" for event in wrong.events)
