"""Which of two ways is faster: found out of enough work, on a clock of the test's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tussis.worker.detector.tuning import comparison
from tussis.worker.detector.tuning.comparison import Candidate, ratios


class Clock:
    """Processor time that only moves when somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def process_time(self) -> float:
        return self.now


class Costs:
    """Stands for a detector: so many seconds a segment, more for the first recording of a length."""

    def __init__(self, clock: Clock, segment_s: float, cold_s: float = 0.0) -> None:
        self._clock, self._segment_s, self._cold_s = clock, segment_s, cold_s
        self._seen: set[int] = set()
        self.segments = 0

    def score(self, spectrograms: np.ndarray, _: np.ndarray) -> None:
        count = spectrograms.shape[1]
        self._clock.now += count * self._segment_s + (0.0 if count in self._seen else self._cold_s)
        self._seen.add(count)
        self.segments += count


def compared(monkeypatch: pytest.MonkeyPatch, original: tuple[float, float], other: float) -> tuple[float, Costs]:
    """The ratio that is found, and what stands for the original."""
    clock = Clock()
    monkeypatch.setattr(comparison, "time", clock)
    first, second = Costs(clock, *original), Costs(clock, other)
    detectors: list[Any] = [first, second]
    ways = [Candidate("form", detector) for detector in detectors]
    [ratio] = ratios(ways[0], ways[1:])
    return ratio, first


def test_a_small_model_s_first_recordings_do_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a graph that is a tenth slower, when the original's first runs are cold, then it is not the faster one."""
    ratio, original = compared(monkeypatch, (0.001, 0.02), 0.0011)

    assert ratio == pytest.approx(1 / 1.1, rel=0.01)
    assert original.segments * 0.001 > comparison._LEAST_S


def test_a_large_model_is_timed_as_often_as_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's first start waits for it."""
    ratio, original = compared(monkeypatch, (0.035, 0.0), 0.02)

    assert ratio == pytest.approx(0.035 / 0.02)
    assert original.segments == 3 * sum(comparison._TIMED)  # once to learn how long it takes, two rounds
