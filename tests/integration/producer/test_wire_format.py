"""The wire format: ``docs/wire-format.md``, Celery and the producer send the same messages."""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery

from tests.support.broker_state import Entry, entries, read_entry, snapshot
from tests.support.enqueue_doc import block, rows, section
from tussis.producer import JobRequest, Producer
from tussis.shared import errors
from tussis.shared.job_requests import job_for
from tussis.shared.ledger import Ledger
from tussis.shared.ledger_scripts import OPEN_SCRIPT
from tussis.shared.messages import JOB_NAMESPACE, MAX_MESSAGE_BYTES, Job, envelope, job_id_for, parse_message
from tussis.shared.move_script import MOVE_SCRIPT
from tussis.shared.queues import PRIORITIES, PRIORITY_SEPARATOR, QUEUES, TASK_NAME, Device, list_key, sent_key

OTHER_LANGUAGES = "From other languages"


def a_job(**fields: Any) -> Job:
    return job_for(JobRequest("s3://clinic/2026/ä.wav", etag="9b2c", metadata={"site": "Süd"}, **fields), time.time())


# --- against Celery ---------------------------------------------------------------------------------------


@pytest.fixture
def celery(broker_url: str) -> Iterator[Celery]:
    """A Celery application with the transport options that our workers use."""
    app = Celery("another", broker=broker_url, set_as_current=False)
    app.conf.broker_transport_options = {"sep": PRIORITY_SEPARATOR, "priority_steps": list(PRIORITIES)}
    yield app
    app.close()


def the_entry(broker: redis.Redis) -> Entry:
    (entry,) = entries(broker)
    return entry


@pytest.mark.parametrize("device", Device)
@pytest.mark.parametrize("priority", PRIORITIES)
def test_our_list_entry_is_the_one_that_celery_would_put(
    celery: Celery, broker: redis.Redis, priority: int, device: Device
) -> None:
    job = a_job(priority=priority, device=device.value)
    celery.send_task(
        TASK_NAME,
        kwargs={"message": json.loads(job.to_json())},
        queue=job.queue,
        priority=priority,
        task_id=job.job_id,
        ignore_result=True,
    )
    theirs = the_entry(broker)

    ours = read_entry(list_key(job.queue, priority), envelope(job))

    assert ours.key == theirs.key
    assert ours.body == theirs.body
    # Only for people to read, and where a result would go.
    for entry, ignored in ((ours, "tussis"), (theirs, theirs.envelope["headers"]["origin"])):
        assert entry.envelope["headers"].pop("origin") == ignored
        for name in ("argsrepr", "kwargsrepr"):
            del entry.envelope["headers"][name]
        del entry.envelope["properties"]["reply_to"]
    assert ours.envelope == theirs.envelope


# --- against the document ---------------------------------------------------------------------------------


def test_the_documents_script_is_the_one_that_runs() -> None:
    assert block("Sending", "lua") == OPEN_SCRIPT


def test_the_documents_script_for_another_device_is_the_one_that_runs() -> None:
    assert block("Moving an open job to another device", "lua") == MOVE_SCRIPT


def test_the_documents_envelope_is_the_one_that_is_sent() -> None:
    job = a_job(priority=3)
    ours = json.loads(envelope(job))
    told = block("The envelope", "json").replace('"{priority}"', "3")
    for name, value in {
        "body": ours["body"],
        "job_id": job.job_id,
        "queue": job.queue,
        "delivery_tag": ours["properties"]["delivery_tag"],
    }.items():
        told = told.replace(f"{{{name}}}", value)

    assert json.loads(told) == ours


def test_the_documents_job_ids_are_ours() -> None:
    vectors = rows("The job id")

    assert len(vectors) >= 4
    for canonical, job_id in vectors:
        assert str(uuid.uuid5(JOB_NAMESPACE, canonical)) == job_id
        assert job_id_for(**parts_of(canonical)) == job_id
    assert f"`{JOB_NAMESPACE}`" in section("The job id")


def parts_of(canonical: str) -> dict[str, Any]:
    """Read the netstrings back, as the document describes them."""
    rest = canonical.removeprefix("tussis1").encode()
    values = []
    while rest:
        length, _, rest = rest.partition(b":")
        values.append(rest[: int(length)].decode() or None)
        assert rest[int(length) : int(length) + 1] == b","
        rest = rest[int(length) + 1 :]
    names = ("bucket", "key", "version_id", "etag", "model", "profile", "coverage")
    assert len(values) in (6, 7)
    return dict(zip(names, values, strict=False))


def placeholders(job: Job) -> dict[str, str]:
    """The values that the document's forms leave open."""
    return {
        "job_id": job.job_id,
        "message": job.to_json(),
        "enqueued_at": repr(job.enqueued_at),
        "list": list_key(job.queue, job.priority),
        "envelope": envelope(job),
    }


def by_our_ledger(job: Job, broker_url: str) -> None:
    with redis.Redis.from_url(broker_url) as client:
        assert Ledger(client).open(job)


