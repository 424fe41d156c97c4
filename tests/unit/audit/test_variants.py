"""Variants of profiles: which rules differ, and another profile's rules one at a time."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest

from tussis.shared.dsp.profiles import DOCUMENTED, LEGACY, PROFILES, TRAINING, Decoder, Normalise, Profile, Tail
from tussis.worker.audit.variants import Factor, changed, differences


def test_the_factors_between_the_profiles_are_those_of_the_contract() -> None:
    assert differences(DOCUMENTED, TRAINING) == (Factor.HIGHPASS, Factor.TAIL, Factor.PRECISION)
    assert differences(DOCUMENTED, LEGACY) == (Factor.DECODER, Factor.NORMALISE, Factor.HIGHPASS)
    assert differences(TRAINING, LEGACY) == (Factor.DECODER, Factor.NORMALISE, Factor.TAIL, Factor.PRECISION)
    assert differences(LEGACY, LEGACY) == ()


@pytest.mark.parametrize(("own", "other"), list(permutations(PROFILES.values(), 2)))
def test_all_factors_together_are_the_other_profile(own: Profile, other: Profile) -> None:
    whole = changed(own, other, differences(own, other))

    assert replace(whole, name=other.name) == other


def test_one_factor_changes_one_rule_and_registers_nothing() -> None:
    before = dict(PROFILES)

    variant = changed(DOCUMENTED, LEGACY, [Factor.NORMALISE])

    assert (variant.decoder, variant.normalise) == (Decoder.NATIVE, Normalise.BIT_DEPTH)
    assert (variant.highpass_hz, variant.tail, variant.image_float16) == (50.0, Tail.PAD, False)
    assert variant.name == "documented with legacy's normalise"
    assert dict(PROFILES) == before
