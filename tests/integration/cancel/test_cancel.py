"""Cancelling on a broker and a database: what is cancelled, what is left, and what is told, also after a kill."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.support.outcomes import a_job, succeeded, told
from tests.support.store import a_claim, a_result, claimed, model_facts
from tussis.producer.cli import root
from tussis.shared.batches import Batches, parse_batch_outcome
from tussis.shared.errors import BrokerUnavailable
from tussis.shared.ledger import Ledger
from tussis.shared.ledger_repair import LedgerRepair
from tussis.shared.messages import Job, envelope, shadow_job
from tussis.shared.open_jobs import OpenJobs
from tussis.shared.outcomes import JobOutcome, OutcomeState
from tussis.shared.queues import OUTCOMES_KEY, UNACKED_KEY, list_key
from tussis.shared.states import AnalysisState
from tussis.shared.store.records import Claimed, Held, ModelFacts, NotActive, Settled
from tussis.shared.store.repository import Store
from tussis.shared.uris import ObjectAddress
from tussis.worker.cancel import cancel as cancel_module
from tussis.worker.cancel.cancel import Cancel, under
from tussis.worker.parent.reconciler import Reconciler

CLINIC = under(ObjectAddress("clinic", "2026/"))
MODEL = "cough@1"


@pytest.fixture
def jobs(client: Any) -> OpenJobs:
    return OpenJobs(client)


@pytest.fixture
def run(broker_url: str, store_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``tussis cancel``."""
    monkeypatch.setenv("TUSSIS_BROKER_URL", broker_url)
    monkeypatch.setenv("TUSSIS_DATABASE_URL", store_url)

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(root, ["cancel", *words], catch_exceptions=False)

    return invoke


def under_2026(number: int, **fields: Any) -> Job:
    return a_job(key=f"2026/{number}.wav", etag="e1", **fields)


def cancel_all(work: Cancel, job_ids: Sequence[str]) -> Cancel:
    for _ in work.run(job_ids):
        pass
    return work


def test_what_waits_is_cancelled_wherever_it_waits_and_what_runs_finishes(
    client: Any, ledger: Ledger, store: Store, model: ModelFacts, run: Any
) -> None:
    waiting, deferred, routed, popped, running, shadowed, other = (
        under_2026(1),
        under_2026(2),
        under_2026(3, model=MODEL),
        under_2026(4, priority=1),
        under_2026(5),
        shadow_job(under_2026(6), "shadow@1", etag="e1", version_id=None),
        a_job(key="2025/1.wav"),
    )
    ledger.open_many([waiting, deferred, routed, popped, running, shadowed, other])
    ledger.defer(deferred, 60)
    ledger.route(routed, MODEL, 3600)
    for job in (popped, running, routed):  # what a worker received, and the copy that it has routed
        key = list_key(job.queue, job.priority)
        for entry in client.lrange(key, 0, -1):
            if f'"id":"{job.job_id}"'.encode() in entry:
                client.lrem(key, 1, entry)
                if job is not routed:
                    client.hset(UNACKED_KEY, job.job_id, json.dumps([json.loads(entry), "", job.queue]))
    claim = claimed(store.claim(a_claim(running, model, lease_s=60.0)))

    dry = run("--prefix", "s3://clinic/2026/")
    assert dry.exit_code == 0
    assert dry.stdout == "tussis.any\t3\ntussis.any@cough@1\t1\n"
    assert dry.stderr == "4 would be cancelled, 1 of them deferred, 1 run and finish: repeat it with --yes\n"
    assert (ledger.depth().open, told(client), store.counts().cancelled) == (7, [], 0)

    done = run("--prefix", "s3://clinic/2026/", "--yes", "--by", "night shift")
    assert (done.exit_code, done.stdout) == (0, dry.stdout)
    assert done.stderr == "4 cancelled, 1 of them deferred, 1 run and finish\n"

    gone = [waiting, deferred, routed, popped]
    outcomes = {outcome.job_id: outcome for outcome in told(client)}
    assert set(outcomes) == {job.job_id for job in gone}
    for job in gone:
        answer = store.job(job.job_id)
        assert answer is not None
        assert answer.analysis.state is AnalysisState.CANCELLED
        assert outcomes[job.job_id] == store.outcome_of(job.job_id, job.enqueued_at, answer.analysis.id)
        assert outcomes[job.job_id].state is OutcomeState.CANCELLED
    depth = ledger.depth()
    assert (depth.open, depth.deferred, depth.in_flight) == (3, 0, 2)
    assert depth.waiting == {"tussis.any": {5: 1, 9: 1}, "tussis.cpu": {}, "tussis.gpu": {}, "tussis.any@cough@1": {}}
    assert store.complete(claim, a_result())

    # Nothing comes back: the reconciler has nothing to send, and a copy that a worker has ends at its claim.
    reconciler = Reconciler(client, LedgerRepair(client), "w")
    client.hdel(UNACKED_KEY, popped.job_id)
    assert [reconciler.look() for _ in range(4)][:1] == [0]
    settled = store.claim(a_claim(popped, model))
    assert isinstance(settled, Settled)
    assert settled.state is AnalysisState.CANCELLED
    assert not ledger.close(popped, outcomes[popped.job_id])

    # Enqueued again, it runs.
    later = replace(waiting, enqueued_at=waiting.enqueued_at + 1)
    assert ledger.open(later)
    assert isinstance(store.claim(a_claim(later, model)), Claimed)


