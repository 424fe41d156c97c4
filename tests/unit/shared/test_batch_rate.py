"""The rate of a batch: ends in the shortest span that has enough of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tussis.shared.batches import measured_rate

MINUTE = 29_000_000
NOW = MINUTE * 60 + 30.0


def test_without_ends_there_is_no_rate() -> None:
    assert measured_rate({}, NOW - 100, NOW) is None
    assert measured_rate({MINUTE - 60: 500}, 0.0, NOW) is None, "older than an hour"


@pytest.mark.parametrize(
    ("ends", "age_s", "rate", "span_s"),
    [
        ({MINUTE: 30}, 20.0, 30 / 20, 20.0),  # since the batch was opened
        ({MINUTE: 30, MINUTE - 1: 60, MINUTE - 2: 5}, 1e6, 90 / 90, 90.0),
        ({MINUTE - 5: 600}, 1e6, 600 / 630, 630.0),  # it stalled: the rate falls
        ({MINUTE: 5, MINUTE - 40: 7}, 1e6, 12 / (59 * 60 + 30), 59 * 60 + 30.0),  # few ends: the longest span
        ({MINUTE: 5}, 45.0, 5 / 45, 45.0),
    ],
)
def test_a_span(ends: dict[int, int], age_s: float, rate: float, span_s: float) -> None:
    assert measured_rate(ends, NOW - age_s, NOW) == pytest.approx((rate, span_s))


@given(st.floats(0.05, 50.0), st.floats(1.0, 7200.0), st.floats(0.0, 59.9))
def test_of_a_steady_batch(per_s: float, age_s: float, second: float) -> None:
    """Jobs that end at a steady rate: the estimate is that rate, but for one job."""
    now = MINUTE * 60 + second
    ends: dict[int, int] = {}
    since = now - age_s
    for number in range(int(age_s * per_s)):
        end = since + (number + 1) / per_s
        ends[int(end // 60)] = ends.get(int(end // 60), 0) + 1
    found = measured_rate(ends, since, now)
    if found is None:
        assert not ends or min(int(now // 60) - minute for minute in ends) > 59
        return
    assert abs(found[0] - per_s) * found[1] <= 2.0