@pytest.mark.parametrize("priority", [0, 4])
def test_the_documents_script_leaves_the_broker_as_we_do(broker: redis.Redis, broker_url: str, priority: int) -> None:
    job = a_job(priority=priority)
    by_our_ledger(job, broker_url)
    ours = snapshot(broker)
    broker.flushdb()
    values = placeholders(job)
    keys = ["tussis.ledger", "tussis.open", f"tussis.sent:{values['list']}", values["list"]]
    arguments = [values["job_id"], values["message"], values["enqueued_at"], values["envelope"]]

    assert broker.eval(block("Sending", "lua"), 4, *keys, *arguments) == [1]

    assert snapshot(broker) == ours
    assert broker.eval(block("Sending", "lua"), 4, *keys, *arguments) == [0]
    assert snapshot(broker) == ours


@pytest.mark.parametrize("priority", [0, 4])
def test_the_documents_transaction_leaves_the_broker_as_we_do(
    broker: redis.Redis, broker_url: str, priority: int
) -> None:
    job = a_job(priority=priority)
    by_our_ledger(job, broker_url)
    ours = snapshot(broker)
    broker.flushdb()
    seconds, microseconds = broker.time()
    values = placeholders(job) | {"now": repr(seconds + microseconds / 1e6)}

    answers = transaction(broker, values)

    assert snapshot(broker) == ours
    assert answers[-1] == [1, 1, 1, 1]


def transaction(broker: redis.Redis, values: dict[str, str]) -> list[Any]:
    """Run the document's MULTI form, line by line, on one connection."""
    answers = []
    client: Any = broker  # redis-py leaves these calls untyped
    with client.client() as one:
        for line in block("Sending", "redis").splitlines():
            words = line.split(" ")
            for name, value in values.items():
                words = [word.replace(f"{{{name}}}", value) for word in words]
            # As it stands: the client's own handling of MULTI and EXEC stays out of it.
            one.connection.send_command(*words)
            answers.append(one.connection.read_response())
    return answers


def test_the_documents_producer_works_as_it_stands(broker: redis.Redis, broker_url: str) -> None:
    written: dict[str, Any] = {}
    exec(compile(block("A complete producer", "python"), "docs/enqueue.md", "exec"), written)

    job_id = written["enqueue"](broker, "clinic", "2026/ä.wav", "9b2c", 3, "gpu", {"site": "Süd"})
    theirs = snapshot(broker)
    broker.flushdb()
    with Producer(broker_url) as producer:
        ours = producer.enqueue(
            "s3://clinic/2026/ä.wav", etag="9b2c", priority=3, device="gpu", metadata={"site": "Süd"}
        )

    assert job_id == ours
    assert entries_of(theirs) == entries_of(snapshot(broker))
    assert theirs.keys() == snapshot(broker).keys()


def entries_of(state: dict[str, Any]) -> list[Any]:
    """List key, envelope and job of every entry: a message that leaves a default out means the same job."""
    return [(key, envelope, parse_message(message)) for key, envelope, message in state["entries"]]


def test_the_documents_login_may_enqueue_and_nothing_else(broker: redis.Redis, broker_url: str) -> None:
    rules = block("Keys and rights on the broker", "text").replace("PASSWORD", "secret").split()
    assert rules[:3] == ["ACL", "SETUSER", "producer"]
    admin: Any = broker
    admin.execute_command(*rules, "+select", "+multi", "+exec")
    url = "redis://producer:secret@" + broker_url.rpartition("@")[2]
    try:
        with Producer(url, head=False) as producer:
            producer.enqueue("s3://clinic/a.wav")
            assert all(item.sent for item in producer.enqueue_many(["s3://clinic/b.wav"]))
        with redis.Redis.from_url(url, decode_responses=True) as limited:
            job = a_job()
            transaction(limited, placeholders(job) | {"now": "1.5"})
            for forbidden in (["LRANGE", "tussis.any:5", "0", "-1"], ["FLUSHDB"], ["LPUSH", "other", "x"]):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    limited.execute_command(*forbidden)
    finally:
        broker.acl_deluser("producer")
    assert len(entries(broker)) == 3


def test_the_document_names_our_keys_and_limits() -> None:
    keys = section("Keys and rights on the broker") + section("Queues and priorities")

    for queue in QUEUES:
        assert f"`{queue}`" in keys
    assert sent_key("tussis.any", 3) == "tussis.sent:" + "tussis.any:3"
    assert f"{MAX_MESSAGE_BYTES:,} bytes" in section("The message")


def test_the_documents_errors_are_ours() -> None:
    table = {row[0]: row[1] for row in rows("Errors")}

    assert len(table) >= 11
    for name, error_class in table.items():
        assert getattr(errors, name).error_class == error_class


def test_a_body_is_what_the_document_says() -> None:
    job = a_job()
    template = next(row[1] for row in rows("The envelope") if row[0] == "{body}")
    told = template.partition("`")[2].partition("`")[0].replace("MESSAGE", job.to_json())

    assert json.loads(base64.b64decode(json.loads(envelope(job))["body"])) == json.loads(told)
