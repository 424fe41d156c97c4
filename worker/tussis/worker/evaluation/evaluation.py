"""Everything that ``tussis evaluate`` measures about one model on labelled recordings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tussis.shared.errors import LabelsInvalid
from tussis.shared.events import EVENT_THRESHOLD
from tussis.shared.uris import shown
from tussis.worker.evaluation import measures
from tussis.worker.evaluation.curves import SWEEP, Confusion, confusion
from tussis.worker.evaluation.events import BOUT_PAUSE_S, EventMeasures, bouts_of, compared, quality
from tussis.worker.evaluation.labels import Label, Span
from tussis.worker.evaluation.measures import Floats, Interval, ReliabilityBin, Truth
from tussis.worker.evaluation.scored import Scored
from tussis.worker.evaluation.thresholds import for_false_alarms, for_false_events, for_precision

MAX_GROUPS: Final = 100
"""The most values of a column of groups."""
EVENT_SWEEP: Final = tuple(index / 10 for index in range(1, 10))
_LARGEST_LOGIT: Final = 40.0
"""Larger logits, also infinite ones, count as this one in the fit of the temperature."""


@dataclass(frozen=True, slots=True)
class Case:
    """A labelled recording with its result."""

    label: Label
    scored: Scored
    bouts: tuple[Span, ...] | None
    """The bouts in the analysed part. Empty: no cough. None: the recording has coughs at unknown times."""
    late: int = 0
    """Bouts after the analysed part. They are not measured."""


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """What to measure."""

    by: Sequence[str] = ()
    """Columns of the file of labels."""
    threshold: float = 0.5
    """Of the decisions."""
    precision: float | None = None
    """Choose a threshold with this precision."""
    false_alarms: float | None = None
    """Choose thresholds with at most this number of false alarms an hour."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """Decisions at one threshold, compared with the labels."""

    counts: Confusion
    sensitivity: Interval
    specificity: Interval
    precision: Interval
    false_alarms_an_hour: Interval
    """Decisions "cough" for recordings without a cough, for each hour of these recordings."""


@dataclass(frozen=True, slots=True)
class Events:
    """Cough events at one threshold of bins, compared with the labels."""

    threshold: float
    recordings: int
    """Recordings whose bouts are known. The others are not measured."""
    hours: float
    quality: EventMeasures
    false_an_hour: Interval
    """Events that overlap no bout, for each hour of these recordings."""


@dataclass(frozen=True, slots=True)
class Group:
    """Results of some recordings, or of all. A number without data is NaN."""

    recordings: int
    coughs: int
    hours: float
    """Analysed hours of all recordings."""
    hours_without_cough: float
    """Analysed hours of the recordings without a cough."""
    auroc: Interval
    average_precision: Interval
    decisions: Decisions
    events: Events | None
    """None if no segments are known, or no recording with known bouts."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """How well probabilities agree with frequencies."""

    reliability: tuple[ReliabilityBin, ...]
    error: float
    """Expected calibration error."""
    temperature: float
    """Divisor of the logits that makes the labels most likely. NaN without both classes."""
    error_at_temperature: float


@dataclass(frozen=True, slots=True)
class Chosen:
    """A chosen threshold, or None if there is none, and what it gives on the same recordings."""

    wanted: float
    threshold: float | None
    decisions: Decisions | None = None
    events: Events | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All results."""

    all: Group
    sweep: tuple[Decisions, ...]
    event_sweep: tuple[Events, ...]
    groups: Mapping[str, Mapping[str, Group]]
    """Column -> value -> results."""
    calibration: Calibration
    for_precision: Chosen | None
    for_false_alarms: Chosen | None
    """Threshold of the decisions."""
    for_false_events: Chosen | None
    """Threshold of the bins of cough events."""
    late_bouts: int


def check_columns(labels: Sequence[Label], columns: Sequence[str]) -> None:
    """Raise :class:`LabelsInvalid` for a column of groups that the labels do not have, or with too many values."""
    for column in columns:
        if column not in labels[0].groups:
            known = ", ".join(labels[0].groups) or "none"
            raise LabelsInvalid(f"the file of labels has no column {shown(column)} of groups: its columns are {known}")
        values = len({label.groups[column] for label in labels})
        if values > MAX_GROUPS:
            raise LabelsInvalid(
                f"the column {shown(column)} has {values:,} values: choose one with at most {MAX_GROUPS}"
            )


def check_agreement(label: Label, coughs: Sequence[Span]) -> None:
    """Raise :class:`LabelsInvalid` if the label of a recording and its events contradict each other."""
    if bool(coughs) is not label.is_cough:
        raise LabelsInvalid(
            f"{shown(label.file)} has the label {'cough' if label.is_cough else 'no-cough'}, and in the file of events "
            f"{f'{len(coughs)} events' if coughs else 'a line without times'}: correct one of them"
        )


def case_of(label: Label, scored: Scored, coughs: Sequence[Span] | None, pause_s: float = BOUT_PAUSE_S) -> Case:
    """A case. ``coughs``: the labelled coughs of this recording, None if it is not in the file of events.

    Raises :class:`LabelsInvalid` if the label and the events contradict each other.
    """
    if coughs is None:
        return Case(label, scored, None if label.is_cough else ())
    check_agreement(label, coughs)
    bouts = bouts_of(coughs, pause_s)
    inside = tuple(bout for bout in bouts if bout[0] < scored.analyzed_s)
    return Case(label, scored, inside, len(bouts) - len(inside))


