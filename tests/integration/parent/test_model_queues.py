"""Model queues on a real broker: routing, the leader's check of models that no worker serves, and lost messages."""

from __future__ import annotations

import json
import random
import time
import uuid
from dataclasses import replace
from typing import Any

import pytest
import redis

from tussis.shared import ledger as ledger_module
from tussis.shared.ledger import Ledger, Unserved
from tussis.shared.ledger_repair import LedgerRepair
from tussis.shared.messages import Job, envelope
from tussis.shared.model_queues import ModelQueues, served_ago_s
from tussis.shared.queues import (
    DEFERRED_KEY,
    MODEL_QUEUES_KEY,
    MODELS_KEY,
    SENT_PREFIX,
    UNACKED_KEY,
    UNSERVED_KEY,
    Device,
    ServedModel,
    list_key,
    sent_key,
)
from tussis.worker.parent import unserved
from tussis.worker.parent.reconciler import Reconciler
from tussis.worker.parent.unserved import UnservedModels

WAIT_S = 900.0
A, B = ServedModel("cough", "3"), ServedModel("sneeze", "1")


def a_job(**fields: Any) -> Job:
    return Job(
        job_id=str(uuid.uuid4()),
        bucket="clinic",
        key="a.wav",
        etag="9b2cf535f27731c974343645a3985328",
        enqueued_at=time.time(),
        **fields,
    )


@pytest.fixture
def of_b(client: redis.Redis) -> Ledger:
    """The ledger of a worker that serves B."""
    return Ledger(client, serves=B)


@pytest.fixture
def of_a(client: redis.Redis) -> Ledger:
    """The ledger of a worker that serves A."""
    return Ledger(client, serves=A)


def models_check(client: redis.Redis, active: str | None = None) -> UnservedModels:
    return UnservedModels(ModelQueues(client), WAIT_S, active_model=lambda: active)


@pytest.fixture
def leader(client: redis.Redis) -> Reconciler:
    return Reconciler(client, LedgerRepair(client), "one", models_check(client))


@pytest.fixture(autouse=True)
def sure_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unserved, "CONFIRM_S", 0.0)


def pop(client: Any, queue: str, priority: int = 5) -> str:
    """Take the next message and return the id of its job."""
    return str(json.loads(client.rpop(list_key(queue, priority)))["headers"]["id"])


def waiting(client: Any, queue: str, priority: int = 5) -> list[str]:
    """The ids of the jobs in a list, the next one first."""
    return [json.loads(entry)["headers"]["id"] for entry in reversed(client.lrange(list_key(queue, priority), 0, -1))]


def sent_in(client: Any, job: Job) -> list[str]:
    """The sorted sets of sent jobs that have the job."""
    keys = [key.decode() for key in client.keys(SENT_PREFIX + "*")]
    return sorted(key for key in keys if client.zscore(key, job.job_id) is not None)


def routed(client: Any, ledger: Ledger, model: str | None = "cough@3", **fields: object) -> Job:
    """A job that was enqueued, popped by a worker of another model, and routed."""
    job = a_job(model=model, **fields)
    ledger.open(job)
    client.lrem(list_key(job.queue, job.priority), 1, client.lindex(list_key(job.queue, job.priority), 0))
    assert ledger.route(job, model or "cough@3", WAIT_S) is None
    return job


def served(client: Any, model: ServedModel, ago_s: float) -> None:
    """Let a worker have reported ``ago_s`` seconds ago."""
    seconds, microseconds = client.time()
    client.hset(MODELS_KEY, mapping=dict.fromkeys(model.texts, seconds + microseconds / 1000000.0 - ago_s))


def grow_old(client: Any, queue: str, by_s: float, priority: int = 5) -> None:
    """Let the messages of a list have been pushed earlier."""
    for job_id, score in client.zrange(sent_key(queue, priority), 0, -1, withscores=True):
        client.zadd(sent_key(queue, priority), {job_id: score - by_s})


