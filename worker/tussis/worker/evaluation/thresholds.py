"""Choose a threshold for a wanted precision or a wanted rate of false alarms."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from tussis.worker.evaluation.measures import Floats, Truth

EVENT_THRESHOLDS: Final = tuple(index / 100 for index in range(1, 100))
"""Thresholds of bins that are tried for a rate of false events."""


def for_precision(truth: Truth, probabilities: Floats, wanted: float) -> float | None:
    """The lowest threshold at which the share of coughs among the decisions "cough" is at least ``wanted``.

    None if no threshold reaches it. The lowest one finds the most coughs.
    """
    order = np.argsort(-probabilities, kind="stable")
    hits = np.cumsum(truth[order])
    chosen = None
    for above, threshold in _cuts(probabilities[order]):
        if above and hits[above - 1] / above >= wanted - 1e-12:
            chosen = threshold
    return chosen


def for_false_alarms(truth: Truth, probabilities: Floats, hours: float, wanted: float) -> float | None:
    """The lowest threshold with at most ``wanted`` false alarms an hour.

    A false alarm is a recording without a cough that has the decision "cough". ``hours`` is the length of all
    recordings without a cough. None if there is none of them, or if recordings with the probability 1 are already too
    many.
    """
    if not hours > 0:
        return None
    order = np.argsort(-probabilities, kind="stable")
    alarms = np.concatenate(([0], np.cumsum(~truth[order])))
    chosen = None
    for above, threshold in _cuts(probabilities[order]):
        if alarms[above] <= wanted * hours:
            chosen = threshold
    return chosen


def for_false_events(false_events: Callable[[float], int], hours: float, wanted: float) -> float | None:
    """The lowest threshold of bins from which on there are at most ``wanted`` false cough events an hour.

    At a very low threshold a whole recording is one event, so all higher thresholds must keep the rate too.

    Args:
        false_events: the number of false events at a threshold.
        hours: length of the recordings.
        wanted: events an hour.
    """
    chosen = None
    if not hours > 0:
        return None
    for threshold in reversed(EVENT_THRESHOLDS):
        if false_events(threshold) > wanted * hours:
            break
        chosen = threshold
    return chosen


def _cuts(ordered: Floats) -> Iterator[tuple[int, float]]:
    """The number of recordings above it, and the threshold, for all decisions that differ. Thresholds descend."""
    edges = [1.0, *ordered.tolist(), 0.0]
    for above, (high, low) in enumerate(itertools.pairwise(edges)):
        if high > low:
            yield above, between(low, high)


def between(low: float, high: float) -> float:
    """The number with the fewest decimal places that is at least ``low`` and below ``high``, near their middle.

    A decision is "cough" if the probability is above the threshold, so the lower one of two probabilities is itself a
    threshold between them.
    """
    middle = (low + high) / 2
    for digits in range(1, 18):
        rounded = round(middle, digits)
        if low <= rounded < high:
            return rounded
    return low
