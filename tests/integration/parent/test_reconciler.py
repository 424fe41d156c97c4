"""Lost messages are sent again, waiting ones are not, and the cost does not grow with the number of messages."""

from __future__ import annotations

import base64
import json
import logging
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
import redis

from tests.support.waiting import PATIENCE, wait_until
from tussis.shared.broker import connect
from tussis.shared.ledger import Ledger, prepare_opening
from tussis.shared.ledger_repair import LedgerRepair
from tussis.shared.ledger_scripts import OPEN_SCRIPT
from tussis.shared.messages import Job, envelope
from tussis.shared.queues import DEFERRED_KEY, LEDGER_KEY, UNACKED_KEY, list_key, sent_key
from tussis.worker.parent import reconciler
from tussis.worker.parent.reconciler import LEADER_KEY, Reconciler

_log = logging.getLogger(__name__)

LIST = list_key("tussis.any", 5)
SENT = sent_key("tussis.any", 5)


def a_job(number: int = 0, **fields: Any) -> Job:
    return Job(
        job_id=str(uuid.uuid4()),
        bucket="clinic",
        key=f"2026/11/recording-{number:07d}.wav",
        etag="9b2cf535f27731c974343645a3985328",
        enqueued_at=time.time(),
        **fields,
    )


@pytest.fixture
def client(broker_url: str) -> Iterator[redis.Redis]:
    client = connect(broker_url)
    yield client
    client.close()


@pytest.fixture
def ledger(client: redis.Redis) -> Ledger:
    return Ledger(client)


@pytest.fixture
def leader(client: redis.Redis) -> Reconciler:
    return Reconciler(client, LedgerRepair(client), "one")


def open_jobs(ledger: Ledger, count: int, **fields: object) -> list[Job]:
    jobs = (a_job(number, **fields) for number in range(count))
    opened = []
    while batch := list(islice(jobs, 1000)):
        assert all(ledger.open_many(batch))
        opened += batch
    return opened


def pop(client: redis.Redis) -> bytes:
    """Take the next message as a worker does."""
    entry = client.rpop(LIST)
    assert isinstance(entry, bytes)
    return entry


def waiting(client: redis.Redis) -> list[str]:
    """Return the job ids in the list, the next one first, without entries that are not messages."""
    entries = cast(list[bytes], client.lrange(LIST, 0, -1))
    return [json.loads(entry)["headers"]["id"] for entry in reversed(entries) if entry.startswith(b"{")]


def looks(leader: Reconciler, count: int = 2) -> int:
    """Return how many messages ``count`` looks sent."""
    return sum(leader.look() for _ in range(count))


def cost(client: redis.Redis, leader: Reconciler) -> tuple[int, int]:
    """Return the broker's commands and answer bytes during one look. The measurement adds the same amount each time."""
    before = client.info("all")
    leader.look()
    after = client.info("all")
    return (
        after["total_commands_processed"] - before["total_commands_processed"],
        after["total_net_output_bytes"] - before["total_net_output_bytes"],
    )


@pytest.mark.parametrize("many", [20_000, pytest.param(100_000, marks=pytest.mark.faults_only)])
def test_a_look_costs_the_same_however_much_waits_and_sends_nothing(
    client: redis.Redis, ledger: Ledger, leader: Reconciler, many: int
) -> None:
    open_jobs(ledger, 1000)
    leader.look()
    few_commands, few_bytes = cost(client, leader)

    open_jobs(ledger, many - 1000)
    looks(leader)
    commands, size = cost(client, leader)

    assert commands == few_commands
    assert size < few_bytes * 1.2
    assert client.llen(LIST) == many
    assert ledger.depth().open == many


