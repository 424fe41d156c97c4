"""Cancelling jobs in the store: what is stored, and what other transactions make of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from tests.integration.store.test_store_races import at_once
from tests.support.store import a_claim, a_job, a_refusal, a_result, claimed, label, model_facts, rows
from tussis.shared.messages import Job
from tussis.shared.outcomes import OutcomeState
from tussis.shared.states import AnalysisState, AttemptOutcome
from tussis.shared.store.cancellations import Cancellation, Verdict
from tussis.shared.store.known import AnalysisCriteria, Known
from tussis.shared.store.records import Claimed, ModelFacts, Settled
from tussis.shared.store.repository import Store

BY = "ops@host"


def cancelled(store: Store, *jobs: Job) -> list[Cancellation]:
    found = store.cancel(jobs, BY)
    return [found[job.job_id] for job in jobs]


def again(job: Job, seconds: float = 1.0) -> Job:
    """The same job, enqueued later."""
    return Job(**(vars(job) | {"enqueued_at": job.enqueued_at + seconds}))


def test_a_job_that_no_worker_had_gets_its_rows(store: Store, store_url: str, model: ModelFacts) -> None:
    job = a_job(etag="e1", metadata={"site": "north"}, priority=3)
    [one] = cancelled(store, job)

    assert one.verdict is Verdict.CANCELLED
    assert rows(store_url, "SELECT bucket, key, etag, metadata FROM recordings") == [
        ("recordings", "a.wav", "e1", {"site": "north"})
    ]
    found = store.job(job.job_id)
    assert found is not None
    analysis = found.analysis
    assert (analysis.id, analysis.state, analysis.attempts) == (one.analysis_id, AnalysisState.CANCELLED, 0)
    assert (analysis.error_class, analysis.model, analysis.profile) == (None, "cough@1", "documented")
    assert rows(store_url, "SELECT worker, device, count(*) OVER () FROM analyses") == [(BY, "any", 1)]
    assert rows(store_url, "SELECT count(*) FROM attempts") == [(0,)]
    outcome = store.outcome_of(job.job_id, job.enqueued_at, analysis.id)
    assert outcome is not None
    assert (outcome.state, outcome.error_class, outcome.answer) == (OutcomeState.CANCELLED, None, None)
    assert (outcome.started_at, outcome.finished_at) == (None, one.cancelled_at and one.cancelled_at.timestamp())
    counts = store.counts()
    assert (counts.cancelled, counts.failed, counts.discarded) == (1, 0, 0)


def test_the_claim_of_a_cancelled_message_is_settled_and_of_a_later_one_runs(
    store: Store, store_url: str, model: ModelFacts
) -> None:
    job = a_job()  # no entity tag: the worker finds another recording than the one that was written
    [one] = cancelled(store, job)
    assert one.analysis_id is not None
    settled = Settled(one.analysis_id, AnalysisState.CANCELLED)
    assert store.claim(a_claim(job, model)) == settled
    assert store.refuse(a_refusal(job, model=model)) == settled

    later = claimed(store.claim(a_claim(again(job), model)))

    assert store.complete(later, a_result())
    assert rows(store_url, "SELECT state FROM analyses") == [("succeeded",)]  # the cancellation is not kept
    assert rows(store_url, "SELECT analysis_id FROM jobs") == [(later.analysis_id,)]


def test_a_failure_of_a_later_message_replaces_the_cancellation(
    store: Store, store_url: str, model: ModelFacts
) -> None:
    job = a_job(etag="e1")
    cancelled(store, job)
    failed = store.refuse(a_refusal(again(job), etag="e1", model=model))
    assert rows(store_url, "SELECT id, state FROM analyses") == [(failed, "failed")]


def test_cancelling_twice_changes_nothing_more(store: Store, store_url: str, model: ModelFacts) -> None:
    job = a_job(etag="e1")
    assert cancelled(store, job) == cancelled(store, job)
    later = again(job)
    [first], [second] = cancelled(store, job), cancelled(store, later)
    assert (second.verdict, second.analysis_id) == (Verdict.CANCELLED, first.analysis_id)
    assert rows(store_url, "SELECT count(*) FROM analyses") == [(1,)]
    # Another model is active when it is cancelled again.
    other = model_facts(version="2", sha256="b" * 64)
    store.register_model(other)
    [third] = cancelled(store, again(later))
    assert rows(store_url, "SELECT id FROM analyses") == [(third.analysis_id,)]


def test_an_attempt_that_runs_finishes(store: Store, model: ModelFacts) -> None:
    job = a_job()
    claim = claimed(store.claim(a_claim(job, model, lease_s=60.0)))
    assert store.cancel_verdicts([job]) == {job.job_id: Verdict.RUNS}
    assert [one.verdict for one in cancelled(store, job)] == [Verdict.RUNS]
    assert store.complete(claim, a_result())
    assert store.cancel_verdicts([job]) == {job.job_id: Verdict.ANSWERED}
    assert [one.verdict for one in cancelled(store, job)] == [Verdict.ANSWERED]


@pytest.mark.parametrize("crashed", [True, False])
def test_the_analysis_of_a_waiting_job_is_cancelled(store: Store, model: ModelFacts, crashed: bool) -> None:
    job = a_job()
    claim = claimed(store.claim(a_claim(job, model)))
    if not crashed:
        store.release(claim, AttemptOutcome.TRANSIENT, "storage_unavailable", "503")
    [one] = cancelled(store, job)

    assert one == Cancellation(Verdict.CANCELLED, claim.analysis_id, one.cancelled_at, one.started_at)
    analysis = store.analysis(claim.analysis_id)
    assert analysis is not None
    assert (analysis.state, analysis.error_class, analysis.started_at) == (
        AnalysisState.CANCELLED,
        None,
        one.started_at,
    )
    [attempt] = store.attempts_of(claim.analysis_id)
    assert attempt.outcome is (AttemptOutcome.VANISHED if crashed else AttemptOutcome.TRANSIENT)
    # An attempt whose lease was over stores nothing any more.
    assert not store.complete(claim, a_result())
    assert store.claim(a_claim(job, model)) == Settled(claim.analysis_id, AnalysisState.CANCELLED)
    assert claimed(store.claim(a_claim(again(job), model))).analysis_id == claim.analysis_id


def test_a_job_that_shares_the_analysis_is_answered(store: Store, model: ModelFacts) -> None:
    one, other = a_job(), a_job()
    claim = claimed(store.claim(a_claim(one, model)))
    store.release(claim, AttemptOutcome.TRANSIENT, "storage_unavailable", "503")
    assert [done.verdict for done in cancelled(store, one)] == [Verdict.CANCELLED]
    second = claimed(store.claim(a_claim(other, model)))
    assert second.analysis_id == claim.analysis_id
    kept = store.job(one.job_id)
    assert kept is not None
    assert (kept.analysis.state, kept.analysis.attempts) == (AnalysisState.CANCELLED, 0)
    assert store.claim(a_claim(one, model)) == Settled(kept.analysis.id, AnalysisState.CANCELLED)
    assert store.complete(second, a_result())
    answer = store.job(other.job_id)
    assert answer is not None
    assert answer.analysis.state is AnalysisState.SUCCEEDED


def test_a_job_that_waits_for_another_job_s_attempt_is_cancelled_alone(store: Store, model: ModelFacts) -> None:
    one, other = a_job(), a_job()
    claim = claimed(store.claim(a_claim(one, model, lease_s=60.0)))
    store.claim(a_claim(other, model))  # held
    [done] = cancelled(store, other)
    assert done.verdict is Verdict.CANCELLED
    assert done.analysis_id != claim.analysis_id
    assert store.complete(claim, a_result())
    assert store.claim(a_claim(other, model)) == Settled(done.analysis_id or 0, AnalysisState.CANCELLED)


def test_a_failure_whose_retry_is_cancelled_stays_a_failure(store: Store, model: ModelFacts) -> None:
    job = a_job(etag="e1")
    claim = claimed(store.claim(a_claim(job, model)))
    store.fail(claim, "not_audio", "a picture")
    failure = store.analysis(claim.analysis_id)
    assert failure is not None
    retry = store.retry_job(failure)
    assert [one.verdict for one in cancelled(store, retry)] == [Verdict.CANCELLED]
    counts = store.counts()
    assert (dict(counts.failures), counts.cancelled) == ({"not_audio": 1}, 1)
    assert isinstance(store.claim(a_claim(again(retry), model)), Claimed)


def test_the_view_current_shows_a_cancellation_below_every_answer(
    store: Store, store_url: str, model: ModelFacts
) -> None:
    def states() -> list[tuple[str, str]]:
        return rows(store_url, "SELECT key, state FROM current ORDER BY key")

    answered, failed, other = a_job(key="a.wav"), a_job(key="b.wav"), a_job(key="c.wav", etag="e1")
    store.complete(claimed(store.claim(a_claim(answered, model))), a_result())
    store.fail(claimed(store.claim(a_claim(failed, model))), "object_changed", "replaced")
    cancelled(store, a_job(key="a.wav", etag="e2"), a_job(key="b.wav", etag="e1", again=True), other)
    assert states() == [("a.wav", "succeeded"), ("b.wav", "failed"), ("c.wav", "cancelled")]
    store.complete(claimed(store.claim(a_claim(again(other), model))), a_result())
    assert states()[-1] == ("c.wav", "succeeded")
    assert rows(store_url, "SELECT state, count(*) FROM job_answers GROUP BY 1 ORDER BY 1") == [
        ("cancelled", 2),
        ("failed", 1),
        ("succeeded", 2),
    ]


def test_a_sweep_knows_it(store: Store, model: ModelFacts) -> None:
    early = a_job(key="early.wav", etag="e1")
    with_model, other_model = (
        a_job(key="a.wav", etag="e1", model=label(model)),
        a_job(key="b.wav", etag="e1", model="other@1"),
    )
    cancelled(store, early, with_model, other_model)
    found = store.known(
        "recordings", [("early.wav", "e1"), ("a.wav", "e1"), ("b.wav", "e1")], AnalysisCriteria(sha256=model.sha256)
    )
    assert set(found) == {("early.wav", "e1"), ("a.wav", "e1")}
    assert {one.state for one in found.values() if isinstance(one, Known)} == {AnalysisState.CANCELLED}
    # A result counts before a cancellation.
    store.complete(claimed(store.claim(a_claim(a_job(key="a.wav"), model))), a_result())
    [one] = store.known("recordings", [("a.wav", "e1")], AnalysisCriteria(sha256=model.sha256)).values()
    assert isinstance(one, Known)
    assert one.state is AnalysisState.SUCCEEDED


def test_a_cancellation_before_the_first_worker_is_known_for_every_model(store: Store) -> None:
    cancelled(store, a_job(etag="e1"))
    [one] = store.known("recordings", [("a.wav", "e1")], AnalysisCriteria(sha256="c" * 64)).values()
    assert isinstance(one, Known)
    assert one.state is AnalysisState.CANCELLED


@pytest.mark.parametrize("etag", ["e1", None])
def test_a_claim_against_a_cancellation_leaves_one_end(
    store: Store, store_url: str, model: ModelFacts, etag: str | None
) -> None:
    """Whoever comes first, the job is either claimed or cancelled, and the other one is told so."""
    ends = set()
    for number in range(12):
        jobs = [a_job(key=f"{number}-{n}.wav", etag=etag) for n in range(3)]
        calls: list[Callable[[], object]] = [
            partial(store.cancel, jobs, BY),
            partial(store.cancel, list(reversed(jobs)), BY),
            *(partial(store.claim, a_claim(job, model, lease_s=60.0)) for job in jobs),
        ]
        first, second, *claims = at_once(calls)
        assert isinstance(first, dict)
        assert isinstance(second, dict)
        for job, claim in zip(jobs, claims, strict=True):
            verdicts = {first[job.job_id].verdict, second[job.job_id].verdict}
            answer = store.job(job.job_id)
            assert answer is not None
            if isinstance(claim, Claimed):
                assert verdicts == {Verdict.RUNS}
                assert (answer.analysis.id, answer.analysis.state) == (claim.analysis_id, AnalysisState.RUNNING)
            else:
                assert verdicts == {Verdict.CANCELLED}
                assert claim == Settled(answer.analysis.id, AnalysisState.CANCELLED)
            ends.add(type(claim))
    assert rows(store_url, "SELECT count(*) FROM jobs") == rows(store_url, "SELECT count(*) FROM analyses") == [(36,)]


def test_a_refusal_or_a_later_claim_against_a_cancellation_leaves_one_end(
    store: Store, store_url: str, model: ModelFacts
) -> None:
    for number in range(8):
        job = a_job(key=f"{number}.wav", etag="e1")
        if number % 2:
            cancelled(store, job)
            job = again(job)
        calls: list[Callable[[], object]] = [
            partial(store.cancel, [job], BY),
            partial(store.refuse, a_refusal(job, etag="e1", model=model))
            if number % 4 < 2
            else partial(store.claim, a_claim(job, model, lease_s=60.0)),
        ]
        done, other = at_once(calls)
        assert isinstance(done, dict)
        answer = store.job(job.job_id)
        assert answer is not None
        if done[job.job_id].verdict is Verdict.CANCELLED:
            assert other == Settled(answer.analysis.id, AnalysisState.CANCELLED)
        else:
            assert answer.analysis.state in (AnalysisState.RUNNING, AnalysisState.FAILED)
    assert rows(store_url, "SELECT count(*) FROM analyses") == [(8,)]
