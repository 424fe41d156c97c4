"""What a channel asks the broker for while queues are paused, and what the broker remembers of a pause."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.outcomes import a_job
from tussis.shared.ledger import Ledger
from tussis.shared.ledger_repair import LedgerRepair
from tussis.shared.pauses import Pause, Pauses
from tussis.shared.queues import PAUSED_KEY, QUEUES, Device, ServedModel, worker_queues
from tussis.worker.parent.paused import PAUSED, OpenQueues
from tussis.worker.parent.reconciler import Reconciler

SERVED = ServedModel("cough", "3")
OWN = worker_queues(Device.CPU, SERVED)


@pytest.fixture
def queues() -> Iterator[OpenQueues]:
    cycle = OpenQueues()
    cycle.update(OWN)
    yield cycle
    PAUSED.update(())


def test_a_queue_is_left_out_with_the_model_queues_of_its_device(queues: OpenQueues) -> None:
    assert queues.consume(len(OWN)) == list(OWN)
    PAUSED.update(["tussis.any", "tussis.gpu"])
    assert queues.consume(len(OWN)) == ["tussis.cpu@cough@3", "tussis.cpu@cough", "tussis.cpu"]
    PAUSED.update(QUEUES)
    assert queues.consume(len(OWN)) == []


def test_nothing_is_taken_before_the_paused_queues_are_known(queues: OpenQueues) -> None:
    PAUSED.await_first()
    assert queues.consume(len(OWN)) == []
    PAUSED.update([])
    assert queues.consume(len(OWN)) == list(OWN)


def test_the_broker_remembers_who_paused_first(client: Any) -> None:
    pauses = Pauses(client)
    assert pauses.read() == []
    assert pauses.pause(["tussis.gpu"], "a") == ["tussis.gpu"]
    assert pauses.pause(QUEUES, "b") == ["tussis.any", "tussis.cpu"]
    assert [(pause.queue, pause.by) for pause in pauses.read()] == [
        ("tussis.any", "b"),
        ("tussis.cpu", "b"),
        ("tussis.gpu", "a"),
    ]
    assert pauses.resume(["tussis.gpu", "tussis.cpu"]) == ["tussis.gpu", "tussis.cpu"]
    assert pauses.resume(["tussis.gpu"]) == []
    client.hset(PAUSED_KEY, "tussis.gpu", "by hand")
    assert pauses.read()[1] == Pause("tussis.gpu", None, "")


def test_a_pause_is_lost_with_the_broker_s_data(client: Any) -> None:
    Pauses(client).pause(QUEUES, "a")
    client.flushdb()
    assert Pauses(client).read() == []


def test_the_reconciler_does_not_take_messages_of_a_paused_queue_for_lost(client: Any) -> None:
    ledger = Ledger(client)
    ledger.open_many([a_job() for _ in range(3)])
    Pauses(client).pause(QUEUES, "a")
    reconciler = Reconciler(client, LedgerRepair(client), "w")
    assert [reconciler.look() for _ in range(4)] == [0, 0, 0, 0]
    assert ledger.depth().total_waiting == 3
