"""Profiles: named and versioned sets of rules that convert a recording to the model's input.

A model is trained with one profile, and its manifest names it. Every result has the name of its profile. A profile
never changes: other rules need another profile, or a new version. ``docs/preprocessing.md`` describes each profile and
its purpose.

This module imports no torch, so a command line can check a name without the time to load it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from tussis.shared.errors import UnknownProfile


class Normalise(StrEnum):
    """The divisor of the samples, in the first step."""

    PEAK = "peak"
    """The largest absolute sample over all channels of the whole recording."""
    BIT_DEPTH = "bit_depth"
    """No division in this step: the samples keep their level relative to the full scale of their width, by which the
    decoder divides."""


class Tail(StrEnum):
    """The rule for the audio after the last full window."""

    PAD = "pad"
    """A segment starts at every hop before the end of the recording. It is padded with zeros on the right."""
    DROP = "drop"
    """Full windows only. A recording shorter than one window is padded to one window."""


class Decoder(StrEnum):
    """The family of decoders that convert the bytes to samples."""

    NATIVE = "native"
    """Float samples of all channels, with one decoder per codec."""
    PYDUB = "pydub"
    """pydub: integer samples, mixed to one channel as integers."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One named set of preprocessing rules, immutable."""

    name: str
    version: int
    decoder: Decoder
    normalise: Normalise
    highpass_hz: float | None
    """Corner frequency of the high-pass filter, Hz. None means no filter."""
    tail: Tail
    image_float16: bool
    """Whether the image in [-1, 1] is rounded to float16 before it is normalised with the ImageNet statistics."""


DOCUMENTED: Final = Profile(
    name="documented",
    version=1,
    decoder=Decoder.NATIVE,
    normalise=Normalise.PEAK,
    highpass_hz=50.0,
    tail=Tail.PAD,
    image_float16=False,
)
TRAINING: Final = Profile(
    name="training",
    version=1,
    decoder=Decoder.NATIVE,
    normalise=Normalise.PEAK,
    highpass_hz=None,  # the training script used a class that torchaudio never had, and ignored the error
    tail=Tail.DROP,
    image_float16=True,
)
LEGACY: Final = Profile(
    name="legacy",
    version=1,
    decoder=Decoder.PYDUB,
    normalise=Normalise.BIT_DEPTH,
    highpass_hz=None,
    tail=Tail.PAD,
    image_float16=False,
)

PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {profile.name: profile for profile in (DOCUMENTED, TRAINING, LEGACY)}
)


def profile_named(name: str) -> Profile:
    """Return the profile with this name.

    Raises:
        UnknownProfile: no profile has this name. The message lists the valid names.
    """
    try:
        return PROFILES[name]
    except KeyError:
        known = ", ".join(PROFILES)
        raise UnknownProfile(f"no preprocessing profile {name!r}: use one of {known}") from None
