"""Attributes the shift between two profiles to single factors, and the rest to their interaction."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tussis.worker.audit.answers import Answered, VariantAnswer
from tussis.worker.audit.causes import Cause
from tussis.worker.audit.variants import Factor
from tussis.worker.modelling.comparison import Refusal


@dataclass(frozen=True, slots=True)
class Effect:
    """What one factor alone changes."""

    shift: float
    """Bag probability with the other profile's rule for this factor, minus that of the model's own profile."""
    flips: bool
    """Whether this factor alone flips the decision."""
    image_mean: float
    """Mean absolute difference of the images."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """The shift from the model's own profile to another one, by factor."""

    shift: float
    """Of all factors together."""
    effects: Mapping[Factor, Effect | Refusal]
    """Each factor in which the profiles differ, in the order of the steps. A refusal: no answer with it alone."""

    @property
    def interaction(self) -> float | None:
        """The shift of all factors together, minus the shifts of the single factors. None after a refusal."""
        shifts = [effect.shift for effect in self.effects.values() if isinstance(effect, Effect)]
        return self.shift - math.fsum(shifts) if len(shifts) == len(self.effects) else None

    @property
    def main(self) -> Factor | None:
        """The factor with the largest shift towards the whole shift. None if no factor alone shifts that way."""
        sign = math.copysign(1.0, self.shift)
        along = {
            factor: sign * effect.shift
            for factor, effect in self.effects.items()
            if isinstance(effect, Effect) and sign * effect.shift > 0
        }
        return max(along, key=along.__getitem__, default=None)

    def cause(self, causes: tuple[Cause, ...]) -> Cause | None:
        """The first measured fact that explains the main factor; without a main factor, any of the factors."""
        factors = self.effects if self.main is None else [self.main]
        return next((cause for cause in causes if any(map(cause.explains, factors))), None)


def attribute(
    own: VariantAnswer, whole: VariantAnswer, single: Mapping[Factor, Answered], threshold: float
) -> Attribution:
    """Attribute the shift from ``own`` to ``whole``. ``single`` has the answer with each factor changed alone."""
    return Attribution(
        whole.probability - own.probability,
        {
            factor: answer if isinstance(answer, Refusal) else _effect(own, answer, threshold)
            for factor, answer in single.items()
        },
    )


def flips(own: VariantAnswer, other: VariantAnswer, threshold: float) -> bool:
    """Whether the decisions differ. A decision is cough if the probability is above the threshold."""
    return (own.probability > threshold) != (other.probability > threshold)


def _effect(own: VariantAnswer, answer: VariantAnswer, threshold: float) -> Effect:
    return Effect(answer.probability - own.probability, flips(own, answer, threshold), answer.distance.mean)
