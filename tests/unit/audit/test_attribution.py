"""Attribution: the shifts of the factors and their interaction add up to the whole shift."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.audits import an_answer, audited, bursts, plan_of, wav_of
from tussis.shared.dsp.profiles import PROFILES, Profile
from tussis.worker.audit.answers import Answered, VariantAnswer
from tussis.worker.audit.attribution import Effect, attribute, flips
from tussis.worker.audit.causes import Cause, CauseName
from tussis.worker.audit.variants import Factor, differences
from tussis.worker.modelling.comparison import Refusal

PROBABILITY = st.floats(0, 1)


@given(PROBABILITY, PROBABILITY, st.dictionaries(st.sampled_from(Factor), PROBABILITY, min_size=1))
def test_factors_and_interaction_add_up(own: float, whole: float, single: dict[Factor, float]) -> None:
    found = attribute(an_answer(own), an_answer(whole), {name: an_answer(p) for name, p in single.items()}, 0.5)

    effects = [effect for effect in found.effects.values() if isinstance(effect, Effect)]
    assert found.interaction is not None
    assert sum(effect.shift for effect in effects) + found.interaction == pytest.approx(whole - own, abs=1e-12)
    assert [effect.flips for effect in effects] == [(p > 0.5) != (own > 0.5) for p in single.values()]
    if found.main is None:
        assert all(effect.shift * found.shift <= 0 for effect in effects)


def test_the_main_factor_shifts_most_in_the_direction_of_the_whole() -> None:
    """The tail shifts more, but against the whole shift."""
    single = {Factor.NORMALISE: an_answer(0.5), Factor.HIGHPASS: an_answer(0.65), Factor.TAIL: an_answer(0.99)}

    found = attribute(an_answer(0.7), an_answer(0.4), single, 0.61)

    assert found.main is Factor.NORMALISE
    assert found.interaction == pytest.approx(-0.3 - (-0.2 - 0.05 + 0.29))
    quiet = Cause(CauseName.QUIET, -30.0, "quiet")
    assert found.cause((Cause(CauseName.RUMBLE, 0.5, "rumble"), quiet)) is quiet
    assert found.cause(()) is None


def test_a_factor_without_an_answer_leaves_no_interaction() -> None:
    single: dict[Factor, Answered] = {Factor.DECODER: Refusal("corrupt", "broken"), Factor.HIGHPASS: an_answer(0.2)}

    found = attribute(an_answer(0.7), an_answer(0.4), single, 0.61)

    assert found.interaction is None
    assert found.main is Factor.HIGHPASS


def test_a_decision_needs_a_probability_above_the_threshold() -> None:
    assert flips(an_answer(0.5), an_answer(0.5000001), 0.5)
    assert not flips(an_answer(0.5), an_answer(0.1), 0.5)


@pytest.mark.parametrize(("own", "other"), list(permutations(PROFILES.values(), 2)))
def test_every_profile_can_be_the_models_own(own: Profile, other: Profile, tiny_model: Path) -> None:
    """From the other side, a shift is the opposite, and the images are as far away."""
    data = {"a.wav": wav_of(bursts(2.7, peak=0.2, rumble=0.1))}
    there, back = (
        audited(replace(plan_of(tiny_model, to, above=0.0), own=start), data).recordings[0]
        for start, to in ((own, other), (other, own))
    )

    shift, opposite = there.shift(other.name), back.shift(own.name)
    assert shift is not None
    assert opposite is not None
    assert shift == pytest.approx(-opposite)
    attribution = there.attributions[other.name]
    assert tuple(attribution.effects) == differences(own, other)
    assert attribution.shift == shift
    assert "padding, 4 of 6 segments" in [cause.text for cause in there.causes]
    first, second = there.others[other.name], back.others[own.name]
    assert isinstance(first, VariantAnswer)
    assert isinstance(second, VariantAnswer)
    assert first.distance == second.distance
