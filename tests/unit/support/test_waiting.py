"""The tests' one way to wait."""

from __future__ import annotations

import pytest

from tests.support.waiting import wait_until


def test_it_returns_the_first_true_value() -> None:
    values = iter([0, "", "there"])
    assert wait_until(lambda: next(values), 5, "a value", every_s=0) == "there"


def test_it_says_what_it_waited_for_and_what_it_saw() -> None:
    with pytest.raises(TimeoutError, match=r"waited 0\.15 s for the moon; last seen: \[\]"):
        wait_until(list, 0.05, "the moon")
