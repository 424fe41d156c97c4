"""The active model: which one it is, who changes it, and which worker may answer a job that names no model."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import psycopg
import pytest

from tests.support.store import a_claim, a_job, a_refusal, a_result, claimed, execute, model_facts, rows
from tests.support.waiting import wait_until
from tussis.shared.errors import ActivationRefused, ModelUnknown
from tussis.shared.states import AnalysisState, AttemptOutcome
from tussis.shared.store.records import Activation, Claimed, Held, NotActive, Settled
from tussis.shared.store.repository import Store

T = TypeVar("T")

ONE = model_facts()
TWO = model_facts(version="2", sha256="b" * 64)
THREE = model_facts(version="3", sha256="c" * 64)


def silent(url: str, version: str, seconds: float) -> None:
    """Make the last report of a model older."""
    execute(
        url, "UPDATE models SET last_served_at = now() - make_interval(secs => %s) WHERE version = %s", seconds, version
    )


def active(store: Store) -> tuple[str, bool]:
    found = store.active_model()
    assert found is not None
    return found.model, found.explicit


def answer(store: Store, key: str, model: Any, **changes: Any) -> int:
    """Answer an object with a job that names the model, which any worker of the model may do."""
    job = a_job(key=key, model=f"{model.name}@{model.version}", **changes)
    claim = claimed(store.claim(a_claim(job, model)))
    assert store.complete(claim, a_result())
    return claim.analysis_id


def forced(store: Store, model: Any) -> Activation:
    return store.activate(f"{model.name}@{model.version}", activated_by="test", force=True)


class TestWhichOne:
    def test_none_before_a_worker_has_started(self, store: Store) -> None:
        assert store.active_model() is None

    def test_before_the_first_activation_the_newest_registered_one_that_is_served(
        self, store: Store, store_url: str
    ) -> None:
        store.register_model(ONE)
        assert active(store) == ("cough@1", False)
        store.register_model(TWO)
        assert active(store) == ("cough@2", False)

        store.register_model(ONE)  # an older one starts beside it
        assert active(store) == ("cough@2", False)
        silent(store_url, "2", 59)
        assert store.report_served(ONE) == store.active_model()
        assert active(store) == ("cough@2", False)
        silent(store_url, "2", 61)
        store.report_served(ONE)
        assert active(store) == ("cough@1", False)
        store.report_served(TWO)
        assert active(store) == ("cough@2", False)

    def test_a_worker_that_ends_in_order_leaves_at_once(self, store: Store) -> None:
        store.register_model(ONE)
        store.register_model(TWO)
        store.report_left(TWO)
        assert active(store) == ("cough@2", False)  # until a worker of another model reports
        store.register_model(ONE)
        assert active(store) == ("cough@1", False)

    def test_when_no_worker_runs_it_stays_the_one_that_was_served_last(self, store: Store, store_url: str) -> None:
        store.register_model(ONE)
        store.register_model(TWO)
        silent(store_url, "2", 61)
        store.report_served(ONE)
        silent(store_url, "1", 3600)
        assert active(store) == ("cough@1", False)

    def test_a_report_of_a_model_that_the_database_does_not_have_changes_nothing(
        self, store: Store, store_url: str
    ) -> None:
        assert store.report_served(ONE) is None
        assert rows(store_url, "SELECT count(*) FROM models") == [(0,)]

    def test_after_an_activation_no_start_and_no_end_of_a_worker_changes_it(self, store: Store, store_url: str) -> None:
        store.register_model(ONE)
        answer(store, "a.wav", ONE)
        assert store.activate("cough@1", activated_by="ada@host") == Activation("cough@1", "cough@1", ())
        store.register_model(TWO)
        silent(store_url, "1", 3600)
        store.report_served(TWO)
        assert active(store) == ("cough@1", True)

    def test_reports_of_many_workers_are_one_write(self, store: Store, store_url: str) -> None:
        store.register_model(ONE)
        [before] = rows(store_url, "SELECT xmin::text, last_served_at FROM models")
        for _ in range(5):
            store.report_served(ONE)
        assert rows(store_url, "SELECT xmin::text, last_served_at FROM models") == [before]
        silent(store_url, "1", 11)
        store.report_served(ONE)
        assert rows(store_url, "SELECT last_served_at > now() - interval '5 s' FROM models") == [(True,)]


class TestActivate:
    def test_the_checks_and_force(self, store: Store, store_url: str) -> None:
        store.register_model(ONE)
        store.register_model(TWO)
        silent(store_url, "2", 61)
        with pytest.raises(ModelUnknown, match=r"'cough@7'.*cough@2, cough@1"):
            store.activate("cough@7", activated_by="test")
        with pytest.raises(ModelUnknown):
            store.activate("cough@7", activated_by="test", force=True)
        with pytest.raises(
            ActivationRefused, match=r"cough@2 is not.*no worker serves it.*and it has no result.*--force"
        ):
            store.activate("cough@2", activated_by="test")
        store.report_served(TWO)
        with pytest.raises(ActivationRefused, match="cough@2 is not activated: it has no result in the store;"):
            store.activate("cough@2", activated_by="test")
        answer(store, "a.wav", TWO)
        silent(store_url, "2", 61)
        with pytest.raises(ActivationRefused, match="no worker serves it"):
            store.activate("cough@2", activated_by="test")
        assert rows(store_url, "SELECT count(*) FROM model_activations") == [(0,)]
        skipped = store.activate("cough@2", activated_by="test", force=True).skipped
        assert len(skipped) == 1
        assert skipped[0].startswith("no worker serves it (the last report is of 20")
        assert rows(store_url, "SELECT activated_by, forced FROM model_activations") == [("test", True)]

    def test_it_becomes_active_and_the_one_before_is_told(self, store: Store, store_url: str) -> None:
        for model in (ONE, TWO):
            store.register_model(model)
            answer(store, "a.wav", model)
        assert store.activate("cough@1", activated_by="ada") == Activation("cough@1", "cough@2", ())
        assert store.activate("cough@2", activated_by="bob", force=True) == Activation("cough@2", "cough@1", ())
        assert active(store) == ("cough@2", True)
        assert rows(store_url, "SELECT activated_by, forced FROM model_activations ORDER BY id") == [
            ("ada", False),
            ("bob", False),  # --force had nothing to skip
        ]

    def test_many_at_once_leave_one_active_model(self, store: Store, store_url: str) -> None:
        for model in (ONE, TWO, THREE):
            store.register_model(model)
        calls: list[Callable[[], object]] = [partial(forced, store, model) for model in (ONE, TWO, THREE) * 2]
        calls += [partial(store.report_served, model) for model in (ONE, THREE)]
        at_once(calls)
        [(newest,)] = rows(
            store_url,
            "SELECT version FROM model_activations JOIN models ON models.id = model_id "
            "ORDER BY model_activations.id DESC LIMIT 1",
        )
        assert active(store) == (f"cough@{newest}", True)

    def test_a_takeover_that_waits_for_an_activation_does_not_undo_it(self, store: Store, store_url: str) -> None:
        store.register_model(ONE)
        store.register_model(TWO)
        silent(store_url, "2", 61)
        with ThreadPoolExecutor(1) as pool, psycopg.connect(store_url) as other:
            other.execute("SELECT pg_advisory_xact_lock(%s)", (0x747573736974,))
            late = pool.submit(store.report_served, ONE)
            wait_until(lambda: waits_for_a_lock(store_url), 30, "the takeover to wait")
            other.execute("UPDATE models SET active_at = clock_timestamp() WHERE version = '2'")
            other.execute(
                "INSERT INTO model_activations (model_id, activated_by, forced) "
                "SELECT id, 'test', true FROM models WHERE version = '2'"
            )
            other.commit()
            late.result(60)
        assert active(store) == ("cough@2", True)

    def test_the_list(self, store: Store, store_url: str) -> None:
        for model in (ONE, TWO):
            store.register_model(model)
        answer(store, "a.wav", ONE)
        answer(store, "b.wav", ONE)
        silent(store_url, "2", 61)
        forced(store, ONE)
        first, second = store.models()
        assert (first.model, first.active, first.served, first.results) == ("cough@1", True, True, 2)
        assert (first.activated_by, first.forced, first.profile, first.threshold) == ("test", False, "documented", 0.61)
        assert (second.model, second.active, second.served, second.results) == ("cough@2", False, False, 0)
        assert (second.activated_by, second.activated_at) == (None, None)
        assert second.active_at is not None


class TestTheClaim:
    def test_a_job_without_a_model_is_left_to_the_active_one(self, store: Store, store_url: str) -> None:
        store.register_model(ONE)
        store.register_model(TWO)
        assert store.claim(a_claim(a_job(), ONE)) == NotActive("cough@2")
        for table in ("recordings", "analyses", "attempts", "jobs"):
            assert rows(store_url, f"SELECT count(*) FROM {table}") == [(0,)], table
        assert isinstance(store.claim(a_claim(a_job(), TWO)), Claimed)
        forced(store, ONE)
        assert store.claim(a_claim(a_job(key="b.wav"), TWO)) == NotActive("cough@1")
        assert isinstance(store.claim(a_claim(a_job(key="b.wav"), ONE)), Claimed)

    @pytest.mark.parametrize("name", ["cough", "cough@1"])
    def test_a_job_that_names_its_model_is_answered_whatever_is_active(self, store: Store, name: str) -> None:
        store.register_model(ONE)
        store.register_model(TWO)
        assert isinstance(store.claim(a_claim(a_job(model=name), ONE)), Claimed)

    def test_a_model_of_the_same_name_and_version_with_another_hash_is_not_the_active_one(
        self, store: Store, store_url: str
    ) -> None:
        store.register_model(ONE)
        execute(store_url, "UPDATE models SET active_at = NULL")
        assert isinstance(store.claim(a_claim(a_job(), ONE)), Claimed)  # no model is active

    def test_a_failure_without_a_claim_is_left_to_the_active_one(self, store: Store, store_url: str) -> None:
        store.register_model(ONE)
        store.register_model(TWO)
        refusal = a_refusal(a_job(), model=ONE)
        assert store.refuse(refusal) == NotActive("cough@2")
        assert rows(store_url, "SELECT count(*) FROM recordings") == [(0,)]
        assert isinstance(store.refuse(replace(refusal, model=TWO)), int)
        assert isinstance(store.refuse(a_refusal(a_job(key="b.wav", model="cough@1"), model=ONE)), int)

    def test_a_redelivery_of_an_answered_job_is_settled_first(self, store: Store) -> None:
        store.register_model(ONE)
        job = a_job()
        claim = claimed(store.claim(a_claim(job, ONE)))
        store.complete(claim, a_result())
        store.register_model(TWO)
        for model in (ONE, TWO):
            assert store.claim(a_claim(job, model)) == Settled(claim.analysis_id, AnalysisState.SUCCEEDED)

    def test_an_attempt_that_runs_goes_on_when_another_model_is_activated(self, store: Store, store_url: str) -> None:
        store.register_model(ONE)
        job = a_job()
        request = a_claim(job, ONE, lease_s=60.0)
        claim = claimed(store.claim(request))
        store.register_model(TWO)
        forced(store, TWO)

        for other in (a_claim(job, TWO), a_claim(job, ONE)):
            held = store.claim(other)
            assert isinstance(held, Held)
            assert held.analysis_id == claim.analysis_id
            assert 50 < held.remaining_s <= 60
        assert isinstance(store.refuse(a_refusal(job, model=TWO)), Held)
        assert store.claim(request) == claim  # repeated, because its reply was lost
        assert store.complete(claim, a_result())
        assert store.claim(a_claim(job, TWO)) == Settled(claim.analysis_id, AnalysisState.SUCCEEDED)
        assert rows(store_url, "SELECT count(*) FROM analyses") == [(1,)]

    def test_an_attempt_that_waits_or_crashed_continues_with_the_active_model(self, store: Store) -> None:
        store.register_model(ONE)
        jobs = [a_job(key="waits.wav"), a_job(key="crashed.wav")]
        claims = [claimed(store.claim(a_claim(job, ONE))) for job in jobs]
        store.release(claims[0], AttemptOutcome.TRANSIENT, "storage_unavailable", "503")
        store.register_model(TWO)
        for job, left in zip(jobs, claims, strict=True):
            assert store.claim(a_claim(job, ONE)) == NotActive("cough@2")
            moved = claimed(store.claim(a_claim(job, TWO)))
            assert not store.complete(left, a_result())
            assert store.complete(moved, a_result())
            found = store.job(job.job_id)
            assert found is not None
            assert (found.analysis.id, found.analysis.model) == (moved.analysis_id, "cough@2")

    def test_an_attempt_that_was_handed_back_holds_nothing(self, store: Store) -> None:
        store.register_model(ONE)
        job = a_job()
        left = claimed(store.claim(a_claim(job, ONE, lease_s=60.0)))
        store.register_model(TWO)
        assert store.claim(a_claim(job, ONE, handed_back=left.token)) == NotActive("cough@2")
        assert [attempt.outcome for attempt in store.attempts_of(left.analysis_id)] == [AttemptOutcome.HANDED_BACK]
        assert isinstance(store.claim(a_claim(job, TWO)), Claimed)

    def test_a_job_that_names_a_model_moves_as_before(self, store: Store) -> None:
        store.register_model(ONE)
        store.register_model(TWO)
        job = a_job(model="cough")
        left = claimed(store.claim(a_claim(job, ONE)))
        assert store.complete(claimed(store.claim(a_claim(job, TWO))), a_result())
        assert not store.complete(left, a_result())


class TestRaces:
    """Two deliveries of one message, at workers of two models, while the active model changes."""

    def test_one_result_for_each_job(self, store: Store, store_url: str) -> None:
        store.register_model(ONE)
        store.register_model(TWO)
        for number in range(20):
            job = a_job(key=f"{number}.wav")
            before, after = (ONE, TWO) if number % 2 else (TWO, ONE)
            forced(store, before)
            calls: list[Callable[[], object]] = [
                partial(attempt, store, job, ONE),
                partial(attempt, store, job, TWO),
                partial(forced, store, after),
            ]
            at_once(calls)
            # The messages come again, until the job has its answer.
            for model in (ONE, TWO):
                attempt(store, job, model)
            found = store.job(job.job_id)
            assert found is not None
            assert found.analysis.state is AnalysisState.SUCCEEDED
            results = "SELECT count(*) FROM analyses JOIN recordings ON recordings.id = recording_id WHERE key = %s "
            assert rows(store_url, results + "AND state = 'succeeded'", job.key) == [(1,)]
            assert rows(store_url, results + "AND state IN ('running', 'waiting')", job.key) == [(0,)]

    @pytest.mark.parametrize("first", [True, False], ids=["one statement", "transaction"])
    def test_a_claim_that_waits_for_another_model_s_claim_of_the_job(
        self, store: Store, store_url: str, first: bool
    ) -> None:
        """Given a claim whose statement began before the other model's claim was committed, it takes nothing over."""
        store.register_model(ONE)
        store.register_model(TWO)
        job = a_job()
        late_request = a_claim(job, TWO, handed_back=None if first else uuid.uuid4())
        with ThreadPoolExecutor(1) as pool, psycopg.connect(store_url) as other:
            [recording] = other.execute(
                "INSERT INTO recordings (bucket, key, etag) VALUES ('recordings', 'a.wav', 'e1') RETURNING id"
            ).fetchone() or (0,)
            late = pool.submit(store.claim, late_request)
            wait_until(lambda: waits_for_a_lock(store_url), 30, "the claim to wait")
            [analysis] = other.execute(
                "INSERT INTO analyses (recording_id, model_id, profile, profile_overridden, coverage, job_id, state, "
                "attempt_token, attempts, worker, device, enqueued_at, started_at) SELECT %s, id, 'documented', false, "
                "'head', %s, 'running', gen_random_uuid(), 1, 'cpu@1', 'cpu', now(), now() FROM models "
                "WHERE version = '1' RETURNING id",
                (recording, job.job_id),
            ).fetchone() or (0,)
            other.execute(
                "INSERT INTO attempts (analysis_id, number, token, worker, exclusive, lease_expires_at) "
                "SELECT id, 1, attempt_token, worker, true, now() + interval '60 s' FROM analyses"
            )
            other.execute(
                "INSERT INTO jobs (job_id, analysis_id, enqueued_at) VALUES (%s, %s, to_timestamp(%s))",
                (job.job_id, analysis, job.enqueued_at),
            )
            other.commit()
            answer_ = late.result(60)
        assert isinstance(answer_, Held)
        assert answer_.analysis_id == analysis
        assert rows(store_url, "SELECT id FROM analyses") == [(analysis,)]


