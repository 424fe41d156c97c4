"""In-flight records, acknowledgement and hand-back of messages: on a full broker, and by the broker's clock only."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from kombu import transport as transports

from tests.support.brokers import own_broker
from tussis.shared.broker import connect, server_time
from tussis.shared.errors import BrokerRefused
from tussis.shared.ledger import Ledger, Unserved
from tussis.shared.ledger_repair import LedgerRepair
from tussis.shared.messages import Job
from tussis.shared.model_queues import ModelQueues
from tussis.shared.queues import (
    MODELS_KEY,
    UNACKED_INDEX_KEY,
    UNACKED_KEY,
    WORKERS_KEY,
    Device,
    ServedModel,
    list_key,
)
from tussis.shared.settings import load_settings
from tussis.worker.parent import housekeeper
from tussis.worker.parent.app import build_app
from tussis.worker.parent.housekeeper import Housekeeper
from tussis.worker.parent.reconciler import Reconciler
from tussis.worker.pipeline.child import ChildSetup
from tussis.worker.status.rundir import RunDir

LIST = list_key("tussis.any", 5)
HOUR = 3600.0


@pytest.fixture
def url() -> Iterator[str]:
    """A broker for this module, whose memory limit may be changed."""
    with own_broker() as broker:
        yield broker.url


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    client = connect(url)
    yield client
    client.close()


def a_job(**fields: Any) -> Job:
    return Job(job_id=str(uuid.uuid4()), bucket="clinic", key="a.wav", enqueued_at=time.time(), **fields)


def a_channel(url: str) -> Any:
    """Return the channel that a worker consumes from."""
    # Another test of this process may have used kombu's own transport, which kombu remembers by the URL's scheme.
    transports._transport_cache.clear()
    app = build_app(load_settings(broker_url=url, visibility_timeout_s=60), Device.CPU)
    return app.connection_for_read().default_channel


def a_keeper(url: str, folder: Path) -> Housekeeper:
    run_dir = RunDir(folder)
    return Housekeeper(
        ChildSetup(load_settings(broker_url=url), Device.CPU, "cpu@here", folder / "model.onnx", 1, run_dir)
    )


def take(channel: Any, client: Any) -> str:
    """Pop the next message and record it as in flight, as the consumer does. Return its delivery tag."""
    message = json.loads(client.rpop(LIST))
    tag: str = message["properties"]["delivery_tag"]
    info = {"exchange": "", "routing_key": "tussis.any"}
    channel.qos.append(SimpleNamespace(_raw=message, delivery_info=info), tag)
    return tag


def fill(client: Any) -> None:
    client.config_set("maxmemory", 1)


def test_a_full_broker_refuses_producers_and_lets_every_step_of_a_worker_pass(
    url: str, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, channel, house = Ledger(client), a_channel(url), a_keeper(url, tmp_path)
    jobs = [a_job() for _ in range(6)]
    ledger.open_many(jobs)
    reconciler = Reconciler(client, LedgerRepair(client), "one")
    fill(client)

    with pytest.raises(BrokerRefused, match="full") as refused:
        ledger.open(a_job())
    assert "maxmemory" in str(refused.value)
    assert "\n" not in str(refused.value)

    done, back, rejected = (take(channel, client) for _ in range(3))
    assert client.hlen(UNACKED_KEY) == 3
    channel.qos.ack(done)
    ledger.close(jobs[0])
    channel.qos.restore_by_tag(back)
    channel.qos.reject(rejected, requeue=True)
    assert client.hlen(UNACKED_KEY) == client.zcard(UNACKED_INDEX_KEY) == 0
    assert client.llen(LIST) == 5
    tag = take(channel, client)
    client.config_set("maxmemory", 0)
    client.zadd(UNACKED_INDEX_KEY, {tag: 1.0})
    fill(client)
    channel.qos.restore_visible()
    assert client.llen(LIST) == 5

    tag = take(channel, client)
    monkeypatch.setattr(housekeeper, "tags_in_work", lambda: [tag])
    house._beat(1.0)
    house._report(SimpleNamespace(pool=SimpleNamespace(_pool=SimpleNamespace(_pool=()))))
    assert client.hlen(WORKERS_KEY) == 1
    ledger.defer(jobs[1], 0.0)
    assert ledger.faults(jobs[1].job_id) == 1
    assert reconciler.look() == 1
    ledger.send_again(jobs[2])
    client.delete(LIST)
    reconciler.look()
    assert reconciler.look() > 0
    assert ledger.depth().open == 5
    ledger.discard("nothing", None)


def test_a_full_broker_lets_every_step_of_routing_pass(url: str, client: Any, tmp_path: Path) -> None:
    """The last step gives a message back to the queue of a model that was forgotten meanwhile."""
    router, served = Ledger(client, serves=ServedModel("sneeze", "1")), ServedModel("cough", "3")
    ledger, channel, queues = Ledger(client, serves=served), a_channel(url), ModelQueues(client)
    jobs = [a_job(model="cough@3") for _ in range(3)]
    ledger.open_many(jobs)
    client.delete(LIST)
    fill(client)

    for job in jobs:
        assert router.route(job, "cough@3", 900.0) is None
    [found] = queues.state().waiting
    assert queues.return_unserved(found, server_time(client) + 60, 1) == 1
    assert isinstance(router.route(jobs[0], "cough@3", 900.0), Unserved)
    ledger.close(jobs[0])
    message = json.loads(client.rpop("tussis.any@cough@3:5"))
    info = {"exchange": "", "routing_key": "tussis.any@cough@3"}
    channel.qos.append(SimpleNamespace(_raw=message, delivery_info=info), "tag")
    client.delete("tussis.any@cough@3:5")
    ledger.close(jobs[1])
    ledger.close(jobs[2])
    assert queues.forget("tussis.any@cough@3")

    channel.qos.restore_by_tag("tag")

    assert client.llen("tussis.any@cough@3:5") == 1
    assert ledger.depth().waiting["tussis.any@cough@3"] == {5: 1}
    house = a_keeper(url, tmp_path)
    house._reconciler.look()


def test_a_worker_reports_its_model_and_old_models_are_forgotten(url: str, client: Any, tmp_path: Path) -> None:
    setup = ChildSetup(
        load_settings(broker_url=url),
        Device.CPU,
        "cpu@here",
        tmp_path / "model.onnx",
        1,
        RunDir(tmp_path),
        serves=ServedModel("cough", "3"),
    )
    now = server_time(client)
    client.hset(MODELS_KEY, mapping={"old@1": now - 32 * 24 * HOUR, "lately@1": now - HOUR})
    house = Housekeeper(setup)

    house._report(SimpleNamespace(pool=SimpleNamespace(_pool=SimpleNamespace(_pool=()))))
    house._registry.forget_silent_workers()

    ago = ModelQueues(client).last_served()
    assert set(ago) == {"cough@3", "cough", "lately@1"}
    assert ago["cough@3"] < 60
    assert ago["lately@1"] == pytest.approx(HOUR, abs=60)
    assert json.loads(client.hget(WORKERS_KEY, "cpu@here"))["model"] == "cough@3"


def test_a_worker_connects_to_a_full_broker(url: str, client: Any) -> None:
    fill(client)
    assert a_channel(url).client.ping()


@pytest.mark.parametrize("off_s", [-HOUR, HOUR])
def test_a_worker_whose_clock_is_off_files_beats_and_gives_back_by_the_broker_s(
    url: str, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off_s: float
) -> None:
    """Its messages are not taken by others at once, are not held too long, and it takes no messages of others."""
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + off_s)
    monkeypatch.setattr("kombu.transport.redis.time", lambda: real() + off_s)
    channel, house = a_channel(url), a_keeper(url, tmp_path)
    Ledger(client).open_many([a_job() for _ in range(2)])

    def age(tag: str) -> float:
        return server_time(client) - float(client.zscore(UNACKED_INDEX_KEY, tag))

    tag = take(channel, client)
    assert abs(age(tag)) < 50
    channel.qos.restore_visible()
    assert client.llen(LIST) == 1

    client.zadd(UNACKED_INDEX_KEY, {tag: server_time(client) - 61})
    monkeypatch.setattr(housekeeper, "tags_in_work", lambda: [tag])
    house._beat(1.0)
    assert abs(age(tag)) < 50
    client.zadd(UNACKED_INDEX_KEY, {tag: server_time(client) - 61})
    channel.qos.restore_visible()
    assert client.llen(LIST) == 2

    house._report(SimpleNamespace(pool=SimpleNamespace(_pool=SimpleNamespace(_pool=()))))
    (entry,) = (json.loads(text) for text in client.hvals(WORKERS_KEY))
    assert abs(server_time(client) - entry["seen_at"]) < 50
    assert abs(entry["seen_at"] - entry["started_at"]) < 50


def test_what_goes_back_stands_first_and_goes_once(url: str, client: Any) -> None:
    channel, other = a_channel(url), a_channel(url)
    jobs = [a_job() for _ in range(3)]
    Ledger(client).open_many(jobs)
    tag = take(channel, client)
    client.zadd(UNACKED_INDEX_KEY, {tag: 1.0})
    overdue = channel.qos._run("tussis_overdue", 60, 10)
    for one in (channel, other):
        one.qos._give_back(overdue[0], overdue[1], "RPUSH", 60)
    assert client.llen(LIST) == 3
    first = json.loads(cast(bytes, client.lindex(LIST, -1)))
    assert first["headers"]["id"] == jobs[0].job_id


@pytest.mark.parametrize("filed", ["no json", "[]", '[5, "", "tussis.any"]', '[{}, "", "elsewhere"]'])
def test_what_is_filed_and_is_no_message_becomes_one_for_the_dead_letters(url: str, client: Any, filed: str) -> None:
    channel = a_channel(url)
    client.hset(UNACKED_KEY, "tag", filed)
    client.zadd(UNACKED_INDEX_KEY, {"tag": 1.0, "of nothing": 1.0})
    channel.qos.restore_visible()
    assert client.zcard(UNACKED_INDEX_KEY) == client.hlen(UNACKED_KEY) == 0
    assert client.llen(LIST) == 1
