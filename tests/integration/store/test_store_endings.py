"""How attempts end. The answer is written once and completely."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.store import a_claim, a_job, a_result, claimed, execute, rows
from tussis.shared.states import AnalysisState, AttemptOutcome
from tussis.shared.store.records import Claimed, JobAnswer, ModelFacts, SegmentScores
from tussis.shared.store.repository import Store


@pytest.fixture
def claim(store: Store, model: ModelFacts) -> Claimed:
    return claimed(store.claim(a_claim(a_job(key="b.wav"), model)))


def answer_of(store: Store, store_url: str, claim: Claimed) -> JobAnswer:
    ((job_id,),) = rows(store_url, "SELECT job_id::text FROM jobs WHERE analysis_id = %s", claim.analysis_id)
    answer = store.job(job_id)
    assert answer is not None
    return answer


def test_complete_writes_everything(store: Store, store_url: str, claim: Claimed) -> None:
    result = a_result(
        32,
        duration_s=61.5,
        segments_total=123,
        analyzed_s=17.5,
        truncated=True,
        codec="opus",
        rate_hz=48_000,
        channels=2,
    )

    assert store.complete(claim, result)

    answer = answer_of(store, store_url, claim)
    analysis = answer.analysis
    assert analysis.state is AnalysisState.SUCCEEDED
    assert analysis.decision is True
    assert (analysis.bag_probability, analysis.bag_logit, analysis.threshold) == (0.8, 1.386, 0.61)
    assert (analysis.segments, analysis.segments_total, analysis.truncated) == (32, 123, True)
    assert (analysis.duration_s, analysis.analyzed_s) == (61.5, 17.5)
    assert (analysis.codec, analysis.container, analysis.decoder) == ("opus", "wav", "soundfile")
    assert (analysis.rate_hz, analysis.channels, analysis.size_bytes) == (48_000, 2, 64_044)
    assert analysis.timings_ms == {"fetch": 12.5, "inference": 48.0}
    assert analysis.finished_at is not None
    assert [segment.index for segment in answer.segments] == list(range(32))
    for name in ("start_s", "end_s", "probability", "logit"):
        assert [getattr(segment, name) for segment in answer.segments] == list(getattr(result.segments, name)), name
    assert rows(store_url, "SELECT bag_index, start_s, end_s, probability, logit, segments FROM bags") == [
        (0, 0.0, 17.5, 0.8, 1.386, 32)
    ]
    assert rows(
        store_url,
        "SELECT count(*) FROM segments JOIN analyses ON analyses.id = segments.analysis_id "
        "AND analyses.created_at = segments.analysis_created_at",
    ) == [(32,)]
    assert [attempt.outcome for attempt in store.attempts_of(claim.analysis_id)] == [AttemptOutcome.SUCCEEDED]


def test_numbers_of_numpy_are_kept_to_the_last_bit(store: Store, store_url: str, claim: Claimed) -> None:
    probability = np.float32(0.1) + np.arange(4, dtype=np.float32) / 7
    scores = SegmentScores(np.arange(4) * 0.5, np.arange(4) * 0.5 + 2, probability, np.log(probability))  # type: ignore[arg-type]

    assert store.complete(claim, a_result(4, segments=scores, bag_probability=np.float32(0.8), decision=np.True_))

    answer = answer_of(store, store_url, claim)
    assert answer.analysis.bag_probability == float(np.float32(0.8))
    assert [segment.probability for segment in answer.segments] == probability.astype(float).tolist()


def test_a_logit_may_be_infinite(store: Store, store_url: str, claim: Claimed) -> None:
    scores = SegmentScores([0.0], [2.0], [1.0], [math.inf])
    assert store.complete(claim, a_result(1, probability=1.0, bag_logit=math.inf, segments=scores))
    assert answer_of(store, store_url, claim).segments[0].logit == math.inf


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    first=st.integers(1, 32),
    second=st.integers(1, 32),
    ends=st.lists(st.sampled_from(["complete", "fail", "release"]), min_size=1, max_size=4),
)
def test_whatever_follows_a_completion_there_is_one_set_of_rows(
    store: Store, store_url: str, model: ModelFacts, first: int, second: int, ends: list[str]
) -> None:
    claim = claimed(store.claim(a_claim(a_job(again=True), model)))
    assert store.complete(claim, a_result(first))

    endings: dict[str, Callable[[], bool]] = {
        "complete": lambda: store.complete(claim, a_result(second)),
        "fail": lambda: store.fail(claim, "internal", "late"),
        "release": lambda: store.release(claim, AttemptOutcome.HANDED_BACK),
    }
    for end in ends:
        # A repeated completion returns true; any other ending is too late.
        assert endings[end]() is (end == "complete")

    assert len(store.segments_of(claim.analysis_id)) == first
    assert rows(store_url, "SELECT segments FROM bags WHERE analysis_id = %s", claim.analysis_id) == [(first,)]
    assert [attempt.outcome for attempt in store.attempts_of(claim.analysis_id)] == [AttemptOutcome.SUCCEEDED]


@pytest.mark.parametrize("end", ["complete", "fail", "release"])
def test_an_attempt_that_was_taken_over_changes_nothing(store: Store, model: ModelFacts, end: str) -> None:
    job = a_job()
    old = claimed(store.claim(a_claim(job, model)))
    new = claimed(store.claim(a_claim(job, model)))

    if end == "complete":
        assert not store.complete(old, a_result(2))
    elif end == "fail":
        assert not store.fail(old, "internal", "late")
    else:
        assert not store.release(old, AttemptOutcome.TRANSIENT, "storage_unavailable", "late")

    assert [attempt.outcome for attempt in store.attempts_of(new.analysis_id)] == [AttemptOutcome.SUPERSEDED, None]
    assert store.segments_of(new.analysis_id) == ()
    assert store.complete(new, a_result(3))
    assert len(store.segments_of(new.analysis_id)) == 3
    # Again, after the other attempt has finished.
    assert not store.complete(old, a_result(2))
    assert len(store.segments_of(new.analysis_id)) == 3


def test_a_completion_that_fails_half_way_leaves_nothing(store: Store, store_url: str, claim: Claimed) -> None:
    # The CHECK refuses a segment, after the state's update and the bag's insert.
    broken = SegmentScores([0.0, 0.5], [2.0, 2.5], [0.5, 7.0], [0.0, 0.0])
    with pytest.raises(Exception, match="segments_probability_check"):
        store.complete(claim, a_result(2, segments=broken))

    answer = answer_of(store, store_url, claim)
    assert answer.analysis.state is AnalysisState.RUNNING
    assert answer.analysis.codec is None
    assert rows(store_url, "SELECT * FROM bags") == []
    assert store.complete(claim, a_result(2))


def test_fail_keeps_the_reason_in_the_row_and_in_the_attempt(store: Store, store_url: str, claim: Claimed) -> None:
    assert store.fail(claim, "not_audio", "it is a\x00 picture \ud800" + "x" * 5000, {"fetch": 3.0})
    assert store.fail(claim, "not_audio", "the answer to the first was lost")

    analysis = answer_of(store, store_url, claim).analysis
    assert analysis.state is AnalysisState.FAILED
    assert analysis.error_class == "not_audio"
    assert (analysis.error_message or "").startswith("it is a\ufffd picture \\ud800xxx")
    assert len(analysis.error_message or "") == 2000
    assert analysis.timings_ms == {"fetch": 3.0}
    assert analysis.finished_at is not None
    (attempt,) = store.attempts_of(claim.analysis_id)
    assert (attempt.outcome, attempt.error_class) == (AttemptOutcome.FAILED, "not_audio")
    assert attempt.error_message == analysis.error_message


def test_release_waits_with_the_reason(store: Store, store_url: str, claim: Claimed) -> None:
    assert store.release(claim, AttemptOutcome.TRANSIENT, "storage_unavailable", "503")
    assert store.release(claim, AttemptOutcome.TRANSIENT, "storage_unavailable", "the answer was lost")

    analysis = answer_of(store, store_url, claim).analysis
    assert analysis.state is AnalysisState.WAITING
    assert (analysis.error_class, analysis.error_message) == ("storage_unavailable", "503")
    assert analysis.finished_at is None
    (attempt,) = store.attempts_of(claim.analysis_id)
    assert (attempt.outcome, attempt.error_class) == (AttemptOutcome.TRANSIENT, "storage_unavailable")


def test_a_job_given_up_while_it_waits_fails(store: Store, store_url: str, claim: Claimed) -> None:
    store.release(claim, AttemptOutcome.TRANSIENT, "storage_unavailable", "503")
    assert store.fail(claim, "expired", "too old")
    assert answer_of(store, store_url, claim).analysis.state is AnalysisState.FAILED
    assert [attempt.outcome for attempt in store.attempts_of(claim.analysis_id)] == [AttemptOutcome.TRANSIENT]


def test_a_claim_is_not_released_as_anything_else(store: Store, claim: Claimed) -> None:
    with pytest.raises(ValueError, match="not succeeded"):
        store.release(claim, AttemptOutcome.SUCCEEDED)


def test_an_analysis_that_was_deleted_meanwhile_takes_no_answer(store: Store, store_url: str, claim: Claimed) -> None:
    execute(store_url, "DELETE FROM analyses")
    assert not store.complete(claim, a_result())
    assert rows(store_url, "SELECT * FROM segments") == []


class TestAResultThatCannotBe:
    def test_decision_against_its_own_probability(self) -> None:
        with pytest.raises(ValueError, match="decision False"):
            a_result(probability=0.8, decision=False)

    def test_ragged_segments(self) -> None:
        with pytest.raises(ValueError, match="equal length"):
            SegmentScores([0.0], [2.0, 2.5], [0.5], [0.0])

    def test_no_segments(self) -> None:
        with pytest.raises(ValueError, match="above 0"):
            SegmentScores([], [], [], [])


NO_SCORES = (
    "bag_probability = NULL, bag_logit = NULL, decision = NULL, segments = NULL, segments_total = NULL, "
    "analyzed_s = NULL, truncated = NULL"
)


#: Table, the constraint that refuses, and what it refuses.
IMPOSSIBLE = [
    ("analyses", "analyses_state_check", f"state = 'done', {NO_SCORES}"),
    ("analyses", "analyses_succeeded_check", "bag_probability = NULL"),
    ("analyses", "analyses_succeeded_check", "finished_at = NULL"),
    ("analyses", "analyses_succeeded_check", "error_class = 'x', error_message = 'y'"),
    ("analyses", "analyses_succeeded_check", "model_requested = 'other'"),
    ("analyses", "analyses_scores_only_of_success_check", "state = 'failed', error_class = 'x', error_message = 'y'"),
    ("analyses", "analyses_open_check", f"state = 'waiting', {NO_SCORES}"),
    ("analyses", "analyses_failed_check", f"state = 'failed', {NO_SCORES}"),
    ("analyses", "analyses_running_check", f"state = 'running', {NO_SCORES}, finished_at = NULL, error_class = 'x'"),
    ("analyses", "analyses_bag_probability_check", "bag_probability = 1.01"),
    ("analyses", "analyses_bag_probability_check", "bag_probability = 'NaN'"),
    ("analyses", "analyses_bag_logit_check", "bag_logit = 'NaN'"),
    ("analyses", "analyses_decision_check", "decision = false"),
    ("analyses", "analyses_threshold_check", "threshold = 1.5, decision = false"),
    ("analyses", "analyses_segments_check", "segments = 0"),
    ("analyses", "analyses_segments_check", "segments_total = 1"),
    ("analyses", "analyses_attempts_check", "first_attempt = 2"),
    ("analyses", "analyses_coverage_check", "coverage = ''"),
    ("analyses", "analyses_analyzed_s_check", "analyzed_s = 'Infinity'"),
    ("analyses", "analyses_timings_ms_check", "timings_ms = '[]'"),
    ("segments", "segments_probability_check", "probability = 'NaN'"),
    ("segments", "segments_span_check", "end_s = start_s"),
    ("segments", "segments_logit_check", "logit = 'NaN'"),
    ("segments", "segments_segment_index_check", "segment_index = -1"),
    ("bags", "bags_probability_check", "probability = -0.1"),
    ("bags", "bags_segments_check", "segments = 0"),
    ("bags", "bags_span_check", "start_s = -1"),
    ("attempts", "attempts_outcome_check", "outcome = 'lost'"),
    ("attempts", "attempts_ended_check", "outcome = NULL"),
    ("attempts", "attempts_failed_check", "outcome = 'failed'"),
    ("recordings", "recordings_duration_s_check", "duration_s = 'Infinity'"),
    ("recordings", "recordings_rate_hz_check", "rate_hz = 0"),
    ("recordings", "recordings_channels_check", "channels = 0"),
    ("recordings", "recordings_metadata_check", "metadata = '[]'"),
    ("recordings", "recordings_address_check", "key = ''"),
    ("models", "models_sha256_check", "sha256 = 'AB'"),
    ("models", "models_threshold_check", "threshold = 61"),
]


def test_the_database_refuses_what_cannot_be(store: Store, store_url: str, claim: Claimed) -> None:
    store.complete(claim, a_result())
    refused_by = {}
    with psycopg.connect(store_url) as connection:
        for table, _, change in IMPOSSIBLE:
            with pytest.raises(psycopg.errors.CheckViolation) as caught:
                connection.execute(f"UPDATE {table} SET {change}".encode())
            connection.rollback()
            refused_by[table, change] = caught.value.diag.constraint_name
    assert refused_by == {(table, change): constraint for table, constraint, change in IMPOSSIBLE}
