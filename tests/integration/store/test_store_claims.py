"""Claims: every answer that the store gives to one."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.support.store import ENQUEUED_AT, a_claim, a_job, a_refusal, a_result, claimed, model_facts, rows
from tussis.shared.errors import JobMoved, NotAudio, ObjectMissing, WorkerCrashed
from tussis.shared.states import AnalysisState, AttemptOutcome
from tussis.shared.store import claims
from tussis.shared.store.connection import connect_engine
from tussis.shared.store.records import Claimed, Exhausted, ModelFacts, Settled
from tussis.shared.store.repository import Store

#: Later than any ``finished_at`` of the test, in seconds since the epoch.
LATER = ENQUEUED_AT + 100 * 365 * 86_400


def outcomes(store: Store, analysis_id: int) -> list[AttemptOutcome | None]:
    return [attempt.outcome for attempt in store.attempts_of(analysis_id)]


def test_first_claim_makes_recording_analysis_attempt_and_job(store: Store, model: ModelFacts) -> None:
    job = a_job(metadata={"patient": 7, "site": "ä"}, key="ward 3/ä.wav")

    claim = claimed(store.claim(a_claim(job, model, etag="e9", version_id="v1", size_bytes=12)))

    answer = store.job(job.job_id)
    assert answer is not None
    analysis = answer.analysis
    assert (claim.number, claim.vanished, claim.created_at) == (1, 0, analysis.created_at)
    assert analysis.uri == "s3://recordings/ward 3/ä.wav"
    assert (analysis.etag, analysis.version_id, analysis.size_bytes) == ("e9", "v1", 12)
    assert analysis.metadata == {"patient": 7, "site": "ä"}
    assert analysis.state is AnalysisState.RUNNING
    assert (analysis.model, analysis.profile, analysis.coverage) == ("cough@1", "documented", "head")
    assert (analysis.attempts, analysis.worker, analysis.device) == (1, "cpu-1@test", "cpu")
    assert analysis.enqueued_at.timestamp() == job.enqueued_at
    assert analysis.enqueued_at.utcoffset() == timedelta(0)
    assert analysis.decision is None
    assert analysis.finished_at is None
    assert answer.segments == ()
    assert outcomes(store, claim.analysis_id) == [None]


def test_the_same_request_again_is_the_same_claim(store: Store, model: ModelFacts) -> None:
    request = a_claim(a_job(), model)
    first = store.claim(request)

    # The answer to the first claim was lost; the worker repeats the request.
    assert store.claim(request) == first
    assert outcomes(store, claimed(first).analysis_id) == [None]


def test_a_redelivery_takes_a_running_claim_over(store: Store, model: ModelFacts) -> None:
    job = a_job()
    first = claimed(store.claim(a_claim(job, model)))

    second = claimed(store.claim(a_claim(job, model, worker="cpu-2@test")))

    assert second.analysis_id == first.analysis_id
    assert second.token != first.token
    assert (second.number, second.vanished) == (2, 1)
    assert outcomes(store, first.analysis_id) == [AttemptOutcome.VANISHED, None]


@pytest.mark.parametrize("outcome", [AttemptOutcome.TRANSIENT, AttemptOutcome.HANDED_BACK])
def test_a_waiting_analysis_is_claimed_and_its_pauses_do_not_count(
    store: Store, model: ModelFacts, outcome: AttemptOutcome
) -> None:
    job = a_job()
    for number in range(1, 6):
        claim = claimed(store.claim(a_claim(job, model, max_attempts=2)))
        assert (claim.number, claim.vanished) == (number, 0)
        assert store.release(claim, outcome, "storage_unavailable", "503")

    assert outcomes(store, claim.analysis_id) == [outcome] * 5


def test_at_the_limit_of_crashes_the_analysis_fails_with_its_history(store: Store, model: ModelFacts) -> None:
    job = a_job()
    for _ in range(3):
        assert isinstance(store.claim(a_claim(job, model)), Claimed)

    answer = store.claim(a_claim(job, model))

    assert isinstance(answer, Exhausted)
    analysis = store.job(job.job_id)
    assert analysis is not None
    assert analysis.analysis.id == answer.analysis_id
    assert analysis.analysis.state is AnalysisState.FAILED
    assert analysis.analysis.error_class == WorkerCrashed.error_class
    message = analysis.analysis.error_message or ""
    assert message.startswith("3 of 3 attempts crashed (no outcome was reported)")
    assert "1 on cpu-1@test" in message
    assert "3 on cpu-1@test" in message
    assert outcomes(store, answer.analysis_id) == [AttemptOutcome.VANISHED] * 3
    assert store.claim(a_claim(job, model)) == Settled(answer.analysis_id, AnalysisState.FAILED)


def test_only_exclusive_crashes_count(store: Store, model: ModelFacts) -> None:
    """Given a worker whose recordings share runs, when its attempts vanish, then the first one does not count."""
    job = a_job()
    seen = [claimed(store.claim(a_claim(job, model, exclusive=False, max_attempts=2))).vanished for _ in range(3)]
    assert seen == [0, 1, 2]

    answer = store.claim(a_claim(job, model, exclusive=False, max_attempts=2))

    assert isinstance(answer, Exhausted)
    assert [attempt.exclusive for attempt in store.attempts_of(answer.analysis_id)] == [False, True, True]


def test_an_attempt_that_speaks_up_late_counts_as_superseded_and_not_as_a_crash(
    store: Store, model: ModelFacts
) -> None:
    job = a_job()
    slow = claimed(store.claim(a_claim(job, model, max_attempts=2)))
    claimed(store.claim(a_claim(job, model, max_attempts=2)))

    assert not store.release(slow, AttemptOutcome.HANDED_BACK)

    # Two claims were taken over, but only one of them vanished.
    third = claimed(store.claim(a_claim(job, model, max_attempts=2)))
    assert third.vanished == 1
    assert outcomes(store, slow.analysis_id) == [AttemptOutcome.SUPERSEDED, AttemptOutcome.VANISHED, None]


@pytest.mark.parametrize("own", [True, False], ids=["its own message came back", "another's"])
def test_a_recording_that_crashes_under_several_jobs_fails(store: Store, model: ModelFacts, own: bool) -> None:
    jobs = [a_job() for _ in range(3)]
    for job in jobs:
        store.claim(a_claim(job, model))
    assert isinstance(store.claim(a_claim(jobs[2 if own else 0], model)), Exhausted)


def test_a_result_settles_every_later_job_for_the_same_question(store: Store, model: ModelFacts) -> None:
    job, other = a_job(), a_job()
    claim = claimed(store.claim(a_claim(job, model)))
    store.complete(claim, a_result())

    settled = Settled(claim.analysis_id, AnalysisState.SUCCEEDED)
    assert store.claim(a_claim(job, model)) == settled
    assert store.claim(a_claim(other, model)) == settled
    assert store.claim(a_claim(a_job(reopen=True, enqueued_at=LATER), model)) == settled
    answer = store.job(other.job_id)
    assert answer is not None
    assert answer.analysis.id == claim.analysis_id
    assert len(answer.segments) == 4


@pytest.mark.parametrize(
    "change",
    [{"etag": "e2"}, {"profile": "legacy"}, {"coverage": "all"}],
    ids=lambda change: next(iter(change)),
)
def test_another_question_is_another_analysis(store: Store, model: ModelFacts, change: dict[str, str]) -> None:
    first = claimed(store.claim(a_claim(a_job(), model)))
    second = claimed(store.claim(a_claim(a_job(), model, **change)))
    assert second.analysis_id != first.analysis_id


def test_another_model_analyses_anew_beside_the_old_result(store: Store, model: ModelFacts) -> None:
    job = a_job()
    old = claimed(store.claim(a_claim(job, model)))
    store.complete(old, a_result())
    newer = model_facts(version="2", sha256="b" * 64)

    again = claimed(store.claim(a_claim(a_job(job_id=job.job_id, enqueued_at=LATER), newer)))

    assert again.analysis_id != old.analysis_id


def test_again_makes_one_analysis_a_job_beside_the_old_ones(store: Store, model: ModelFacts) -> None:
    old = claimed(store.claim(a_claim(a_job(), model)))
    store.complete(old, a_result())
    forced = a_job(again=True)

    new = claimed(store.claim(a_claim(forced, model)))
    store.complete(new, a_result())

    assert new.analysis_id != old.analysis_id
    assert store.claim(a_claim(forced, model)) == Settled(new.analysis_id, AnalysisState.SUCCEEDED)
    other = claimed(store.claim(a_claim(a_job(again=True), model)))
    assert other.analysis_id not in (old.analysis_id, new.analysis_id)


class TestReopening:
    """A failure is final, unless its cause may be gone for a newer message, or a newer message reopens it."""

    def failed(self, store: Store, model: ModelFacts, error_class: str) -> int:
        claim = claimed(store.claim(a_claim(a_job(), model)))
        assert store.fail(claim, error_class, "why")
        return claim.analysis_id

    def test_a_failure_of_the_recording_stands_against_a_newer_job(self, store: Store, model: ModelFacts) -> None:
        failure = self.failed(store, model, NotAudio.error_class)
        answer = store.claim(a_claim(a_job(enqueued_at=LATER), model))
        assert answer == Settled(failure, AnalysisState.FAILED)

    def test_reopen_takes_it_up_again_with_its_history(self, store: Store, model: ModelFacts) -> None:
        failure = self.failed(store, model, NotAudio.error_class)
        job = a_job(enqueued_at=LATER, reopen=True)

        claim = claimed(store.claim(a_claim(job, model)))

        assert (claim.analysis_id, claim.number, claim.vanished) == (failure, 2, 0)
        answer = store.job(job.job_id)
        assert answer is not None
        analysis = answer.analysis
        assert analysis.state is AnalysisState.RUNNING
        assert (analysis.error_class, analysis.error_message, analysis.finished_at) == (None, None, None)
        first = store.attempts_of(failure)[0]
        assert (first.outcome, first.error_class, first.error_message) == (AttemptOutcome.FAILED, "not_audio", "why")

    def test_a_producer_whose_clock_is_behind_may_try_again(self, store: Store, model: ModelFacts) -> None:
        """Only the times of two messages are compared, never the producer's with the database's."""
        failure = self.failed(store, model, ObjectMissing.error_class)
        again = a_job(enqueued_at=ENQUEUED_AT - 90.0)
        assert claimed(store.claim(a_claim(again, model))).analysis_id == failure

    def test_reopen_by_the_message_that_failed_changes_nothing(self, store: Store, model: ModelFacts) -> None:
        failure = self.failed(store, model, NotAudio.error_class)
        answer = store.claim(a_claim(a_job(enqueued_at=ENQUEUED_AT, reopen=True), model))
        assert answer == Settled(failure, AnalysisState.FAILED)

    def test_a_cause_that_may_be_gone_is_tried_by_any_newer_job(self, store: Store, model: ModelFacts) -> None:
        failure = self.failed(store, model, ObjectMissing.error_class)
        assert store.claim(a_claim(a_job(), model)) == Settled(failure, AnalysisState.FAILED)
        assert claimed(store.claim(a_claim(a_job(enqueued_at=LATER), model))).analysis_id == failure

    def test_the_retry_delivered_twice_is_one_retry(self, store: Store, model: ModelFacts) -> None:
        failure = self.failed(store, model, NotAudio.error_class)
        retry = a_job(enqueued_at=LATER, reopen=True)
        claim = claimed(store.claim(a_claim(retry, model)))
        assert store.fail(claim, NotAudio.error_class, "still")

        # Delivered again after the commit; the producer's clock is ahead of the database's.
        assert store.claim(a_claim(retry, model)) == Settled(failure, AnalysisState.FAILED)
        assert outcomes(store, failure) == [AttemptOutcome.FAILED] * 2

    def test_crashes_are_counted_anew(self, store: Store, model: ModelFacts) -> None:
        job = a_job()
        for _ in range(2):
            store.claim(a_claim(job, model, max_attempts=2))
        exhausted = store.claim(a_claim(job, model, max_attempts=2))
        assert isinstance(exhausted, Exhausted)
        retry = a_job(job_id=job.job_id, enqueued_at=LATER, reopen=True)

        assert claimed(store.claim(a_claim(retry, model, max_attempts=2))).vanished == 0
        assert claimed(store.claim(a_claim(retry, model, max_attempts=2))).vanished == 1
        assert isinstance(store.claim(a_claim(retry, model, max_attempts=2)), Exhausted)
        assert outcomes(store, exhausted.analysis_id) == [AttemptOutcome.VANISHED] * 4

    def test_what_was_discarded_needs_to_be_asked_for(self, store: Store, model: ModelFacts) -> None:
        failure = self.failed(store, model, ObjectMissing.error_class)
        assert store.discard([failure]) == 1
        assert store.claim(a_claim(a_job(enqueued_at=LATER), model)) == Settled(failure, AnalysisState.DISCARDED)
        claim = claimed(store.claim(a_claim(a_job(enqueued_at=LATER, reopen=True), model)))
        assert claim.analysis_id == failure


class TestAJobThatMoves:
    """Between two attempts the object, or the model that the worker serves, may change."""

    def test_the_analysis_left_behind_does_not_stay_open(self, store: Store, model: ModelFacts) -> None:
        job = a_job()
        left = claimed(store.claim(a_claim(job, model, etag="e1")))
        store.release(left, AttemptOutcome.TRANSIENT, "storage_unavailable", "503")

        moved = claimed(store.claim(a_claim(job, model, etag="e2")))

        answer = store.job(job.job_id)
        assert answer is not None
        assert answer.analysis.id == moved.analysis_id
        counts = store.counts()
        assert (counts.running, counts.waiting, counts.failures) == (1, 0, {"job_moved": 1})
        assert not store.complete(left, a_result())

    def test_a_live_attempt_left_behind_drops_its_work(self, store: Store, model: ModelFacts) -> None:
        job = a_job()
        left = claimed(store.claim(a_claim(job, model)))
        newer = model_facts(version="2", sha256="b" * 64)
        moved = claimed(store.claim(a_claim(job, newer)))

        assert not store.complete(left, a_result())
        assert store.complete(moved, a_result())
        assert outcomes(store, left.analysis_id) == [AttemptOutcome.SUPERSEDED]

    def test_another_job_with_those_very_bytes_takes_it_up(self, store: Store, model: ModelFacts) -> None:
        mover, pinned = a_job(), a_job(etag="e1")
        left = claimed(store.claim(a_claim(mover, model, etag="e1")))
        shared = claimed(store.claim(a_claim(pinned, model, etag="e1")))
        assert shared.analysis_id == left.analysis_id
        store.claim(a_claim(mover, model, etag="e2"))

        redelivered = claimed(store.claim(a_claim(pinned, model, etag="e1")))

        assert redelivered.analysis_id == left.analysis_id
        assert store.complete(redelivered, a_result())

    def test_a_redelivery_after_the_answer_is_a_no_op_whatever_the_object_is_now(
        self, store: Store, store_url: str, model: ModelFacts
    ) -> None:
        job = a_job()
        done = claimed(store.claim(a_claim(job, model, etag="e1")))
        store.complete(done, a_result())

        answer = store.claim(a_claim(job, model, etag="e2"))

        assert answer == Settled(done.analysis_id, AnalysisState.SUCCEEDED)
        assert store.refuse(a_refusal(job)) == done.analysis_id
        assert rows(store_url, "SELECT etag FROM recordings") == [("e1",)]

    def test_the_error_class_reopens(self) -> None:
        assert JobMoved.reopens


class TestTheRecording:
    def test_metadata_is_that_of_the_latest_message_that_had_any(self, store: Store, model: ModelFacts) -> None:
        for metadata in ({"a": 1, "b": 2}, {"a": 3}, {}):
            job = a_job(metadata=metadata)
            store.claim(a_claim(job, model))
        answer = store.job(job.job_id)
        assert answer is not None
        assert answer.analysis.metadata == {"a": 3}

    def test_a_claim_that_knows_less_forgets_nothing(self, store: Store, model: ModelFacts) -> None:
        job = a_job()
        store.claim(a_claim(job, model, version_id="v1", size_bytes=5))
        store.claim(a_claim(job, model, version_id=None, size_bytes=None))
        answer = store.job(job.job_id)
        assert answer is not None
        assert (answer.analysis.version_id, answer.analysis.size_bytes) == ("v1", 5)


def test_an_unknown_job_has_no_answer(store: Store) -> None:
    assert store.job(str(uuid.uuid4())) is None
    assert store.job("no uuid") is None


def test_a_first_claim_writes_what_an_ordinary_one_does(store: Store, store_url: str, model: ModelFacts) -> None:
    """The single statement of a first claim and the transaction of all others write the same, except unique values."""
    job = a_job(metadata={"patient": 7})
    fields = {"etag": "e9", "version_id": "v1", "size_bytes": 12, "profile": "legacy", "profile_overridden": True}
    written = []
    for key in ("one.wav", "other.wav"):
        request = a_claim(replace(job, job_id=str(uuid.uuid4()), key=key), model, **fields)
        if key == "one.wav":
            claim = claimed(store.claim(request))
        else:
            engine = connect_engine(store_url)
            with engine.begin() as connection:
                claim = claimed(claims.claim(connection, request))
            engine.dispose()
        assert (claim.number, claim.vanished, claim.token) == (1, 0, request.token)
        analysis = claim.analysis_id
        written.append(
            [
                rows(
                    store_url,
                    f"SELECT to_jsonb(t) - ARRAY[{UNIQUE}] FROM {table} AS t WHERE {column} = %s",
                    analysis,
                )
                for table, column in (("analyses", "id"), ("attempts", "analysis_id"), ("jobs", "analysis_id"))
            ]
            + [rows(store_url, f"SELECT to_jsonb(t) - ARRAY[{UNIQUE}] FROM recordings AS t WHERE key = %s", key)]
        )
    assert written[0] == written[1]
    assert all(len(found) == 1 for found in written[0])


@pytest.mark.parametrize(
    ("fields", "metadata"),
    [
        ({"version_id": None, "size_bytes": None}, {}),
        ({"version_id": "v2", "size_bytes": 13}, {"patient": 8}),
    ],
)
def test_a_first_claim_updates_a_known_recording_as_an_ordinary_one_does(
    store: Store, store_url: str, model: ModelFacts, fields: dict[str, Any], metadata: dict[str, Any]
) -> None:
    written = []
    engine = connect_engine(store_url)
    for key in ("one.wav", "other.wav"):
        known = a_job(key=key, metadata={"patient": 7})
        claimed(store.claim(a_claim(known, model, version_id="v1", size_bytes=12)))
        request = a_claim(a_job(key=key, metadata=metadata, again=True), model, **fields)
        if key == "one.wav":
            assert claims.claim_first(engine, request) is not None
        else:
            with engine.begin() as connection:
                claimed(claims.claim(connection, request))
        written.append(
            rows(
                store_url,
                "SELECT version_id, size_bytes, metadata, updated_at > created_at FROM recordings WHERE key = %s",
                key,
            )
        )
    engine.dispose()
    assert written[0] == written[1]
    expected = (fields["version_id"] or "v1", fields["size_bytes"] or 12, metadata or {"patient": 7}, True)
    assert written[0] == [expected]


UNIQUE = (
    "'id', 'key', 'recording_id', 'analysis_id', 'job_id', 'token', 'attempt_token', 'created_at', 'updated_at', "
    "'started_at', 'received_at', 'lease_expires_at'"
)
