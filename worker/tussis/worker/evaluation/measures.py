"""Measures of scores: AUROC, curves, intervals, temperature. Needs only numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Truth = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


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


def auroc_interval(truth: Truth, scores: Floats, seed: int = 0, draws: int = 2_000) -> Interval:
    """AUROC with a bootstrap interval over recordings, resampled within each class."""
    rng = np.random.default_rng(seed)
    positives, negatives = scores[truth], scores[~truth]
    flags = np.concatenate([np.ones(positives.size, bool), np.zeros(negatives.size, bool)])
    found = [
        auroc(flags, np.concatenate([rng.choice(positives, positives.size), rng.choice(negatives, negatives.size)]))
        for _ in range(draws)
    ]
    return Interval(auroc(truth, scores), *(float(x) for x in np.percentile(found, [2.5, 97.5])))


def share(flags: npt.NDArray[np.bool_]) -> Interval:
    """The share of true flags, with Wilson's interval."""
    n, p, z = flags.size, float(flags.mean()), 1.96
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Interval(p, max(0.0, middle - half), min(1.0, middle + half))


def rate(events: int, hours: float) -> Interval:
    """Events per hour with the exact Poisson interval."""
    low = 0.0 if events == 0 else _poisson_bound(events - 1, 0.975)
    return Interval(events / hours, low / hours, _poisson_bound(events, 0.025) / hours)


def _poisson_bound(events: int, chance: float) -> float:
    """The mean at which ``events`` or fewer have this probability, by bisection."""
    low, high = 0.0, 10.0 + 5 * (events + 1)
    for _ in range(100):
        middle = (low + high) / 2
        logs = [-middle + k * math.log(middle) - math.lgamma(k + 1) for k in range(events + 1)]
        if math.fsum(math.exp(one) for one in logs) > chance:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def temperature(truth: Truth, logits: Floats) -> float:
    """The divisor of the logits that maximises the likelihood."""
    grid = np.exp(np.linspace(math.log(0.2), math.log(5), 161))
    signed = np.where(truth, -logits, logits)
    # Both classes have the same total weight: the share of coughs in the pack is arbitrary.
    weights = np.where(truth, 0.5 / max(1, int(truth.sum())), 0.5 / max(1, int((~truth).sum())))
    losses = [float((weights * np.logaddexp(0, signed / t)).sum()) for t in grid]
    return round(float(grid[int(np.argmin(losses))]), 3)


def calibration_error(truth: Truth, probabilities: Floats, bins: int = 10) -> float:
    """The mean difference of probability and frequency over bins of equal width, weighted by their size."""
    index = np.minimum((probabilities * bins).astype(int), bins - 1)
    gaps = [
        abs(float(probabilities[index == one].mean()) - float(truth[index == one].mean()))
        * float((index == one).mean())
        for one in range(bins)
        if (index == one).any()
    ]
    return float(sum(gaps))


def roc(truth: Truth, scores: Floats) -> tuple[Floats, Floats]:
    """False and true positive rates at every threshold, ascending."""
    order = np.argsort(-scores)
    hits = np.cumsum(truth[order])
    misses = np.cumsum(~truth[order])
    return np.concatenate(([0.0], misses / misses[-1])), np.concatenate(([0.0], hits / hits[-1]))


def precision_recall(truth: Truth, scores: Floats) -> tuple[Floats, Floats]:
    """Recall and precision at every threshold, with ascending recall."""
    hits = np.cumsum(truth[np.argsort(-scores)])
    return hits / hits[-1], hits / np.arange(1, hits.size + 1)


def average_precision(truth: Truth, scores: Floats) -> float:
    """The area under the stepwise curve of precision over recall."""
    recall, precision = precision_recall(truth, scores)
    return float((np.diff(recall, prepend=0.0) * precision).sum())
