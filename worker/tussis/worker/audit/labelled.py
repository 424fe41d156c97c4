"""How well the answers under each profile agree with labels. Under the profile of its training, a model agrees best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tussis.shared.dsp.constants import HOP_SECONDS
from tussis.shared.events import CoughEvent, find_events
from tussis.worker.audit.answers import VariantAnswer
from tussis.worker.audit.audit import Audit, AuditedRecording
from tussis.worker.evaluation.events import bouts_of, compared, quality
from tussis.worker.evaluation.labels import Span
from tussis.worker.evaluation.measures import Floats, Interval, Truth, auroc, auroc_interval, rate, share

_DRAWS: Final = 2_000
_SECONDS_AN_HOUR: Final = 3_600


@dataclass(frozen=True, slots=True)
class ProfileMeasures:
    """The answers under one profile, compared with the labels. Intervals have 95 %."""

    profile: str
    auroc: Interval | None
    """None unless there are labels of both kinds."""
    accuracy: Interval
    """Share of right decisions at the threshold of the model."""
    false_events_per_hour: Interval | None
    """Cough events in an hour of recordings without a cough. None without such recordings."""
    event_f1: tuple[Interval, ...] | None
    """F1 of the cough events for each of ``evaluation.events.TOLERANCES_S``. None without labelled bouts."""
    found: Interval | None
    """Share of the recordings with a cough that have a cough event. None without such recordings."""
    lag: Interval | None
    """AUROC of the best profile minus that of this one, by a paired bootstrap over recordings. None for the best."""


@dataclass(frozen=True, slots=True)
class LabelledProfiles:
    """All profiles, compared with the labels of the same recordings."""

    recordings: int
    """Recordings with a label that have an answer under every profile."""
    coughs: int
    left_out: int
    """Labelled recordings without an answer under one of the profiles."""
    unmatched: int
    """Labels without a recording in the audit."""
    profiles: tuple[ProfileMeasures, ...]
    """The model's own first."""
    best: str | None
    """The profile with the highest AUROC; of equal ones, that with the highest accuracy. None without AUROC."""

    @property
    def is_clear(self) -> bool:
        """Whether every other profile is worse than the best with 95 % confidence."""
        lags = [one.lag for one in self.profiles if one.profile != self.best]
        return self.best is not None and all(lag is not None and lag.low > 0 for lag in lags)


def compare(
    audit: Audit, labels: Mapping[str, bool], unmatched: int, coughs: Mapping[str, Sequence[Span]] | None = None
) -> LabelledProfiles:
    """Compare the answers with labels.

    ``labels``: source of a recording -> whether it has a cough. ``unmatched``: the number of other labels. ``coughs``:
    source -> the start and end of each cough in seconds. A recording with a cough that is not in it has no part in
    the F1 of the events.
    """
    labelled = [one for one in audit.recordings if one.source in labels]
    common = [one for one in labelled if all(isinstance(answer, VariantAnswer) for answer in one.others.values())]
    truth = np.array([labels[one.source] for one in common], bool)
    failed = sum(source in labels for source, _ in audit.failures)
    names = [profile.name for profile in audit.profiles]
    answers = {name: [_answer(one, name) for one in common] for name in names}
    best = _best(truth, answers, audit.threshold)
    bouts = None if coughs is None else [_bouts(one.source, labels, coughs) for one in common]
    return LabelledProfiles(
        recordings=len(common),
        coughs=int(truth.sum()),
        left_out=len(labelled) - len(common) + failed,
        unmatched=unmatched,
        profiles=tuple(
            _measures(name, truth, answers, audit.threshold, None if name == best else best, bouts) for name in names
        )
        if common
        else (),
        best=best,
    )


def _answer(recording: AuditedRecording, profile: str) -> VariantAnswer:
    answer = recording.others.get(profile, recording.own)
    assert isinstance(answer, VariantAnswer)
    return answer


