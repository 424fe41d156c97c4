"""Profiles: the named, versioned variants of the path from a recording to the model's input.

A model was trained on one of them and its manifest names which; every result carries the name. A profile never
changes: another behaviour is another profile, or a new version of it. ``docs/preprocessing.md`` says what each
one is and why it exists.

Imports no torch: a command line may check a name without waiting for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from tussis.shared.errors import UnknownProfile


class Normalise(StrEnum):
    """What the samples are divided by before anything else."""

    PEAK = "peak"
    """The largest absolute sample over all channels of the whole recording."""
    BIT_DEPTH = "bit_depth"
    """Nothing here: the decoder has divided by the full scale of the sample's width, and mixed to one channel."""


class Tail(StrEnum):
    """What becomes of the audio behind the last full window."""

    PAD = "pad"
    """A segment at every start below the length, padded with zeros on the right."""
    DROP = "drop"
    """Full windows only; a recording shorter than one window is padded to one."""


class Decoder(StrEnum):
    """Which family of decoders turns the bytes into samples."""

    NATIVE = "native"
    """Float samples of all channels, one decoder a codec."""
    PYDUB = "pydub"
    """What pydub makes of it: integer samples, mixed to one channel as integers."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One variant of the path, immutable."""

    name: str
    version: int
    decoder: Decoder
    normalise: Normalise
    highpass_hz: float | None
    """Corner of the high-pass filter, Hz; None: no filter."""
    tail: Tail
    image_float16: bool
    """Whether the [-1, 1] image goes through float16 and back before ImageNet's statistics."""


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
    highpass_hz=None,  # the script asked for a class that torchaudio never had, and swallowed the error
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
    """The profile of this name.

    Raises:
        UnknownProfile: there is none; the message lists those that exist.
    """
    try:
        return PROFILES[name]
    except KeyError:
        known = ", ".join(PROFILES)
        raise UnknownProfile(f"no preprocessing profile {name!r}: use one of {known}") from None
