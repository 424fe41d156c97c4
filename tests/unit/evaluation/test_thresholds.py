"""Thresholds for a wanted precision or rate, against a search through every decision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tussis.worker.evaluation.thresholds import between, for_false_alarms, for_false_events, for_precision

scored_lists = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]) | st.floats(0, 1), st.booleans()),
    min_size=1,
    max_size=30,
)


def flagged(scored: list[tuple[float, bool]], threshold: float) -> list[bool]:
    """The labels of the recordings with the decision cough."""
    return [is_cough for probability, is_cough in scored if probability > threshold]


def arrays(scored: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([one for _, one in scored], np.bool_), np.array([one for one, _ in scored], np.float64)


@given(scored_lists, st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_no_other_threshold_with_the_precision_finds_more(scored: list[tuple[float, bool]], wanted: float) -> None:
    truth, probabilities = arrays(scored)
    found = for_precision(truth, probabilities, wanted)
    # Each decision that differs has a threshold among these.
    every = [flagged(scored, threshold) for threshold in (0.0, *probabilities)]
    good = [decided for decided in every if decided and sum(decided) / len(decided) >= wanted]

    if found is None:
        # At the threshold 0 all are flagged, which no threshold above 0 does if a probability is nearly 0.
        assert not [decided for decided in good if len(decided) < sum(one > 0 for one in probabilities)]
        return
    assert 0 <= found < 1
    decided = flagged(scored, found)
    assert sum(decided) / len(decided) >= wanted - 1e-9
    assert sum(decided) == max(map(sum, good))


@given(scored_lists, st.sampled_from([0.0, 1.0, 4.0]), st.sampled_from([0.5, 2.0]))
def test_no_other_threshold_with_the_rate_finds_more(
    scored: list[tuple[float, bool]], wanted: float, hours: float
) -> None:
    truth, probabilities = arrays(scored)
    found = for_false_alarms(truth, probabilities, hours, wanted)
    every = [flagged(scored, threshold) for threshold in (0.0, *probabilities[probabilities < 1])]
    good = [decided for decided in every if decided.count(False) <= wanted * hours]

    if found is None:
        assert not good
        return
    assert flagged(scored, found).count(False) <= wanted * hours
    assert sum(flagged(scored, found)) == max(map(sum, good), default=0)


def test_known_thresholds() -> None:
    truth = np.array([True, False, True, True, False])
    probabilities = np.array([0.9, 0.8, 0.7, 0.6, 0.2])

    assert for_precision(truth, probabilities, 0.75) == 0.4  # 3 of 4
    assert for_precision(truth, probabilities, 0.9) == pytest.approx(0.85)  # 1 of 1
    assert for_precision(np.array([False, True]), np.array([0.9, 0.1]), 0.6) is None
    assert for_false_alarms(truth, probabilities, 0.5, 2.0) == 0.4
    assert for_false_alarms(truth, probabilities, 0.5, 1.9) == pytest.approx(0.85)
    assert for_false_alarms(truth, probabilities, 0.0, 1.0) is None
    assert for_false_alarms(np.array([False]), np.array([1.0]), 1.0, 0.5) is None


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_threshold_between_two_probabilities_separates_them(one: float, other: float) -> None:
    low, high = sorted((one, other))
    if low < high:
        assert low <= between(low, high) < high


def test_a_threshold_is_short() -> None:
    assert between(0.61234, 0.7) == 0.66
    assert between(0.25, 0.75) == 0.5


def test_a_low_threshold_with_one_long_event_is_not_chosen() -> None:
    """At 0.2 and below a recording is one long event, and therefore has few events."""

    def false_events(threshold: float) -> int:
        return 1 if threshold <= 0.2 else 9 if threshold < 0.45 else 1 if threshold < 0.8 else 0

    assert for_false_events(false_events, 1.0, 1.0) == 0.45
    assert for_false_events(false_events, 1.0, 0.5) == 0.8
    assert for_false_events(lambda _: 3, 1.0, 1.0) is None
    assert for_false_events(lambda _: 0, 0.0, 1.0) is None