def _best(truth: Truth, answers: Mapping[str, Sequence[VariantAnswer]], threshold: float) -> str | None:
    if truth.all() or not truth.any():
        return None
    scores = {name: _scores(each) for name, each in answers.items()}
    return max(scores, key=lambda name: (auroc(truth, scores[name]), _accuracy(truth, scores[name], threshold).value))


def _bouts(source: str, labels: Mapping[str, bool], coughs: Mapping[str, Sequence[Span]]) -> tuple[Span, ...] | None:
    """The labelled bouts of a recording. None if it has coughs at unknown times."""
    if source in coughs:
        return bouts_of(coughs[source])
    return None if labels[source] else ()


def _measures(
    name: str,
    truth: Truth,
    answers: Mapping[str, Sequence[VariantAnswer]],
    threshold: float,
    best: str | None,
    bouts: Sequence[tuple[Span, ...] | None] | None,
) -> ProfileMeasures:
    scores = _scores(answers[name])
    events = [_events(answer) for answer in answers[name]]
    others = [(answer, found) for answer, found, cough in zip(answers[name], events, truth, strict=True) if not cough]
    both = bool(truth.any() and not truth.all())
    hours = math.fsum(_heard_s(answer) for answer, _ in others) / _SECONDS_AN_HOUR
    return ProfileMeasures(
        profile=name,
        auroc=auroc_interval(truth, scores) if both else None,
        accuracy=_accuracy(truth, scores, threshold),
        false_events_per_hour=rate(sum(len(found) for _, found in others), hours) if others else None,
        event_f1=None if bouts is None else _event_f1(answers[name], events, bouts),
        found=share(np.array([bool(found) for found in events], bool)[truth]) if truth.any() else None,
        lag=None if best is None else _lag(truth, _scores(answers[best]), scores),
    )


def _event_f1(
    answers: Sequence[VariantAnswer], events: Sequence[Sequence[CoughEvent]], bouts: Sequence[tuple[Span, ...] | None]
) -> tuple[Interval, ...] | None:
    """F1 over the recordings with known bouts. A bout after the analysed part does not count."""
    found = [
        compared(
            [bout for bout in known if bout[0] < _heard_s(answer)], [(event.start_s, event.end_s) for event in each]
        )
        for answer, each, known in zip(answers, events, bouts, strict=True)
        if known is not None
    ]
    return quality(found, 1.0).f1_intervals if any(one.bouts for one in found) else None


def _scores(answers: Sequence[VariantAnswer]) -> Floats:
    return np.array([answer.probability for answer in answers], np.float64)


def _accuracy(truth: Truth, scores: Floats, threshold: float) -> Interval:
    return share((scores > threshold) == truth)


def _heard_s(answer: VariantAnswer) -> float:
    """Seconds of the recording that the segments cover."""
    return min(answer.duration_s, (len(answer.segments) + 3) * HOP_SECONDS)


def _events(answer: VariantAnswer) -> tuple[CoughEvent, ...]:
    starts = [index * HOP_SECONDS for index in range(len(answer.segments))]
    return find_events(starts, answer.segments, answer.duration_s)


def _lag(truth: Truth, best: Floats, scores: Floats, seed: int = 0) -> Interval:
    """AUROC of ``best`` minus that of ``scores``. Both are drawn from the same recordings, within each class."""
    rng = np.random.default_rng(seed)
    positives, negatives = np.flatnonzero(truth), np.flatnonzero(~truth)
    gaps = []
    for _ in range(_DRAWS):
        drawn = np.concatenate([rng.choice(positives, positives.size), rng.choice(negatives, negatives.size)])
        gaps.append(auroc(truth[drawn], best[drawn]) - auroc(truth[drawn], scores[drawn]))
    low, high = np.percentile(gaps, [2.5, 97.5])
    return Interval(auroc(truth, best) - auroc(truth, scores), float(low), float(high))
