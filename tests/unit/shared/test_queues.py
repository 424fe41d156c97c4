"""Names on the broker, held to what kombu makes of them."""

from __future__ import annotations

import pytest
from kombu.transport.redis import Channel

from tussis.shared import queues
from tussis.shared.queues import (
    PRIORITIES,
    QUEUES,
    Device,
    ServedModel,
    device_queue,
    is_queue,
    list_key,
    list_of,
    model_of,
    queue_name,
    sent_key,
    worker_queues,
)

MODEL_QUEUES = ("tussis.any@cough", "tussis.gpu@cough@3", "tussis.cpu@a.b-c_d@1.0+x")
#: Texts that are the name of no model. A key of the broker must not have them.
NO_MODELS = ("", "@", "a@", "@1", "a@1@2", "a:1", "a b", "a\n", "a/b", "*", "a" * 101, "a@" + "1" * 101, "ü", "a\x00")


@pytest.mark.parametrize("queue", QUEUES + MODEL_QUEUES)
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


def test_a_worker_takes_the_queues_of_its_model_first() -> None:
    assert worker_queues(Device.GPU, ServedModel("cough", "3")) == (
        "tussis.gpu@cough@3",
        "tussis.any@cough@3",
        "tussis.gpu@cough",
        "tussis.any@cough",
        "tussis.gpu",
        "tussis.any",
    )


@pytest.mark.parametrize("text", NO_MODELS)
def test_a_text_that_names_no_model_names_no_queue(text: str) -> None:
    with pytest.raises(ValueError, match="not the name of a model"):
        queue_name(Device.ANY, text)
    assert not is_queue(f"tussis.any@{text}")
    assert list_of(f"tussis.any@{text}:5") is None


def test_a_queue_is_read_from_its_name_and_from_its_list() -> None:
    for queue in QUEUES + MODEL_QUEUES:
        assert is_queue(queue)
        assert [list_of(list_key(queue, priority)) for priority in PRIORITIES] == [(queue, p) for p in PRIORITIES]
    assert [model_of(queue) for queue in MODEL_QUEUES] == ["cough", "cough@3", "a.b-c_d@1.0+x"]
    assert [device_queue(queue) for queue in MODEL_QUEUES] == ["tussis.any", "tussis.gpu", "tussis.cpu"]
    assert model_of("tussis.any") is None
    for key in ("tussis.any:0", "tussis.any:", "tussis.any:10", "tussis.any:01", "tussis.tpu", "tussis.ledger", "a@b"):
        assert list_of(key) is None


def test_no_two_names_are_one_key() -> None:
    models = (None, "cough", "cough@3", "cough@30")
    queues_of_all = [queue_name(device, model) for device in Device for model in models]
    lists = [list_key(queue, priority) for queue in queues_of_all for priority in PRIORITIES]
    sent = [sent_key(queue, priority) for queue in queues_of_all for priority in PRIORITIES]
    keys = [value for name, value in vars(queues).items() if name.endswith("_KEY")]

    assert len(set(lists + sent + keys)) == len(lists) + len(sent) + len(keys)
    assert all(key.startswith("tussis.") for key in lists + sent + keys)
