"""When a delivery is tried again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tussis.worker.notify.schedule import delay_s, is_over


def test_delays_double_up_to_half_an_hour() -> None:
    assert [delay_s(attempts, None, 1.0) for attempts in range(1, 12)] == [
        *(5, 10, 20, 40, 80, 160, 320, 640, 1280, 1800, 1800)
    ]


def test_a_day_has_some_sixty_attempts() -> None:
    at, attempts = 0.0, 1
    while not is_over(0.0, at):
        at += delay_s(attempts, None, 0.75)
        attempts += 1
    assert 60 <= attempts <= 80
    assert 86_400 <= at <= 86_400 + 1800


@given(st.integers(1, 10_000), st.one_of(st.none(), st.floats(0, 1e12)))
def test_a_delay_has_bounds_and_the_receiver_s_wish_is_the_least_within_an_hour(
    attempts: int, asked: float | None
) -> None:
    delay = delay_s(attempts, asked)
    assert 2.5 <= delay <= 3600
    assert delay >= min(asked or 0, 3600)
    if asked is None:
        assert delay <= 1800
