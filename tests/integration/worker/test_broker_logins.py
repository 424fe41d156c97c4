"""The logins of docs/wire-format.md and docs/operate.md: each has the rights that its program needs, and no others."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis

from tests.soak.faulty_worker import STARTS_FILE, with_fault
from tests.support.deployment import Deployment
from tests.support.outcomes import a_job, succeeded
from tests.support.processes import ROOT
from tests.support.roles import role_login
from tests.support.sounds import wav
from tests.support.waiting import wait_until
from tussis.producer import Producer
from tussis.shared.batches import Batches
from tussis.shared.broker import connect
from tussis.shared.broker_functions import VERSION, loaded_version
from tussis.shared.errors import BrokerRefused, JobUnknown, QueueFull
from tussis.shared.ledger import Ledger
from tussis.shared.queues import UNACKED_INDEX_KEY, UNACKED_KEY, WORKERS_KEY
from tussis.shared.store.rights import Role

LOGIN = re.compile(r"^ACL SETUSER (\w+) on >PASSWORD (.+)$", re.MULTILINE)
RIGHTS = {
    name: rights.split()
    for document in ("wire-format.md", "operate.md")
    for name, rights in LOGIN.findall((ROOT / "docs" / document).read_text(encoding="utf-8"))
}


@pytest.fixture
def login(broker_url: str) -> Iterator[Callable[[str], str]]:
    """Return the broker's URL with one of the logins of the documents."""
    client: Any = redis.Redis.from_url(broker_url)
    parts = urlsplit(broker_url)

    def make(name: str) -> str:
        # The tests use a database other than 0.
        client.execute_command("ACL", "SETUSER", name, "reset", "on", ">secret", *RIGHTS[name], "+select")
        return urlunsplit(parts._replace(netloc=f"{name}:secret@{parts.hostname}:{parts.port}"))

    yield make
    client.execute_command("ACL", "DELUSER", *RIGHTS)
    client.close()


def denied(broker_url: str) -> list[str]:
    """Return the commands that the broker refused, with their users."""
    with redis.Redis.from_url(broker_url) as client:
        return [f"{entry['username']}: {entry['object']} ({entry['reason']})" for entry in client.acl_log()]


def test_the_documents_logins_are_enough(
    deployment: Deployment, broker_url: str, login: Callable[[str], str], tmp_path: Path
) -> None:
    """The whole main path: no process has more rights than its documents name, on the broker and on the database."""
    owner_url = deployment.environment["TUSSIS_DATABASE_URL"]
    with role_login(owner_url, Role.WORKER) as database, role_login(owner_url, Role.ANALYST_FULL) as reader:
        deployment.environment["TUSSIS_DATABASE_URL"] = database
        main_path(deployment, broker_url, login, tmp_path, reader)


def main_path(
    deployment: Deployment, broker_url: str, login: Callable[[str], str], tmp_path: Path, reader: str
) -> None:
    client: Any = redis.Redis.from_url(broker_url)
    client.acl_log_reset()
    starts = tmp_path / "starts"
    deployment.environment |= {STARTS_FILE: str(starts), "TUSSIS_BROKER_URL": login("worker")}
    # In flight at a worker that was killed: it is restored.
    job = deployment.enqueue("filed.wav", wav(0.5, seed=1))
    client.hset(UNACKED_KEY, "tag", json.dumps([json.loads(client.rpop("tussis.any:5")), "", "tussis.any"]))
    client.zadd(UNACKED_INDEX_KEY, {"tag": 1.0})
    # Popped, but never recorded as in flight: the reconciler sends it again.
    deployment.enqueue("lost.wav", wav(0.5, seed=2))
    client.rpop("tussis.any:5")
    # Its object is missing at first: a failure that is retried.
    gone = deployment.enqueue("gone.wav", wav(0.5, seed=3))
    deployment.bucket.client.delete_object(Bucket=deployment.bucket.name, Key="gone.wav")
    client.lpush("tussis.any:5", b"not a message")
    client.hset(WORKERS_KEY, "silent", json.dumps({"seen_at": 0}))
    worker = deployment.worker(concurrency=1, faulty=True, visibility_timeout_s=10, metrics_port=0)
    uploaded = deployment.bucket.put("sent.wav", wav(0.5, seed=4))
    sent = deployment.tussis("enqueue", uploaded, broker_url=login("producer"))
    assert sent.wait(60) == 0, sent.text
    # The broker has lost the functions: the worker loads them.
    client.function_flush()
    wait_until(lambda: loaded_version(client) == VERSION, 60, "the functions")
    # The child is killed in the middle: its message is put back.
    killed = deployment.enqueue("slow.wav", with_fault("once-60", wav(0.5, seed=5)))
    wait_until(starts.exists, 90, "the slow recording to be begun")
    [child] = [int(line.split()[0]) for line in starts.read_text().splitlines()]
    os.kill(child, signal.SIGKILL)
    deployment.wait_drained(90)
    assert deployment.analysis(gone).error_class == "object_missing"
    assert deployment.analysis(job).state == deployment.analysis(killed).state == "succeeded"
    assert deployment.store.counts().dead_letters == 1
    for words in (["status"], ["job", job.job_id], ["failures", "list"], ["failures", "retry", "--all"]):
        run = deployment.tussis(*words)
        assert run.wait(60) == 0, run.text
    deployment.wait_drained(60)
    for words in (["job", job.job_id, "--wait"], ["outcomes", "replay", "--since", "1h"]):
        run = deployment.tussis(*words)
        assert run.wait(60) == 0, run.text
    run = deployment.tussis("status", broker_url=login("monitor"), database_url=reader)
    assert run.wait(60) == 0, run.text
    swept = deployment.tussis("sweep", deployment.bucket.uri(""))
    assert swept.wait(60) == 0, swept.text
    deployment.wait_drained(60)
    for words in (["pause"], ["status"], ["cancel", "--prefix", "s3://clinic"]):
        run = deployment.tussis(*words)
        assert run.wait(60) == 0, run.text
    cancelled = deployment.enqueue("cancelled.wav", wav(0.5, seed=6), model="cough@9")
    deployment.ledger.route(cancelled, "cough@9", 60.0)
    for words in (["cancel", cancelled.job_id, "--yes"], ["resume"]):
        run = deployment.tussis(*words)
        assert run.wait(60) == 0, run.text
    deployment.wait_drained(60)
    assert deployment.analysis(cancelled).state == "cancelled"
    worker.signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert denied(broker_url) == []


