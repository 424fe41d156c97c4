"""Concurrent calls on real PostgreSQL: there is always one answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import psycopg
import pytest

from tests.support.store import a_claim, a_job, a_refusal, a_result, claimed, model_facts, rows
from tests.support.waiting import wait_until
from tussis.shared.states import AnalysisState, AttemptOutcome
from tussis.shared.store.records import Claimed, ModelFacts, Settled
from tussis.shared.store.repository import Store

T = TypeVar("T")
THREADS = 8


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Return the answers of ``calls``. Each runs in its own thread; all start together."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], T]) -> T:
        barrier.wait(60)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(60) for future in [pool.submit(run, call) for call in calls]]


@pytest.mark.parametrize("same_job", [True, False])
def test_claims_of_one_question_leave_one_analysis(
    store: Store, store_url: str, model: ModelFacts, same_job: bool
) -> None:
    one = a_job()
    requests = [a_claim(one if same_job else a_job(), model, worker=f"w{n}", max_attempts=100) for n in range(THREADS)]

    answers = at_once([partial(store.claim, request) for request in requests])

    claims = [claimed(answer) for answer in answers]
    assert len({claim.analysis_id for claim in claims}) == 1
    assert sorted(claim.number for claim in claims) == list(range(1, THREADS + 1))
    assert rows(store_url, "SELECT count(*) FROM analyses") == [(1,)]
    assert rows(store_url, "SELECT count(*) FROM attempts WHERE outcome IS NULL") == [(1,)]
    newest = max(claims, key=lambda claim: claim.number)

    # All of them finish at once; one commits.
    done = at_once([partial(store.complete, claim, a_result(n + 1)) for n, claim in enumerate(claims)])

    assert done == [claim is newest for claim in claims]
    assert len(store.segments_of(newest.analysis_id)) == claims.index(newest) + 1
    outcomes = [attempt.outcome for attempt in store.attempts_of(newest.analysis_id)]
    assert outcomes == [AttemptOutcome.SUPERSEDED] * (THREADS - 1) + [AttemptOutcome.SUCCEEDED]


def test_a_takeover_against_a_completion(store: Store, model: ModelFacts) -> None:
    for number in range(12):
        job = a_job(key=f"{number}.wav")
        old = claimed(store.claim(a_claim(job, model)))

        calls: list[Callable[[], object]] = [
            partial(store.complete, old, a_result(5)),
            partial(store.claim, a_claim(job, model)),
        ]
        committed, answer = at_once(calls)

        if committed:
            assert answer == Settled(old.analysis_id, AnalysisState.SUCCEEDED)
        else:
            assert store.complete(claimed(answer), a_result(5))
        assert len(store.segments_of(old.analysis_id)) == 5


def test_two_completions_of_one_attempt(store: Store, model: ModelFacts) -> None:
    for number in range(6):
        claim = claimed(store.claim(a_claim(a_job(key=f"{number}.wav"), model)))
        assert at_once([partial(store.complete, claim, a_result(5))] * 2) == [True, True]
        assert len(store.segments_of(claim.analysis_id)) == 5


def test_a_refusal_against_a_claim_of_the_same_job_leaves_one_analysis(
    store: Store, store_url: str, model: ModelFacts
) -> None:
    for number in range(6):
        job = a_job(key=f"{number}.wav")
        refusal = a_refusal(job, etag="e1", model=model)
        calls: list[Callable[[], object]] = [
            partial(store.refuse, refusal),
            partial(store.claim, a_claim(job, model)),
        ]
        at_once(calls)
    assert rows(store_url, "SELECT count(*) FROM analyses") == [(6,)]


TAKEN_OVER = "UPDATE analyses SET attempt_token = gen_random_uuid()"


@pytest.mark.parametrize(
    "takeover", [f"UPDATE recordings SET updated_at = now(); {TAKEN_OVER}", TAKEN_OVER], ids=["in order", "analysis"]
)
def test_a_completion_that_waits_for_a_takeover_writes_no_answer(
    store: Store, store_url: str, model: ModelFacts, takeover: str
) -> None:
    """Its single statement began while the claim was valid. The token is checked again when the row is free."""
    claim = claimed(store.claim(a_claim(a_job(), model)))
    with ThreadPoolExecutor(1) as pool, psycopg.connect(store_url) as other:
        other.execute(takeover.encode())
        late = pool.submit(store.complete, claim, a_result(4))
        wait_until(lambda: waits_for_a_lock(store_url), 30, "the completion to wait")
        other.commit()
        assert late.result(60) is False
    assert rows(store_url, "SELECT state, decision, bag_probability FROM analyses") == [("running", None, None)]
    assert rows(store_url, "SELECT * FROM bags") == rows(store_url, "SELECT * FROM segments") == []
    assert rows(store_url, "SELECT outcome FROM attempts") == [("superseded",)]


@pytest.mark.parametrize("committed", [True, False])
def test_a_first_claim_that_waits_for_another_one(
    store: Store, store_url: str, model: ModelFacts, committed: bool
) -> None:
    """The second claim on a new recording uses the row of the first one, or inserts it when the first rolled back."""
    with ThreadPoolExecutor(1) as pool, psycopg.connect(store_url) as other:
        other.execute("INSERT INTO recordings (bucket, key, etag) VALUES ('recordings', 'a.wav', 'e1')")
        second = pool.submit(store.claim, a_claim(a_job(), model))
        wait_until(lambda: waits_for_a_lock(store_url), 30, "the claim to wait")
        (other.commit if committed else other.rollback)()
        assert claimed(second.result(60)).number == 1
    for table in ("recordings", "analyses", "attempts", "jobs"):
        assert rows(store_url, f"SELECT count(*) FROM {table}") == [(1,)], table


def waits_for_a_lock(url: str) -> bool:
    (count,) = rows(
        url, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    return bool(count[0])


def test_refusals_of_one_job_leave_one_row_and_one_attempt(store: Store, store_url: str) -> None:
    refusal = a_refusal(a_job())
    assert len(set(at_once([partial(store.refuse, refusal)] * THREADS))) == 1
    assert rows(store_url, "SELECT count(*) FROM analyses") == [(1,)]
    assert rows(store_url, "SELECT count(*) FROM attempts") == [(1,)]


def test_all_children_of_a_worker_register_one_model(store: Store, store_url: str) -> None:
    ids = at_once([partial(store.register_model, model_facts())] * THREADS)
    assert len(set(ids)) == 1
    assert rows(store_url, "SELECT count(*) FROM models") == [(1,)]


def test_jobs_that_move_across_each_other_do_not_hang(store: Store, store_url: str, model: ModelFacts) -> None:
    one, two = a_job(), a_job()
    for _ in range(6):
        store.claim(a_claim(one, model, etag="e1", max_attempts=100))
        store.claim(a_claim(two, model, etag="e2", max_attempts=100))
        answers = at_once(
            [
                partial(store.claim, a_claim(one, model, etag="e2", max_attempts=100)),
                partial(store.claim, a_claim(two, model, etag="e1", max_attempts=100)),
            ]
        )
        assert all(isinstance(answer, Claimed) for answer in answers)
    open_rows = rows(
        store_url,
        "SELECT count(*) FROM analyses WHERE state = 'running' AND id NOT IN (SELECT analysis_id FROM jobs)",
    )
    assert open_rows == [(0,)]
