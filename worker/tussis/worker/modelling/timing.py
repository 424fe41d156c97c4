"""Measure two models in turns, so that the load of the machine changes the ratio of their times little."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tussis.shared.dsp.constants import IMAGE_SIZE
from tussis.worker.detector.detector import Detector
from tussis.worker.pipeline.prepare import whole_mask

ROUNDS: Final = 5
_SEGMENTS: Final = 4
#: The least processor time of one model in one round, seconds. In less, the clock and the first run count too much.
_LEAST_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Speed:
    """The speed of two models, in processor time of this process."""

    segment_ms: tuple[float, float]
    """Milliseconds per segment: medians over rounds."""
    ratio: float
    """Time of the first model divided by that of the second: median over rounds. Above 1 the second is faster."""


def speed_of(first: Detector, second: Detector) -> Speed:
    """Measure two models, loaded with the same number of threads, on noise of 4 segments.

    Each round runs both models, in the other order than the round before.

    Raises :class:`InferenceFailed`.
    """
    noise = np.random.default_rng(0).normal(size=(1, _SEGMENTS, 3, IMAGE_SIZE, IMAGE_SIZE)).astype(np.float32)
    models = (first, second)
    for model in models:  # the first run allocates memory
        _seconds(model, noise, 1)
    repeats = max(1, math.ceil(_LEAST_S / max(1e-6, min(_seconds(model, noise, 1) for model in models))))
    taken = np.array([_round(models, noise, repeats, backwards=number % 2 == 1) for number in range(ROUNDS)])
    per_segment = 1000 * np.median(taken, axis=0) / (repeats * _SEGMENTS)
    return Speed((float(per_segment[0]), float(per_segment[1])), float(np.median(taken[:, 0] / taken[:, 1])))


def _round(models: Sequence[Detector], noise: NDArray[np.float32], repeats: int, *, backwards: bool) -> list[float]:
    order = list(enumerate(models))
    if backwards:
        order.reverse()
    taken = {index: _seconds(model, noise, repeats) for index, model in order}
    return [taken[index] for index in range(len(models))]


def _seconds(model: Detector, noise: NDArray[np.float32], repeats: int) -> float:
    mask = whole_mask(noise)
    began = time.process_time()
    for _ in range(repeats):
        model.score(noise, mask)
    return time.process_time() - began
