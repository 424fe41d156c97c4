"""Variants of a profile: another profile's rule for one or several factors. They have no name for jobs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from tussis.shared.dsp.profiles import Profile


class Factor(StrEnum):
    """The rules in which two profiles can differ, in the order of the steps."""

    DECODER = "decoder"
    NORMALISE = "normalise"
    HIGHPASS = "high-pass"
    TAIL = "tail"
    PRECISION = "precision"


_FIELDS: Final[Mapping[Factor, str]] = MappingProxyType(
    {
        Factor.DECODER: "decoder",
        Factor.NORMALISE: "normalise",
        Factor.HIGHPASS: "highpass_hz",
        Factor.TAIL: "tail",
        Factor.PRECISION: "image_float16",
    }
)


def differences(own: Profile, other: Profile) -> tuple[Factor, ...]:
    """The factors in which two profiles differ, in the order of the steps."""
    return tuple(factor for factor, field in _FIELDS.items() if getattr(own, field) != getattr(other, field))


def changed(own: Profile, other: Profile, factors: Iterable[Factor]) -> Profile:
    """``own`` with the rules of ``other`` for these factors. Its name says so: ``documented with legacy's tail``."""
    wanted = tuple(factors)
    rules: dict[str, Any] = {_FIELDS[factor]: getattr(other, _FIELDS[factor]) for factor in wanted}
    return replace(own, name=f"{own.name} with {other.name}'s {', '.join(wanted)}", **rules)
