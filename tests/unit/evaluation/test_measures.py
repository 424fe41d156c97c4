"""Measures against their definitions, written down in another way, and against tables."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tussis.worker.evaluation import measures
from tussis.worker.evaluation.curves import curves

pairs = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]) | st.floats(0, 1), st.booleans()), max_size=40
)


@given(pairs)
def test_areas_are_those_of_the_curves(scored: list[tuple[float, bool]]) -> None:
    """The fast areas of the intervals and the curves of the report are computed in different ways."""
    scores, truth = np.array([one for one, _ in scored], np.float64), np.array([one for _, one in scored], np.bool_)
    both = curves(scored)

    if both is None:
        assert math.isnan(measures.auroc(truth, scores))
        assert math.isnan(measures.auroc_interval(truth, scores, draws=2).value)
        return
    assert measures.auroc(truth, scores) == pytest.approx(both.auroc)
    assert measures.average_precision(truth, scores) == pytest.approx(both.average_precision)


def test_average_precision_of_equal_scores_is_the_share_of_positives() -> None:
    """In any other order of the ties the number would depend on the order of the recordings."""
    truth = np.array([True, False, False, False])

    assert measures.average_precision(truth, np.full(4, 0.5)) == 0.25
    assert measures.average_precision(truth[::-1], np.full(4, 0.5)) == 0.25
    assert math.isnan(measures.average_precision(np.zeros(4, bool), np.full(4, 0.5)))


def test_the_bootstrap_has_the_spread_of_repeated_samples() -> None:
    """The interval of one sample is as wide as the spread of the AUROC over 400 new samples of the same kind."""
    rng = np.random.default_rng(0)
    truth = np.arange(200) < 80

    def sample() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return rng.normal(truth.astype(float), 1.0)

    drawn = [measures.auroc(truth, sample()) for _ in range(400)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    found = measures.auroc_interval(truth, sample(), draws=500)

    assert found.high - found.low == pytest.approx(high - low, rel=0.3)


def test_the_interval_of_the_average_precision_holds_its_value() -> None:
    rng = np.random.default_rng(1)
    truth = np.arange(60) < 20
    found = measures.average_precision_interval(truth, rng.normal(truth.astype(float), 1.0), draws=300)

    assert 0 <= found.low < found.value < found.high <= 1


@pytest.mark.parametrize(
    ("part", "whole", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3 (Wilson's score interval).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_interval_of_published_examples(part: int, whole: int, low: float, high: float) -> None:
    found = measures.proportion(part, whole)

    assert (found.value, found.low, found.high) == pytest.approx((part / whole, low, high), abs=1e-4)


def test_nothing_has_no_interval() -> None:
    for found in (measures.proportion(0, 0), measures.rate(0, 0.0), measures.share(np.array([], bool))):
        assert all(map(math.isnan, (found.value, found.low, found.high)))


@pytest.mark.parametrize("events", [1, 3, 40, 1_000])
def test_the_poisson_interval_has_its_tails(events: int) -> None:
    """At each limit the observed number, or a more extreme one, has the probability 2.5 %: counted term by term."""
    found = measures.rate(events, 1.0)

    def at_most(count: int, mean: float) -> float:
        return math.fsum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(count + 1))

    assert at_most(events, found.high) == pytest.approx(0.025, rel=1e-6)
    assert 1 - at_most(events - 1, found.low) == pytest.approx(0.025, rel=1e-6)


def test_reliability_and_its_error_by_hand() -> None:
    probabilities = np.array([0.05, 0.15, 0.15, 0.95, 1.0])
    truth = np.array([False, False, True, True, True])
    curve = measures.reliability(truth, probabilities)

    assert [(one.recordings, one.coughs) for one in curve] == [(1, 0), (2, 1), *[(0, 0)] * 7, (2, 2)]
    assert (curve[0].low, curve[-1].high) == (0, 1)
    assert curve[1].share.value == 0.5
    assert math.isnan(curve[2].mean_probability)
    # 1/5 * |0.05 - 0| + 2/5 * |0.15 - 0.5| + 2/5 * |0.975 - 1|
    assert measures.calibration_error(truth, probabilities) == pytest.approx(0.01 + 0.14 + 0.01)
    assert math.isnan(measures.calibration_error(truth[:0], probabilities[:0]))


def test_a_temperature_for_each_recording_or_for_each_class() -> None:
    """30 % coughs, all logits equal to the true log odds: for each recording 1, for both classes alike another one."""
    rng = np.random.default_rng(2)
    logits = rng.normal(-1.5, 1.5, 20_000)
    truth = rng.random(20_000) < 1 / (1 + np.exp(-logits))

    assert measures.temperature(truth, 2 * logits, balanced=False) == pytest.approx(2.0, rel=0.05)
    assert measures.temperature(truth, 2 * logits) > 2.2
