"""Sums an audit up by profile and by factor, and compares the sums with limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tussis.worker.audit.answers import VariantAnswer
from tussis.worker.audit.attribution import Effect
from tussis.worker.audit.audit import Audit
from tussis.worker.audit.variants import Factor, differences
from tussis.worker.evaluation.flips import MostFlips


@dataclass(frozen=True, slots=True)
class AnswerShifts:
    """How far answers are from those under the model's own profile. Shifts are absolute differences."""

    recordings: int
    """Recordings with an answer under both."""
    mean: float
    p99: float
    """At most 1 % of the recordings have a larger shift. It is one of the shifts."""
    largest: float
    to_cough: int
    """Decisions that flip to cough."""
    to_no_cough: int

    @property
    def flips(self) -> int:
        """Decisions that flip."""
        return self.to_cough + self.to_no_cough


def shifts_of(pairs: Sequence[tuple[float, float]], threshold: float) -> AnswerShifts:
    """Sum up pairs of probabilities: under the model's own profile, and the other one."""
    absolute = np.array([abs(other - own) for own, other in pairs])
    if not absolute.size:
        return AnswerShifts(0, 0.0, 0.0, 0.0, 0, 0)
    decisions = [(own > threshold, other > threshold) for own, other in pairs]
    return AnswerShifts(
        recordings=len(pairs),
        mean=float(absolute.mean()),
        # "higher" returns one of the values. With few recordings, more than 1 % could exceed an interpolated value.
        p99=float(np.quantile(absolute, 0.99, method="higher")),
        largest=float(absolute.max()),
        to_cough=sum(other and not own for own, other in decisions),
        to_no_cough=sum(own and not other for own, other in decisions),
    )


@dataclass(frozen=True, slots=True)
class FactorSummary:
    """What one factor alone does, over the recordings whose shift was attributed."""

    factor: Factor
    recordings: int
    mean: float
    """Mean absolute shift."""
    largest: float
    flips: int
    image_mean: float
    """Mean over the recordings of the mean absolute difference of the images."""
    main: int
    """Recordings in which it is the main factor."""


@dataclass(frozen=True, slots=True)
class ProfileSummary:
    """One other profile, compared with the model's own."""

    profile: str
    shifts: AnswerShifts
    refused: Counter[str]
    """Error class -> recordings that have an answer under the model's own profile only."""
    image_mean: float
    """Mean over the recordings of the mean absolute difference of the images."""
    image_worst: float
    """The largest of them."""
    image_largest: float
    """The largest difference of a pixel."""
    segments: int
    own_segments: int
    """Of the same recordings, under the model's own profile."""
    attributed: int
    """Recordings whose shift was attributed to factors."""
    factors: tuple[FactorSummary, ...]
    interaction: float
    """Mean absolute shift that no factor alone explains, over the attributed recordings."""


def summarise(audit: Audit) -> tuple[ProfileSummary, ...]:
    """One summary for each other profile, in the order of the command."""
    return tuple(_summary(audit, other.name) for other in audit.plan.others)


def _summary(audit: Audit, profile: str) -> ProfileSummary:
    both = [(one.own, other) for one in audit.recordings if isinstance(other := one.others[profile], VariantAnswer)]
    refusals = (one.others[profile] for one in audit.recordings)
    distances = [other.distance for _, other in both]
    means = [distance.mean for distance in distances]
    attributions = [one.attributions[profile] for one in audit.recordings if profile in one.attributions]
    rest = [abs(one.interaction) for one in attributions if one.interaction is not None]
    return ProfileSummary(
        profile=profile,
        shifts=shifts_of([(own.probability, other.probability) for own, other in both], audit.threshold),
        refused=Counter(refusal.error_class for refusal in refusals if not isinstance(refusal, VariantAnswer)),
        image_mean=_mean(means),
        image_worst=max(means, default=0.0),
        image_largest=max((distance.largest for distance in distances), default=0.0),
        segments=sum(len(other.segments) for _, other in both),
        own_segments=sum(len(own.segments) for own, _ in both),
        attributed=len(attributions),
        factors=_factors(audit, profile),
        interaction=_mean(rest),
    )


def _factors(audit: Audit, profile: str) -> tuple[FactorSummary, ...]:
    other = next(one for one in audit.plan.others if one.name == profile)
    attributions = [one.attributions[profile] for one in audit.recordings if profile in one.attributions]
    main = Counter(one.main for one in attributions)
    found = []
    for factor in differences(audit.plan.own, other):
        effects = [effect for one in attributions if isinstance(effect := one.effects[factor], Effect)]
        shifts = [abs(effect.shift) for effect in effects]
        found.append(
            FactorSummary(
                factor=factor,
                recordings=len(effects),
                mean=_mean(shifts),
                largest=max(shifts, default=0.0),
                flips=sum(effect.flips for effect in effects),
                image_mean=_mean([effect.image_mean for effect in effects]),
                main=main[factor],
            )
        )
    return tuple(found)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits for each comparison of an audit. None: no limit."""

    flips: MostFlips | None = None
    shift: float | None = None

    def exceeded(self, name: str, shifts: AnswerShifts) -> list[str]:
        """The limits that a comparison exceeds, as sentences. ``name`` is the profile or system compared."""
        found = []
        if self.flips is not None and not self.flips.admits(shifts.flips, shifts.recordings):
            found.append(f"{name}: {shifts.flips} of {shifts.recordings} decisions flip, the limit is {self.flips}")
        if self.shift is not None and shifts.largest > self.shift:
            found.append(f"{name}: the largest shift is {shifts.largest:.4f}, the limit is {self.shift:g}")
        return found
