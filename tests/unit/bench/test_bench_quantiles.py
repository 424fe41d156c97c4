"""Quantiles of measured times."""

from __future__ import annotations

import random

import pytest

from benchmarks.quantiles import quantile


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [(1, 0.5, 1), (1, 0.99, 1), (4, 0.5, 2), (10, 0.9, 9), (100, 0.99, 99), (500, 0.99, 495), (500, 1.0, 500)],
)
def test_the_nearest_rank(count: int, share: float, expected: int) -> None:
    values = list(range(1, count + 1))
    random.Random(0).shuffle(values)
    assert quantile(values, share) == expected


def test_no_values_are_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)
