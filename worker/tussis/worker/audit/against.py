"""Compares an audit with the answers of another system: which profile and which coverage reproduce them best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from tussis.shared.coverage import Coverage
from tussis.shared.dsp.constants import HOP_SECONDS, MAX_SEGMENTS
from tussis.worker.audit.answers import VariantAnswer
from tussis.worker.audit.audit import Audit, AuditedRecording
from tussis.worker.audit.foreign import ForeignAnswer, ForeignAnswers
from tussis.worker.audit.summary import AnswerShifts, shifts_of

SAME: Final = 1e-3
"""The largest difference of a bag probability that the same preprocessing makes on another machine."""


@dataclass(frozen=True, slots=True)
class ComparedProfile:
    """One profile and coverage, compared with the other system. Differences are absolute."""

    profile: str
    coverage: Coverage
    shifts: AnswerShifts
    """From Tussis' answers to those of the other system. Decisions are those of one threshold: the other system's, or
    the model's if it names none."""
    same: int
    """Recordings whose probability differs by at most :data:`SAME`."""
    segment_mean: float | None
    """Mean difference of the probabilities of segments with the same start. None: the other system has no segments."""
    segment_largest: float | None
    counted: int
    """Recordings for which the other system names its number of segments."""
    same_count: int
    """Of these, recordings with the same number of segments."""

    @property
    def name(self) -> str:
        """Profile and coverage."""
        return f"{self.profile}, {self.coverage.value}"

    @property
    def reproduces(self) -> bool:
        """Whether every answer is the same within :data:`SAME`."""
        return self.same == self.shifts.recordings > 0


@dataclass(frozen=True, slots=True)
class Against:
    """The comparison with another system."""

    file: str
    matched: int
    """Recordings of the audit that the other system answered."""
    compared: int
    """Of these, recordings that every profile answers: the basis of all candidates."""
    unmatched: tuple[str, ...]
    """Files of the other system that are not in the audit."""
    unanswered: int
    thresholds: tuple[float, ...]
    """Of the other system."""
    inconsistent: int
    """Answers of the other system whose decision is not that of its own probability and threshold."""
    candidates: tuple[ComparedProfile, ...]
    """The best first."""
    changes: AnswerShifts
    """From the answers of the other system to those of Tussis with the model's own profile and threshold, over all
    matched recordings: what changes for users if Tussis replaces the other system."""
    alike: bool
    """Whether both coverages give the same answers, because no compared recording has more than 32 segments."""

    @property
    def best(self) -> ComparedProfile | None:
        """The candidate with the smallest mean difference; of equal ones, that with the closest segments."""
        return self.candidates[0] if self.compared else None


def compare(audit: Audit, foreign: ForeignAnswers, matched: Mapping[str, ForeignAnswer]) -> Against:
    """Compare. ``matched``: source of a recording -> the other system's answer for it."""
    pairs = [(one, matched[one.source]) for one in audit.recordings if one.source in matched]
    common = [pair for pair in pairs if all(isinstance(answer, VariantAnswer) for answer in pair[0].scored.values())]
    candidates = [
        _candidate(common, profile.name, coverage, audit.threshold)
        for profile in audit.profiles
        for coverage in Coverage
    ]
    used = {answer.line for answer in matched.values()}
    own = audit.plan.own.name
    return Against(
        file=str(foreign.path),
        matched=len(pairs),
        compared=len(common),
        unmatched=tuple(answer.file for answer in foreign.answers if answer.line not in used),
        unanswered=foreign.unanswered,
        thresholds=tuple(sorted({answer.threshold for answer in foreign.answers if answer.threshold is not None})),
        inconsistent=sum(_is_inconsistent(answer) for answer in foreign.answers),
        candidates=tuple(sorted(candidates, key=_rank)),
        changes=_changes(pairs, audit.threshold),
        alike=all(len(_answer(one, own).segments) <= MAX_SEGMENTS for one, _ in common),
    )


def _rank(candidate: ComparedProfile) -> tuple[float, float, int]:
    # Rounded, so that the noise of another machine does not decide between equal candidates.
    segments = candidate.segment_mean if candidate.segment_mean is not None else 0.0
    return round(candidate.shifts.mean, 6), round(segments, 6), -candidate.same_count


def _candidate(
    pairs: Sequence[tuple[AuditedRecording, ForeignAnswer]], profile: str, coverage: Coverage, threshold: float
) -> ComparedProfile:
    answers = [(_answer(one, profile).covering(coverage), foreign) for one, foreign in pairs]
    gaps = [
        abs(answer.segments[index] - probability)
        for answer, foreign in answers
        for start, probability in foreign.segments.items()
        if (index := _index(start, len(answer.segments))) is not None
    ]
    probabilities = [(answer.probability, foreign.probability) for answer, foreign in answers]
    counts = [(len(answer.segments), foreign.num_segments) for answer, foreign in answers if foreign.num_segments]
    return ComparedProfile(
        profile=profile,
        coverage=coverage,
        shifts=_shifts(answers, probabilities, threshold),
        same=sum(abs(own - other) <= SAME for own, other in probabilities),
        segment_mean=float(np.mean(gaps)) if gaps else None,
        segment_largest=max(gaps, default=None),
        counted=len(counts),
        same_count=sum(own == other for own, other in counts),
    )


def _shifts(
    answers: Sequence[tuple[VariantAnswer, ForeignAnswer]],
    probabilities: Sequence[tuple[float, float]],
    threshold: float,
) -> AnswerShifts:
    """Differences of the probabilities, and decisions that flip at the threshold of the other system."""
    decisions = []
    for answer, foreign in answers:
        limit = threshold if foreign.threshold is None else foreign.threshold
        decisions.append((answer.probability > limit, _decided(foreign, threshold)))
    return _with_decisions(shifts_of(probabilities, threshold), decisions)


def _changes(pairs: Sequence[tuple[AuditedRecording, ForeignAnswer]], threshold: float) -> AnswerShifts:
    plain = shifts_of([(foreign.probability, one.own.probability) for one, foreign in pairs], threshold)
    return _with_decisions(
        plain, [(_decided(foreign, threshold), one.own.probability > threshold) for one, foreign in pairs]
    )


def _with_decisions(shifts: AnswerShifts, decisions: Sequence[tuple[bool, bool]]) -> AnswerShifts:
    return replace(
        shifts,
        to_cough=sum(after and not before for before, after in decisions),
        to_no_cough=sum(before and not after for before, after in decisions),
    )


def _decided(foreign: ForeignAnswer, threshold: float) -> bool:
    """The other system's decision. If it names none: that of its threshold, or else of the model's."""
    if foreign.decision is not None:
        return foreign.decision
    return foreign.probability > (threshold if foreign.threshold is None else foreign.threshold)


def _answer(recording: AuditedRecording, profile: str) -> VariantAnswer:
    answer = recording.scored[profile]
    assert isinstance(answer, VariantAnswer)
    return answer


def _index(start: float, count: int) -> int | None:
    """The segment that begins at this time. None if there is none."""
    index = round(start / HOP_SECONDS)
    return index if index < count and abs(start - index * HOP_SECONDS) < 0.01 else None


def _is_inconsistent(answer: ForeignAnswer) -> bool:
    if answer.decision is None or answer.threshold is None:
        return False
    return answer.decision != (answer.probability > answer.threshold)
