"""Whatever an entry of the broker holds, Celery gets one that it accepts, and the message in it as it was sent."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import kombu
import pytest
from celery.app.trace import trace_task_ret
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tussis.shared.ledger_repair import _job_id_of
from tussis.shared.messages import MAX_NESTING, Job, envelope, parse_message
from tussis.shared.queues import QUEUES, TASK_NAME, Device, list_key
from tussis.shared.settings import load_settings
from tussis.worker.parent import entries
from tussis.worker.parent.app import build_app
from tussis.worker.pipeline import tasks

JOB = Job(job_id=str(uuid.uuid4()), bucket="clinic", key="a.wav", enqueued_at=1.0, metadata={"site": "north"})
LISTS = [list_key(queue, priority).encode() for queue in QUEUES for priority in range(10)]
#: Whatever Celery reads in an envelope, and some that it does not.
HEADERS = [
    *("id", "task", "lang", "timelimit", "stamped_headers", "stamps", "eta", "expires", "retries", "root_id"),
    *("parent_id", "group", "group_index", "shadow", "argsrepr", "kwargsrepr", "origin", "reply_to", "ignore_result"),
    *("correlation_id", "replaced_task_nesting", "compression", "redelivered", "delivery_info", "callbacks"),
    *("reject_on_worker_lost", "args", "kwargs", "__type__", "__value__"),
]
PROPERTIES = [
    *("correlation_id", "reply_to", "delivery_mode", "delivery_info", "priority", "body_encoding", "delivery_tag"),
    *("expiration", "headers"),
]

numbers = st.one_of(st.integers(), st.sampled_from([10**400, -(10**400), 2**63]), st.floats())
words = st.text(st.characters(), max_size=12) | st.sampled_from(["", "xx", "\ud800", TASK_NAME, "base64", "utf-8"])
values = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(words | st.sampled_from(HEADERS), inner, max_size=4)
        | st.fixed_dictionaries({"__type__": st.sampled_from(["uuid", "datetime", "bytes", "x"]), "__value__": inner})
    ),
    max_leaves=12,
)
deep = st.sampled_from([99, 100, 101, 104, 500, 900, 990, 5000]).map(lambda depth: "[" * depth + "]" * depth)


class Worker:
    """Celery's own way of an entry: decoded, made a request, handed to a child, and run there."""

    def __init__(self, run: Callable[..., None]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(vars(tasks), "analyze", run)
            self.app = build_app(load_settings(broker_url="redis://localhost"), Device.CPU)
        self.app.finalize()
        self.sent: list[tuple[Any, ...]] = []
        self.requests: list[Any] = []
        consumer = SimpleNamespace(
            hostname="here",
            connection_errors=(),
            event_dispatcher=None,
            timer=SimpleNamespace(call_at=None),
            apply_eta_task=None,
            disable_rate_limits=True,
            task_buckets={},
            on_task_request=self.requests.append,
            _limit_task=None,
            _limit_post_eta=None,
            controller=SimpleNamespace(state=SimpleNamespace(revoked=set())),
            pool=self,
        )
        self._strategy = self.app.tasks[TASK_NAME].start_strategy(self.app, consumer)
        self._channel = kombu.Connection("memory://").channel()

    def apply_async(self, target: Any, args: tuple[Any, ...], **options: Any) -> None:
        """Of Celery's pool."""
        assert (options["soft_timeout"], options["timeout"]) == (None, None)
        self.sent.append(args)

    def take(self, entry: bytes) -> Any:
        """Raises what would end a worker."""
        message = self._channel.Message(kombu.utils.json.loads(entry.decode()), channel=self._channel)
        self._strategy(message, None, None, None, ())
        request = self.requests.pop()
        request.execute_using_pool(self)
        name, *_ = arguments = self.sent.pop()
        assert name == TASK_NAME
        failed, *_ = trace_task_ret(*arguments, app=self.app)
        assert failed == 0
        return request


@pytest.fixture(scope="module")
def ran() -> list[dict[str, Any]]:
    return []


@pytest.fixture(scope="module")
def worker(ran: list[dict[str, Any]]) -> Worker:
    def analyze(**arguments: Any) -> None:
        ran.append(arguments)

    return Worker(analyze)


def test_each_app_of_a_process_has_its_own_task(worker: Worker) -> None:
    other = build_app(load_settings(broker_url="redis://localhost"), Device.CPU)
    other.finalize()
    assert other.tasks[TASK_NAME].run is tasks.analyze
    assert worker.app.tasks[TASK_NAME].run is not tasks.analyze


def taken(worker: Worker, ran: list[dict[str, Any]], entry: bytes) -> dict[str, Any]:
    """The arguments with which the task runs, for an entry of each way that leads to Celery."""
    ran.clear()
    name = b"tussis.cpu:3"
    reply = entries.popped((name, entry))
    assert reply is not None
    assert reply[0] == name
    request = worker.take(reply[1])
    assert request.delivery_info["routing_key"] == "tussis.cpu"
    assert request.delivery_info["priority"] == 3
    filing = json.dumps([json.loads(reply[1]), "", "tussis.cpu"]).encode()
    filed = entries.filed(filing)
    assert filed is not None
    again, exchange, queue = json.loads(filed)
    assert (exchange, queue) == ("", "tussis.cpu")
    assert again["properties"]["priority"] == 3
    worker.take(json.dumps(again).encode())
    plain = entries.taken(entry)
    assert plain is not None
    worker.take(plain)
    first, second, third = map(repr, ran)
    assert first == second == third
    return ran[0]


def changed(**changes: Any) -> bytes:
    """An entry of ours with other values; ``...`` takes one out."""
    message = json.loads(envelope(JOB))
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = message
        for name in parents:
            place = place[name]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return json.dumps(message).encode()


def with_body(text: str | bytes) -> bytes:
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return changed(body=base64.b64encode(raw).decode())


def test_a_message_of_ours_passes_in_an_envelope_of_ours(worker: Worker, ran: list[dict[str, Any]]) -> None:
    token = str(uuid.uuid4())
    arguments = taken(worker, ran, envelope(JOB, handed_back=token).encode())
    assert parse_message(arguments["message"]) == JOB
    assert arguments["handed_back"] == token
    reply = entries.popped((b"tussis.any:5", envelope(JOB).encode()))
    assert reply is not None
    remade, sent = json.loads(reply[1]), json.loads(envelope(JOB))
    for message in (remade, sent):
        uuid.UUID(message["properties"].pop("delivery_tag"))
        message["body"] = json.loads(base64.b64decode(message["body"]))
    assert remade == sent


def test_an_empty_reply_stays_empty() -> None:
    assert entries.popped(None) is None
    assert entries.taken(None) is None
    assert entries.filed(None) is None


@pytest.mark.parametrize(
    "entry",
    [
        changed(headers__stamped_headers=5),
        changed(headers__timelimit="xx"),
        changed(headers__timelimit=[1, 2, 3]),
        changed(headers__timelimit=[0.001, 0.001]),
        changed(headers__retries="many"),
        changed(headers__id=7),
        changed(headers__id=...),
        changed(headers__reply_to=5, headers__group=[], headers__root_id={}),
        changed(headers__reject_on_worker_lost=False, headers__ignore_result=False),
        changed(properties__delivery_tag=...),
        changed(properties__delivery_tag=""),
        changed(properties__delivery_tag=[5]),
        changed(properties__delivery_tag="x" * 500_000),
        changed(properties__delivery_info={}),
        changed(properties__delivery_info={"exchange": "x", "routing_key": "elsewhere"}),
        changed(properties__priority=float("inf")),
        changed(properties__correlation_id=...),
        changed(properties__reply_to={"a": 1}),
        changed(headers={"task": TASK_NAME, "stamps": {"__type__": "uuid", "__value__": 5}}),
    ],
)
def test_a_message_is_taken_whatever_else_the_envelope_says(
    worker: Worker, ran: list[dict[str, Any]], entry: bytes
) -> None:
    assert parse_message(taken(worker, ran, entry)["message"]) == JOB


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"not json",
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b"{}",
        b"5",
        b"[" * 100_000,
        b'{"headers": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"headers": {"id": ' + b"9" * 5000 + b"}}",
        changed(headers=...),
        changed(properties=...),
        changed(properties=5),
        changed(headers__task="other.task"),
        changed(headers__task=[[]]),
        changed(headers__eta="2026-01-01T00:00:00"),
        changed(headers__expires=5),
        changed(headers__compression="zlib"),
        changed(body="!!!"),
        changed(body=5),
        changed(**{"content-type": "application/x-python-serialize"}),
        changed(**{"content-encoding": ["utf-8"]}),
        with_body("[1, 2, 3]"),
        with_body('[[], {"message": {}}]'),
        with_body('[[1], {"message": {}}, {}]'),
        with_body('[[], {"message": {}, "more": 1}, {}]'),
        with_body('[[], {"unreadable": {"raw": 5, "problem": ""}}, {}]'),
        with_body(b"\xff"),
        with_body(f'[[], {{"message": {"[" * 900}{"]" * 900}}}, {{}}]'),
        with_body('[[], {"message": "' + "ü" * 400_000 + '"}, {}]'),
        b" " * 10_000_000,
    ],
    ids=lambda entry: repr(entry[:40]),
)
def test_an_unreadable_entry_is_carried_to_the_dead_letters(
    worker: Worker, ran: list[dict[str, Any]], entry: bytes
) -> None:
    unreadable = taken(worker, ran, entry)["unreadable"]
    assert unreadable["problem"]
    assert len(json.dumps(unreadable)) < 500_000


