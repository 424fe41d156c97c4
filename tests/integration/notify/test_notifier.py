"""A notifier with a real broker and a real receiver: at least once, in order, for a day, bounded."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from datetime import datetime
from typing import Any

import pytest

from tests.support.brokers import own_broker
from tests.support.notifying import NAME, end_job, running_notifier, wait_for
from tests.support.outcomes import a_job, failed, succeeded
from tests.support.receiver import Handler, Receiver, accept, status
from tests.support.waiting import PATIENCE
from tussis.shared.batches import Batches
from tussis.shared.broker import connect
from tussis.shared.errors import SettingsInvalid, WebhookEndpointGone
from tussis.shared.ledger import Ledger
from tussis.shared.outcomes import OutcomeBounds
from tussis.shared.queues import OUTCOMES_KEY
from tussis.worker.notify import intake as intake_module
from tussis.worker.notify import outbox as outbox_module
from tussis.worker.notify import schedule
from tussis.worker.notify.outbox import Outbox


@pytest.fixture
def outbox(client: Any) -> Outbox:
    """What an operator sees."""
    return Outbox(client, "the broker", NAME)


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "FIRST_DELAY_S", 0.05)
    monkeypatch.setattr("tussis.worker.notify.notifier._LOOK_S", 0.1)
    monkeypatch.setattr("tussis.worker.notify.notifier._RETRY_S", 0.2)
    monkeypatch.setattr("tussis.worker.notify.notifier._READ_S", 0.1)


def test_every_outcome_is_delivered_once_signed_and_as_the_broker_has_it(
    broker_url: str, ledger: Ledger, client: Any, outbox: Outbox, receiver: Receiver
) -> None:
    before = [end_job(ledger) for _ in range(20)]
    with running_notifier(broker_url, receiver.url) as running:
        after = [end_job(ledger) for _ in range(5)]
        bad = a_job()
        ledger.open(bad)
        ledger.close(bad, failed(bad))
        wait_for(lambda: len(receiver.requests) == 26, "the outcomes")
        wait_for(lambda: outbox.counts() == (0, 0), "an empty outbox")

    assert sorted(receiver.uris) == sorted(str(outcome.uri) for outcome in [*before, *after, failed(bad)])
    stored = {json.loads(fields[b"outcome"])["job_id"]: fields[b"outcome"] for _, fields in client.xrange(OUTCOMES_KEY)}
    for request in receiver.requests:
        assert stored[request.document["data"]["job_id"]] in request.body
    assert len({request.webhook_id for request in receiver.requests}) == 26
    assert client.xpending(OUTCOMES_KEY, f"notify:{NAME}")["pending"] == 0
    assert (running.counts.delivered, running.counts.failed) == (26, 0)
    assert outbox.holder() is None


def test_a_failed_delivery_is_repeated_with_the_same_id_and_body_and_a_new_time(
    broker_url: str, ledger: Ledger, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "FIRST_DELAY_S", 0.6)
    answers = [status(500), Handler.drop, status(302, {"Location": receiver.url}), receiver.hang, accept]

    def one_by_one(handler: Handler) -> None:
        answers.pop(0)(handler)

    receiver.behaviour = one_by_one
    end_job(ledger)
    with running_notifier(broker_url, receiver.url) as running:
        wait_for(lambda: running.counts.delivered == 1, "the delivery")
    assert len(receiver.requests) == 5
    assert len({(request.webhook_id, request.body) for request in receiver.requests}) == 1
    times = [int(request.headers["webhook-timestamp"]) for request in receiver.requests]
    assert times == sorted(times)
    assert times[-1] > times[0]
    assert all(abs(at - request.at) < 2 * PATIENCE for at, request in zip(times, receiver.requests, strict=True))


def test_outcomes_of_a_recording_keep_their_order_and_others_do_not_wait(
    broker_url: str, ledger: Ledger, receiver: Receiver
) -> None:
    """Recording 0 fails at its first outcome for a while, recording 1 hangs, the others go on."""
    free = threading.Event()

    def behave(handler: Handler) -> None:
        uri = handler.received.uri
        if uri.endswith("/0") and not free.is_set():
            handler.answer(503)
        elif uri.endswith("/1") and not free.is_set():
            receiver.hang(handler)
        else:
            accept(handler)

    receiver.behaviour = behave
    expected: dict[str, list[str]] = defaultdict(list)
    for number in range(60):
        outcome = end_job(ledger, key=f"{number % 6}")
        expected[str(outcome.uri)].append(outcome.job_id)
    with running_notifier(broker_url, receiver.url) as running:
        wait_for(lambda: running.counts.delivered == 40, "the others")
        free.set()
        wait_for(lambda: running.counts.delivered == 60, "all")
    accepted: dict[str, list[str]] = defaultdict(list)
    for request in receiver.requests:
        job_id = request.document["data"]["job_id"]
        if job_id not in accepted[request.uri]:
            accepted[request.uri].append(job_id)
    assert accepted == expected
    assert receiver.most > 1


def test_retry_after_and_429_hold_all(broker_url: str, ledger: Ledger, receiver: Receiver) -> None:
    answers = [status(429, {"Retry-After": "3"})]
    receiver.behaviour = lambda handler: (answers.pop() if answers else accept)(handler)
    with running_notifier(broker_url, receiver.url) as running:
        end_job(ledger)
        wait_for(lambda: running.counts.failed == 1, "the refusal")
        end_job(ledger)
        wait_for(lambda: running.counts.delivered == 2, "both")
    first, *later = [request.at for request in receiver.requests]
    assert min(later) - first >= 2.9


def test_after_a_day_a_webhook_is_given_up_listed_and_delivered_again(
    broker_url: str, ledger: Ledger, outbox: Outbox, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "RETRY_FOR_S", 0.3)
    receiver.behaviour = status(500)
    first, second = end_job(ledger, key="a"), end_job(ledger, key="a")
    with running_notifier(broker_url, receiver.url):
        wait_for(lambda: outbox.counts() == (0, 2), "two that were given up")
    given_up = list(outbox.undelivered())
    assert [json.loads(found.webhook.body)["data"]["job_id"] for found in given_up] == [first.job_id, second.job_id]
    assert all(found.webhook.attempts > 1 and found.webhook.reason == "status 500" for found in given_up)

    receiver.behaviour = accept
    receiver.requests.clear()
    with running_notifier(broker_url, receiver.url):  # the list is still there after a restart
        assert outbox.redeliver(given_up[0], given_up[0].webhook)
        assert not outbox.redeliver(given_up[0], given_up[0].webhook)
        assert outbox.drop(given_up[1])
        assert not outbox.drop(given_up[1])
        wait_for(lambda: len(receiver.requests) == 1, "the delivery")
        wait_for(lambda: outbox.counts() == (0, 0), "an empty outbox")
    assert receiver.requests[0].webhook_id == given_up[0].webhook.webhook_id


def test_the_list_of_undelivered_webhooks_is_bounded(
    broker_url: str, ledger: Ledger, outbox: Outbox, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "UNDELIVERED_KEPT", 3)
    monkeypatch.setattr(schedule, "RETRY_FOR_S", 0.0)
    receiver.behaviour = status(500)
    outcomes = [end_job(ledger, key="a") for _ in range(5)]
    with running_notifier(broker_url, receiver.url):
        wait_for(lambda: len(receiver.requests) == 5 and outbox.counts() == (0, 3), "five that were given up")
    kept = [json.loads(found.webhook.body)["data"]["job_id"] for found in outbox.undelivered(page=2)]
    assert kept == [outcome.job_id for outcome in outcomes[2:]]


def test_410_stops_the_endpoint_until_it_is_reopened_or_the_url_changes(
    broker_url: str, ledger: Ledger, outbox: Outbox, receiver: Receiver
) -> None:
    receiver.behaviour = status(410)
    outcome = end_job(ledger)
    with running_notifier(broker_url, receiver.url) as running:
        wait_for(lambda: not running.thread.is_alive(), "the end")
        assert isinstance(running.error, WebhookEndpointGone)
        assert "410" in str(running.error)
        assert "tussis notify reopen" in str(running.error)
        assert "/hook" not in str(running.error)
    assert len(receiver.requests) == 1
    with running_notifier(broker_url, receiver.url) as running:
        wait_for(lambda: not running.thread.is_alive(), "the end")
        assert isinstance(running.error, WebhookEndpointGone)
    assert len(receiver.requests) == 1

    receiver.behaviour = accept
    with running_notifier(broker_url, f"{receiver.url}/new") as running:
        wait_for(lambda: running.counts.delivered == 1, "the delivery to the new URL")
    outbox.set_state(gone="")
    other = end_job(ledger)
    with running_notifier(broker_url, receiver.url) as running:
        wait_for(lambda: running.counts.delivered == 1, "the delivery")
    assert [request.uri for request in receiver.requests[1:]] == [outcome.uri, other.uri]


def test_a_private_address_receives_nothing(
    broker_url: str, ledger: Ledger, outbox: Outbox, receiver: Receiver
) -> None:
    from tussis.worker.notify.addresses import AddressPolicy

    end_job(ledger)
    with running_notifier(broker_url, receiver.url, policy=AddressPolicy()) as running:
        wait_for(lambda: running.counts.failed, "the refusal")
        [webhook] = outbox.load()
    assert receiver.requests == []
    assert "not public" in webhook.reason
    assert "--allow-network" in webhook.reason


def test_while_the_outbox_is_full_no_outcome_is_read(
    broker_url: str, client: Any, ledger: Ledger, outbox: Outbox, receiver: Receiver
) -> None:
    receiver.behaviour = status(500)
    for _ in range(30):
        end_job(ledger)
    with running_notifier(broker_url, receiver.url, max_waiting=10) as running:
        wait_for(lambda: outbox.counts()[0] == 10, "a full outbox")
        time.sleep(1.0)
        assert outbox.counts()[0] == 10
        receiver.behaviour = accept
        wait_for(lambda: running.counts.delivered == 30, "all")


def test_of_two_notifiers_one_works_and_the_other_takes_over(
    broker_url: str, ledger: Ledger, outbox: Outbox, receiver: Receiver
) -> None:
    with running_notifier(broker_url, receiver.url) as one:
        wait_for(lambda: one.notifier.is_working, "the first")
        with running_notifier(broker_url, receiver.url) as two:
            end_job(ledger)
            wait_for(lambda: one.counts.delivered == 1, "the delivery")
            assert not two.notifier.is_working
            one.end()
            end_job(ledger)
            wait_for(lambda: two.counts.delivered == 1, "the delivery of the other")
            with running_notifier(broker_url, f"{receiver.url}/other") as three:
                wait_for(lambda: not three.thread.is_alive(), "the refusal")
                assert isinstance(three.error, SettingsInvalid)
                assert "its own --name" in str(three.error)
    assert len(receiver.requests) == 2


def test_a_notifier_whose_lease_is_lost_stops_and_starts_again(
    broker_url: str, client: Any, ledger: Ledger, receiver: Receiver
) -> None:
    with running_notifier(broker_url, receiver.url) as running:
        wait_for(lambda: running.notifier.is_working, "the lease")
        client.set(f"tussis.notify:{NAME}:lease", "another", px=1500)
        end_job(ledger)
        time.sleep(0.7)
        assert receiver.requests == []
        wait_for(lambda: running.counts.delivered == 1, "the delivery")
    assert len(receiver.requests) == 1


def test_a_notifier_waits_for_a_broker_that_is_away(receiver: Receiver) -> None:
    with own_broker() as broker, running_notifier(broker.url, receiver.url) as running:
        ledger = Ledger(connect(broker.url))
        first = end_job(ledger)
        wait_for(lambda: running.counts.delivered == 1, "the delivery")
        broker.stop()
        time.sleep(1.0)
        assert running.thread.is_alive()
        broker.start()
        second = end_job(Ledger(connect(broker.url)))
        wait_for(lambda: running.counts.delivered == 2, "the delivery after the outage")
        assert receiver.uris == [first.uri, second.uri]


def test_a_gap_without_a_database_is_noticed_noted_and_passed(
    broker_url: str, client: Any, outbox: Outbox, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(client, bounds=OutcomeBounds(kept=5))
    end_job(ledger)
    with running_notifier(broker_url, receiver.url) as running:
        wait_for(lambda: running.counts.delivered == 1, "the delivery")
    for _ in range(12):
        end_job(ledger)
    noted: list[intake_module.ReplaySpan] = []
    monkeypatch.setattr(intake_module, "log_gap", lambda gap, filled: noted.append(gap))
    with running_notifier(broker_url, receiver.url) as running:
        wait_for(lambda: running.counts.delivered == 5, "what is kept")
    assert [gap.lost for gap in noted] == [7]
    gap = intake_module.parse_span(outbox.state()["gap"])
    assert gap is not None
    assert gap.lost == 7
    assert gap.since < time.time() < gap.until + 1 * 60


def test_a_full_broker_gives_its_webhooks_away(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with own_broker() as broker:
        client: Any = connect(broker.url)
        ledger, outbox = Ledger(client), Outbox(client, "the broker", NAME)
        receiver.behaviour = status(500)
        for _ in range(10):
            end_job(ledger)
        with running_notifier(broker.url, receiver.url) as running:
            wait_for(lambda: outbox.counts()[0] == 10, "the outbox")
            jobs = [a_job(key=f"{number}.wav") for number in range(3)]
            ledger.open_many(jobs)
            client.config_set("maxmemory", client.info("memory")["used_memory"] // 2)
            for job in jobs:
                ledger.close(job, failed(job))
            running.end()
        with running_notifier(broker.url, receiver.url) as running:  # it starts on a full broker too
            receiver.behaviour = accept
            wait_for(lambda: running.counts.delivered == 10, "the deliveries")
            assert not {job.uri for job in jobs} & set(receiver.uris)
            client.config_set("maxmemory", 0)
            wait_for(lambda: running.counts.delivered == 13, "the next deliveries")
            assert {job.uri for job in jobs} <= set(receiver.uris)
        client.close()


def test_what_a_newer_version_wrote_is_delivered_as_it_is(
    broker_url: str, client: Any, ledger: Ledger, receiver: Receiver
) -> None:
    end_job(ledger)
    client.xadd(OUTCOMES_KEY, {"outcome": '{"v":2,"job_id":"x","uri":"s3://b/k","new":1}'}, id="9999999999999-2")
    with running_notifier(broker_url, receiver.url):
        wait_for(lambda: len(receiver.requests) == 2, "both")
    found = {request.document["type"]: request.document["data"] for request in receiver.requests}
    assert found["job.ended"] == {"v": 2, "job_id": "x", "uri": "s3://b/k", "new": 1}


def test_the_end_of_a_batch_is_delivered(broker_url: str, ledger: Ledger, client: Any, receiver: Receiver) -> None:
    job = a_job()
    ledger.open_many([job], batch="week-48")
    Batches(client).close("week-48")
    ledger.close(job, succeeded(job))
    with running_notifier(broker_url, receiver.url):
        wait_for(lambda: len(receiver.requests) == 2, "the outcome and the end of the batch")

    documents = {request.document["type"]: request.document for request in receiver.requests}
    assert documents["job.succeeded"]["data"]["job_id"] == job.job_id
    end = documents["batch.done"]
    told = [fields[b"batch"] for _, fields in client.xrange(OUTCOMES_KEY) if b"batch" in fields]
    assert [end["data"]] == [json.loads(text) for text in told]
    assert (end["data"]["batch"], end["data"]["succeeded"]) == ("week-48", 1)
    assert datetime.fromisoformat(end["timestamp"]).timestamp() == pytest.approx(end["data"]["done_at"], abs=1e-3)
