"""Compare cough events with the true bouts of coughing, one to one by their starts.

These are the collar-based (event-based) measures of Mesaros, Heittola and Virtanen, "Metrics for polyphonic sound event
detection" (Applied Sciences, 2016), with a collar on the start only: the end of a bout fades, and people disagree about
it. An event matches at most one bout and a bout at most one event. The pairs are the largest possible number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tussis.worker.evaluation.labels import Span
from tussis.worker.evaluation.measures import Interval, proportion

TOLERANCES_S: Final = (0.25, 0.5)
"""An event matches a bout if their starts differ by at most this."""
BOUT_PAUSE_S: Final = 2.0
"""Coughs with a shorter pause between them are one bout, as in cough monitoring (an epoch of coughing)."""
_DRAWS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Compared:
    """The events of one recording and its bouts."""

    bouts: int
    events: int
    matches: tuple[int, ...]
    """Events that match a bout, for each of ``TOLERANCES_S``. An event matches at most one bout."""
    onset_errors_s: tuple[float, ...]
    """For each bout that an event overlaps: start of the first such event minus start of the bout."""
    merging: int
    """Events that overlap more than one bout."""
    false: int
    """Events that overlap no bout."""
    event_s: float
    bout_s: float


@dataclass(frozen=True, slots=True)
class EventMeasures:
    """The quality of a rule on many recordings. A share without data is NaN."""

    f1_intervals: tuple[Interval, ...]
    """Event-based F1 for each of ``TOLERANCES_S``: 95 % by bootstrap over recordings."""
    precision: tuple[Interval, ...]
    """Share of the events that match a bout, for each of ``TOLERANCES_S``."""
    recall: tuple[Interval, ...]
    """Share of the bouts that an event matches, for each of ``TOLERANCES_S``."""
    found: float
    """Share of the bouts that an event overlaps."""
    onset_error_s: float
    """Median absolute onset error of these bouts."""
    events: int
    bouts: int
    merging: int
    false: int
    """Events that overlap no bout."""
    false_per_hour: float
    seconds_ratio: float
    """Seconds of all events relative to the seconds of all bouts."""

    @property
    def f1(self) -> tuple[float, ...]:
        """Event-based F1 for each of ``TOLERANCES_S``."""
        return tuple(one.value for one in self.f1_intervals)

    @property
    def f1_interval(self) -> Interval:
        """The F1 at the larger tolerance."""
        return self.f1_intervals[-1]

    @property
    def score(self) -> float:
        """The number by which parameters are chosen: the mean of F1 over the tolerances."""
        return sum(self.f1) / len(self.f1)


def bouts_of(coughs: Sequence[Span], pause_s: float = BOUT_PAUSE_S) -> tuple[Span, ...]:
    """The bouts of coughs in order of time: coughs with a pause of less than ``pause_s`` are one bout."""
    bouts: list[Span] = []
    for start, end in coughs:
        if bouts and start - bouts[-1][1] < pause_s - 1e-9:
            bouts[-1] = (bouts[-1][0], max(end, bouts[-1][1]))
        else:
            bouts.append((start, end))
    return tuple(bouts)


def compared(bouts: Sequence[Span], events: Sequence[Span]) -> Compared:
    """Compare the events of one recording with its bouts, both in order of time and without overlap."""
    errors = []
    for start, end in bouts:
        overlapping = [event for event in events if event[0] < end and event[1] > start]
        if overlapping:
            errors.append(overlapping[0][0] - start)
    overlapped = [sum(start < event[1] and end > event[0] for start, end in bouts) for event in events]
    return Compared(
        bouts=len(bouts),
        events=len(events),
        matches=tuple(_matches(bouts, events, tolerance) for tolerance in TOLERANCES_S),
        onset_errors_s=tuple(errors),
        merging=sum(count > 1 for count in overlapped),
        false=overlapped.count(0),
        event_s=sum(end - start for start, end in events),
        bout_s=sum(end - start for start, end in bouts),
    )


def quality(found: Sequence[Compared], hours: float) -> EventMeasures:
    """The quality over recordings of ``hours`` in all."""
    bouts, events = sum(one.bouts for one in found), sum(one.events for one in found)
    matches = [sum(one.matches[index] for one in found) for index in range(len(TOLERANCES_S))]
    errors = np.abs([error for one in found for error in one.onset_errors_s])
    false = sum(one.false for one in found)
    return EventMeasures(
        f1_intervals=_f1_intervals(found),
        precision=tuple(proportion(one, events) for one in matches),
        recall=tuple(proportion(one, bouts) for one in matches),
        found=_ratio(len(errors), bouts),
        onset_error_s=float(np.median(errors)) if len(errors) else math.nan,
        events=events,
        bouts=bouts,
        merging=sum(one.merging for one in found),
        false=false,
        false_per_hour=_ratio(false, hours),
        seconds_ratio=_ratio(sum(one.event_s for one in found), sum(one.bout_s for one in found)),
    )


def _f1_intervals(found: Sequence[Compared]) -> tuple[Interval, ...]:
    """F1 is ``2 * matches / (events + bouts)`` over all recordings together. NaN without bouts."""
    if not any(one.bouts for one in found):
        return (Interval(math.nan, math.nan, math.nan),) * len(TOLERANCES_S)
    # (recordings, tolerances + 1): the matches, and last the number of events and bouts.
    counts = np.array([(*one.matches, one.bouts + one.events) for one in found])
    total = counts.sum(axis=0)
    rng = np.random.default_rng(0)
    drawn = np.array([counts[rng.integers(0, len(found), len(found))].sum(axis=0) for _ in range(_DRAWS)])
    f1s = 2 * drawn[:, :-1] / np.maximum(1, drawn[:, -1:])
    low, high = np.percentile(f1s, [2.5, 97.5], axis=0)
    return tuple(
        Interval(float(2 * total[index] / total[-1]), float(low[index]), float(high[index]))
        for index in range(len(TOLERANCES_S))
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _matches(bouts: Sequence[Span], events: Sequence[Span], tolerance_s: float) -> int:
    """The largest number of pairs whose starts differ by at most ``tolerance_s``. Both are sorted by start."""
    pairs = bout = event = 0
    while bout < len(bouts) and event < len(events):
        late_s = events[event][0] - bouts[bout][0]
        if abs(late_s) <= tolerance_s + 1e-9:
            pairs, bout, event = pairs + 1, bout + 1, event + 1
        elif late_s > 0:
            bout += 1
        else:
            event += 1
    return pairs
