"""ROC and precision-recall curves of probabilities with known labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

Scored = tuple[float, bool]
"""A probability, and whether the recording has a cough."""

SWEEP: Final = tuple(index / 20 for index in range(1, 20))
"""Thresholds of a table: 0.05 to 0.95."""


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of right and wrong decisions at one threshold. A decision is cough if the probability is above it."""

    threshold: float
    true_positive: int
    false_positive: int
    true_negative: int
    false_negative: int

    @property
    def sensitivity(self) -> float | None:
        """Share of the coughs that are found (recall). None without coughs."""
        return _share(self.true_positive, self.true_positive + self.false_negative)

    @property
    def specificity(self) -> float | None:
        """Share of the other recordings that are not taken for coughs. None without other recordings."""
        return _share(self.true_negative, self.true_negative + self.false_positive)

    @property
    def precision(self) -> float | None:
        """Share of right decisions among the decisions cough. None without such a decision."""
        return _share(self.true_positive, self.true_positive + self.false_positive)

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and sensitivity. None without coughs and without decisions cough."""
        return _share(2 * self.true_positive, 2 * self.true_positive + self.false_positive + self.false_negative)


def confusion(scored: Sequence[Scored], threshold: float) -> Confusion:
    """The counts at a threshold."""
    found = [is_cough for probability, is_cough in scored if probability > threshold]
    coughs = sum(is_cough for _, is_cough in scored)
    hits = sum(found)
    return Confusion(
        threshold=threshold,
        true_positive=hits,
        false_positive=len(found) - hits,
        true_negative=len(scored) - coughs - (len(found) - hits),
        false_negative=coughs - hits,
    )


@dataclass(frozen=True, slots=True)
class Curves:
    """Both curves and their areas."""

    roc: Sequence[tuple[float, float]]
    """1 - specificity and sensitivity for each threshold, from (0, 0) to (1, 1)."""
    auroc: float
    """Area under the ROC curve: the probability that a cough is above another recording, a tie counting half."""
    precision_recall: Sequence[tuple[float, float]]
    """Recall and precision for each threshold, from the highest probability down."""
    average_precision: float
    """Sum of the precisions, each weighted with the rise of the recall: no interpolation."""


def curves(scored: Sequence[Scored]) -> Curves | None:
    """The curves; None unless there are both coughs and other recordings. Equal probabilities are one point."""
    positives = sum(is_cough for _, is_cough in scored)
    negatives = len(scored) - positives
    if not positives or not negatives:
        return None
    roc, precision_recall = [(0.0, 0.0)], []
    areas, steps = [], []
    hits = false_alarms = 0
    ordered = sorted(scored, key=lambda pair: -pair[0])
    for index, (probability, is_cough) in enumerate(ordered):
        hits += is_cough
        false_alarms += not is_cough
        if index + 1 < len(ordered) and ordered[index + 1][0] == probability:
            continue
        x, y = false_alarms / negatives, hits / positives
        left, low = roc[-1]
        precision = hits / (index + 1)
        areas.append((x - left) * (y + low) / 2)
        steps.append((y - low) * precision)
        roc.append((x, y))
        precision_recall.append((y, precision))
    return Curves(roc, math.fsum(areas), precision_recall, math.fsum(steps))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