def test_what_celery_would_do_after_the_task_is_taken_out(worker: Worker, ran: list[dict[str, Any]]) -> None:
    """A callback made the worker publish a message of the sender's choice."""
    signature: dict[str, Any] = {"task": "other.task", "args": [], "kwargs": {}, "options": {}, "subtask_type": None}
    options = {"callbacks": [signature], "errbacks": [signature], "chain": [signature], "chord": signature}
    entry = with_body(json.dumps([[], {"message": json.loads(JOB.to_json())}, options]))
    assert parse_message(taken(worker, ran, entry)["message"]) == JOB
    reply = entries.popped((b"tussis.cpu:3", entry))
    assert reply is not None
    assert set(json.loads(base64.b64decode(json.loads(reply[1])["body"]))[2].values()) == {None}


def test_entries_that_share_a_tag_get_one_each() -> None:
    entry = envelope(JOB).encode()
    replies = [entries.popped((b"tussis.any:5", entry)) for _ in range(3)]
    tags = {json.loads(reply[1])["properties"]["delivery_tag"] for reply in replies if reply}
    assert len(tags) == 3


@pytest.mark.parametrize("marker", ["uuid", "datetime", "bytes", "decimal", "nonsense"])
def test_metadata_of_kombu_s_own_form_stays_as_it_is(worker: Worker, ran: list[dict[str, Any]], marker: str) -> None:
    """kombu makes other types of such objects, or the message is acknowledged with a line in the log."""
    metadata = {"sensor": {"__type__": marker, "__value__": "x"}}
    job = Job(job_id=JOB.job_id, bucket="clinic", key="a.wav", enqueued_at=1.0, metadata=metadata)
    assert parse_message(taken(worker, ran, envelope(job).encode())["message"]).metadata == metadata


