"""The gate: the measures and limits for a smaller model that is to replace its parent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

#: The most decisions that may change, per 1000 recordings.
MAX_FLIPS_PER_1000: Final = 5
#: The largest allowed shift of the bag probability for 99 % of the recordings.
MAX_SHIFT: Final = 0.02
#: The least number of recordings with which one flip is within the limit. With fewer, one flip would fail the gate.
MIN_VALIDATION: Final = 1000 // MAX_FLIPS_PER_1000
#: Confidence of the upper limit for the true share of flips.
CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class ModelOutputs:
    """A model's outputs for one recording."""

    bag_probability: float
    segment_probabilities: NDArray[np.float32]
    """(S,)"""


@dataclass(frozen=True, slots=True)
class OutputShifts:
    """How two models' outputs for the same recordings differ. Shifts are absolute differences of probabilities."""

    recordings: int
    coughs: int
    """Recordings with the decision cough by the first model."""
    flips: int
    bag_p99: float
    """At most 1 % of the recordings have a larger shift. It is one of the observed shifts."""
    bag_max: float
    segment_p99: float
    segment_max: float

    @property
    def flips_limit(self) -> float:
        """The upper limit of the true share of flips with ``CONFIDENCE``, by Clopper and Pearson."""
        return upper_limit(self.flips, self.recordings)

    @property
    def passes(self) -> bool:
        """Whether the second model may replace the first."""
        # Integers avoid rounding errors: 1 of 200 is within 0.5 %.
        few = 1000 * self.flips <= MAX_FLIPS_PER_1000 * self.recordings
        return self.recordings >= MIN_VALIDATION and few and self.bag_p99 <= MAX_SHIFT

    def summary(self) -> str:
        """The gate's two numbers and their limits, on one line."""
        share = 100 * self.flips / self.recordings
        return (
            f"{self.flips} of {self.recordings} decisions flip ({share:.2f} %, at most {MAX_FLIPS_PER_1000 / 10} %),"
            f" |bag probability| shift p99 {self.bag_p99:.4f} (at most {MAX_SHIFT})"
        )


def compare(first: Sequence[ModelOutputs], second: Sequence[ModelOutputs], threshold: float) -> OutputShifts:
    """Compare two models' outputs for the same recordings in the same order. At least one recording is needed."""
    before = np.array([answers.bag_probability for answers in first])
    after = np.array([answers.bag_probability for answers in second])
    bags = np.abs(after - before)
    segments = np.concatenate(
        [
            np.abs(there.segment_probabilities - here.segment_probabilities)
            for here, there in zip(first, second, strict=True)
        ]
    )
    return OutputShifts(
        recordings=len(before),
        coughs=int((before > threshold).sum()),
        flips=int(((before > threshold) != (after > threshold)).sum()),
        bag_p99=_p99(bags),
        bag_max=float(bags.max()),
        segment_p99=_p99(segments),
        segment_max=float(segments.max()),
    )


def upper_limit(found: int, tried: int) -> float:
    """The rate, 0 to 1, at which at most ``found`` of ``tried`` has the probability 1 - ``CONFIDENCE``.

    It is the one-sided limit of Clopper and Pearson (Biometrika 26, 1934), found by bisection.
    """
    if found >= tried:
        return 1.0
    low, high = found / tried, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(found, tried, middle) > 1 - CONFIDENCE else (low, middle)
    return high


def _at_most(found: int, tried: int, rate: float) -> float:
    """The probability of at most ``found`` in ``tried``, each with probability ``rate`` (above 0 and below 1)."""
    return sum(
        math.exp(
            math.lgamma(tried + 1)
            - math.lgamma(k + 1)
            - math.lgamma(tried - k + 1)
            + k * math.log(rate)
            + (tried - k) * math.log1p(-rate)
        )
        for k in range(found + 1)
    )


def _p99(shifts: NDArray[np.floating]) -> float:
    # "higher" returns one of the values. With few recordings, more than 1 % could exceed an interpolated value.
    return float(np.quantile(shifts, 0.99, method="higher"))