@pytest.mark.parametrize("device", list(Device))
@pytest.mark.parametrize("model", ["cough", "cough@3", "a" * 100 + "@" + "9.+-_" * 20])
def test_a_routed_job_moves_in_one_step_to_the_list_of_its_model_and_priority(
    client: Any, of_b: Ledger, device: Device, model: str
) -> None:
    job = routed(client, of_b, model, device=device, priority=2)

    queue = f"tussis.{device.value}@{model}"
    assert waiting(client, queue, 2) == [job.job_id]
    assert sent_in(client, job) == [f"tussis.sent:{queue}:2"]
    assert client.zrange(MODEL_QUEUES_KEY, 0, -1) == [queue.encode()]
    assert of_b.find(job.job_id) == job
    entry = json.loads(client.lindex(f"{queue}:2", 0))
    assert entry["properties"]["delivery_info"]["routing_key"] == queue
    depth = of_b.depth()
    assert (depth.waiting[queue], depth.total_waiting, depth.open) == ({2: 1}, 1, 1)


@pytest.mark.parametrize("end", ["close", "defer", "send_again", "take_out"])
def test_whatever_ends_a_delivery_clears_the_list_of_the_model(
    client: Any, of_a: Ledger, of_b: Ledger, end: str
) -> None:
    """Also for a job that names no model: the worker knows its own queues."""
    for job in (routed(client, of_b), routed(client, of_b, "cough"), routed(client, of_b, None)):
        match end:
            case "close":
                assert of_a.close(job)
            case "defer":
                of_a.defer(job, 60.0)
            case "send_again":
                of_a.send_again(job)
            case "take_out":
                of_a.take_out(job.job_id)
        assert sent_in(client, job) == (["tussis.sent:tussis.any:5"] if end == "send_again" else [])


def test_a_copy_of_a_routed_message_is_routed_again_and_closed_once(client: Any, of_a: Ledger, of_b: Ledger) -> None:
    """The process that routed the message died before it acknowledged its copy."""
    job = routed(client, of_b)
    assert of_b.route(job, "cough@3", WAIT_S) is None
    assert waiting(client, "tussis.any@cough@3") == [job.job_id] * 2
    assert of_a.close(job)
    assert not of_a.close(job)
    assert (of_a.depth().open, sent_in(client, job)) == (0, [])


def test_a_late_copy_does_not_replace_a_job_that_was_enqueued_later(client: Any, of_b: Ledger) -> None:
    first = a_job(model="cough@3")
    later = replace(first, enqueued_at=first.enqueued_at + 1)
    of_b.open(later)

    assert of_b.route(first, "cough@3", WAIT_S) is None

    assert of_b.find(first.job_id) == later
    assert client.llen("tussis.any@cough@3:5") == 0
    assert sent_in(client, later) == ["tussis.sent:tussis.any:5"]


def test_a_message_that_was_pushed_without_the_ledger_is_not_dropped(client: Any, of_b: Ledger) -> None:
    job = a_job(model="cough@3")
    assert of_b.route(job, "cough@3", WAIT_S) is None
    assert waiting(client, "tussis.any@cough@3") == [job.job_id]
    assert of_b.find(job.job_id) == job


def test_a_name_that_is_no_model_makes_no_key(client: Any, of_b: Ledger) -> None:
    job = a_job()
    of_b.open(job)
    before = sorted(client.keys())
    for text in ("", "a:5", "a b", "a@b@c", "../x", "a\n", "a" * 101, "ü", "a@", "@b"):
        with pytest.raises(ValueError, match="not the name of a model"):
            of_b.route(job, text, WAIT_S)
    assert sorted(client.keys()) == before


def test_the_number_of_model_queues_is_bounded_and_no_job_is_lost(
    client: Any, of_b: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "MOST_MODEL_QUEUES", 3)
    jobs = [routed(client, of_b, f"m{number}") for number in range(5)]
    known = routed(client, of_b, "m0")

    assert client.zcard(MODEL_QUEUES_KEY) == 3
    assert len(waiting(client, "tussis.any@m0")) == 2
    assert known.job_id in waiting(client, "tussis.any@m0")
    assert {member.decode() for member in client.zrange(DEFERRED_KEY, 0, -1)} == {job.job_id for job in jobs[3:]}
    assert of_b.depth().open == 6
    assert [sent_in(client, job) for job in jobs[3:]] == [[], []]


def test_a_message_that_was_lost_from_a_model_list_comes_back(client: Any, of_b: Ledger, leader: Reconciler) -> None:
    served(client, A, 0.0)
    lost, kept = routed(client, of_b), routed(client, of_b)
    assert pop(client, "tussis.any@cough@3") == lost.job_id

    assert leader.look() == 0
    assert leader.look() == 1

    assert waiting(client, "tussis.any") == [lost.job_id]
    assert waiting(client, "tussis.any@cough@3") == [kept.job_id]
    assert sent_in(client, lost) == ["tussis.sent:tussis.any:5"]
    assert [leader.look() for _ in range(3)] == [0, 0, 0]