def test_the_deepest_metadata_passes(worker: Worker, ran: list[dict[str, Any]]) -> None:
    metadata: Any = {}
    for _ in range(MAX_NESTING - 1):
        metadata = {"a": metadata}
    job = Job(job_id=JOB.job_id, bucket="clinic", key="a.wav", enqueued_at=1.0, metadata=metadata)
    assert parse_message(taken(worker, ran, envelope(job).encode())["message"]) == job


def test_the_largest_message_passes(worker: Worker, ran: list[dict[str, Any]]) -> None:
    for character in ("a", "ü", "€", "😀", "\x01", '"'):
        count = 64_000 // len(json.dumps(character, ensure_ascii=False).strip('"').encode())
        metadata = {"notes": character * count if character != '"' else '"' * 32_000}
        job = Job(job_id=JOB.job_id, bucket="clinic", key="a.wav", enqueued_at=1.0, metadata=metadata)
        assert parse_message(taken(worker, ran, envelope(job).encode())["message"]) == job


fuzzed = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzzed
@given(entry=st.binary(max_size=300) | values.map(lambda value: json.dumps(value).encode()) | deep.map(str.encode))
def test_any_bytes_and_any_json_are_accepted(worker: Worker, ran: list[dict[str, Any]], entry: bytes) -> None:
    assert set(taken(worker, ran, entry)) == {"unreadable"}


