"""Which messages in work get a heartbeat."""

from __future__ import annotations

from tussis.worker.parent.beats import Beats


def test_a_message_in_work_gets_beats_until_the_limit() -> None:
    beats = Beats(limit_s=30.0)
    assert beats.advance(["a"], 10.0, held=False) == ["a"]
    assert beats.advance(["a"], 10.0, held=False) == ["a"]
    assert beats.advance(["a", "b"], 10.0, held=False) == ["a", "b"]
    assert beats.advance(["a", "b"], 10.0, held=False) == ["b"]


def test_time_spent_waiting_for_a_server_ages_nothing() -> None:
    beats = Beats(limit_s=30.0)
    for _ in range(100):
        assert beats.advance(["a"], 10.0, held=True) == ["a"]
    assert beats.advance(["a"], 10.0, held=False) == ["a"]


def test_a_message_that_is_gone_is_forgotten() -> None:
    beats = Beats(limit_s=30.0)
    beats.advance(["a"], 25.0, held=False)
    beats.advance([], 1.0, held=False)
    assert beats.advance(["a"], 25.0, held=False) == ["a"]
