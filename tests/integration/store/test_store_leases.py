"""Who holds an analysis, for how long, and under which model."""

from __future__ import annotations

import pytest

from tests.support.store import a_claim, a_job, a_refusal, a_result, claimed, execute, model_facts, rows
from tussis.shared.errors import ModelConflict
from tussis.shared.states import AnalysisState, AttemptOutcome
from tussis.shared.store.records import Held, ModelFacts, Settled
from tussis.shared.store.repository import Store


def outcomes(store: Store, analysis_id: int) -> list[AttemptOutcome | None]:
    return [attempt.outcome for attempt in store.attempts_of(analysis_id)]


class TestLease:
    """An attempt holds its analysis until its lease ends, whichever job claims it."""

    @pytest.mark.parametrize("same_job", [True, False], ids=["the same job", "another job"])
    def test_another_delivery_waits_and_counts_nowhere(self, store: Store, model: ModelFacts, same_job: bool) -> None:
        """Given a running attempt, when more messages for its analysis come, then none of them ends or counts it."""
        job = a_job()
        holder = claimed(store.claim(a_claim(job, model, lease_s=60.0, max_attempts=1)))
        for _ in range(5):
            other = job if same_job else a_job()
            answer = store.claim(a_claim(other, model, lease_s=60.0, max_attempts=1))
            assert isinstance(answer, Held)
            assert answer.analysis_id == holder.analysis_id
            assert 30.0 < answer.remaining_s <= 60.0

        assert outcomes(store, holder.analysis_id) == [None]
        assert store.complete(holder, a_result())
        assert store.claim(a_claim(other, model)) == Settled(holder.analysis_id, AnalysisState.SUCCEEDED)
        assert outcomes(store, holder.analysis_id) == [AttemptOutcome.SUCCEEDED]
        answer_of_other = store.job(other.job_id)
        assert answer_of_other is not None
        assert answer_of_other.analysis.id == holder.analysis_id

    def test_a_renewed_lease_is_held_and_one_of_an_ended_attempt_is_not_renewed(
        self, store: Store, model: ModelFacts
    ) -> None:
        first, second = a_job(key="1.wav"), a_job(key="2.wav")
        holders = [claimed(store.claim(a_claim(job, model))) for job in (first, second)]
        assert store.complete(holders[1], a_result())

        assert store.renew_leases([holder.token for holder in holders], 60.0) == 1

        assert isinstance(store.claim(a_claim(first, model)), Held)

    def test_an_expired_lease_is_taken_over_and_counts_as_a_crash(self, store: Store, model: ModelFacts) -> None:
        job = a_job()
        holder = claimed(store.claim(a_claim(job, model, lease_s=0.0)))
        taken = claimed(store.claim(a_claim(job, model, lease_s=60.0)))
        assert (taken.analysis_id, taken.number, taken.vanished) == (holder.analysis_id, 2, 1)
        assert outcomes(store, holder.analysis_id) == [AttemptOutcome.VANISHED, None]

    def test_a_holder_whose_lease_is_over_may_finish_while_nobody_took_over(
        self, store: Store, model: ModelFacts
    ) -> None:
        holder = claimed(store.claim(a_claim(a_job(), model, lease_s=0.0)))
        assert store.complete(holder, a_result())

    def test_a_dead_process_holds_nothing(self, store: Store, model: ModelFacts) -> None:
        """The proof that the process died ends the attempt at once, and only once."""
        job = a_job()
        holder = claimed(store.claim(a_claim(job, model, lease_s=60.0)))
        assert store.attempts_vanished([holder.token]) == 1
        assert store.attempts_vanished([holder.token]) == 0
        assert claimed(store.claim(a_claim(job, model, lease_s=60.0))).vanished == 1
        assert outcomes(store, holder.analysis_id) == [AttemptOutcome.VANISHED, None]

    def test_what_the_worker_hands_back_is_no_crash(self, store: Store, store_url: str, model: ModelFacts) -> None:
        """Given two attempts of a worker, one of them ended, when the worker hands both back, then one waits."""
        running, done = a_job(key="1.wav"), a_job(key="2.wav")
        holders = [claimed(store.claim(a_claim(job, model, lease_s=60.0))) for job in (running, done)]
        assert store.complete(holders[1], a_result())

        assert store.hand_back([holder.token for holder in holders], "stopping", "the worker stopped") == 1

        assert rows(store_url, "SELECT state, error_class FROM analyses ORDER BY id") == [
            ("waiting", "stopping"),
            ("succeeded", None),
        ]
        assert not store.complete(holders[0], a_result())
        assert claimed(store.claim(a_claim(running, model, max_attempts=1))).vanished == 0
        assert outcomes(store, holders[0].analysis_id) == [AttemptOutcome.HANDED_BACK, None]

    def test_a_handed_back_token_frees_a_claim_that_the_store_takes_for_running(
        self, store: Store, model: ModelFacts
    ) -> None:
        """Given an attempt handed back while the store was down, then the message with its token claims at once.

        This holds also when another delivery recorded the attempt as a crash in the meantime.
        """
        job = a_job()
        first = claimed(store.claim(a_claim(job, model, lease_s=60.0)))
        second = claimed(store.claim(a_claim(job, model, lease_s=0.0, handed_back=first.token)))
        third = claimed(store.claim(a_claim(job, model, lease_s=0.0)))
        assert (second.vanished, third.vanished) == (0, 1)
        fourth = claimed(store.claim(a_claim(job, model, handed_back=second.token)))
        assert fourth.vanished == 1
        assert outcomes(store, first.analysis_id) == [
            AttemptOutcome.HANDED_BACK,
            AttemptOutcome.HANDED_BACK,
            AttemptOutcome.VANISHED,
            None,
        ]

    def test_a_refusal_waits_for_the_holder_as_well(self, store: Store, model: ModelFacts) -> None:
        """The object was deleted before the job's second delivery. The first delivery already has its bytes."""
        job = a_job()
        holder = claimed(store.claim(a_claim(job, model, lease_s=60.0)))
        answer = store.refuse(a_refusal(job))
        assert isinstance(answer, Held)
        assert answer.analysis_id == holder.analysis_id
        assert store.complete(holder, a_result())
        assert store.refuse(a_refusal(job)) == holder.analysis_id


class TestTheModelOfAClaim:
    """The statement of the claim looks up the number of the model in the database."""

    def test_a_database_that_was_restored_under_the_worker(
        self, store: Store, store_url: str, model: ModelFacts
    ) -> None:
        """Given a model number that now belongs to another model, then a claim finds the right one."""
        execute(
            store_url,
            "TRUNCATE models, recordings, analyses, attempts, jobs, bags, segments, events, bag_progress, tombstones "
            "RESTART IDENTITY CASCADE",
        )
        for number in range(3):
            store.register_model(model_facts(version=f"other-{number}", sha256=f"{number}" * 64))

        for key in ("1.wav", "2.wav"):
            job = a_job(key=key)
            assert store.complete(claimed(store.claim(a_claim(job, model))), a_result())
            answer = store.job(job.job_id)
            assert answer is not None
            assert answer.analysis.model == "cough@1"

    def test_a_conflict_is_told(self, store: Store, store_url: str) -> None:
        store.register_model(model_facts(sha256="c" * 64))
        with pytest.raises(ModelConflict):
            store.claim(a_claim(a_job(), model_facts()))
