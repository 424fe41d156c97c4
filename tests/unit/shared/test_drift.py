"""The population stability index and the Kolmogorov-Smirnov distance of binned samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tussis.shared.drift import (
    LEAST_RESULTS,
    Change,
    Counts,
    chance_limit,
    change,
    expected_psi,
    ks_distance,
    most_changed,
    psi,
)

SAMPLES = st.dictionaries(st.integers(0, 12), st.integers(1, 40), min_size=1)


def test_psi_by_hand() -> None:
    # (0.5 - 0.8) ln(0.5 / 0.8) + (0.5 - 0.2) ln(0.5 / 0.2) = 0.3 ln 4
    assert psi({0: 50, 1: 50}, {0: 160, 1: 40}) == pytest.approx(0.3 * math.log(4))
    assert psi({"wav": 7, "ogg": 3}, {"wav": 70, "ogg": 30}) == 0


def test_an_empty_bin_counts_as_half_a_result() -> None:
    # Shares 0.9 and 0.1 against 1 and 0.5 / 200.
    by_hand = (0.9 - 1) * math.log(0.9) + (0.1 - 0.0025) * math.log(0.1 / 0.0025)
    assert psi({"wav": 90, "ogg": 10}, {"wav": 200}) == pytest.approx(by_hand)
    assert psi({"wav": 90, "ogg": 10}, {"wav": 200, "ogg": 0, "mp3": 0}) == pytest.approx(by_hand)


def test_a_sample_without_results_has_no_psi() -> None:
    with pytest.raises(ValueError, match="without results"):
        psi({}, {0: 1})


@given(SAMPLES, SAMPLES)
def test_psi_is_symmetric_and_never_negative(one: Counts, other: Counts) -> None:
    assert psi(one, other) >= 0
    assert psi(one, other) == pytest.approx(psi(other, one))


@given(SAMPLES, SAMPLES)
def test_the_distance_is_that_of_the_two_cumulative_distributions(one: dict[int, int], other: dict[int, int]) -> None:
    """Computed from every single result, as the definition says."""
    first, second = (np.repeat(sorted(some), [some[key] for key in sorted(some)]) for some in (one, other))
    limits = np.arange(14)
    below = [np.searchsorted(sample, limits, side="right") / sample.size for sample in (first, second)]

    found = ks_distance(dict(one.items()), dict(other.items()))
    assert found == pytest.approx(np.abs(below[0] - below[1]).max())


def test_distance_by_hand() -> None:
    # Below bin 2: 0.3 of the one and 0.8 of the other. Bins are ordered as numbers: 10 comes after 2.
    assert ks_distance({1: 30, 2: 30, 10: 40}, {1: 80, 2: 10, 10: 10}) == pytest.approx(0.5)


def drawn(random: np.random.Generator, size: int, shares: np.ndarray) -> Counts:
    return dict(enumerate(random.multinomial(size, shares).tolist()))


def test_two_samples_of_one_distribution_have_the_expected_psi() -> None:
    random, shares = np.random.default_rng(7), np.array([0.05, 0.05, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.2])
    pairs = [(drawn(random, 400, shares), drawn(random, 1600, shares)) for _ in range(3000)]
    # 9 degrees of freedom.
    assert expected_psi(*pairs[0]) == pytest.approx(9 * (1 / 400 + 1 / 1600))
    assert np.mean([psi(*pair) for pair in pairs]) == pytest.approx(expected_psi(*pairs[0]), rel=0.05)
    # 0.999 of the pairs are below the limit: of 3,000, 3 are expected above it.
    assert sum(psi(*pair) > chance_limit(*pair) for pair in pairs) <= 12


def test_the_limit_of_chance_is_the_quantile_of_chi_squared() -> None:
    """Tables have 10.828, 16.266 and 27.877 for 1, 3 and 9 degrees of freedom and the probability 0.001."""
    for freedom, quantile in ((1, 10.828), (3, 16.266), (9, 27.877)):
        counts: Counts = dict.fromkeys(range(freedom + 1), 100)
        spread = 2 / (100 * (freedom + 1))
        assert chance_limit(counts, counts) / spread == pytest.approx(quantile, rel=0.04)
    assert chance_limit({0: 5}, {0: 5}) == 0


@pytest.mark.parametrize(
    ("counts", "reference", "expected"),
    [
        ({0: 500, 1: 500}, {0: 500, 1: 500}, Change.NONE),
        ({0: 450, 1: 550}, {0: 600, 1: 400}, Change.NONE),  # PSI 0.09
        ({0: 440, 1: 560}, {0: 600, 1: 400}, Change.SMALL),  # 0.10
        ({0: 350, 1: 650}, {0: 600, 1: 400}, Change.LARGE),  # 0.26
        ({0: 50, 1: 49}, {0: 900, 1: 100}, Change.UNKNOWN),
        ({}, {0: 900}, Change.UNKNOWN),
        # Twenty bins and few results: PSI 0.14, which chance explains.
        ({one: 4 + 2 * (one % 2) for one in range(20)}, {one: 6 - 2 * (one % 2) for one in range(20)}, Change.NONE),
    ],
)
def test_how_much_has_changed(counts: Counts, reference: Counts, expected: Change) -> None:
    assert change(counts, reference) is expected
    if expected is Change.UNKNOWN:
        assert sum(counts.values()) < LEAST_RESULTS


def test_the_bin_that_has_changed_most() -> None:
    assert most_changed({"wav": 30, "ogg": 60, "mp3": 10}, {"wav": 60, "mp3": 40}) == "ogg"
    assert most_changed({2: 1, 10: 1}, {2: 1, 10: 1}) == 10
