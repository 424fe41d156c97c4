"""Cough events: where in a recording people cough, from the probabilities of its overlapping segments.

A cough event is a bout: one cough, or several coughs in quick succession. It is not a single cough. Coughs with a pause
of less than about two seconds are one event, because no segment fits into the pause.

The rule has two steps:

1. The recording is divided into bins of 0.5 s, the hop of the segments. The probability of a bin is the lowest
   probability of the segments that cover it.
2. A bin is cough if its probability is above :data:`EVENT_THRESHOLD`. A cough event is a run of such bins.

All parameters of the rule are in this module. ``tussis.shared.store.event_sql`` has the same rule in SQL.
``docs/cough-events.md`` has the measurements by which the rule was chosen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tussis.shared.dsp.constants import HOP_SAMPLES, HOP_SECONDS, SEGMENT_SAMPLES

BIN_S: Final = HOP_SECONDS
"""Length of a bin, seconds: 0.5."""
BINS_A_SEGMENT: Final = SEGMENT_SAMPLES // HOP_SAMPLES
"""Number of bins that a segment covers, and the most segments that cover a bin: 4."""
EVENT_THRESHOLD: Final = 0.3
"""A bin is cough if its probability is above this number.

It applies to bins. The threshold of a model applies to bags, and is another number.
"""


@dataclass(frozen=True, slots=True)
class CoughEvent:
    """A bout of coughing: consecutive bins that are cough."""

    start_s: float
    """Start of the first bin, seconds from the start of the recording. A multiple of 0.5."""
    end_s: float
    """End of the last bin, or of the recording if that is earlier, seconds."""
    peak: float
    """The highest probability of its bins."""
    mean: float
    """The arithmetic mean of the probabilities of its bins."""
    bins: int
    """Number of bins, at least 1."""


def bin_probabilities(starts: Sequence[float], probabilities: Sequence[float], duration_s: float) -> tuple[float, ...]:
    """The probability of each bin of a recording: the lowest of the one to four segments that cover it.

    A bin at the start of the recording is covered by fewer segments than the others. So is a bin at the end if no
    segment starts after the bin's own start minus 2 s (coverage ``head``, or a profile that drops the tail).

    Args:
        starts: start of each of S segments, seconds: 0, 0.5, 1, ... over all bags of the recording.
        probabilities: the S probabilities, 0 to 1.
        duration_s: length of the recording, seconds.

    Returns:
        One probability for each bin that starts before ``duration_s`` and is covered by a segment. Bin i starts at
        ``0.5 * i`` seconds. Empty if S is 0.

    Raises:
        ValueError: there are not as many starts as probabilities, the starts are others than those above, a
            probability is not between 0 and 1, or the duration is not finite and above 0.
    """
    count = len(probabilities)
    if len(starts) != count:
        raise ValueError(f"{len(starts)} starts for {count} probabilities")
    if not (0 < duration_s < math.inf):
        raise ValueError(f"a recording of {duration_s} s")
    for index, (start, probability) in enumerate(zip(starts, probabilities, strict=True)):
        if start != index * BIN_S:
            raise ValueError(f"segment {index} starts at {start} s, not at {index * BIN_S} s")
        if not 0 <= probability <= 1:
            raise ValueError(f"segment {index} has the probability {probability}")
    if not count:
        return ()
    bins = min(count + BINS_A_SEGMENT - 1, math.ceil(duration_s / BIN_S))
    return tuple(min(probabilities[max(0, index - BINS_A_SEGMENT + 1) : index + 1]) for index in range(bins))


def find_events(
    starts: Sequence[float],
    probabilities: Sequence[float],
    duration_s: float,
    threshold: float = EVENT_THRESHOLD,
) -> tuple[CoughEvent, ...]:
    """The cough events of a recording, in order of time. They do not overlap or touch.

    Args:
        starts: as for :func:`bin_probabilities`. This function raises the same errors.
        probabilities: the probabilities of the segments, 0 to 1.
        duration_s: length of the recording, seconds.
        threshold: a bin is cough if its probability is above it.
    """
    bins = bin_probabilities(starts, probabilities, duration_s)
    events = []
    first = 0
    for index in range(len(bins) + 1):
        if index < len(bins) and bins[index] > threshold:
            continue
        if first < index:
            run = bins[first:index]
            events.append(
                CoughEvent(
                    start_s=first * BIN_S,
                    end_s=min(index * BIN_S, duration_s),
                    peak=max(run),
                    mean=math.fsum(run) / len(run),
                    bins=len(run),
                )
            )
        first = index + 1
    return tuple(events)


def cough_seconds(events: Iterable[CoughEvent]) -> float:
    """The time in which people cough, seconds: 0.5 s for each bin that is cough."""
    return BIN_S * sum(event.bins for event in events)
