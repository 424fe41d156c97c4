"""The candidates: rules that turn the probabilities of overlapping segments into events.

Each has a grid of parameters. Except for the rule of the product, they are here only.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.events.scores import Scored
from training.events import Span
from tussis.shared.dsp import SEGMENT_SECONDS
from tussis.shared.events import BIN_S, BINS_A_SEGMENT, find_events

Parameters = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """A candidate."""

    name: str
    find: Callable[[Scored, Parameters], list[Span]]
    """The events of a recording, in order of time."""
    grid: tuple[Parameters, ...]
    meaning: str
    """The parameters as a format string."""

    def described(self, parameters: Parameters) -> str:
        """The parameters in words."""
        return self.meaning.format(*parameters)


def ideal(scored: Scored) -> list[Span]:
    """The bins that a true bout overlaps. It knows the truth: it shows what bins of 0.5 s allow."""
    return _spans(
        [any(start < at + BIN_S and end > at for start, end in scored.bouts) for at in _bin_starts(scored)], scored
    )


def _merge(scored: Scored, parameters: Parameters) -> list[Span]:
    merged: list[Span] = []
    for start, probability in zip(scored.starts, scored.probabilities, strict=True):
        if probability > parameters[0]:
            end = min(start + SEGMENT_SECONDS, scored.duration_s)
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], end)
            else:
                merged.append((start, end))
    return merged


def _minimum(scored: Scored, parameters: Parameters) -> list[Span]:
    found = find_events(scored.starts, scored.probabilities, scored.duration_s, parameters[0])
    return [(event.start_s, event.end_s) for event in found]


def _mean(scored: Scored, parameters: Parameters) -> list[Span]:
    return _spans([statistics.fmean(over) > parameters[0] for over in _windows(scored)], scored)


def _all_but_one(scored: Scored, parameters: Parameters) -> list[Span]:
    return _spans([sorted(over)[min(1, len(over) - 1)] > parameters[0] for over in _windows(scored)], scored)


def _hysteresis(bins: Sequence[float], low: float, high: float) -> list[bool]:
    """Runs of bins above ``low`` that have a bin above ``high``."""
    flags: list[bool] = []
    for above, group in itertools.groupby(bins, lambda value: value > low):
        run = list(group)
        flags += [above and max(run) > high] * len(run)
    return flags


def _mean_hysteresis(scored: Scored, parameters: Parameters) -> list[Span]:
    low, high = parameters
    return _spans(_hysteresis([statistics.fmean(over) for over in _windows(scored)], low, high), scored)


def _minimum_hysteresis(scored: Scored, parameters: Parameters) -> list[Span]:
    low, high = parameters
    return _spans(_hysteresis([min(over) for over in _windows(scored)], low, high), scored)


def _median(scored: Scored, parameters: Parameters) -> list[Span]:
    given = scored.probabilities
    smooth = [statistics.median(given[max(0, index - 1) : index + 2]) for index in range(len(given))]
    found = find_events(scored.starts, smooth, scored.duration_s, parameters[0])
    return [(event.start_s, event.end_s) for event in found]


def _deconvolution(scored: Scored, parameters: Parameters) -> list[Span]:
    """A segment has no cough if none of its bins has one, independently (noisy or); solved by least squares."""
    wanted = -np.log1p(-np.clip(np.array(scored.probabilities), 1e-6, 1 - 1e-4))
    bins = len(_bin_starts(scored))
    covers = np.zeros((len(wanted), bins))
    for index in range(len(wanted)):
        covers[index, index : index + BINS_A_SEGMENT] = 1
    rates = np.full(bins, 0.5)
    target = covers.T @ wanted
    for _ in range(60):  # multiplicative updates keep the rates at 0 or above
        rates *= target / np.maximum(covers.T @ (covers @ rates), 1e-9)
    return _spans((1 - np.exp(-rates) > parameters[0]).tolist(), scored)


def _peaks(scored: Scored, parameters: Parameters) -> list[Span]:
    """The highest means first, each at least some bins from all higher ones. An event is one bin."""
    threshold, distance = parameters
    means = [statistics.fmean(over) for over in _windows(scored)]
    kept: list[int] = []
    for index in sorted(range(len(means)), key=lambda index: -means[index]):
        if means[index] > threshold and all(abs(index - other) >= distance for other in kept):
            kept.append(index)
    return [(index * BIN_S, min((index + 1) * BIN_S, scored.duration_s)) for index in sorted(kept)]


def _windows(scored: Scored) -> list[tuple[float, ...]]:
    """The probabilities of the segments that cover each bin."""
    return [
        scored.probabilities[max(0, index - BINS_A_SEGMENT + 1) : index + 1]
        for index in range(len(_bin_starts(scored)))
    ]


def _bin_starts(scored: Scored) -> list[float]:
    starts = (BIN_S * index for index in range(len(scored.probabilities) + BINS_A_SEGMENT - 1))
    return [start for start in starts if start < scored.duration_s]


def _spans(flags: Sequence[bool], scored: Scored) -> list[Span]:
    found: list[Span] = []
    index = 0
    for flag, group in itertools.groupby(flags):
        length = len(list(group))
        if flag:
            found.append((index * BIN_S, min((index + length) * BIN_S, scored.duration_s)))
        index += length
    return found


_STEPS: Final = tuple(round(0.05 * step, 2) for step in range(2, 20))
_ONE: Final = tuple((step,) for step in _STEPS)
_TWO: Final = tuple((low, high) for low in _STEPS[::2] for high in _STEPS[1::2] if high > low)

MINIMUM: Final = Rule("lowest of the segments over a bin", _minimum, _ONE, "above {0:g}")

RULES: Final = (
    Rule("merge of positive segments", _merge, _ONE, "above {0:g}"),
    Rule("mean of the segments over a bin", _mean, _ONE, "above {0:g}"),
    Rule("all segments but one", _all_but_one, _ONE, "above {0:g}"),
    MINIMUM,
    Rule("mean, two thresholds", _mean_hysteresis, _TWO, "above {0:g}, once above {1:g}"),
    Rule("lowest, two thresholds", _minimum_hysteresis, _TWO, "above {0:g}, once above {1:g}"),
    Rule("median of three segments, then lowest", _median, _ONE, "above {0:g}"),
    Rule("deconvolution", _deconvolution, _ONE, "above {0:g}"),
    Rule(
        "peaks of the mean",
        _peaks,
        tuple((step, distance) for step in _STEPS[::2] for distance in (3.0, 4.0, 5.0, 6.0)),
        "above {0:g}, {1:g} bins apart",
    ),
)
"""All candidates."""
