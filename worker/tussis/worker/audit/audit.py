"""Runs an audit: each recording under each profile, and single factors where the answer shifts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from tussis.shared.coverage import Coverage
from tussis.shared.dsp.profiles import Decoder, Normalise, Profile
from tussis.shared.errors import OperatorError, PermanentError, StorageAccessDenied, TussisError
from tussis.worker.audio.limits import Limits
from tussis.worker.audit.answers import Answered, RecordingAnswers, VariantAnswer
from tussis.worker.audit.attribution import Attribution, attribute, flips
from tussis.worker.audit.causes import Cause, measure
from tussis.worker.audit.variants import changed, differences
from tussis.worker.detector.detector import Detector
from tussis.worker.modelling.comparison import Refusal

ATTRIBUTE_ABOVE: Final = 0.02
"""A larger shift is attributed to single factors. So is every flip."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What an audit compares."""

    detector: Detector
    own: Profile
    """The profile of the model's manifest."""
    others: tuple[Profile, ...]
    coverage: Coverage
    """Of the answers that are compared."""
    scored_coverage: Coverage
    """``full`` if both coverages are needed, to compare with another system."""
    limits: Limits
    attribute_above: float = ATTRIBUTE_ABOVE

    @property
    def threshold(self) -> float:
        """The threshold of the model's manifest."""
        return self.detector.manifest.threshold


@dataclass(frozen=True, slots=True)
class AuditedRecording:
    """The answers for one recording. It has one under the model's own profile."""

    source: str
    own: VariantAnswer
    others: dict[str, Answered]
    """Profile -> answer, or why there is none."""
    attributions: dict[str, Attribution]
    """Profile -> attribution, where the answer shifts enough."""
    causes: tuple[Cause, ...]
    """Measured facts. Empty if no answer shifts enough."""
    scored: Mapping[str, Answered]
    """Profile -> answer with all bags that were scored, for each profile, the model's own first."""

    def shift(self, profile: str) -> float | None:
        """Bag probability under a profile minus that under the model's own. None if there is no answer."""
        other = self.others[profile]
        return other.probability - self.own.probability if isinstance(other, VariantAnswer) else None

    def flips(self, profile: str, threshold: float) -> bool:
        """Whether the decision under a profile differs from that under the model's own."""
        other = self.others[profile]
        return isinstance(other, VariantAnswer) and flips(self.own, other, threshold)

    def worst(self, threshold: float) -> tuple[bool, float]:
        """Whether any decision flips, and the largest absolute shift: the order of the list of worst recordings."""
        shifts = [abs(shift) for name in self.others if (shift := self.shift(name)) is not None]
        return any(self.flips(name, threshold) for name in self.others), max(shifts, default=0.0)


@dataclass(slots=True)
class Audit:
    """All recordings of an audit."""

    plan: Plan
    recordings: list[AuditedRecording] = field(default_factory=list)
    """In the order in which they were read."""
    failures: list[tuple[str, Refusal]] = field(default_factory=list)
    """Recordings without an answer under the model's own profile, and why."""
    scored_variants: int = 0
    """Variants of recordings for which the model ran."""

    @property
    def threshold(self) -> float:
        """The threshold of the model."""
        return self.plan.threshold

    @property
    def profiles(self) -> tuple[Profile, ...]:
        """The model's own profile first."""
        return (self.plan.own, *self.plan.others)

    def worst_first(self) -> list[AuditedRecording]:
        """Flipped decisions first, then by the largest shift; equal ones by name."""
        return sorted(self.recordings, key=lambda one: (*(-float(x) for x in one.worst(self.threshold)), one.source))


def run(
    plan: Plan, sources: Iterable[str], read: Callable[[str], bytes], progress: Callable[[str], None] = lambda _: None
) -> Audit:
    """Audit recordings. One that cannot be read or decoded is listed, and the audit goes on.

    Args:
        plan: the model and the profiles.
        sources: paths and S3 URIs.
        read: returns the bytes of a source.
        progress: called with each source after it was audited.

    Raises:
        OperatorError: the deployment is wrong, so that every recording would fail.
    """
    audit = Audit(plan)
    for source in sources:
        try:
            _add(audit, source, read(source))
        except TussisError as error:
            # Access may be denied to one object only. Every other operator's error concerns all recordings.
            if isinstance(error, OperatorError) and not isinstance(error, StorageAccessDenied):
                raise
            audit.failures.append((source, Refusal.of(error)))
        progress(source)
    return audit


def _add(audit: Audit, source: str, data: bytes) -> None:
    plan = audit.plan
    answers = RecordingAnswers(data, plan.own, plan.detector, plan.limits)
    # A recording that the model's own profile cannot read needs no other answer.
    scored = dict(zip([plan.own.name], answers.under([plan.own], plan.scored_coverage), strict=True))
    own = _covering(scored[plan.own.name], plan.coverage)
    if isinstance(own, Refusal):
        audit.failures.append((source, own))
        return
    names = [other.name for other in plan.others]
    scored |= zip(names, answers.under(plan.others, plan.scored_coverage), strict=True)
    others = {name: _covering(scored[name], plan.coverage) for name in names}
    recording = AuditedRecording(source, own, others, {}, (), scored)
    attributions = {
        other.name: _attributed(plan, answers, own, answer, other)
        for other in plan.others
        if isinstance(answer := others[other.name], VariantAnswer) and _is_large(plan, recording, other.name)
    }
    causes = _causes(answers, plan.own) if attributions else ()
    audit.recordings.append(replace(recording, attributions=attributions, causes=causes))
    audit.scored_variants += answers.scored_variants


def _covering(answer: Answered, coverage: Coverage) -> Answered:
    return answer if isinstance(answer, Refusal) else answer.covering(coverage)


def _is_large(plan: Plan, recording: AuditedRecording, profile: str) -> bool:
    shift = recording.shift(profile)
    return shift is not None and (abs(shift) > plan.attribute_above or recording.flips(profile, plan.threshold))


def _attributed(
    plan: Plan, answers: RecordingAnswers, own: VariantAnswer, whole: VariantAnswer, other: Profile
) -> Attribution:
    factors = differences(plan.own, other)
    variants = [changed(plan.own, other, [factor]) for factor in factors]
    single = answers.under(variants, plan.coverage)
    return attribute(own, whole, dict(zip(factors, single, strict=True)), plan.threshold)


def _causes(answers: RecordingAnswers, own: Profile) -> tuple[Cause, ...]:
    """The measured facts. Empty if the native decoder cannot read the recording."""
    try:
        native = replace(own, decoder=Decoder.NATIVE, normalise=Normalise.PEAK)
        return measure(answers.audio(Decoder.NATIVE), answers.waveform(native).samples)
    except PermanentError:
        return ()


def others_of(own: Profile, profiles: Sequence[Profile]) -> tuple[Profile, ...]:
    """The profiles other than the model's own, each once."""
    return tuple(dict.fromkeys(profile for profile in profiles if profile != own))