@pytest.mark.parametrize("count", [3000, pytest.param(50_000, marks=pytest.mark.faults_only)])
def test_after_the_lists_are_gone_bounded_looks_bring_everything_back(
    client: redis.Redis, ledger: Ledger, leader: Reconciler, count: int
) -> None:
    jobs = [job for priority in (0, 5, 9) for job in open_jobs(ledger, count // 3, priority=priority)]
    lists = [list_key("tussis.any", priority) for priority in (0, 5, 9)]
    client.delete(*lists)

    assert leader.look() == 0  # A message seen once may be between a list and a worker.
    sent, took, cpu = 0, [], time.process_time()
    while sent < len(jobs):
        began = time.monotonic()
        step = leader.look()
        took.append(time.monotonic() - began)
        assert step, f"stuck at {sent} of {len(jobs)}"
        sent += step

    assert sent == len(jobs)
    assert sum(client.llen(name) for name in lists) == len(jobs)
    assert looks(leader) == 0
    # The heartbeats of the housekeeper wait for a look: its budget, and one more batch.
    assert max(took) < reconciler.BUDGET_S + 3 * PATIENCE
    # The source of the numbers in docs/guarantees.md; shown with --log-cli-level=info.
    _log.info(
        "%d sent again in %d looks: a million takes %.0f s of sending, %.0f s of our CPU, and %.0f s with the pauses",
        sent,
        len(took),
        sum(took) / sent * 1e6,
        (time.process_time() - cpu) / sent * 1e6,
        max(sum(took), len(took) * reconciler.INTERVAL_S) / sent * 1e6,
    )


def test_what_a_worker_took_along_comes_back_behind_the_others(
    client: redis.Redis, ledger: Ledger, leader: Reconciler
) -> None:
    lost, *others = open_jobs(ledger, 3)
    pop(client)

    assert looks(leader) == 1

    assert waiting(client) == [job.job_id for job in (*others, lost)]
    assert looks(leader, 3) == 0


def test_a_job_in_flight_is_left_alone_until_it_is_not(client: redis.Redis, ledger: Ledger, leader: Reconciler) -> None:
    open_jobs(ledger, 2)
    entry = pop(client)
    client.hset(UNACKED_KEY, "tag", json.dumps([json.loads(entry), "", "tussis.any"]))

    assert looks(leader, 3) == 0
    client.hdel(UNACKED_KEY, "tag")
    assert looks(leader) == 1
    assert client.llen(LIST) == 2


def test_a_job_between_its_pop_and_its_filing_is_not_sent_again(
    client: redis.Redis, ledger: Ledger, leader: Reconciler
) -> None:
    open_jobs(ledger, 1)
    entry = pop(client)
    assert leader.look() == 0
    client.hset(UNACKED_KEY, "tag", json.dumps([json.loads(entry), "", "tussis.any"]))
    assert looks(leader, 3) == 0
    assert client.llen(LIST) == 0


def test_a_message_that_was_restored_to_the_front_hides_nothing_for_long(
    client: redis.Redis, ledger: Ledger, leader: Reconciler
) -> None:
    """kombu puts a message back at the end from which the next one is taken. It keeps its old time there."""
    open_jobs(ledger, 3)
    restored, lost = pop(client), pop(client)
    client.rpush(LIST, restored)
    assert looks(leader) == 0
    client.hset(UNACKED_KEY, "tag", json.dumps([json.loads(pop(client)), "", "tussis.any"]))
    assert looks(leader) == 1
    assert waiting(client)[-1] == json.loads(lost)["headers"]["id"]


@pytest.mark.parametrize("strangers", [1, 8, 12, 400])
def test_pushes_that_the_ledger_knows_nothing_of_hide_no_loss(
    client: redis.Redis, ledger: Ledger, leader: Reconciler, strangers: int
) -> None:
    (lost,) = open_jobs(ledger, 1)
    pop(client)
    for number in range(strangers):
        client.lpush(LIST, envelope(a_job(number)))
    assert looks(leader) == 1
    assert waiting(client)[-1] == lost.job_id

    behind = open_jobs(ledger, 2)
    for number in range(strangers):
        client.rpush(LIST, b"no message at all" if number % 2 else envelope(a_job(number)))
    assert looks(leader, 3) == 0
    assert waiting(client)[-3:] == [lost.job_id, *(job.job_id for job in behind)]


OLDER_OPEN_SCRIPT = """\
local now = redis.call('TIME')
local opened = {}
for i = 1, #ARGV / 4 do
  local job_id = ARGV[4 * i - 3]
  opened[i] = redis.call('HSETNX', KEYS[1], job_id, ARGV[4 * i - 2])
  if opened[i] == 1 then
    redis.call('ZADD', KEYS[2], ARGV[4 * i - 1], job_id)
    redis.call('ZADD', KEYS[2 * i + 1], now[1] + (now[2] + i) / 1000000, job_id)
    redis.call('LPUSH', KEYS[2 * i + 2], ARGV[4 * i])
  end
end
return opened
"""


def set_clock_back(client: Any, seconds: float) -> None:
    """Change the times of all messages so far, as if the broker's clock had been ahead when they were pushed."""
    for job_id, score in client.zrange(SENT, 0, -1, withscores=True):
        client.zadd(SENT, {job_id: score + seconds})


@pytest.mark.parametrize("hours", [1, -1])
def test_a_broker_s_clock_that_is_set_back_or_ahead_multiplies_nothing(
    client: redis.Redis, ledger: Ledger, leader: Reconciler, hours: int
) -> None:
    jobs = open_jobs(ledger, 20)
    set_clock_back(client, 3600.0 * hours)
    jobs += open_jobs(ledger, 230)

    assert looks(leader, 6) == 0

    lost = json.loads(pop(client))["headers"]["id"]
    assert looks(leader) == 1
    assert waiting(client)[-1] == lost
    assert looks(leader, 3) == 0
    client.delete(LIST)
    assert looks(leader) == len(jobs)
    assert sorted(waiting(client)) == sorted(job.job_id for job in jobs)
    assert looks(leader, 3) == 0


def test_an_older_producer_s_messages_are_sent_again_once_at_most(
    client: redis.Redis, ledger: Ledger, leader: Reconciler
) -> None:
    """The older script uses the clock unchanged: after the clock is set back, its messages look lost."""
    open_jobs(ledger, 20)
    set_clock_back(client, 3600.0)
    opening = prepare_opening([a_job(number) for number in range(230)])
    client.eval(OLDER_OPEN_SCRIPT, len(opening.keys), *opening.keys, *opening.arguments)

    assert looks(leader, 12) <= 230

    assert looks(leader, 6) == 0
    assert client.llen(LIST) <= 250 + 230


def test_a_login_for_an_older_producer_opens_jobs_with_the_script(client: Any, broker_url: str) -> None:
    """Given the rights that earlier documents named, when a job is opened, then it succeeds."""
    rights = "resetkeys ~tussis.* -@all +eval +hsetnx +zadd +lpush +time +ping +select"
    client.execute_command("ACL", "SETUSER", "older", "on", ">pw", *rights.split())
    parts = urlsplit(broker_url)
    older: Any = connect(parts._replace(netloc=f"older:pw@{parts.hostname}:{parts.port}").geturl())
    try:
        opening = prepare_opening([a_job(0), a_job(1)])
        assert older.eval(OPEN_SCRIPT, len(opening.keys), *opening.keys, *opening.arguments) == [1, 1]
    finally:
        older.close()
        client.execute_command("ACL", "DELUSER", "older")


def test_duplicates_in_front_hide_no_loss_and_are_not_multiplied(
    client: redis.Redis, ledger: Ledger, leader: Reconciler
) -> None:
    """Twelve jobs are in the list twice: their first entries look younger than they are."""
    jobs = open_jobs(ledger, 40)
    pop(client)
    for job in jobs[1:13]:
        ledger.send_again(job)
    sent = looks(leader, 12)

    ids = waiting(client)
    assert set(ids) == {job.job_id for job in jobs}
    assert jobs[0].job_id in ids
    assert len(ids) == 39 + 12 + sent
    assert sent <= len(jobs)
    # No more messages are sent.
    assert looks(leader, 3) == 0


def test_a_job_that_is_due_is_sent_once(client: redis.Redis, ledger: Ledger, leader: Reconciler) -> None:
    due, later = open_jobs(ledger, 2)
    client.delete(LIST)
    ledger.defer(due, 0.0)
    ledger.defer(later, 3600.0)
    assert looks(leader, 3) == 1
    assert waiting(client) == [due.job_id]
    assert ledger.depth().deferred == 1


def test_only_a_fault_is_counted_when_a_job_is_deferred(ledger: Ledger) -> None:
    (job,) = open_jobs(ledger, 1)
    ledger.defer(job, 3600.0, fault=False)
    assert ledger.faults(job.job_id) == 0
    ledger.defer(job, 3600.0)
    assert ledger.faults(job.job_id) == 1
    assert ledger.depth().deferred == 1


def test_a_job_that_ended_is_not_sent_again(client: redis.Redis, ledger: Ledger, leader: Reconciler) -> None:
    job, deferred = open_jobs(ledger, 2)
    client.delete(LIST)
    leader.look()
    ledger.close(job)
    ledger.defer(deferred, 0.0)
    client.hdel(LEDGER_KEY, deferred.job_id)
    assert looks(leader, 3) == 0
    # The id is not a suspect any more: many such ids would hide a loss.
    repair = LedgerRepair(client)
    assert repair.suspects(repair.horizon()) == {}
    assert client.zcard(DEFERRED_KEY) == 0


def test_a_late_copy_of_an_answered_message_does_not_close_what_came_after(
    client: redis.Redis, ledger: Ledger, leader: Reconciler
) -> None:
    first = a_job()
    ledger.open(first)
    assert ledger.close(first)
    second = replace(first, enqueued_at=first.enqueued_at + 1e-6, reopen=True)
    ledger.open(second)
    assert not ledger.close(first)
    assert ledger.find(first.job_id) == second
    client.delete(LIST)
    assert looks(leader, 3) == 1
    assert ledger.close(second)
    assert ledger.depth().open == 0


def test_a_message_under_another_id_is_sent_once_for_the_dead_letters(
    client: redis.Redis, ledger: Ledger, leader: Reconciler
) -> None:
    job, other = a_job(), str(uuid.uuid4())
    client.hset(LEDGER_KEY, other, job.to_json())
    client.zadd(SENT, {other: 1.0})
    assert looks(leader, 4) == 1
    assert client.lrange(LIST, 0, -1) == [job.to_json().encode()]
    assert client.hlen(LEDGER_KEY) == 0


def test_an_id_of_any_bytes_is_sent_once_for_the_dead_letters(
    client: redis.Redis, ledger: Ledger, leader: Reconciler
) -> None:
    """Given a ledger with an id of arbitrary bytes, when jobs are lost, then they are still sent again."""
    open_jobs(ledger, 1)
    client.hset(LEDGER_KEY, b"\xff", "junk")
    client.zadd(SENT, {b"\xff": 1.0})
    client.delete(LIST)

    assert looks(leader) == 2

    assert client.hlen(LEDGER_KEY) == 1
    assert looks(leader, 3) == 0


def test_only_the_unreadable_message_that_the_ledger_holds_takes_it_out(client: redis.Redis, ledger: Ledger) -> None:
    """A forged message that only has the id of an open job closes nothing."""
    (job,) = open_jobs(ledger, 1)
    held_id = str(uuid.uuid4())
    held = {"v": 2, "job_id": held_id, "later": [1.5, None]}
    client.hset(LEDGER_KEY, held_id, json.dumps(held))

    # The last one is the job's own message, in an envelope whose other argument was wrong.
    for message in ({"v": 1, "job_id": job.job_id, "priority": 99}, None, held, json.loads(job.to_json())):
        ledger.discard(job.job_id, message)
    ledger.discard(held_id, held | {"later": []})
    assert client.hlen(LEDGER_KEY) == 2
    assert ledger.find(job.job_id) == job

    assert ledger.holds_unreadable(held_id, held)
    assert not ledger.holds_unreadable(job.job_id, json.loads(job.to_json()))
    ledger.discard(held_id, held)
    assert client.hkeys(LEDGER_KEY) == [job.job_id.encode()]
    assert client.zcard(SENT) == 1


def test_an_unreadable_message_that_got_lost_stays_in_the_ledger_until_a_worker_has_it(
    client: redis.Redis, leader: Reconciler
) -> None:
    job_id = str(uuid.uuid4())
    held = {"v": 2, "job_id": job_id}
    client.hset(LEDGER_KEY, job_id, json.dumps(held))
    client.zadd(SENT, {job_id: 1.0})

    assert looks(leader) == 1

    [entry] = client.lrange(LIST, 0, -1)
    body = json.loads(base64.b64decode(json.loads(entry)["body"]))
    assert body[1] == {"message": held}
    assert client.hlen(LEDGER_KEY) == 1


def test_an_id_that_utf_8_cannot_hold_does_not_end_the_look(client: redis.Redis, leader: Reconciler) -> None:
    entry = json.dumps({"headers": {"id": "\ud800"}})
    client.lpush(LIST, entry)
    client.hset(UNACKED_KEY, "tag", json.dumps([json.loads(entry), "", "tussis.any"]))
    client.zadd(SENT, {"gone": 1.0})
    assert leader.look() == 0


def test_a_job_that_was_sent_under_another_priority_than_it_names_comes_back(
    client: redis.Redis, ledger: Ledger, leader: Reconciler
) -> None:
    """An error of another producer: the list and its sorted set have another priority than the message."""
    job = a_job(priority=3)
    ledger.open(job)
    client.delete(list_key("tussis.any", 3), sent_key("tussis.any", 3))
    client.zadd(SENT, {job.job_id: 1.0})

    assert looks(leader) == 1

    assert client.llen(list_key("tussis.any", 3)) == 1
    assert not client.exists(SENT)
    assert looks(leader, 3) == 0


@pytest.mark.parametrize("text", ["not json", "[]", '{"v":2}', '{"v":1,"job_id":7}'])
def test_an_entry_that_is_no_message_is_handed_to_a_worker_and_stops_nothing(
    client: redis.Redis, ledger: Ledger, leader: Reconciler, text: str
) -> None:
    (job,) = open_jobs(ledger, 1)
    stranger = str(uuid.uuid4())
    client.hset(LEDGER_KEY, stranger, text)
    client.zadd(SENT, {stranger: 1.0})
    client.delete(LIST)

    assert looks(leader) == 2

    assert client.lrange(LIST, 0, -1)[-1] == text.encode()
    assert json.loads(client.lrange(LIST, 0, 0)[0])["headers"]["id"] == job.job_id
    assert client.hkeys(LEDGER_KEY) == [job.job_id.encode()]
    assert looks(leader, 3) == 0


def test_one_leads_and_another_takes_over_when_it_falls_silent(
    client: redis.Redis, ledger: Ledger, leader: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Reconciler(client, LedgerRepair(client), "two")
    # While it leads: longer than the looks below take on a busy machine.
    monkeypatch.setattr(reconciler, "LEASE_S", 600)
    assert leader.look() == 0
    open_jobs(ledger, 1)
    pop(client)

    assert looks(other, 3) == 0
    assert client.get(LEADER_KEY) == b"one"

    # The last renewal of the first leader. The other one then leads until the end of the test.
    monkeypatch.setattr(reconciler, "LEASE_S", 1)
    assert leader.look() == 0
    monkeypatch.setattr(reconciler, "LEASE_S", 600)

    def taken_over() -> bool:
        other.look()
        return client.get(LEADER_KEY) == b"two"

    wait_until(taken_over, 10, "the other to lead", every_s=0.1)
    wait_until(lambda: other.look() or client.llen(LIST), 10, "the lost message", every_s=0.1)
    assert client.llen(LIST) == 1
    # The old leader runs again: it does not lead, and forgets what it had seen.
    assert looks(leader, 3) == 0
    assert client.get(LEADER_KEY) == b"two"
    assert client.llen(LIST) == 1


def test_two_looks_at_once_send_a_lost_message_once(client: redis.Redis, ledger: Ledger) -> None:
    open_jobs(ledger, 1)
    pop(client)
    repair = LedgerRepair(client)
    seen = repair.suspects(repair.horizon())
    assert repair.resend(seen) == 1
    assert repair.resend(seen) == 0
    assert client.llen(LIST) == 1