def test_a_worker_that_still_has_a_cancelled_message_does_not_open_it_again(
    client: Any, ledger: Ledger, jobs: OpenJobs, store: Store
) -> None:
    messages = [under_2026(number, model=MODEL if number == 2 else None) for number in range(3)]
    ledger.open_many(messages)
    cancel_all(Cancel(jobs, ledger, store, "x"), [job.job_id for job in messages])

    ledger.defer(messages[0], 60)
    ledger.send_again(messages[1])
    assert ledger.route(messages[2], MODEL, 3600) is None

    depth = ledger.depth()
    assert (depth.open, depth.deferred, depth.total_waiting) == (0, 0, 0)
    # A message without the ledger, and one that was enqueued later, are kept as before.
    ledger.send_again(under_2026(9))
    ledger.defer(replace(messages[0], enqueued_at=messages[0].enqueued_at + 1), 60)
    depth = ledger.depth()
    assert (depth.open, depth.deferred, depth.total_waiting) == (2, 1, 1)


def test_a_kill_between_the_rows_and_the_closing_loses_nothing(
    client: Any, ledger: Ledger, jobs: OpenJobs, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = [under_2026(number) for number in range(25)]
    ledger.open_many(messages)
    monkeypatch.setattr(cancel_module, "AT_ONCE", 10)

    class Killed(Ledger):
        def close_each(self, ended: Sequence[tuple[Job, JobOutcome]]) -> list[bool]:
            if len(told(client)) >= 10:
                raise BrokerUnavailable("killed")
            return super().close_each(ended)

    with pytest.raises(BrokerUnavailable):
        cancel_all(Cancel(jobs, Killed(client), store, "x"), list(jobs.find(CLINIC)))
    assert (store.counts().cancelled, ledger.depth().open, len(told(client))) == (20, 15, 10)

    # A worker may receive one of them before the second call: it closes and tells it.
    first = next(iter(jobs.find(CLINIC)))
    [job] = jobs.read([first])[0]
    answer = store.job(first)
    assert answer is not None
    assert store.claim(a_claim(job, model_facts())) == Settled(answer.analysis.id, AnalysisState.CANCELLED)
    ledger.close(job, store.outcome_of(first, job.enqueued_at, answer.analysis.id))

    work = cancel_all(Cancel(jobs, ledger, store, "x"), list(jobs.find(CLINIC)))
    assert (work.counts.cancelled, ledger.depth().open) == (14, 0)
    assert Counter(outcome.job_id for outcome in told(client)) == Counter(job.job_id for job in messages)
    assert store.counts().cancelled == 25


def test_two_calls_at_once_tell_each_job_once(client: Any, ledger: Ledger, store: Store) -> None:
    messages = [under_2026(number) for number in range(1200)]
    ledger.open_many(messages)

    def one(_: int) -> int:
        own = connect_like(client)
        opened = OpenJobs(own)
        work = Cancel(opened, Ledger(own), store, "x")
        return cancel_all(work, list(opened.find(CLINIC))).counts.cancelled

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(one, range(2))) >= 1200  # a job that both read before either closed it counts twice
    assert Counter(outcome.job_id for outcome in told(client)) == Counter(job.job_id for job in messages)
    assert (ledger.depth().open, ledger.depth().total_waiting, store.counts().cancelled) == (0, 0, 1200)


