"""Compare the events of a rule with the true bouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from training.events import Span
from tussis.worker.evaluation.measures import Interval

TOLERANCES_S: Final = (0.25, 0.5)
"""An event matches a bout if their starts differ by at most this."""


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
class Quality:
    """The quality of a rule on many recordings."""

    f1: tuple[float, ...]
    """Event-based F1 for each of ``TOLERANCES_S``."""
    f1_interval: Interval
    """The F1 at the larger tolerance: 95 % by bootstrap over recordings."""
    found: float
    """Share of the bouts that an event overlaps."""
    onset_error_s: float
    """Median absolute onset error of these bouts."""
    events: int
    bouts: int
    merging: int
    false_per_hour: float
    seconds_ratio: float
    """Seconds of all events relative to the seconds of all bouts."""

    @property
    def score(self) -> float:
        """The number by which parameters are chosen: the mean of F1 over the tolerances."""
        return sum(self.f1) / len(self.f1)


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


def quality(found: Sequence[Compared], hours: float) -> Quality:
    """The quality over recordings of ``hours`` in all, with at least one bout."""
    bouts = sum(one.bouts for one in found)
    matches = np.array([one.matches for one in found])
    sizes = np.array([one.bouts + one.events for one in found])
    errors = np.abs([error for one in found for error in one.onset_errors_s])
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(found), (1_000, len(found)))
    f1s = 2 * matches[:, -1][drawn].sum(axis=1) / np.maximum(1, sizes[drawn].sum(axis=1))
    low, high = np.percentile(f1s, [2.5, 97.5])
    f1 = tuple((2 * matches.sum(axis=0) / sizes.sum()).tolist())
    return Quality(
        f1=f1,
        f1_interval=Interval(f1[-1], float(low), float(high)),
        found=len(errors) / bouts,
        onset_error_s=float(np.median(errors)) if len(errors) else float("nan"),
        events=sum(one.events for one in found),
        bouts=bouts,
        merging=sum(one.merging for one in found),
        false_per_hour=sum(one.false for one in found) / hours,
        seconds_ratio=sum(one.event_s for one in found) / sum(one.bout_s for one in found),
    )


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