@fuzzed
@given(
    headers=st.dictionaries(st.sampled_from(HEADERS) | words, values, max_size=5),
    properties=st.dictionaries(st.sampled_from(PROPERTIES) | words, values, max_size=5),
    top=st.dictionaries(st.sampled_from(["body", "content-type", "content-encoding", "x"]), values, max_size=1),
    gone=st.sets(st.sampled_from(HEADERS + PROPERTIES), max_size=4),
    twice=st.booleans(),
)
@example(headers={"id": "\ud800"}, properties={}, top={}, gone=set(), twice=True)
def test_any_envelope_is_accepted(
    worker: Worker,
    ran: list[dict[str, Any]],
    headers: dict[str, Any],
    properties: dict[str, Any],
    top: dict[str, Any],
    gone: set[str],
    twice: bool,
) -> None:
    message = json.loads(envelope(JOB))
    for part, changes in (("headers", headers), ("properties", properties)):
        message[part] = {name: value for name, value in (message[part] | changes).items() if name not in gone}
    text = json.dumps(message | top)
    if twice:
        text = text[:-1] + ', "headers": ' + json.dumps(message["headers"]) + "}"
    arguments = taken(worker, ran, text.encode())
    if "message" in arguments:
        assert parse_message(arguments["message"]) == JOB
    else:
        assert set(arguments) == {"unreadable"}


@fuzzed
@given(body=values | st.tuples(values, values, values).map(list) | values.map(lambda value: [[], value, {}]))
def test_any_body_is_accepted(worker: Worker, ran: list[dict[str, Any]], body: Any) -> None:
    taken(worker, ran, with_body(json.dumps(body)))


@fuzzed
@given(message=values, handed_back=values, options=values)
def test_any_message_reaches_the_task_as_it_is(
    worker: Worker, ran: list[dict[str, Any]], message: Any, handed_back: Any, options: Any
) -> None:
    body = [[], {"message": message, "handed_back": handed_back}, options]
    arguments = taken(worker, ran, with_body(json.dumps(body)))
    assert repr(arguments) == repr({"message": message, "handed_back": handed_back})


@fuzzed
@given(text=st.binary(max_size=300) | (values | values.map(lambda v: [v, v, v])).map(lambda v: json.dumps(v).encode()))
def test_whatever_is_filed_is_restored_and_accepted(worker: Worker, ran: list[dict[str, Any]], text: bytes) -> None:
    """An older version, or another client, may have filed it."""
    filed = entries.filed(text)
    assert filed is not None
    entry, exchange, queue = json.loads(filed)
    assert exchange == ""
    assert queue in QUEUES
    worker.take(json.dumps(entry).encode())


@pytest.mark.parametrize("name", [*LISTS, b"tussis.any@cough", b"tussis.gpu@cough@3.0+x:9"])
def test_a_list_names_queue_and_priority(name: bytes) -> None:
    reply = entries.popped((name, envelope(JOB).encode()))
    assert reply is not None
    properties = json.loads(reply[1])["properties"]
    assert list_key(properties["delivery_info"]["routing_key"], properties["priority"]).encode() == name


@pytest.mark.parametrize(
    ("queue", "list_name"),
    [
        ("tussis.gpu@cough@3", "tussis.gpu@cough@3:5"),
        ("tussis.any@cough", "tussis.any@cough:5"),
        ("tussis.any@cough:7", "tussis.any:5"),
        ("tussis.any@../x", "tussis.any:5"),
        ("tussis.any@", "tussis.any:5"),
        ("tussis.ledger", "tussis.any:5"),
    ],
)
def test_a_message_goes_back_to_the_queue_of_a_model_and_to_no_other_key(queue: str, list_name: str) -> None:
    entry = json.loads(envelope(JOB))
    entry["properties"]["delivery_info"]["routing_key"] = queue
    remade, back_to, name = entries.given_back(json.dumps([entry, "", queue]).encode())
    assert (name, list_key(back_to, 5)) == (list_name, list_name)
    assert json.loads(remade)["properties"]["delivery_info"]["routing_key"] == back_to


@fuzzed
@given(entry=st.binary(max_size=300) | values.map(lambda value: json.dumps(value).encode()) | deep.map(str.encode))
@example(entry=b'{"headers": {"id": "\\ud800"}}')
@example(entry=b'[{"headers": {"id": {}}}]')
@example(entry=b'{"headers": {"id": ' + b"9" * 5000 + b"}}")
def test_the_ledger_survives_any_entry(entry: bytes) -> None:
    found = _job_id_of(entry)
    assert found is None or isinstance(found, bytes)
