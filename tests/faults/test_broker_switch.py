"""A planned failover behind one address: the old primary becomes a replica that refuses every write."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.soak.faulty_worker import STARTS_FILE, with_fault
from tests.support.brokers import Pair, broker_pair
from tests.support.deployment import Deployment
from tests.support.sounds import wav
from tests.support.waiting import PATIENCE, wait_until
from tussis.producer import Producer
from tussis.shared.broker import connect
from tussis.shared.errors import BrokerUnavailable
from tussis.shared.ledger import Ledger


@pytest.fixture
def pair() -> Iterator[Pair]:
    with broker_pair() as pair:
        yield pair


def on_the_pair(deployment: Deployment, pair: Pair) -> None:
    deployment.environment["TUSSIS_BROKER_URL"] = pair.url
    deployment.ledger = Ledger(connect(pair.url))


@pytest.mark.scenario(27)
def test_a_shared_producer_goes_on_after_a_failover(pair: Pair) -> None:
    """One call, and a stream that is between two batches when the roles change."""
    with Producer(pair.url, head=False) as producer:
        producer.enqueue("s3://clinic/before.wav")
        stream = producer.enqueue_many([f"s3://clinic/{n}.wav" for n in range(4)], chunk=1)
        assert next(stream).sent
        pair.fail_over()
        assert sum(item.sent for item in stream) == 3
        began = time.monotonic()
        producer.enqueue("s3://clinic/after.wav")
        assert time.monotonic() - began < 5 * PATIENCE
    assert pair.second.hlen("tussis.ledger") == 6


@pytest.mark.scenario(27)
def test_a_producer_is_told_in_one_line_that_a_replica_answers(pair: Pair) -> None:
    url = pair.url.replace(str(pair.proxy.port), str(pair.second.connection_pool.connection_kwargs["port"]))
    began = time.monotonic()
    with Producer(url, head=False) as producer, pytest.raises(BrokerUnavailable, match="it is a replica") as refused:
        producer.enqueue("s3://clinic/a.wav")
    assert time.monotonic() - began < 10 * PATIENCE
    assert "\n" not in str(refused.value)


@pytest.mark.scenario(27)
def test_an_idle_and_a_busy_worker_go_on_after_a_failover(deployment: Deployment, pair: Pair, tmp_path: Path) -> None:
    """One slot is idle, so that its connection waits in BRPOP. The other slot closes its job after the failover."""
    starts = tmp_path / "starts"
    deployment.environment[STARTS_FILE] = str(starts)
    on_the_pair(deployment, pair)
    worker = deployment.worker(concurrency=2, faulty=True, visibility_timeout_s=10)
    deployment.enqueue("slow.wav", with_fault("slow-4", wav(0.5)))
    wait_until(starts.exists, 30, "the recording to be begun")
    pair.fail_over()
    for number in range(3):
        deployment.enqueue(f"after-{number}.wav", wav(0.5, seed=number))
    deployment.wait_drained(60)
    deployment.assert_accounted()
    assert worker.running
    holding = deployment.tussis("status", "--json")
    assert holding.wait(30) == 0
    assert '"holding": []' in "".join(holding.stdout)


@pytest.mark.scenario(27)
def test_a_worker_waits_while_the_address_leads_to_a_replica(deployment: Deployment, pair: Pair) -> None:
    """The address is switched before the replica is promoted: for a while every new connection goes to a replica."""
    on_the_pair(deployment, pair)
    worker = deployment.worker(concurrency=1, visibility_timeout_s=10)
    pair.proxy.switch("127.0.0.1", pair.second.connection_pool.connection_kwargs["port"])
    pair.proxy.cut()
    wait_until(lambda: any("READONLY" in line for line in worker.stderr), 30, "the worker to meet the replica")
    pair.second.replicaof("NO", "ONE")
    deployment.enqueue("after.wav", wav(0.5))
    deployment.wait_drained(60)
    deployment.assert_accounted()
    assert worker.running
