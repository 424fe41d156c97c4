"""Failures: listed, discarded, retried."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.store import a_claim, a_job, a_refusal, a_result, claimed, execute, rows
from tussis.shared.states import AnalysisState, AttemptOutcome
from tussis.shared.store.records import FailureFilter, ModelFacts
from tussis.shared.store.repository import Store

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def filled(store: Store, store_url: str, model: ModelFacts) -> Store:
    """Failures 1 to 3, finished one a minute from T0; 4 discarded; 5 succeeded; 6 running."""
    for key, error_class in (("a/1", "not_audio"), ("a/2", "corrupt"), ("b/3", "not_audio"), ("b/4", "empty")):
        store.fail(claimed(store.claim(a_claim(a_job(key=key), model))), error_class, "why")
    store.discard([4])
    store.complete(claimed(store.claim(a_claim(a_job(key="c/5"), model))), a_result())
    store.claim(a_claim(a_job(key="c/6"), model))
    execute(store_url, "UPDATE analyses SET finished_at = %s + (id - 1) * interval '1 min' WHERE id <= 4", T0)
    return store


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, [3, 2, 1]),
        ({"include_discarded": True}, [4, 3, 2, 1]),
        ({"error_class": "not_audio"}, [3, 1]),
        ({"prefix": "s3://recordings/a/"}, [2, 1]),
        ({"since": T0 + timedelta(minutes=1), "until": T0 + timedelta(minutes=2)}, [2]),
        ({"ids": [1, 2, 5, 6]}, [2, 1]),
        ({"limit": 1}, [3]),
    ],
    ids=str,
)
def test_filters(filled: Store, wanted: dict[str, Any], expected: list[int]) -> None:
    found = list(filled.failures(FailureFilter(**wanted)))
    assert [failure.id for failure in found] == expected


def test_discarding_touches_failures_only(filled: Store, store_url: str) -> None:
    assert filled.discard([1, 4, 5, 6, 999]) == 1
    assert rows(store_url, "SELECT state FROM analyses ORDER BY id") == [
        ("discarded",),
        ("failed",),
        ("failed",),
        ("discarded",),
        ("succeeded",),
        ("running",),
    ]
    assert filled.discard([]) == 0
    # The failure's time and reason stay.
    assert rows(store_url, "SELECT finished_at, error_class FROM analyses WHERE id = 1") == [(T0, "not_audio")]


def test_a_retry_takes_the_failure_up_again(store: Store, store_url: str, model: ModelFacts) -> None:
    # The producer's clock is an hour ahead of the database's.
    ahead = datetime.now(UTC).timestamp() + 3600
    job = a_job(enqueued_at=ahead, metadata={"a": 1}, profile="documented", etag="e1", version_id="v1")
    claim = claimed(store.claim(a_claim(job, model, version_id="v1")))
    store.fail(claim, "not_audio", "why")

    (failure,) = store.failures(FailureFilter())
    message = store.retry_job(failure)

    assert (message.job_id, message.reopen, message.again) == (job.job_id, True, False)
    assert (message.etag, message.version_id) == ("e1", "v1")
    # The job asked for neither beyond the manifest of the model.
    assert (message.model, message.profile) == (None, None)
    assert message.enqueued_at > ahead
    again = claimed(store.claim(a_claim(message, model)))
    assert (again.analysis_id, again.number) == (claim.analysis_id, 2)
    assert store.complete(again, a_result())
    answer = store.job(job.job_id)
    assert answer is not None
    assert answer.analysis.state is AnalysisState.SUCCEEDED
    assert answer.analysis.metadata == {"a": 1}
    assert [attempt.outcome for attempt in store.attempts_of(claim.analysis_id)] == [
        AttemptOutcome.FAILED,
        AttemptOutcome.SUCCEEDED,
    ]


def test_a_retry_keeps_what_the_job_asked_for(store: Store, model: ModelFacts) -> None:
    job = a_job(profile="legacy", again=True)
    claim = claimed(store.claim(a_claim(job, model, profile="legacy", profile_overridden=True)))
    store.fail(claim, "not_audio", "why")

    (failure,) = store.failures(FailureFilter())
    message = store.retry_job(failure)

    assert (message.job_id, message.again, message.profile) == (job.job_id, True, "legacy")
    assert claimed(store.claim(a_claim(message, model, profile="legacy"))).analysis_id == claim.analysis_id


def test_a_retry_of_a_refusal_asks_for_its_model_and_pins_no_bytes(store: Store) -> None:
    job = a_job(model="other@7")
    store.refuse(a_refusal(job, error_class="model_not_served", model_requested="other@7"))
    (failure,) = store.failures(FailureFilter())
    message = store.retry_job(failure)
    assert (message.model, message.etag, message.version_id) == ("other@7", None, None)


def test_a_discarded_failure_can_be_retried(store: Store, model: ModelFacts) -> None:
    claim = claimed(store.claim(a_claim(a_job(), model)))
    store.fail(claim, "not_audio", "why")
    store.discard([claim.analysis_id])
    (failure,) = store.failures(FailureFilter(include_discarded=True))
    assert claimed(store.claim(a_claim(store.retry_job(failure), model))).analysis_id == claim.analysis_id
