"""A job id stays with its object: a message that uses the id of another object, or of another content, fails."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.support.store import a_claim, a_job, a_refusal, a_result, claimed
from tussis.shared.errors import JobIdMismatch, JobIdTaken
from tussis.shared.messages import Job, job_id_for
from tussis.shared.states import AnalysisState
from tussis.shared.store.cancellations import Verdict
from tussis.shared.store.records import FailureFilter, ModelFacts, NotItsId, Settled
from tussis.shared.store.repository import Store

LATER = 4_000_000_000.0


def derived(**changes: Any) -> Job:
    """A job with the id of its content."""
    named = {"bucket": "recordings", "key": "a.wav", "etag": "e1"} | changes
    content = {name: named.get(name) for name in ("version_id", "etag", "model", "profile", "coverage")}
    return a_job(**named, job_id=job_id_for(named["bucket"], named["key"], **content))


def stolen(from_job: Job, **changes: Any) -> Job:
    """A later message for another object under the id of a job."""
    return a_job(**({"job_id": from_job.job_id, "key": "foreign.wav", "etag": "e9", "enqueued_at": LATER} | changes))


@pytest.mark.parametrize("first", [derived(), a_job()], ids=["version 5", "random"])
def test_a_message_for_another_object_never_takes_over_an_id(store: Store, model: ModelFacts, first: Job) -> None:
    claim = claimed(store.claim(a_claim(first, model)))
    assert store.complete(claim, a_result())
    foreign = stolen(first)

    failed: object = None
    for _ in range(2):  # a redelivery too
        with pytest.raises(JobIdTaken, match="belongs to s3://recordings/a"):
            store.claim(a_claim(foreign, model, etag="e9"))
        failed = store.refuse(a_refusal(foreign, error_class="job_id_taken", message="taken", etag="e9"))
    assert isinstance(failed, NotItsId)

    answer = store.job(first.job_id)
    assert answer is not None
    assert (answer.analysis.id, answer.analysis.state) == (claim.analysis_id, AnalysisState.SUCCEEDED)
    (failure,) = store.failures(FailureFilter())
    assert (failure.id, failure.uri, failure.error_class) == (failed.analysis_id, foreign.uri, "job_id_taken")
    assert str(failure.error_message) == failed.message
    # The real job may be sent again.
    assert isinstance(store.claim(a_claim(first, model)), Settled)


def test_a_message_with_the_id_of_another_content_maps_nothing(store: Store, model: ModelFacts) -> None:
    real = derived()
    foreign = stolen(real)

    with pytest.raises(JobIdMismatch, match="not the id of the content"):
        store.claim(a_claim(foreign, model, etag="e9"))
    failed = store.refuse(a_refusal(foreign, etag="e9"))

    assert isinstance(failed, NotItsId)
    assert failed.error_class == "job_id_mismatch"
    assert store.job(real.job_id) is None
    claimed(store.claim(a_claim(real, model)))
    answer = store.job(real.job_id)
    assert answer is not None
    assert answer.analysis.uri == real.uri


def test_a_foreign_message_does_not_touch_another_analysis_of_its_object(store: Store, model: ModelFacts) -> None:
    victim = derived(key="foreign.wav", etag="e9")
    claim = claimed(store.claim(a_claim(victim, model, etag="e9")))
    assert store.fail(claim, "object_changed", "gone", {})
    first = a_job()
    claimed(store.claim(a_claim(first, model)))

    assert isinstance(store.refuse(a_refusal(stolen(first, reopen=True), etag="e9")), NotItsId)

    answer = store.job(victim.job_id)
    assert answer is not None
    assert (answer.analysis.error_class, answer.analysis.attempts) == ("object_changed", 1)


@pytest.mark.parametrize("form", ["e1", '"e1"', 'W/"e1"'])
def test_ids_of_older_messages_are_accepted(store: Store, model: ModelFacts, form: str) -> None:
    job_id = job_id_for("recordings", "a.wav", version_id=None, etag=form, model=None, profile=None)
    claimed(store.claim(a_claim(a_job(job_id=job_id, etag="e1"), model)))


def test_every_uuid_that_is_not_of_version_5_is_accepted(store: Store, model: ModelFacts) -> None:
    for number, version in enumerate("123478"):
        text = str(uuid.uuid4())
        job = a_job(job_id=f"{text[:14]}{version}{text[15:]}", key=f"{number}.wav")
        claimed(store.claim(a_claim(job, model)))


def test_a_retry_that_names_less_than_the_first_message_keeps_its_id(store: Store, model: ModelFacts) -> None:
    job = derived(model="cough@1", version_id="v1")
    claim = claimed(store.claim(a_claim(job, model, version_id="v1")))
    assert store.fail(claim, "expired", "too late", {})
    (failure,) = store.failures(FailureFilter())

    again = store.retry_job(failure)

    assert again.job_id == job.job_id
    assert again.model is None
    assert claimed(store.claim(a_claim(again, model))).analysis_id == claim.analysis_id


def test_again_with_a_random_id_is_accepted_and_with_the_id_of_another_content_it_fails(
    store: Store, model: ModelFacts
) -> None:
    claimed(store.claim(a_claim(a_job(again=True, etag="e1"), model)))
    with pytest.raises(JobIdMismatch):
        store.claim(a_claim(a_job(job_id=derived(key="b.wav").job_id, again=True, etag="e1"), model))


def test_cancelling_a_foreign_message_leaves_the_job_of_the_id(store: Store, model: ModelFacts) -> None:
    real = derived()
    assert store.cancel([stolen(real)], "me")[real.job_id].verdict is Verdict.UNREADABLE
    assert store.job(real.job_id) is None
    claim = claimed(store.claim(a_claim(real, model)))
    assert store.cancel([stolen(real)], "me")[real.job_id].verdict is Verdict.UNREADABLE
    answer = store.job(real.job_id)
    assert answer is not None
    assert answer.analysis.id == claim.analysis_id
