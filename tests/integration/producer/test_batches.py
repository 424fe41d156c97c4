"""Batches of the producer and of ``tussis enqueue --batch``, and ``tussis batch``, without a database."""

from __future__ import annotations

import json
import shlex
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from click.testing import CliRunner, Result

from tests.support.broker_state import entries, open_jobs
from tests.support.enqueue_doc import blocks
from tests.support.outcomes import failed, succeeded
from tests.support.servers import Bucket
from tussis.producer import JobRequest, Producer
from tussis.producer.cli import root
from tussis.shared.batch_scripts import CLOSE_BATCH_SCRIPT, OPEN_BOUNDED_SCRIPT
from tussis.shared.batches import BatchStatus
from tussis.shared.broker import connect
from tussis.shared.errors import BatchUnknown, InvalidJob, WaitTimeout
from tussis.shared.ledger import Ledger
from tussis.shared.messages import Job
from tussis.shared.queues import BATCH_OF_KEY

Run = Callable[..., Result]


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    """``tussis`` in this process, with the test's broker and store."""
    return lambda *words, stdin="": CliRunner().invoke(root, words, input=stdin)


@pytest.fixture
def end(broker_url: str) -> Callable[..., None]:
    """Ends open jobs, as a worker does."""
    client = connect(broker_url)
    ledger = Ledger(client)

    def end(*job_ids: str, ended: Callable[[Job], Any] = succeeded) -> None:
        for job_id in job_ids:
            job = ledger.find(job_id)
            assert job is not None
            assert ledger.close(job, ended(job))

    return end


def requests(count: int, first: int = 0) -> list[JobRequest]:
    return [JobRequest(f"s3://clinic/{number}.wav", etag=f"e{number}") for number in range(first, first + count)]


def counters(status: BatchStatus) -> tuple[int, int, int, int]:
    return status.total, status.succeeded, status.failed, status.open


def test_a_batch_from_python(producer: Producer, broker: redis.Redis, end: Callable[..., None]) -> None:
    alone = producer.enqueue("s3://clinic/0.wav", etag="e0")
    wrong = JobRequest("clinic/x.wav", etag="e")
    items = list(producer.enqueue_many([*requests(4), wrong, *requests(1)], batch="night", chunk=2))
    assert [item.sent for item in items] == [False, True, True, True, False, False]
    assert items[4].error is not None
    one = producer.enqueue("s3://clinic/9.wav", etag="e9", batch="night")
    assert counters(producer.batch("night")) == (5, 0, 0, 5)
    # The job that was open before joins as well. The messages are those of jobs without a batch.
    assert broker.hgetall(BATCH_OF_KEY) == dict.fromkeys(open_jobs(broker), "night")
    assert all("batch" not in entry.body[1]["message"] for entry in entries(broker))
    end(alone)
    end(one, ended=failed)
    assert producer.close_batch("night").state == "closed"
    with pytest.raises(WaitTimeout):
        producer.wait_batch("night", 0)
    threading.Timer(0.3, lambda: end(*open_jobs(broker))).start()
    status = producer.wait_batch("night", 60)
    assert (status.state, counters(status)) == ("done", (5, 4, 1, 0))
    assert broker.exists(BATCH_OF_KEY) == 0
    with pytest.raises(BatchUnknown):
        producer.batch("day")
    assert producer.close_batch("day").done
    with pytest.raises(InvalidJob, match="batch must be"):
        producer.enqueue("s3://clinic/9.wav", etag="e9", batch="two words")
    with pytest.raises(InvalidJob, match="batch must be"):
        list(producer.enqueue_many(requests(1), batch="two words"))


def test_a_batch_whose_connection_is_lost_counts_each_job_once(producer: Producer, broker: redis.Redis) -> None:
    told = 0
    for _ in producer.enqueue_many(requests(60), batch="night", chunk=5):
        told += 1
        if told % 5 == 1:
            broker.client_kill_filter(_type="normal", skipme=True)
    assert told == 60
    assert counters(producer.batch("night")) == (60, 0, 0, 60)


