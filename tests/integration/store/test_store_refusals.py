"""Failures without a claim, and messages that could not be read."""

from __future__ import annotations

import pytest

from tests.support.store import a_claim, a_job, a_refusal, a_result, claimed, refused, rows
from tussis.shared.states import AnalysisState, AttemptOutcome
from tussis.shared.store.records import ModelFacts
from tussis.shared.store.repository import Store

LATER = 4_000_000_000.0


def test_a_missing_object_is_a_failure_row(store: Store) -> None:
    job = a_job(metadata={"patient": 1})

    analysis_id = store.refuse(a_refusal(job))

    answer = store.job(job.job_id)
    assert answer is not None
    analysis = answer.analysis
    assert analysis.id == analysis_id
    assert analysis.state is AnalysisState.FAILED
    assert (analysis.error_class, analysis.error_message) == ("object_missing", f"no object at {job.uri}")
    assert (analysis.etag, analysis.model, analysis.attempts) == ("", None, 1)
    assert analysis.metadata == {"patient": 1}
    assert analysis.finished_at is not None
    (attempt,) = store.attempts_of(analysis_id)
    assert (attempt.outcome, attempt.error_class) == (AttemptOutcome.FAILED, "object_missing")


def test_a_model_that_is_not_served_is_named(store: Store, model: ModelFacts) -> None:
    job = a_job(model="other@7")
    store.refuse(a_refusal(job, error_class="model_not_served", model_requested="other@7"))
    answer = store.job(job.job_id)
    assert answer is not None
    assert answer.analysis.model == answer.analysis.model_requested == "other@7"
    # Two model names are two failures.
    assert store.refuse(a_refusal(a_job(), model_requested="other@8")) != answer.analysis.id


def test_the_same_job_twice_leaves_one_row(store: Store, store_url: str) -> None:
    refusal = a_refusal(a_job())
    assert store.refuse(refusal) == store.refuse(refusal)
    assert rows(store_url, "SELECT attempts FROM analyses") == [(1,)]


def test_a_newer_job_for_an_object_still_missing_is_one_more_attempt(store: Store) -> None:
    first = refused(store.refuse(a_refusal(a_job())))
    newer = a_job(enqueued_at=LATER)

    assert store.refuse(a_refusal(newer, message="still not there")) == first

    answer = store.job(newer.job_id)
    assert answer is not None
    assert (answer.analysis.state, answer.analysis.error_message) == (AnalysisState.FAILED, "still not there")
    assert [attempt.outcome for attempt in store.attempts_of(first)] == [AttemptOutcome.FAILED] * 2


def test_what_an_earlier_attempt_left_open_becomes_the_failure(store: Store, model: ModelFacts) -> None:
    job = a_job()
    claim = claimed(store.claim(a_claim(job, model)))
    store.release(claim, AttemptOutcome.TRANSIENT, "storage_unavailable", "503")

    # The object was deleted before the next attempt.
    assert store.refuse(a_refusal(job)) == claim.analysis_id

    counts = store.counts()
    assert (counts.running, counts.waiting, counts.failures) == (0, 0, {"object_missing": 1})
    assert [attempt.outcome for attempt in store.attempts_of(claim.analysis_id)] == [
        AttemptOutcome.TRANSIENT,
        AttemptOutcome.FAILED,
    ]


def test_it_takes_a_running_attempt_of_the_same_job_over(store: Store, model: ModelFacts) -> None:
    job = a_job()
    claim = claimed(store.claim(a_claim(job, model)))
    assert store.refuse(a_refusal(job)) == claim.analysis_id
    assert not store.complete(claim, a_result())
    assert [attempt.outcome for attempt in store.attempts_of(claim.analysis_id)] == [
        AttemptOutcome.SUPERSEDED,
        AttemptOutcome.FAILED,
    ]


def test_the_running_attempt_of_another_job_is_left_to_it(store: Store, model: ModelFacts) -> None:
    claim = claimed(store.claim(a_claim(a_job(), model)))
    other = a_job(etag="e1")

    assert store.refuse(a_refusal(other, etag="e1", model=model)) == claim.analysis_id

    assert store.complete(claim, a_result())
    answer = store.job(other.job_id)
    assert answer is not None
    assert answer.analysis.state is AnalysisState.SUCCEEDED


def test_a_result_is_never_overwritten(store: Store, model: ModelFacts) -> None:
    job = a_job()
    claim = claimed(store.claim(a_claim(job, model)))
    store.complete(claim, a_result())

    for late in (job, a_job(enqueued_at=LATER), a_job(enqueued_at=LATER, reopen=True)):
        assert store.refuse(a_refusal(late, etag="e1", model=model)) == claim.analysis_id

    answer = store.job(job.job_id)
    assert answer is not None
    assert answer.analysis.state is AnalysisState.SUCCEEDED
    assert len(answer.segments) == 4


@pytest.mark.parametrize("job_id", [None, "7", "\x00" * 500])
def test_a_dead_letter_keeps_the_message(store: Store, store_url: str, job_id: str | None) -> None:
    raw = "{\x00 \ud800 ä" + "x" * 100_000

    store.dead_letter(raw, job_id, "malformed_message", "not JSON: \x00")

    ((kept, kept_id, error_class, message, deliveries),) = rows(
        store_url, "SELECT raw, job_id, error_class, error_message, deliveries FROM dead_letters"
    )
    assert kept.startswith("{\ufffd \\ud800 äxxx")
    assert len(kept) == 65_536
    assert kept_id == (job_id and job_id.replace("\x00", "\ufffd")[:200])
    assert (error_class, message, deliveries) == ("malformed_message", "not JSON: \ufffd", 1)


def test_the_same_dead_letter_again_only_counts(store: Store, store_url: str) -> None:
    for _ in range(3):
        store.dead_letter("?", None, "malformed_message", "why")
    store.dead_letter("!", None, "malformed_message", "why")
    assert rows(store_url, "SELECT raw, deliveries FROM dead_letters ORDER BY id") == [("?", 3), ("!", 1)]
    assert store.counts().dead_letters == 2
