"""Compares a stored analysis with its repetition, value by value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tussis.shared.store.records import Analysis, Result, Segment, segments_deleted
from tussis.shared.store.software import NAMES, Software

#: The largest difference of a probability that is called the same.
SAME: Final = 1e-6
#: The largest difference of a probability on other processors and versions (docs/preprocessing.md, tolerances).
TOLERANCE: Final = 1e-3
#: The largest differences of the facts about the audio. They are computed from the decoded samples alone.
_SECONDS: Final = 1e-6
_DB: Final = 0.01
_SHARE: Final = 1e-4


@dataclass(frozen=True, slots=True)
class ComparedValue:
    """One value in the row and here."""

    name: str
    row: Any
    here: Any
    limit: float | None
    """The largest difference of two numbers that is allowed. None: the values must be equal."""

    @property
    def agrees(self) -> bool:
        """Whether the two are equal, or within the limit."""
        if self.limit is None or self.row is None or self.here is None:
            return bool(self.row == self.here)
        return bool(abs(self.row - self.here) <= self.limit)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A result in the store and its repetition."""

    values: tuple[ComparedValue, ...]
    """The bag probability, the decision, and the facts about the recording."""
    segments: tuple[ComparedValue, ...]
    """The probability of each segment. Empty if they were deleted. If their numbers differ, only the numbers."""
    segments_deleted: bool
    """Whether `tussis retain` deleted the segments of the row."""
    software: tuple[ComparedValue, ...]
    """The versions that differ. Empty if the row has none."""
    software_known: bool
    """Whether the row has its versions."""

    @property
    def differences(self) -> tuple[ComparedValue, ...]:
        """What is not within its limit. Of the segments only the one that differs most."""
        found = [pair for pair in self.values if not pair.agrees]
        worst = max(self.segments, key=_gap, default=None)
        return (*found, worst) if worst is not None and not worst.agrees else tuple(found)

    @property
    def largest(self) -> ComparedValue:
        """The probability with the largest difference: of the bag, or of a segment."""
        return max((self.values[0], *(pair for pair in self.segments if pair.limit is not None)), key=_gap)

    @property
    def largest_difference(self) -> float:
        """The difference of :attr:`largest`."""
        return _gap(self.largest)


def compare(analysis: Analysis, segments: Sequence[Segment], here: Result) -> Comparison:
    """Compare the row and its segments with the repetition."""
    deleted = segments_deleted(analysis, segments)
    return Comparison(
        values=tuple(_values(analysis, here)),
        segments=() if deleted else tuple(_segments(segments, here)),
        segments_deleted=deleted,
        software=tuple(other_software(analysis.software, here.software)),
        software_known=analysis.software is not None,
    )


def other_software(row: Software | None, here: Software | None) -> Iterator[ComparedValue]:
    """The versions that differ."""
    if row is None or here is None:
        return
    for name in NAMES:
        pair = ComparedValue(name, getattr(row, name), getattr(here, name), None)
        if not pair.agrees:
            yield pair


def _values(analysis: Analysis, here: Result) -> Iterator[ComparedValue]:
    yield ComparedValue("bag_probability", analysis.bag_probability, here.bag_probability, TOLERANCE)
    yield ComparedValue("decision", analysis.decision, here.decision, None)
    yield ComparedValue("segments", analysis.segments, len(here.segments), None)
    yield ComparedValue("segments_total", analysis.segments_total, here.segments_total, None)
    yield ComparedValue("duration_s", analysis.duration_s, here.duration_s, _SECONDS)
    yield ComparedValue("analyzed_s", analysis.analyzed_s, here.analyzed_s, _SECONDS)
    yield ComparedValue("truncated", analysis.truncated, here.truncated, None)
    for name in ("rate_hz", "channels", "codec", "container", "decoder"):
        yield ComparedValue(name, getattr(analysis, name), getattr(here, name), None)
    if analysis.events is None:  # from before revision 0005, when results had no events and no levels
        return
    cough_seconds = sum(event.end_s - event.start_s for event in here.events)
    yield ComparedValue("events", analysis.events, len(here.events), None)
    yield ComparedValue("cough_seconds", analysis.cough_seconds, cough_seconds, _SECONDS)
    for name in ("peak_dbfs", "rms_dbfs"):
        yield ComparedValue(name, getattr(analysis, name), getattr(here, name), _DB)
    for name in ("clipped_share", "dc_offset"):
        yield ComparedValue(name, getattr(analysis, name), getattr(here, name), _SHARE)
    yield ComparedValue("warnings", sorted(analysis.warnings or ()), sorted(here.warnings), None)


def _segments(stored: Sequence[Segment], here: Result) -> Iterator[ComparedValue]:
    scores = here.segments
    if len(stored) != len(scores):
        yield ComparedValue("rows of segments", len(stored), len(scores), None)
        return
    for number, (segment, probability) in enumerate(zip(stored, scores.probability, strict=True)):
        where = f"segment {number} ({segment.start_s:.1f} to {segment.end_s:.1f} s)"
        yield ComparedValue(where, segment.probability, probability, TOLERANCE)


def _gap(pair: ComparedValue) -> float:
    return abs(float(pair.row) - float(pair.here))
