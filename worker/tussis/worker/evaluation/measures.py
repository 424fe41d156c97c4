"""Measures of scores: AUROC, average precision, intervals, calibration. Needs only numpy.

Without data a number and its interval are NaN. ``docs/evaluate.md`` says what each measure means.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Truth = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


DRAWS: Final = 2_000
"""Draws of a bootstrap."""
CALIBRATION_BINS: Final = 10


@dataclass(frozen=True, slots=True)
class Interval:
    """A number and its 95 % confidence interval."""

    value: float
    low: float
    high: float


def auroc(truth: Truth, scores: Floats) -> float:
    """The probability that a positive scores above a negative. Ties count half. NaN if one class is missing."""
    positives, negatives = scores[truth], np.sort(scores[~truth])
    if not positives.size or not negatives.size:
        return math.nan
    below = np.searchsorted(negatives, positives, "left")
    up_to = np.searchsorted(negatives, positives, "right")
    return float((below + up_to).mean() / 2 / negatives.size)


def auroc_interval(truth: Truth, scores: Floats, seed: int = 0, draws: int = DRAWS) -> Interval:
    """AUROC with a bootstrap interval over recordings, resampled within each class."""
    return _bootstrap(auroc, truth, scores, seed, draws)


def average_precision(truth: Truth, scores: Floats) -> float:
    """The area under the stepwise curve of precision over recall. Equal scores are one step. NaN without positives."""
    if not truth.any():
        return math.nan
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.append(ordered[1:] != ordered[:-1], True).nonzero()[0]
    hits = np.cumsum(truth[order])[last]
    return float((np.diff(hits, prepend=0) / hits[-1] * (hits / (last + 1))).sum())


def average_precision_interval(truth: Truth, scores: Floats, seed: int = 0, draws: int = DRAWS) -> Interval:
    """Average precision with a bootstrap interval as :func:`auroc_interval`."""
    return _bootstrap(average_precision, truth, scores, seed, draws)


def _bootstrap(
    measure: Callable[[Truth, Floats], float], truth: Truth, scores: Floats, seed: int, draws: int
) -> Interval:
    rng = np.random.default_rng(seed)
    positives, negatives = scores[truth], scores[~truth]
    if not positives.size or not negatives.size:
        return Interval(math.nan, math.nan, math.nan)
    flags = np.concatenate([np.ones(positives.size, bool), np.zeros(negatives.size, bool)])
    found = [
        measure(flags, np.concatenate([rng.choice(positives, positives.size), rng.choice(negatives, negatives.size)]))
        for _ in range(draws)
    ]
    return Interval(measure(truth, scores), *(float(x) for x in np.percentile(found, [2.5, 97.5])))


def share(flags: npt.NDArray[np.bool_]) -> Interval:
    """The share of true flags, with Wilson's interval."""
    return proportion(int(flags.sum()), flags.size)


def proportion(part: int, whole: int) -> Interval:
    """``part`` of ``whole``, with Wilson's interval."""
    if not whole:
        return Interval(math.nan, math.nan, math.nan)
    n, p, z = whole, part / whole, 1.96
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Interval(p, max(0.0, middle - half), min(1.0, middle + half))


def rate(events: int, hours: float) -> Interval:
    """Events per hour with the exact Poisson interval."""
    if not hours > 0:
        return Interval(math.nan, math.nan, math.nan)
    low = 0.0 if events == 0 else _poisson_bound(events - 1, 0.975)
    return Interval(events / hours, low / hours, _poisson_bound(events, 0.025) / hours)


def _poisson_bound(events: int, chance: float) -> float:
    """The mean at which ``events`` or fewer have this probability, by bisection."""
    counts = np.arange(events + 1)
    log_factorials = np.cumsum(np.log(np.maximum(counts, 1)))
    low, high = 0.0, 10.0 + 5 * (events + 1)
    for _ in range(100):
        middle = (low + high) / 2
        if math.fsum(np.exp(-middle + counts * math.log(middle) - log_factorials)) > chance:
            low = middle
        else:
            high = middle
    return (low + high) / 2


TEMPERATURES: Final = (0.2, 5.0)
"""The smallest and the largest temperature that is tried."""


def temperature(truth: Truth, logits: Floats, *, balanced: bool = True) -> float:
    """The divisor of the logits that maximises the likelihood.

    Args:
        truth: bool (n,).
        logits: (n,).
        balanced: both classes have the same total weight, for recordings whose share of coughs is arbitrary. Otherwise
            each recording has the same weight.
    """
    grid = np.exp(np.linspace(math.log(TEMPERATURES[0]), math.log(TEMPERATURES[1]), 161))
    signed = np.where(truth, -logits, logits)
    weights = np.full(truth.size, 1 / max(1, truth.size))
    if balanced:
        weights = np.where(truth, 0.5 / max(1, int(truth.sum())), 0.5 / max(1, int((~truth).sum())))
    losses = [float((weights * np.logaddexp(0, signed / t)).sum()) for t in grid]
    return round(float(grid[int(np.argmin(losses))]), 3)


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The recordings whose probability is in one part of 0 to 1."""

    low: float
    high: float
    recordings: int
    coughs: int
    mean_probability: float
    """NaN without recordings."""
    share: Interval
    """The share of coughs. A calibrated model has its mean probability here."""


def reliability(truth: Truth, probabilities: Floats, bins: int = CALIBRATION_BINS) -> tuple[ReliabilityBin, ...]:
    """The reliability curve: mean probability and share of coughs in bins of equal width."""
    index = np.minimum((probabilities * bins).astype(int), bins - 1)
    found = []
    for one in range(bins):
        inside = index == one
        count, coughs = int(inside.sum()), int(truth[inside].sum())
        mean = float(probabilities[inside].mean()) if count else math.nan
        found.append(ReliabilityBin(one / bins, (one + 1) / bins, count, coughs, mean, proportion(coughs, count)))
    return tuple(found)


def calibration_error(truth: Truth, probabilities: Floats, bins: int = CALIBRATION_BINS) -> float:
    """The expected calibration error: the mean difference of mean probability and share of coughs over the bins of the
    reliability curve, weighted by their size. NaN without recordings."""
    if not truth.size:
        return math.nan
    return sum(
        abs(one.mean_probability - one.share.value) * (one.recordings / truth.size)
        for one in reliability(truth, probabilities, bins)
        if one.recordings
    )