@pytest.mark.parametrize("seed", range(3))
def test_each_job_ends_once_while_workers_claim(
    client: Any, ledger: Ledger, store: Store, model: ModelFacts, seed: int
) -> None:
    """Workers take messages, claim them, and answer or defer them, while two calls cancel."""
    dice = random.Random(seed)
    messages = [under_2026(number) for number in range(150)]
    ledger.open_many(messages)
    stop = threading.Event()
    key = list_key(messages[0].queue, messages[0].priority)

    def worker(number: int) -> None:
        own = connect_like(client)
        opened, mine = OpenJobs(own), Ledger(own)
        dice = random.Random(seed * 10 + number)
        while not stop.is_set():
            entry = own.rpop(key)
            if entry is None:
                time.sleep(0.002)
                continue
            job = next(one for one in messages if one.job_id.encode() in entry)
            found, _ = opened.read([job.job_id])
            if dice.random() < 0.3:
                mine.defer(job, 0.0)  # an error before the claim
                continue
            answer = store.claim(a_claim(job, model, lease_s=60.0))
            if isinstance(answer, Claimed):
                assert found or store.job(job.job_id) is not None
                assert store.complete(answer, a_result())
                mine.close(job, store.outcome_of(job.job_id, job.enqueued_at, answer.analysis_id))
            elif isinstance(answer, Settled):
                mine.close(job, store.outcome_of(job.job_id, job.enqueued_at, answer.analysis_id))
            else:
                assert not isinstance(answer, Held | NotActive)

    def canceller(_: int) -> None:
        own = connect_like(client)
        opened = OpenJobs(own)
        for _ in range(4):
            chosen = [job.job_id for job in messages if dice.random() < 0.3]
            cancel_all(Cancel(opened, Ledger(own), store, "x"), chosen)

    def reconcile() -> None:
        own = connect_like(client)
        repair = LedgerRepair(own)
        while ledger.depth().open and not stop.is_set():
            repair.resend_due(100)
            time.sleep(0.002)

    with ThreadPoolExecutor(6) as pool:
        working = [pool.submit(worker, number) for number in range(3)]
        cancelling = [pool.submit(canceller, number) for number in range(2)]
        sending = pool.submit(reconcile)
        try:
            for future in cancelling:
                future.result(120)
            sending.result(120)
        finally:
            stop.set()
        for future in working:
            future.result(60)

    outcomes = told(client)
    assert Counter(outcome.job_id for outcome in outcomes) == Counter(job.job_id for job in messages)
    assert {outcome.state for outcome in outcomes} == {OutcomeState.SUCCEEDED, OutcomeState.CANCELLED}
    for outcome in outcomes:
        answer = store.job(outcome.job_id)
        assert answer is not None
        assert answer.analysis.state.value == outcome.state.value


def test_jobs_by_id_and_the_exit_status(client: Any, ledger: Ledger, store: Store, model: ModelFacts, run: Any) -> None:
    waiting, running, ended, unknown = (under_2026(number) for number in range(4))
    ledger.open_many([waiting, running, ended])
    store.claim(a_claim(running, model, lease_s=60.0))
    store.complete(claimed(store.claim(a_claim(ended, model))), a_result())
    ledger.close(ended, succeeded(ended))

    assert run(waiting.job_id, "--yes").exit_code == 0
    again = run(waiting.job_id, "--yes")
    assert (again.exit_code, again.stderr.splitlines()[-1]) == (0, f"tussis: {waiting.job_id} is cancelled already")
    mixed = run(running.job_id, ended.job_id, unknown.job_id, "--yes", "--json")
    assert mixed.exit_code == 1
    report = json.loads(mixed.stdout)
    assert report["not_cancelled"] == {
        running.job_id: "runs: it finishes",
        ended.job_id: "is not open: it is succeeded",
        unknown.job_id: "is not open, and no worker has received it: check the id",
    }
    assert (report["cancelled"], report["running"], report["done"]) == (0, 1, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "Select jobs: give IDs, --batch or --prefix"),
        (["--batch", "b", "--prefix", "s3://clinic"], "only one of them"),
    ],
)
def test_a_wrong_call_is_refused(run: Any, words: list[str], says: str) -> None:
    refused = run(*words)
    assert refused.exit_code == 2
    assert says in refused.stderr