def attempt(store: Store, job: Any, model: Any) -> None:
    """Claim and complete a job, as a worker of the model does."""
    answer_ = store.claim(a_claim(job, model, lease_s=60.0))
    if isinstance(answer_, Claimed):
        assert store.complete(answer_, a_result())


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Return the answers of ``calls``. Each runs in its own thread; all start together."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], T]) -> T:
        barrier.wait(60)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(60) for future in [pool.submit(run, call) for call in calls]]


def waits_for_a_lock(url: str) -> bool:
    (count,) = rows(
        url, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    return bool(count[0])


class TestCurrent:
    """What analysts see."""

    def current(self, url: str) -> list[tuple[Any, ...]]:
        return rows(url, "SELECT key, model, etag FROM current ORDER BY key")

    def test_rolling_back_changes_it_at_once(self, store: Store, store_url: str) -> None:
        store.register_model(ONE)
        answer(store, "a.wav", ONE)
        answer(store, "b.wav", ONE)
        store.register_model(TWO)
        answer(store, "a.wav", TWO)
        assert self.current(store_url) == [("a.wav", "cough@2", "e1"), ("b.wav", "cough@1", "e1")]
        forced(store, ONE)
        assert self.current(store_url) == [("a.wav", "cough@1", "e1"), ("b.wav", "cough@1", "e1")]
        forced(store, TWO)
        assert self.current(store_url) == [("a.wav", "cough@2", "e1"), ("b.wav", "cough@1", "e1")]

    def test_answers_of_a_model_that_never_was_active_are_not_in_it(self, store: Store, store_url: str) -> None:
        store.register_model(ONE)
        forced(store, ONE)
        answer(store, "a.wav", ONE)
        store.register_model(TWO)
        answer(store, "a.wav", TWO)
        answer(store, "canary.wav", TWO)
        assert self.current(store_url) == [("a.wav", "cough@1", "e1")]

    def test_without_an_answer_of_the_active_model_the_one_that_was_active_last(
        self, store: Store, store_url: str
    ) -> None:
        """A model that was rolled back comes behind the one that replaced it, also with a newer answer."""
        for model in (ONE, TWO):
            store.register_model(model)
            answer(store, "a.wav", model)
        forced(store, ONE)
        store.register_model(THREE)
        forced(store, THREE)
        assert self.current(store_url) == [("a.wav", "cough@1", "e1")]

    def test_a_rollback_does_not_bring_back_the_answer_for_replaced_bytes(self, store: Store, store_url: str) -> None:
        store.register_model(ONE)
        answer(store, "a.wav", ONE)
        store.register_model(TWO)
        job = a_job(model="cough@2")
        store.complete(claimed(store.claim(a_claim(job, TWO, etag="e2"))), a_result())
        forced(store, ONE)
        assert self.current(store_url) == [("a.wav", "cough@2", "e2")]

    def test_a_failure_of_the_job_ranks_last_whoever_is_active(self, store: Store, store_url: str) -> None:
        store.register_model(ONE)
        answer(store, "a.wav", ONE)
        store.register_model(TWO)
        claim = claimed(store.claim(a_claim(a_job(), TWO)))
        store.fail(claim, "object_changed", "the bytes were replaced")
        assert rows(store_url, "SELECT model, state FROM current") == [("cough@1", "succeeded")]
        other = claimed(store.claim(a_claim(a_job(key="b.wav"), TWO)))
        store.fail(other, "not_audio", "a picture")
        answer(store, "b.wav", ONE)
        assert rows(store_url, "SELECT model, state FROM current WHERE key = 'b.wav'") == [("cough@2", "failed")]
