"""Names on the broker, held to what kombu makes of them."""

from __future__ import annotations

import pytest
from kombu.transport.redis import Channel

from tussis.shared import queues
from tussis.shared.queues import PRIORITIES, QUEUES, Device, list_key, queue_name, sent_key, worker_queues


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize("priority", PRIORITIES)
def test_lists_are_named_as_kombu_names_them(queue: str, priority: int) -> None:
    # Not made the usual way, which connects.
    channel = Channel.__new__(Channel)
    channel.sep = queues.PRIORITY_SEPARATOR
    channel.priority_steps = list(PRIORITIES)

    assert list_key(queue, priority) == channel._q_for_pri(queue, priority)


def test_the_first_priority_is_the_queue_itself() -> None:
    assert list_key("tussis.any", 0) == "tussis.any"
    assert list_key("tussis.any", 9) == "tussis.any:9"
    assert sent_key("tussis.gpu", 2) == "tussis.sent:tussis.gpu:2"


def test_a_worker_takes_its_own_queue_and_any() -> None:
    assert worker_queues(Device.CPU) == ("tussis.cpu", "tussis.any")
    assert worker_queues(Device.GPU) == ("tussis.gpu", "tussis.any")
    with pytest.raises(ValueError, match="cpu or gpu"):
        worker_queues(Device.ANY)


def test_no_two_names_are_one_key() -> None:
    lists = [list_key(queue_name(device), priority) for device in Device for priority in PRIORITIES]
    sent = [sent_key(queue_name(device), priority) for device in Device for priority in PRIORITIES]
    keys = [value for name, value in vars(queues).items() if name.endswith("_KEY")]

    assert len(set(lists + sent + keys)) == len(lists) + len(sent) + len(keys)
    assert all(key.startswith("tussis.") for key in lists + sent + keys)