def test_a_job_in_flight_from_a_model_list_is_left_alone(client: Any, of_b: Ledger, leader: Reconciler) -> None:
    served(client, A, 0.0)
    routed(client, of_b)
    entry = client.rpop("tussis.any@cough@3:5")
    client.hset(UNACKED_KEY, "tag", json.dumps([json.loads(entry), "", "tussis.any@cough@3"]))
    assert [leader.look() for _ in range(3)] == [0, 0, 0]


def test_waiting_messages_of_models_are_not_sent_again(client: Any, of_b: Ledger, leader: Reconciler) -> None:
    served(client, A, 0.0)
    for number in range(30):
        routed(client, of_b, ("cough", "cough@3", None)[number % 3], priority=number % 10)
    assert [leader.look() for _ in range(4)] == [0] * 4
    assert of_b.depth().total_waiting == 30


@pytest.mark.parametrize(
    ("age_s", "served_s", "fails"),
    [(901, None, True), (901, 901, True), (899, None, False), (901, 899, False), (5000, 10, False)],
)
def test_a_job_fails_only_if_it_and_its_model_have_waited(
    client: Any, of_b: Ledger, leader: Reconciler, age_s: float, served_s: float | None, fails: bool
) -> None:
    job = routed(client, of_b)
    grow_old(client, "tussis.any@cough@3", age_s)
    if served_s is not None:
        served(client, A, served_s)

    leader.look()
    leader.look()

    assert (waiting(client, "tussis.any") == [job.job_id]) == fails
    assert client.hkeys(UNSERVED_KEY) == ([job.job_id.encode()] if fails else [])
    if fails:
        assert sent_in(client, job) == ["tussis.sent:tussis.any:5"]
        answer = of_b.route(job, "cough@3", WAIT_S)
        assert isinstance(answer, Unserved)
        assert answer.served_s == (None if served_s is None else pytest.approx(served_s, abs=60))
        # The answer changes nothing: a process that dies before it stores the failure loses nothing.
        assert isinstance(of_b.route(job, "cough@3", WAIT_S), Unserved)
        assert of_b.close(job)
        assert not client.exists(UNSERVED_KEY)
        leader.look()
        assert not client.exists(MODEL_QUEUES_KEY)


def test_a_worker_that_starts_before_the_failure_is_stored_gets_the_job(
    client: Any, of_b: Ledger, leader: Reconciler
) -> None:
    job = routed(client, of_b)
    grow_old(client, "tussis.any@cough@3", 1000)
    leader.look()
    assert client.hlen(UNSERVED_KEY) == 1
    served(client, A, 1.0)

    assert of_b.route(job, "cough@3", WAIT_S) is None

    assert waiting(client, "tussis.any@cough@3") == [job.job_id]
    assert not client.exists(UNSERVED_KEY)


