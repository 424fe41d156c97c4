"""Delays after transient faults."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from tussis.worker.pipeline import backoff

failures = st.integers(1, 10_000)
seconds = st.floats(0.01, 1e4)


def test_jitter_is_equal_half_of_the_ceiling_is_fixed_and_half_is_uniform() -> None:
    """Brooker's "equal jitter": temp / 2 + random_between(0, temp / 2)."""

    class Ends(random.Random):
        def __init__(self, fraction: float) -> None:
            super().__init__(0)
            self._fraction = fraction

        def random(self) -> float:
            return self._fraction

    # The third fault in a row, base 2 s: the ceiling is 8 s.
    assert [backoff.delay_s(3, 2.0, 300.0, Ends(fraction)) for fraction in (0.0, 0.25, 0.5, 1.0)] == [4, 5, 6, 8]


@given(failures, seconds, seconds, st.integers())
def test_a_delay_lies_between_half_the_ceiling_and_the_ceiling(count: int, base: float, cap: float, seed: int) -> None:
    ceiling = backoff.ceiling_s(count, base, cap)
    delay = backoff.delay_s(count, base, cap, random.Random(seed))
    assert ceiling / 2 <= delay <= ceiling <= cap


@given(failures, seconds, seconds)
def test_the_ceiling_doubles_until_the_cap(count: int, base: float, cap: float) -> None:
    assert backoff.ceiling_s(count + 1, base, cap) in (2 * backoff.ceiling_s(count, base, cap), cap)


def test_faults_together_do_not_come_back_together() -> None:
    rng = random.Random(1)
    delays = {backoff.delay_s(3, 2.0, 300.0, rng) for _ in range(100)}
    assert len(delays) == 100
    assert max(delays) - min(delays) > 3.0


def test_the_limit_is_on_the_sum_of_the_delays() -> None:
    # 2 + 4 + 8 + 16 = 30
    assert not backoff.exhausted(4, 2.0, 300.0, 30.0)
    assert backoff.exhausted(5, 2.0, 300.0, 30.0)
    assert backoff.exhausted(4, 2.0, 300.0, 29.9)


def test_a_day_of_the_default_delays_is_hundreds_of_attempts() -> None:
    last = next(count for count in range(1, 10_000) if backoff.exhausted(count, 2.0, 300.0, 86_400.0))
    assert 280 < last < 320
