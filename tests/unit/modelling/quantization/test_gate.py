"""The gate's arithmetic, at its limits."""

from __future__ import annotations

import numpy as np
import pytest

from tussis.worker.modelling.quantization.gate import MIN_VALIDATION, ModelOutputs, OutputShifts, compare, upper_limit

THRESHOLD = 0.6


def answers(*bags: float, segments: float = 0.5) -> list[ModelOutputs]:
    return [ModelOutputs(bag, np.full(2, segments, dtype=np.float32)) for bag in bags]


def comparison(recordings: int, flips: int, bag_p99: float) -> OutputShifts:
    return OutputShifts(recordings, 0, flips, bag_p99, bag_p99, 0.0, 0.0)


@pytest.mark.parametrize(
    ("recordings", "flips", "bag_p99", "passes"),
    [
        (200, 1, 0.02, True),
        (200, 2, 0.0, False),
        (399, 2, 0.0, False),
        (400, 2, 0.0, True),
        (200, 0, 0.0200001, False),
        (199, 0, 0.0, False),
    ],
)
def test_it_passes_up_to_its_limits_and_not_beyond(recordings: int, flips: int, bag_p99: float, passes: bool) -> None:
    assert comparison(recordings, flips, bag_p99).passes is passes


def test_fewer_recordings_than_one_flip_may_be_shared_among_say_nothing() -> None:
    assert MIN_VALIDATION == 200


def test_a_decision_is_above_the_threshold_and_flips_either_way() -> None:
    # At the threshold is no cough: the second recording stays one side, the first and the third change theirs.
    found = compare(answers(0.61, 0.6, 0.2), answers(0.6, 0.59, 0.7), THRESHOLD)

    assert (found.recordings, found.coughs, found.flips) == (3, 1, 2)


def test_the_p99_is_a_shift_that_one_in_a_hundred_reaches() -> None:
    before = answers(*[0.2] * 200)
    after = answers(*[0.2] * 197, 0.3, 0.4, 0.5, segments=0.75)

    found = compare(before, after, THRESHOLD)

    # Two of 200 lie at or above it.
    assert found.bag_p99 == pytest.approx(0.2)
    assert found.bag_max == pytest.approx(0.3)
    assert found.segment_p99 == found.segment_max == pytest.approx(0.25)


def test_an_answer_too_many_is_a_fault() -> None:
    with pytest.raises(ValueError, match="zip"):
        compare(answers(0.1, 0.2), answers(0.1), THRESHOLD)


@pytest.mark.parametrize(
    ("found", "tried", "limit"),
    # None of n: 1 - 0.05 ** (1 / n). One of n: where (1 - p) ** n + n p (1 - p) ** (n - 1) is 0.05.
    [(0, 200, 1 - 0.05 ** (1 / 200)), (0, 598, 1 - 0.05 ** (1 / 598)), (1, 325, 0.0145127), (3, 3, 1.0)],
)
def test_the_bound_is_clopper_and_pearsons(found: int, tried: int, limit: float) -> None:
    assert upper_limit(found, tried) == pytest.approx(limit, rel=1e-4)


def test_what_is_told_has_both_numbers_and_both_limits() -> None:
    told = comparison(325, 2, 0.0123).summary()

    for said in ("2 of 325", "0.62 %", "at most 0.5 %", "0.0123", "at most 0.02"):
        assert said in told
    assert "\n" not in told