def test_the_open_jobs_of_a_batch_are_cancelled_counted_and_told(
    client: Any, jobs: OpenJobs, ledger: Ledger, store: Store, model: ModelFacts, run: Any
) -> None:
    """Given a batch with an answered job, a running one, two that wait, and one that was open before it joined."""
    answered, running, *waiting = [under_2026(number) for number in range(4)]
    joined, other = under_2026(4), under_2026(5)
    ledger.open_many([joined, other], batch="week-47")
    ledger.open_many([answered, running, *waiting, joined], batch="week-48")
    ledger.close(answered, succeeded(answered))
    store.claim(a_claim(running, model, lease_s=60.0))
    assert list(jobs.of_batch("week-48")) == [job.job_id for job in (running, *waiting, joined)]

    assert run("--batch", "week-48").exit_code == 0
    assert Batches(client).status("week-48").cancelled == 0
    assert run("--batch", "week-48", "--yes").exit_code == 0

    status = Batches(client).status("week-48")
    assert (status.total, status.succeeded, status.cancelled, status.failed, status.open) == (5, 1, 3, 0, 1)
    before = Batches(client).status("week-47")
    assert (before.total, before.cancelled, before.open) == (2, 1, 1)
    assert {outcome.job_id for outcome in told(client) if outcome.state is OutcomeState.CANCELLED} == {
        job.job_id for job in (*waiting, joined)
    }
    # The batch is closed while the last job runs. Its end is told behind the outcome of this job.
    Batches(client).close("week-48")
    ledger.close(running, succeeded(running))
    *_, (_, last) = client.xrange(OUTCOMES_KEY)
    end = parse_batch_outcome(last[b"batch"])
    assert (end.total, end.succeeded, end.cancelled) == (5, 2, 3)

    unknown = run("--batch", "week-49")
    assert (unknown.exit_code, unknown.stderr.count("\n")) == (1, 1)
    assert "no batch 'week-49'" in unknown.stderr


def test_messages_of_other_jobs_keep_their_order_in_the_list(
    client: Any, jobs: OpenJobs, ledger: Ledger, store: Store
) -> None:
    messages = [under_2026(number) for number in range(1300)]
    ledger.open_many(messages)
    client.lpush(list_key(messages[0].queue, 5), "not a message")
    client.lpush(list_key(messages[0].queue, 5), envelope(messages[3]))  # a second copy
    dice = random.Random(1)
    chosen = {job.job_id for job in messages if dice.random() < 0.5} | {messages[3].job_id}
    # One of them is enqueued again before its message is removed: both of its messages stay.
    again = replace(messages[5], enqueued_at=messages[5].enqueued_at + 1)
    chosen.discard(again.job_id)
    before = client.lrange(list_key(messages[0].queue, 5), 0, -1)

    cancel_all(Cancel(jobs, ledger, store, "x"), [job.job_id for job in messages if job.job_id in chosen])

    after = client.lrange(list_key(messages[0].queue, 5), 0, -1)
    assert after == [entry for entry in before if not any(job_id.encode() in entry for job_id in named(entry, chosen))]
    assert len(after) == 1301 - len(chosen)


def named(entry: bytes, chosen: set[str]) -> set[str]:
    """The chosen job that an entry names, if any."""
    return {json.loads(entry)["headers"]["id"]} & chosen if entry.startswith(b"{") else set()


def test_a_job_that_is_enqueued_again_meanwhile_keeps_its_message(
    client: Any, jobs: OpenJobs, ledger: Ledger, store: Store
) -> None:
    job = under_2026(1)
    ledger.open(job)

    class Again(OpenJobs):
        def prune(self, closed: Any) -> int:
            ledger.open(replace(job, enqueued_at=job.enqueued_at + 1))
            return super().prune(closed)

    cancel_all(Cancel(Again(client), ledger, store, "x"), [job.job_id])
    assert (ledger.depth().open, ledger.depth().total_waiting) == (1, 2)
    assert store.counts().cancelled == 1


def connect_like(client: Any) -> Any:
    """Another client of the same broker: a client is not for several threads of this kind."""
    import redis

    return redis.Redis(connection_pool=redis.ConnectionPool(**client.connection_pool.connection_kwargs))