def test_a_monitor_can_change_nothing(broker_url: str, login: Callable[[str], str]) -> None:
    client: Any = redis.Redis.from_url(login("monitor"))
    for command in (
        ["HSET", "tussis.paused", "tussis.any", "x"],
        ["FCALL", "tussis_settle", "2", "tussis.unacked", "tussis.unacked_index", "x"],
        ["EVAL", "return 1", "0"],
        ["FUNCTION", "FLUSH"],
        ["KEYS", "*"],
        ["RPOP", "tussis.any"],
        ["CONFIG", "GET", "*"],
        ["FLUSHDB"],
    ):
        with pytest.raises(redis.ResponseError, match=r"(?i)permission"):
            client.execute_command(*command)
    client.close()


def test_the_producer_s_login_can_do_nothing_else(broker_url: str, login: Callable[[str], str]) -> None:
    client: Any = redis.Redis.from_url(login("producer"))
    for command in (
        ["HDEL", "tussis.ledger", "x"],
        ["RPOP", "tussis.any"],
        ["HSET", "tussis.unacked", "tag", "x"],
        ["PUBLISH", "/0.celery.pidbox", "x"],
        ["FLUSHDB"],
        ["CONFIG", "GET", "*"],
        ["EVAL", "return redis.call('HDEL', KEYS[1], 'x')", "1", "tussis.ledger"],
    ):
        with pytest.raises(redis.ResponseError):
            client.execute_command(*command)
    client.close()


def test_the_login_of_a_producer_with_batches_is_enough_and_can_do_nothing_else(
    broker_url: str, login: Callable[[str], str]
) -> None:
    admin: Any = connect(broker_url)
    admin.acl_log_reset()
    url = login("batches")
    with Producer(url, head=False) as producer:
        requests = [f"s3://clinic/{number}.wav" for number in range(3)]
        ids = [item.job_id for item in producer.enqueue_many(requests, batch="night", max_depth=5)]
        job_id = producer.enqueue("s3://clinic/9.wav", etag="e9", batch="night", max_depth=5)
        assert producer.enqueue("s3://clinic/9.wav", etag="e9", batch="day", max_depth=1) == job_id
        with pytest.raises(QueueFull):
            producer.enqueue("s3://clinic/8.wav", max_depth=4)
        ledger = Ledger(admin)
        for ended in [*ids, job_id]:
            job = ledger.find(str(ended))
            assert job is not None
            ledger.close(job, succeeded(job))
        assert producer.close_batch("night").done
        assert producer.close_batch("empty").done
        assert {status.name for status in Batches(connect(url)).all()} == {"night", "day", "empty"}
    with Producer(login("producer")) as producer, pytest.raises(BrokerRefused):
        producer.batch("night")
    admin.acl_log_reset()
    assert Batches(connect(url)).status("night").total == 4
    client: Any = redis.Redis.from_url(url)
    for command in (
        ["HDEL", "tussis.ledger", "x"],
        ["HSET", "tussis.ledger", "x", "y"],
        ["DEL", "tussis.any"],
        ["RPOP", "tussis.any"],
        ["XADD", "tussis.outcomes", "*", "batch", "x"],
        ["SET", "tussis.batch:night", "x"],
        ["EVAL", "return redis.call('XADD', 'tussis.outcomes', '*', 'batch', 'x')", "0"],
        ["FLUSHDB"],
    ):
        with pytest.raises(redis.ResponseError):
            client.execute_command(*command)
    client.close()
    admin.close()


def test_the_login_of_a_reader_of_outcomes_is_enough_and_can_do_nothing_else(
    broker_url: str, login: Callable[[str], str]
) -> None:
    admin: Any = connect(broker_url)
    admin.acl_log_reset()
    ledger, job, other = Ledger(admin), a_job(), a_job()
    ledger.open_many([job, other])
    ledger.close(job, succeeded(job))
    url = login("outcomes")
    with Producer(url) as reader:
        assert reader.wait([job.job_id], 0) == {job.job_id: succeeded(job)}
        with pytest.raises(JobUnknown):
            reader.wait([a_job().job_id])
        assert list(reader.outcomes("billing", idle_s=1.0)) == [succeeded(job)]
    assert denied(broker_url) == []
    client: Any = redis.Redis.from_url(url)
    for command in (
        ["XADD", "tussis.outcomes", "*", "outcome", "x"],
        ["XDEL", "tussis.outcomes", "1-1"],
        ["XTRIM", "tussis.outcomes", "MAXLEN", "0"],
        ["DEL", "tussis.outcomes"],
        ["SET", f"tussis.outcome:{job.job_id}", "x"],
        ["GET", "tussis.other"],
        ["HGET", "tussis.ledger", job.job_id],
        ["LRANGE", "tussis.any", "0", "-1"],
        ["EVAL", "return 1", "0"],
        ["FLUSHDB"],
    ):
        with pytest.raises(redis.ResponseError):
            client.execute_command(*command)
    client.close()
    admin.close()