def test_the_commands(run: Run, bucket: Bucket, broker: redis.Redis, end: Callable[..., None]) -> None:
    uris = [bucket.put(f"{number}.wav", bytes([number])) for number in range(3)]
    sent = run("enqueue", *uris, bucket.uri("missing.wav"), "--batch", "night")
    assert sent.exit_code == 1, "one was refused"
    assert run("batch", "night").exit_code == 0
    ids = [line.split("\t")[0] for line in sent.stdout.splitlines()]
    end(ids[0])
    shown = run("batch", "night", "--json")
    status = json.loads(shown.stdout)
    assert {name: status[name] for name in ("batch", "state", "total", "succeeded", "open")} == {
        "batch": "night",
        "state": "closed",
        "total": 3,
        "succeeded": 1,
        "open": 2,
    }
    assert status["left_s"] == pytest.approx(2 / status["rate_per_s"])
    late = run("batch", "night", "--wait", "--timeout", "0.1")
    assert late.exit_code == 3
    assert late.stderr == "tussis: batch night is not done after 0.1 s: 2 jobs are open\n"
    text = dict(line.split("  ", 1) for line in late.stdout.splitlines())
    assert text["state"].strip() == "closed: no further jobs are expected"
    assert text["open"].strip() == "2"
    assert " in the last " in text["rate"]
    assert text["time left"].strip().endswith("s")
    end(ids[1])
    end(ids[2], ended=failed)
    done = run("batch", "night", "--wait", "--timeout", "60")
    assert done.exit_code == 1, "a job failed"
    assert "time left" not in done.stdout
    # Ended recordings count again; an empty list makes a batch without jobs.
    assert run("enqueue", uris[0], "--batch", "night").exit_code == 0
    assert json.loads(run("batch", "night", "--json").stdout)["total"] == 4
    assert run("enqueue", "-", "--batch", "empty").exit_code == 0
    assert run("batch", "empty", "--wait").exit_code == 0
    listed = run("batch").stdout.splitlines()
    assert listed[0].split("  ")[0].strip() == "batch"
    assert {tuple(line.split()[:7]) for line in listed[1:]} == {
        ("empty", "done", "0", "0", "0", "0", "0"),
        ("night", "closed", "4", "2", "1", "0", "1"),
    }
    assert {json.loads(line)["batch"] for line in run("batch", "--json").stdout.splitlines()} == {"night", "empty"}


def test_an_enqueue_that_was_interrupted_leaves_the_batch_open(run: Run, producer: Producer) -> None:
    next(producer.enqueue_many(requests(3), batch="night"))
    assert run("batch", "night").stdout.splitlines()[1].endswith("open: its producer has not closed it")
    assert run("batch", "night", "--close").exit_code == 0
    assert producer.batch("night").state == "closed"
    unknown = run("batch", "day", "--close")
    assert unknown.exit_code == 1
    assert unknown.stderr.startswith("tussis: the broker has no batch 'day'")


def test_a_dry_run_makes_no_batch(run: Run, bucket: Bucket, broker: redis.Redis) -> None:
    assert run("enqueue", bucket.put("a.wav", b"a"), "--batch", "night", "--dry-run").exit_code == 0
    assert broker.keys("tussis.*") == []
    wrong = run("enqueue", "s3://clinic/a.wav", "--batch", "two words", "--dry-run")
    assert (wrong.exit_code, wrong.stderr.count("\n")) == (1, 1)
    assert "batch must be 1 to 100 letters" in wrong.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["batch", "--wait"],
        ["batch", "--close"],
        ["batch", "night", "--timeout", "1"],
        ["enqueue", "s3://b/k", "--max-wait", "1"],
        ["enqueue", "s3://b/k", "--max-depth", "0"],
        ["outcomes", "--batches", "replay", "--since", "1h"],
    ],
)
def test_wrong_usage(words: list[str]) -> None:
    assert CliRunner().invoke(root, words).exit_code == 2


def test_the_document(
    environment: dict[str, str], clinic: Bucket, broker: redis.Redis, end: Callable[..., None]
) -> None:
    (python,) = blocks("Batches", "python")
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            end(*open_jobs(broker))
            time.sleep(0.1)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        exec(compile(python, "docs/enqueue.md", "exec"), told := dict[str, Any]())
        assert counters(told["status"]) == (1, 1, 0, 0)
        (console,) = blocks("Batches", "console")
        for line in console.splitlines():
            program, *words = shlex.split(line.removeprefix("$ "))
            assert program == "tussis"
            assert CliRunner().invoke(root, words).exit_code == 0
    finally:
        stop.set()
        worker.join()
    (python,) = blocks("A full queue", "python")
    exec(compile(python, "docs/enqueue.md", "exec"), {})
    assert len(open_jobs(broker)) == 3


def test_the_documents_scripts_are_those_that_run() -> None:
    assert blocks("The functions for batches and a bound", "lua") == [OPEN_BOUNDED_SCRIPT, CLOSE_BATCH_SCRIPT]
