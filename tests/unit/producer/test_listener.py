"""The listener deletes what is enqueued and nothing else, whatever fails meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest
from redis.exceptions import ResponseError

from tests.support.s3_events import record, records, test_event
from tussis.producer import listener as listening
from tussis.producer.client import Enqueued
from tussis.producer.listener import Listener, ListenOptions
from tussis.producer.sqs import SqsMessage
from tussis.shared.errors import (
    BrokerRefused,
    BrokerUnavailable,
    ObjectMissing,
    QueueFull,
    SqsRefused,
    SqsUnavailable,
    StorageUnavailable,
    TussisError,
)
from tussis.shared.job_requests import JobRequest
from tussis.shared.s3_events import ObjectFilter


class Queue:
    """An SQS queue in memory. ``errors``: what the next calls of a method raise."""

    url = "https://sqs.eu-central-1.amazonaws.com/1/uploads"
    visibility_s = 60

    def __init__(self, *bodies: str) -> None:
        self.waiting = [SqsMessage(str(number), f"receipt {number}", body) for number, body in enumerate(bodies)]
        self.deleted: list[str] = []
        self.hidden: list[tuple[list[str], int]] = []
        self.errors: dict[str, list[TussisError]] = {}
        self.undeletable = 0
        self.listener: Listener

    def receive(self) -> list[SqsMessage]:
        self._fail("receive")
        messages, self.waiting = self.waiting[:10], self.waiting[10:]
        if not messages:
            self.listener.stop()
        return messages

    def delete(self, messages: Sequence[SqsMessage]) -> list[SqsMessage]:
        self._fail("delete")
        if self.undeletable:
            self.undeletable -= 1
            return [messages[0]]
        self.deleted += [message.id for message in messages]
        return []

    def hide(self, messages: Sequence[SqsMessage], seconds: int) -> None:
        self.hidden.append(([message.id for message in messages], seconds))
        self._fail("hide")

    def _fail(self, method: str) -> None:
        if self.errors.get(method):
            raise self.errors[method].pop(0)


class Producer:
    """Enqueues into a list. ``errors``: what the next calls raise. ``refusals``: keys -> what their requests get."""

    def __init__(self) -> None:
        self.enqueued: list[JobRequest] = []
        self.errors: list[TussisError | None] = []
        self.refusals: dict[str, list[TussisError]] = {}
        self.room = 1_000
        self.on_call: Callable[[], object] = lambda: None

    def enqueue_many(self, requests: Sequence[JobRequest], max_depth: int | None) -> Iterator[Enqueued]:
        self.on_call()
        error = self.errors.pop(0) if self.errors else None
        for number, request in enumerate(requests):
            if error is not None and number == len(requests) - 1:
                raise error
            if refusals := self.refusals.get(request.uri.rpartition("/")[2]):
                yield Enqueued(request, None, sent=False, error=refusals.pop(0))
                continue
            if max_depth is not None and len(self.enqueued) >= self.room:
                raise QueueFull("full")
            sent = request not in self.enqueued
            self.enqueued += [request] * sent
            yield Enqueued(request, "id", sent=sent)

    @property
    def keys(self) -> list[str]:
        return [request.uri.rpartition("/")[2] for request in self.enqueued]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(listening, "_LONGEST_PAUSE_S", 0.002)
    monkeypatch.setattr(listening, "_FULL_S", (0.001, 0.002))


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """The events that are logged."""
    logged: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(listening._log, "_log", lambda level, event, fields: logged.append((event, fields)))
    return logged


def of(*keys: str) -> str:
    return records(*(record("clinic", key) for key in keys))


def listen(queue: Queue, producer: Producer, max_depth: int | None = None, **options: Any) -> Listener:
    like = JobRequest("", priority=3, metadata={"site": "north"})
    made = ListenOptions(like, options.pop("wanted", ObjectFilter()), max_depth)
    queue.listener = Listener(cast(Any, queue), cast(Any, producer), made, **options)
    queue.listener.run()
    return queue.listener


def test_objects_are_enqueued_and_their_messages_deleted(events: list[tuple[str, dict[str, Any]]]) -> None:
    queue, producer = Queue(of("a"), of("b", "c"), of("a"), test_event("clinic"), '{"Records": []}'), Producer()

    listen(queue, producer)

    assert producer.keys == ["a", "b", "c"]
    assert producer.enqueued[0] == JobRequest(
        "s3://clinic/a", etag="d41d8cd98f00b204e9800998ecf8427e", priority=3, metadata={"site": "north"}
    )
    assert queue.deleted == ["0", "1", "2", "3", "4"]
    counts = {"messages": 5, "enqueued": 3, "open_already": 1, "left_out": {"test_event": 1}, "kept": 0}
    assert ("s3_events", counts) in events
    assert events[-1] == ("listener_stopped", counts)


def test_only_wanted_objects_are_enqueued_and_the_others_messages_deleted() -> None:
    queue, producer = Queue(of("a.wav", "a.txt")), Producer()
    listen(queue, producer, wanted=ObjectFilter(suffixes=(".wav",)))
    assert (producer.keys, queue.deleted) == (["a.wav"], ["0"])


def test_events_of_one_key_are_enqueued_in_order_over_several_messages() -> None:
    late, early = (records(record("clinic", "a", sequencer=number, eTag=number)) for number in ("0B", "A"))
    queue, producer = Queue(late, of("b"), early), Producer()

    listen(queue, producer)

    assert [(request.uri, request.etag) for request in producer.enqueued] == [
        ("s3://clinic/a", "A"), ("s3://clinic/b", "d41d8cd98f00b204e9800998ecf8427e"), ("s3://clinic/a", "0B"),
    ]  # fmt: skip


def test_a_message_that_cannot_be_read_or_enqueued_stays(events: list[tuple[str, dict[str, Any]]]) -> None:
    queue, producer = Queue("hello", of("gone", "b"), of("c"), '{"x": 1}'), Producer()
    producer.refusals = {"gone": [ObjectMissing("s3://clinic/gone does not exist")]}

    listen(queue, producer)

    assert producer.keys == ["b", "c"]
    assert queue.deleted == ["2"]
    assert [event for event, _ in events].count("s3_event_unreadable") == 2
    refused = next(fields for event, fields in events if event == "s3_event_refused")
    assert (refused["uri"], refused["message_id"], refused["error_class"]) == (
        "s3://clinic/gone",
        "1",
        "object_missing",
    )
    assert queue.hidden == []  # it stays hidden for its time: no busy loop


@pytest.mark.parametrize("error", [BrokerUnavailable(), SqsUnavailable(), StorageUnavailable()])
def test_errors_that_end_are_waited_for(error: TussisError, events: list[tuple[str, dict[str, Any]]]) -> None:
    queue, producer = Queue(of("a"), of("b")), Producer()
    producer.errors = [error] * 3
    queue.errors = {"receive": [SqsUnavailable()] * 3, "delete": [SqsUnavailable()] * 3}
    queue.undeletable = 1

    listen(queue, producer)

    assert producer.keys == ["a", "b"]
    assert queue.deleted == ["0"]  # the second time, of the one that was left
    told = [fields["error_class"] for event, fields in events if event == "holding"]
    assert told == ["sqs_unavailable", error.error_class, "sqs_unavailable"]
    assert [event for event, _ in events].count("holding_over") == 3


def test_one_object_that_s3_does_not_answer_for_is_tried_again() -> None:
    queue, producer = Queue(of("a", "b"), of("c")), Producer()
    producer.refusals = {"a": [StorageUnavailable()] * 2}
    listen(queue, producer)
    assert (sorted(producer.keys), queue.deleted) == (["a", "b", "c"], ["0", "1"])


def test_a_refusal_ends_the_command_unless_the_same_succeeded_before() -> None:
    for refusal in (SqsRefused("no right"), SqsRefused("no queue")):
        queue = Queue(of("a"))
        queue.errors = {"receive": [refusal]}
        with pytest.raises(SqsRefused):
            listen(queue, Producer())
    queue = Queue(of("a"))
    queue.errors = {"delete": [SqsRefused()]}
    with pytest.raises(SqsRefused):
        listen(queue, Producer())
    queue, producer = Queue(*[test_event("clinic")] * 10, of("a")), Producer()  # nothing is enqueued at first
    producer.errors = [BrokerRefused("the login is wrong")]
    with pytest.raises(BrokerRefused):
        listen(queue, producer)
    assert queue.deleted == [str(number) for number in range(10)]


def test_a_refusal_after_a_success_is_waited_for(events: list[tuple[str, dict[str, Any]]]) -> None:
    queue, producer = Queue(*(of(str(number)) for number in range(11))), Producer()

    def refuse_from_now_on() -> None:
        queue.errors = {"receive": [SqsRefused("the policy changed")] * 2, "delete": []}
        producer.errors = [None, BrokerRefused("full")]
        producer.on_call = lambda: None

    producer.on_call = refuse_from_now_on

    listen(queue, producer)

    assert len(producer.keys) == len(queue.deleted) == 11
    paused = [fields for event, fields in events if event == "paused"]
    assert [(fields["error_class"], fields["reason"]) for fields in paused] == [("sqs_refused", "the policy changed")]


def test_a_full_broker_is_waited_for_from_the_beginning() -> None:
    queue, producer = Queue(of("a")), Producer()
    full = BrokerRefused("full")
    full.__cause__ = ResponseError("OOM command not allowed when used memory > 'maxmemory'")
    producer.errors = [full] * 3
    listen(queue, producer)
    assert (producer.keys, queue.deleted) == (["a"], ["0"])


def test_a_broker_that_refuses_at_the_start_ends_the_command_and_one_that_is_away_does_not() -> None:
    def refuse() -> None:
        raise BrokerRefused("the login is wrong")

    queue = Queue(of("a"))
    with pytest.raises(BrokerRefused):
        listen(queue, Producer(), check=refuse)
    assert len(queue.waiting) == 1
    away = [BrokerUnavailable(), BrokerUnavailable()]

    def come_back() -> None:
        if away:
            raise away.pop()

    listen(queue, Producer(), check=come_back)
    assert queue.deleted == ["0"]


def test_messages_stay_hidden_while_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    queue, producer = Queue(of("a", "b"), of("c")), Producer()
    monkeypatch.setattr(Queue, "visibility_s", 0)  # at every look
    producer.room = 1
    calls = []

    def end_a_job_at_the_fifth() -> None:
        calls.append(queue.hidden[-1:])
        producer.room += len(calls) >= 5

    producer.on_call = end_a_job_at_the_fifth
    alive: list[None] = []

    listen(queue, producer, max_depth=1, alive=lambda: alive.append(None))

    assert producer.keys == ["a", "b", "c"]
    assert queue.deleted == ["0", "1"]
    assert [hidden[0][0] for hidden in calls[1:5]] == [["0", "1"]] * 4  # before each next look
    assert len(alive) >= 6


def test_a_visibility_that_cannot_be_changed_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, events: list[tuple[str, dict[str, Any]]]
) -> None:
    queue, producer = Queue(of("a")), Producer()
    monkeypatch.setattr(Queue, "visibility_s", 0)
    queue.errors = {"hide": [SqsRefused("no right"), SqsUnavailable()]}
    producer.errors = [BrokerUnavailable()] * 3
    listen(queue, producer)
    assert (producer.keys, queue.deleted) == (["a"], ["0"])
    assert [event for event, _ in events].count("visibility_not_changed") == 2


def test_a_stop_finishes_what_is_in_hand() -> None:
    queue, producer = Queue(*(of(str(number)) for number in range(25))), Producer()
    producer.on_call = lambda: queue.listener.stop()
    listen(queue, producer)
    assert len(producer.keys) == len(queue.deleted) == 10
    assert len(queue.waiting) == 15


def test_a_stop_gives_back_what_cannot_be_finished() -> None:
    queue, producer = Queue("hello", of("a"), of("b", "c")), Producer()
    producer.on_call = lambda: queue.listener.stop()
    producer.errors = [BrokerUnavailable()]  # before the last request

    listen(queue, producer)

    assert producer.keys == ["a", "b"]
    assert queue.deleted == ["1"]
    assert queue.hidden == [(["2"], 0)]


def test_a_stop_during_a_pause_is_immediate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_FIRST_PAUSE_S", 3600.0)
    queue = Queue()
    queue.errors = {"receive": [SqsUnavailable()]}
    options = ListenOptions(JobRequest(""), ObjectFilter())
    listener = queue.listener = Listener(cast(Any, queue), cast(Any, Producer()), options)
    thread = threading.Thread(target=listener.run)
    thread.start()
    listener.stop()
    thread.join(30)
    assert not thread.is_alive()
