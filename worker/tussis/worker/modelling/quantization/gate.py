"""Is a smaller model the same detector? What is counted, and how many recordings it takes to say so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

#: Decisions that may turn over, of a thousand recordings.
MAX_FLIPS_PER_1000: Final = 5
#: How far the bag probability of 99 % of the recordings may move.
MAX_SHIFT: Final = 0.02
#: Recordings that one flip must be shared among to stay within the limit: with fewer, only "none" could pass.
MIN_VALIDATION: Final = 1000 // MAX_FLIPS_PER_1000
#: Of the bound on the true share of flips.
CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """A model's answers to one recording."""

    bag_probability: float
    segment_probabilities: NDArray[np.float32]
    """(S,)"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two models' answers to the same recordings differ. Shifts are absolute differences of probabilities."""

    recordings: int
    coughs: int
    """Recordings that the first model calls a cough."""
    flips: int
    bag_p99: float
    """No more than 1 % of the recordings moved farther than this; one of the shifts observed."""
    bag_max: float
    segment_p99: float
    segment_max: float

    @property
    def flips_limit(self) -> float:
        """The share of flips that lies above the true one with ``CONFIDENCE``, by Clopper and Pearson."""
        return upper_limit(self.flips, self.recordings)

    @property
    def passes(self) -> bool:
        """Whether the second model may take the first one's place."""
        # In integers: 1 of 200 is within 0.5 %.
        few = 1000 * self.flips <= MAX_FLIPS_PER_1000 * self.recordings
        return self.recordings >= MIN_VALIDATION and few and self.bag_p99 <= MAX_SHIFT

    def told(self) -> str:
        """The gate's two numbers beside their limits, on one line."""
        share = 100 * self.flips / self.recordings
        return (
            f"{self.flips} of {self.recordings} decisions flip ({share:.2f} %, at most {MAX_FLIPS_PER_1000 / 10} %),"
            f" |bag probability| shift p99 {self.bag_p99:.4f} (at most {MAX_SHIFT})"
        )


def compare(first: Sequence[Answers], second: Sequence[Answers], threshold: float) -> Comparison:
    """Hold two models' answers to the same recordings, at least one, in the same order against each other."""
    before = np.array([answers.bag_probability for answers in first])
    after = np.array([answers.bag_probability for answers in second])
    bags = np.abs(after - before)
    segments = np.concatenate(
        [
            np.abs(there.segment_probabilities - here.segment_probabilities)
            for here, there in zip(first, second, strict=True)
        ]
    )
    return Comparison(
        recordings=len(before),
        coughs=int((before > threshold).sum()),
        flips=int(((before > threshold) != (after > threshold)).sum()),
        bag_p99=_p99(bags),
        bag_max=float(bags.max()),
        segment_p99=_p99(segments),
        segment_max=float(segments.max()),
    )


def upper_limit(found: int, tried: int) -> float:
    """The rate at which so few would be found with a chance of 1 - ``CONFIDENCE`` only: 0 to 1.

    The one-sided limit of Clopper and Pearson (Biometrika 26, 1934), by bisection.
    """
    if found >= tried:
        return 1.0
    low, high = found / tried, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(found, tried, middle) > 1 - CONFIDENCE else (low, middle)
    return high


def _at_most(found: int, tried: int, rate: float) -> float:
    """The chance of no more than ``found`` in ``tried``, each at ``rate``, which is above 0 and below 1."""
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
    # One of the values: an interpolated one would lie below what 1 % of few recordings exceed.
    return float(np.quantile(shifts, 0.99, method="higher"))