def test_the_leader_must_have_seen_a_model_unserved_for_a_minute(
    client: Any, of_b: Ledger, leader: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a jump of the broker's clock every report and every push looks old."""
    monkeypatch.setattr(unserved, "CONFIRM_S", 60.0)
    routed(client, of_b)
    grow_old(client, "tussis.any@cough@3", 10_000)
    served(client, A, 10_000)
    leader.look()
    leader.look()
    assert client.llen("tussis.any@cough@3:5") == 1
    served(client, A, 1.0)
    leader.look()
    monkeypatch.setattr(unserved, "CONFIRM_S", 0.0)
    leader.look()
    assert client.llen("tussis.any@cough@3:5") == 1


def test_old_messages_return_in_order_and_young_ones_stay_in_order(
    client: Any, of_b: Ledger, leader: Reconciler
) -> None:
    old = [routed(client, of_b) for _ in range(4)]
    grow_old(client, "tussis.any@cough@3", 1000)
    young = [routed(client, of_b) for _ in range(4)]

    leader.look()

    assert waiting(client, "tussis.any") == [job.job_id for job in old]
    assert waiting(client, "tussis.any@cough@3") == [job.job_id for job in young]
    assert [leader.look() for _ in range(3)] == [0, 0, 0]


def test_many_messages_return_in_bounded_steps(
    client: Any, of_b: Ledger, leader: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unserved, "_BATCH", 3)
    jobs = [routed(client, of_b, priority=number % 2) for number in range(20)]
    for priority in (0, 1):
        grow_old(client, "tussis.any@cough@3", 1000, priority)
    leader.look()
    assert sorted(waiting(client, "tussis.any", 0) + waiting(client, "tussis.any", 1)) == sorted(
        job.job_id for job in jobs
    )
    assert client.hlen(UNSERVED_KEY) == 20


def test_a_leader_that_dies_between_two_steps_loses_nothing(
    client: Any, of_b: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [routed(client, of_b) for _ in range(6)]
    grow_old(client, "tussis.any@cough@3", 1000)
    queues = ModelQueues(client)
    [found] = queues.state().waiting
    assert queues.return_unserved(found, time.time(), 4) == 4

    another = Reconciler(client, LedgerRepair(client), "two", models_check(client))
    another.look()

    assert waiting(client, "tussis.any") == [job.job_id for job in jobs]
    assert client.hlen(UNSERVED_KEY) == 6


def test_jobs_that_name_no_model_never_fail_for_the_model_of_their_queue(
    client: Any, of_b: Ledger, leader: Reconciler
) -> None:
    unnamed = [routed(client, of_b, None) for _ in range(2)]
    named = routed(client, of_b)
    last = routed(client, of_b, None)
    grow_old(client, "tussis.any@cough@3", 100_000)

    leader.look()

    assert waiting(client, "tussis.any") == [named.job_id]
    assert client.hkeys(UNSERVED_KEY) == [named.job_id.encode()]
    assert waiting(client, "tussis.any@cough@3") == [job.job_id for job in (*unnamed, last)]


@pytest.mark.parametrize(
    ("active", "served_s", "returns"),
    [("sneeze@1", None, True), ("sneeze@1", 60.0, True), ("sneeze@1", 1.0, False), ("cough@3", None, False),
     (None, None, False)],
)  # fmt: skip
def test_jobs_that_name_no_model_return_when_another_model_is_active(
    client: Any, of_b: Ledger, active: str | None, served_s: float | None, returns: bool
) -> None:
    """Only while no worker serves the queue's model: such a worker would route them itself."""
    named, unnamed = routed(client, of_b), routed(client, of_b, None)
    if served_s is not None:
        served(client, A, served_s)

    models_check(client, active).look(time.monotonic() + 5)

    assert waiting(client, "tussis.any") == ([unnamed.job_id] if returns else [])
    assert named.job_id in waiting(client, "tussis.any@cough@3")
    assert sent_in(client, unnamed) == ["tussis.sent:tussis.any:5" if returns else "tussis.sent:tussis.any@cough@3:5"]
    assert not client.exists(UNSERVED_KEY)


def test_what_is_no_message_of_the_ledger_leaves_the_list_of_a_model_too(
    client: Any, of_a: Ledger, of_b: Ledger, leader: Reconciler
) -> None:
    """A copy of a message whose job has ended, a push without the ledger, and junk: a worker finds out."""
    ended = routed(client, of_b)
    of_b.close(ended)
    foreign = a_job(model="cough@3")
    client.lpush("tussis.any@cough@3:5", envelope(foreign), b"junk", b'{"headers": {"id": 7}}', b"[" * 2000)

    leader.look()

    assert client.llen("tussis.any@cough@3:5") == 0
    assert client.llen("tussis.any:5") == 5
    assert not client.exists(UNSERVED_KEY)
    leader.look()
    assert not client.exists(MODEL_QUEUES_KEY)


def test_a_queue_of_a_model_is_forgotten_only_when_it_is_empty_and_not_served(
    client: Any, of_a: Ledger, of_b: Ledger, leader: Reconciler
) -> None:
    served(client, A, 1.0)
    job = routed(client, of_b)
    pop(client, "tussis.any@cough@3")
    served(client, A, 100.0)
    assert not ModelQueues(client).forget("tussis.any@cough@3")
    of_a.close(job)
    served(client, A, 1.0)
    leader.look()
    assert client.zcard(MODEL_QUEUES_KEY) == 1
    served(client, A, 100.0)
    leader.look()
    assert client.zcard(MODEL_QUEUES_KEY) == 0


def test_without_model_queues_a_look_costs_one_command_more(client: Any) -> None:
    def commands(leader: Reconciler) -> int:
        before = client.info("stats")["total_commands_processed"]
        leader.look()
        return int(client.info("stats")["total_commands_processed"] - before)

    without = Reconciler(client, LedgerRepair(client), "one")
    with_models = Reconciler(client, LedgerRepair(client), "one", models_check(client))
    for leader in (without, with_models):
        leader.look()
    assert commands(with_models) == commands(without) + 1


def test_a_name_is_served_by_any_of_its_versions() -> None:
    reports = {"cough@2": 50.0, "cough@3": 7.0, "sneeze@1": 1.0, "coughs@9": 0.5}
    assert served_ago_s("cough", reports) == 7.0
    assert served_ago_s("cough@2", reports) == 50.0
    assert served_ago_s("cough@4", reports) is None


@pytest.mark.parametrize("seed", range(3))
def test_whatever_the_order_of_steps_every_open_job_has_a_message_or_is_sent_again(client: Any, seed: int) -> None:
    """Random steps of workers with two models, with crashes at random places. At the end every job is answered by the
    worker of its model, or fails because nobody serves it."""
    rng = random.Random(seed)
    workers = {model: Ledger(client, serves=model) for model in (A, B)}
    served(client, A, 0.0)
    served(client, B, 0.0)
    producer = Ledger(client)
    leader = Reconciler(client, LedgerRepair(client), "one", models_check(client))
    texts = [None, "cough", "cough@3", "sneeze", "sneeze@1", "nobody@1"]
    jobs = {job.job_id: job for job in (a_job(model=rng.choice(texts), priority=rng.randrange(3)) for _ in range(60))}
    assert all(producer.open_many(list(jobs.values())))
    answers: dict[str, str] = {}

    def deliver(model: ServedModel, crashes: bool) -> bool:
        ledger = workers[model]
        queues = [f"tussis.any@{text}" for text in model.texts] + ["tussis.any"]
        keys = [list_key(queue, priority) for priority in range(3) for queue in queues]
        popped = client.brpop(keys, timeout=0.01)
        if popped is None:
            return False
        job = jobs[json.loads(popped[1])["headers"]["id"]]
        if crashes and rng.random() < 0.2:
            return True  # the message is lost
        if job.model is not None and job.model not in model.texts:
            answer = ledger.route(job, job.model, WAIT_S)
            if answer is None:
                if crashes and rng.random() < 0.2:
                    client.rpush(list_key(job.queue, job.priority), popped[1])  # died before the acknowledgement
                return True
            assert answers.setdefault(job.job_id, "not served") == "not served"
        else:
            if rng.random() < 0.1:
                ledger.send_again(job)
                return True
            # The claim leaves one answer.
            answers.setdefault(job.job_id, model.name)
        if not crashes or rng.random() < 0.8:
            ledger.close(job)
        return True

    for _ in range(150):
        deliver(rng.choice([A, B]), crashes=True)
        if rng.random() < 0.1:
            leader.look()
    for _ in range(200):
        for text in ("nobody@1",):
            for priority in range(3):
                grow_old(client, f"tussis.any@{text}", 1000, priority)
        leader.look()
        while deliver(A, crashes=False) or deliver(B, crashes=False):
            pass
        if not producer.depth().open:
            break
    depth = producer.depth()
    assert (depth.open, depth.total_waiting) == (0, 0)
    assert set(answers) == set(jobs)
    for job_id, answer in answers.items():
        name = jobs[job_id].model
        expected = {"cough", "sneeze"} if name is None else {name.partition("@")[0]}
        assert answer in ({"not served"} if name == "nobody@1" else expected)
    assert not client.exists(UNSERVED_KEY)
    leader.look()
    leader.look()
    assert not list(client.keys(SENT_PREFIX + "*"))


def test_a_job_waits_for_a_worker_of_its_device(client: Any, of_b: Ledger, leader: Reconciler) -> None:
    """A worker on a CPU serves the model."""
    job = routed(client, of_b, device=Device.GPU)
    grow_old(client, "tussis.gpu@cough@3", 100_000)
    served(client, A, 1.0)
    leader.look()
    assert waiting(client, "tussis.gpu@cough@3") == [job.job_id]


def test_a_check_of_models_that_takes_long_sends_no_message_that_was_popped_a_moment_ago(
    client: Any, of_b: Ledger, leader: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next look follows at once."""
    job = a_job()
    of_b.open(job)
    assert leader.look() == 0
    pop(client, "tussis.any")
    monkeypatch.setattr(UnservedModels, "look", lambda *_: True)
    assert [leader.look() for _ in range(3)] == [0, 0, 0]
    assert leader.unfinished
    monkeypatch.undo()
    assert leader.look() == 0
    assert leader.look() == 1
