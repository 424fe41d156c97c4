"""Outcomes from the database: a gap is filled in order, an operator's replay is delivered, nothing is missing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.support.notifying import NAME, RunningNotifier, end_job, running_notifier, wait_for
from tests.support.receiver import Receiver
from tests.support.store import a_claim, a_job, a_result, claimed, execute
from tussis.producer.cli import root
from tussis.shared.ledger import Ledger
from tussis.shared.messages import Job
from tussis.shared.outcomes import OutcomeBounds
from tussis.shared.store.records import ModelFacts
from tussis.shared.store.repository import Store
from tussis.worker.notify import refill as refill_module
from tussis.worker.notify.intake import REPLAY, ReplaySpan
from tussis.worker.notify.outbox import Outbox
from tussis.worker.notify.refill import Refill
from tussis.worker.notify.webhook import Webhook


@pytest.fixture
def outbox(client: Any) -> Outbox:
    return Outbox(client, "the broker", NAME)


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tussis.worker.notify.notifier._LOOK_S", 0.1)
    monkeypatch.setattr("tussis.worker.notify.notifier._RETRY_S", 0.2)
    monkeypatch.setattr("tussis.worker.notify.notifier._READ_S", 0.1)


def end_in_both(ledger: Ledger, store: Store, model: ModelFacts, key: str, version: int) -> Job:
    """A job that ends with a result: in the database, and told on the broker."""
    job = a_job(key=key, enqueued_at=1_790_000_000.0 + version)
    ledger.open(job)
    claim = claimed(store.claim(a_claim(job, model, etag=f"e{version}")))
    assert store.complete(claim, a_result())
    outcome = store.outcome_of(job.job_id, job.enqueued_at, claim.analysis_id)
    assert outcome is not None
    ledger.close(job, outcome)
    return job


def delivered(receiver: Receiver) -> list[str]:
    """The job ids, in order and each once."""
    return list(dict.fromkeys(request.document["data"]["job_id"] for request in receiver.requests))


def test_a_gap_is_filled_from_the_database_in_the_order_of_each_recording(
    broker_url: str, client: Any, outbox: Outbox, store: Store, model: ModelFacts, receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(refill_module, "PAGE", 4)
    ledger = Ledger(client, bounds=OutcomeBounds(kept=6))
    jobs = [end_in_both(ledger, store, model, f"{number % 3}.wav", number) for number in range(3)]
    with running_notifier(broker_url, receiver.url, store) as running:
        wait_for(lambda: running.counts.delivered == 3, "the first deliveries")
    jobs += [end_in_both(ledger, store, model, f"{number % 3}.wav", number) for number in range(3, 25)]
    with running_notifier(broker_url, receiver.url, store):
        wait_for(lambda: len(delivered(receiver)) == 25, "all")
        wait_for(lambda: outbox.counts() == (0, 0), "an empty outbox")

    assert sorted(delivered(receiver)) == sorted(job.job_id for job in jobs)
    for key in ("0.wav", "1.wav", "2.wav"):
        expected = [job.job_id for job in jobs if job.key == key]
        assert [job_id for job_id in delivered(receiver) if job_id in expected] == expected
    ids: dict[str, set[str]] = {}
    for request in receiver.requests:
        ids.setdefault(request.document["data"]["job_id"], set()).add(request.webhook_id)
    assert all(len(found) == 1 for found in ids.values()), "an outcome that comes twice has one id"
    assert "gap" not in outbox.state()


def test_a_kill_in_a_gap_loses_nothing(
    broker_url: str, client: Any, outbox: Outbox, store: Store, model: ModelFacts, receiver: Receiver
) -> None:
    """The process dies after the broker has moved the group behind the gap, and before it noted the gap."""
    ledger = Ledger(client, bounds=OutcomeBounds(kept=2))
    jobs = [end_in_both(ledger, store, model, "a.wav", 0)]
    with running_notifier(broker_url, receiver.url, store) as running:
        wait_for(lambda: running.counts.delivered == 1, "the first delivery")
    jobs += [end_in_both(ledger, store, model, "a.wav", number) for number in range(1, 8)]
    client.xreadgroup(f"notify:{NAME}", "notifier", {"tussis.outcomes": ">"}, count=16)
    with running_notifier(broker_url, receiver.url, store):
        wait_for(lambda: len(delivered(receiver)) == 8, "all")
    assert delivered(receiver) == [job.job_id for job in jobs]


def test_a_gap_of_a_notifier_without_a_database_is_filled_when_it_has_one(
    broker_url: str, client: Any, outbox: Outbox, store: Store, model: ModelFacts, receiver: Receiver
) -> None:
    ledger = Ledger(client, bounds=OutcomeBounds(kept=2))
    jobs = [end_in_both(ledger, store, model, "a.wav", 0)]
    with running_notifier(broker_url, receiver.url) as running:
        wait_for(lambda: running.counts.delivered == 1, "the first delivery")
    jobs += [end_in_both(ledger, store, model, "a.wav", number) for number in range(1, 8)]
    with running_notifier(broker_url, receiver.url) as running:
        wait_for(lambda: running.counts.delivered == 2, "what is kept")
    with running_notifier(broker_url, receiver.url, store):
        wait_for(lambda: len(delivered(receiver)) == 8, "all")


def test_an_operator_s_replay(
    broker_url: str, client: Any, outbox: Outbox, store: Store, model: ModelFacts, receiver: Receiver
) -> None:
    ledger = Ledger(client)
    jobs = [end_in_both(ledger, store, model, f"{number}.wav", number) for number in range(3)]
    opened = end_in_both(ledger, store, model, "open.wav", 9)

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(root, ["notify", *words, "--name", NAME], env={"TUSSIS_BROKER_URL": broker_url})

    with running_notifier(broker_url, receiver.url) as running:
        wait_for(lambda: running.counts.delivered == 4, "the deliveries")
        refused = invoke("--replay", "--since", "1h")
        assert refused.exit_code == 1
        assert "TUSSIS_DATABASE_URL" in refused.stderr
    first = {request.document["data"]["job_id"]: request.webhook_id for request in receiver.requests}
    receiver.requests.clear()
    ledger.open(opened)
    with running_notifier(broker_url, receiver.url, store):
        wait_for(lambda: "database" in outbox.state(), "the notifier")
        said = invoke("--replay", "--since", "1h")
        assert said.exit_code == 0, said.output
        assert "delivers the outcomes since" in said.stdout
        wait_for(lambda: len(receiver.requests) == 3, "the replay")
        new = end_job(ledger)
        wait_for(lambda: len(receiver.requests) == 4, "a new outcome")
    assert {request.document["data"]["job_id"] for request in receiver.requests[:3]} == {job.job_id for job in jobs}
    for request in receiver.requests[:3]:
        assert request.document["data"]["replayed"] is True
        assert request.webhook_id == first[request.document["data"]["job_id"]]
    assert receiver.requests[3].uri == new.uri
    assert outbox.state().keys() == {"position", "database", "endpoint", "url"}


@pytest.mark.parametrize("page", [1, 2, 3, 5, 100])
def test_pages_have_each_outcome_once_also_of_jobs_that_ended_at_one_time(
    store: Store, store_url: str, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(refill_module, "PAGE", page)
    start = datetime(2026, 11, 1, tzinfo=UTC)
    # Five at one time, then one, then three, then some that are outside.
    for number, second in enumerate([-1, *[0] * 5, 1, *[2] * 3, 9]):
        store.dead_letter(f"not JSON {number}", f"job-{number}", "malformed_message", "not JSON", ended_job=True)
        at = (start + timedelta(seconds=second)).isoformat()
        execute(store_url, f"UPDATE dead_letters SET last_received_at = '{at}' WHERE job_id = 'job-{number}'")
    stored: list[str] = []
    states: list[dict[str, str]] = []

    def accept(webhooks: Any, state: Any) -> None:
        found: list[Webhook] = list(webhooks)
        stored.extend(json.loads(webhook.body)["data"]["job_id"] for webhook in found)
        states.append(dict(state))

    refill = Refill(store, lambda ids: {"job-6"} & set(ids), accept)
    span: ReplaySpan | None = ReplaySpan(start.timestamp(), start.timestamp() + 5)
    while span is not None:
        span = refill.step(REPLAY, span)
    assert sorted(stored) == [f"job-{number}" for number in (1, 2, 3, 4, 5, 7, 8, 9)]
    assert states[-1] == {REPLAY: ""}


def counted(running: RunningNotifier, number: int) -> bool:
    return running.counts.delivered == number


def test_a_database_that_is_away_delays_the_refill_and_nothing_else(
    broker_url: str, client: Any, outbox: Outbox, receiver: Receiver
) -> None:
    ledger = Ledger(client)
    with (
        Store.connect("postgresql://nobody@127.0.0.1:1/none") as away,
        running_notifier(broker_url, receiver.url, away) as running,
    ):
        wait_for(lambda: running.notifier.is_working, "the lease")
        outbox.set_state(replay=ReplaySpan(1.0, 2.0).to_json())
        for number in range(3):
            end_job(ledger)
            wait_for(partial(counted, running, number + 1), "the delivery")
        assert "replay" in outbox.state()
