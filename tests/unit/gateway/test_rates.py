"""The rate limit."""

from __future__ import annotations

import pytest

from tussis.shared.errors import RateExceeded
from tussis.worker.gateway.rates import RateLimit


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_seconds_worth_may_come_at_once_and_then_the_rate_holds() -> None:
    clock = Clock()
    limit = RateLimit(4, clock)
    for _ in range(4):
        limit.take("a")
    with pytest.raises(RateExceeded) as caught:
        limit.take("a")
    assert caught.value.retry_after_s == 1
    limit.take("b")

    clock.now += 0.5
    for _ in range(2):
        limit.take("a")
    with pytest.raises(RateExceeded):
        limit.take("a")
    clock.now += 3600
    for _ in range(4):
        limit.take("a")
    with pytest.raises(RateExceeded):
        limit.take("a")


def test_less_than_one_request_in_a_second() -> None:
    clock = Clock()
    limit = RateLimit(0.1, clock)
    limit.take("a")
    with pytest.raises(RateExceeded) as caught:
        limit.take("a")
    assert caught.value.retry_after_s == 10

    clock.now += 9.9
    with pytest.raises(RateExceeded):
        limit.take("a")
    clock.now += 0.2
    limit.take("a")
