"""A broker at its memory limit (maxmemory, noeviction): producers are refused, workers drain it."""

from __future__ import annotations

import pytest

from tests.support.brokers import own_broker
from tests.support.deployment import Deployment
from tests.support.sounds import wav
from tests.support.waiting import wait_until
from tussis.producer import JobRequest, Producer
from tussis.shared.broker import connect
from tussis.shared.errors import BrokerRefused
from tussis.shared.ledger import Ledger

MEGABYTE = 1024 * 1024


@pytest.mark.scenario(26)
def test_a_full_broker_is_drained_and_takes_new_jobs_again(deployment: Deployment) -> None:
    """The limit is below the memory in use, so that every step of a worker, including its start, has a full broker."""
    with own_broker() as broker:
        deployment.environment["TUSSIS_BROKER_URL"] = broker.url
        client = connect(broker.url)
        deployment.ledger = Ledger(client)
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 2 * MEGABYTE)
        for number in range(4):
            deployment.enqueue(f"{number}.wav", wav(0.3, seed=number))
        uri = deployment.bucket.uri("0.wav")
        filler = {"filler": "x" * 50_000}
        with Producer(broker.url, head=False) as producer:
            request = JobRequest(uri, metadata=filler, again=True)
            with pytest.raises(BrokerRefused, match="full") as refused:
                list(producer.enqueue_many([request] * 200, chunk=1))
            assert "\n" not in str(refused.value)
            filled = deployment.ledger.depth().open
            assert filled > 8
            client.config_set("maxmemory", client.info("memory")["used_memory"] - MEGABYTE // 2)

            worker = deployment.worker(concurrency=1, visibility_timeout_s=10)
            wait_until(lambda: deployment.store.counts().succeeded >= filled, 60, "the broker to be drained")
            deployment.wait_drained(30)
            assert worker.running
            producer.enqueue(uri, metadata=filler, again=True)
            deployment.wait_drained(30)
        assert deployment.store.counts().succeeded == filled + 1
        assert deployment.store.counts().failed == 0
        worker.end()
        client.close()