def evaluate(cases: Sequence[Case], request: EvaluationRequest) -> Evaluation:
    """Measure everything. There is at least one case, and the labels have the columns of groups."""
    truth, probabilities = _truth(cases), _probabilities(cases)
    hours = _hours([case for case in cases if not case.label.is_cough])
    placed = _placed(cases)
    return Evaluation(
        all=group(cases, request.threshold),
        sweep=tuple(decisions(cases, threshold) for threshold in sorted({*SWEEP, request.threshold})),
        event_sweep=tuple(events(placed, threshold) for threshold in EVENT_SWEEP) if placed else (),
        groups={
            column: {value: group(some, request.threshold) for value, some in _members(cases, column).items()}
            for column in request.by
        },
        calibration=calibration(truth, probabilities, np.array([case.scored.logit for case in cases])),
        for_precision=None
        if request.precision is None
        else _chosen(cases, request.precision, for_precision(truth, probabilities, request.precision)),
        for_false_alarms=None
        if request.false_alarms is None
        else _chosen(cases, request.false_alarms, for_false_alarms(truth, probabilities, hours, request.false_alarms)),
        for_false_events=_chosen_events(placed, request.false_alarms),
        late_bouts=sum(case.late for case in placed),
    )


def group(cases: Sequence[Case], threshold: float) -> Group:
    """The results of some recordings."""
    truth, logits = _truth(cases), np.array([case.scored.logit for case in cases], np.float64)
    placed = _placed(cases)
    return Group(
        recordings=len(cases),
        coughs=int(truth.sum()),
        hours=_hours(cases),
        hours_without_cough=_hours([case for case in cases if not case.label.is_cough]),
        auroc=measures.auroc_interval(truth, logits),
        average_precision=measures.average_precision_interval(truth, logits),
        decisions=decisions(cases, threshold),
        events=events(placed, EVENT_THRESHOLD) if placed else None,
    )


def decisions(cases: Sequence[Case], threshold: float) -> Decisions:
    """The decisions at a threshold."""
    counts = confusion([(case.scored.probability, case.label.is_cough) for case in cases], threshold)
    coughs = counts.true_positive + counts.false_negative
    others = counts.true_negative + counts.false_positive
    return Decisions(
        counts=counts,
        sensitivity=measures.proportion(counts.true_positive, coughs),
        specificity=measures.proportion(counts.true_negative, others),
        precision=measures.proportion(counts.true_positive, counts.true_positive + counts.false_positive),
        false_alarms_an_hour=measures.rate(
            counts.false_positive, _hours([case for case in cases if not case.label.is_cough])
        ),
    )


def events(placed: Sequence[Case], threshold: float) -> Events:
    """The cough events at a threshold of bins, of recordings with known bouts and segments."""
    hours = _hours(placed)
    found = quality([compared(case.bouts or (), _spans(case, threshold)) for case in placed], hours)
    return Events(threshold, len(placed), hours, found, measures.rate(found.false, hours))


def calibration(truth: Truth, probabilities: Floats, logits: Floats) -> Calibration:
    """The calibration of bag probabilities."""
    curve, error = measures.reliability(truth, probabilities), measures.calibration_error(truth, probabilities)
    if truth.all() or not truth.any():
        return Calibration(curve, error, math.nan, math.nan)
    finite = np.clip(logits, -_LARGEST_LOGIT, _LARGEST_LOGIT)
    temperature = measures.temperature(truth, finite, balanced=False)
    cooled = 1 / (1 + np.exp(-finite / temperature))
    return Calibration(curve, error, temperature, measures.calibration_error(truth, cooled))


def _chosen(cases: Sequence[Case], wanted: float, threshold: float | None) -> Chosen:
    return Chosen(wanted, threshold, None if threshold is None else decisions(cases, threshold))


def _chosen_events(placed: Sequence[Case], wanted: float | None) -> Chosen | None:
    if wanted is None or not placed:
        return None

    def false_events(threshold: float) -> int:
        return sum(compared(case.bouts or (), _spans(case, threshold)).false for case in placed)

    threshold = for_false_events(false_events, _hours(placed), wanted)
    return Chosen(wanted, threshold, events=None if threshold is None else events(placed, threshold))


def _members(cases: Sequence[Case], column: str) -> dict[str, list[Case]]:
    """Value of the column -> the recordings with it, sorted by value."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        found.setdefault(case.label.groups[column], []).append(case)
    return dict(sorted(found.items()))


def _placed(cases: Sequence[Case]) -> list[Case]:
    """The recordings whose bouts and segments are known."""
    return [case for case in cases if case.bouts is not None and case.scored.probabilities is not None]


def _spans(case: Case, threshold: float) -> list[Span]:
    return [(event.start_s, event.end_s) for event in case.scored.events(threshold)]


def _truth(cases: Sequence[Case]) -> Truth:
    return np.array([case.label.is_cough for case in cases], np.bool_)


def _probabilities(cases: Sequence[Case]) -> Floats:
    return np.array([case.scored.probability for case in cases], np.float64)


def _hours(cases: Sequence[Case]) -> float:
    return math.fsum(case.scored.analyzed_s for case in cases) / 3600
