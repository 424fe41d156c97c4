"""Facts about a recording, measured from its samples, that explain why a factor changes the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tussis.shared.dsp.constants import SAMPLE_RATE
from tussis.shared.dsp.profiles import Tail
from tussis.shared.dsp.segments import segments_total
from tussis.worker.audio.quality import DC_OFFSET
from tussis.worker.audio.samples import Audio
from tussis.worker.audit.variants import Factor

QUIET_DBFS: Final = -12.0
"""A recording with a lower peak is quiet: the normalisation by the peak amplifies it by a factor of more than 4."""
LEVEL_DBFS: Final = -1.0
"""A peak above it is full scale: 1 dB is a fortieth of the range of an image."""
RUMBLE_SHARE: Final = 0.1
"""A larger share of the power below 50 Hz, without the DC offset, is rumble."""
RUMBLE_HZ: Final = 50.0
"""The corner of the high-pass filter of the profile ``documented``."""
_RUMBLE_SECONDS: Final = 60
"""The power is measured over at most this much of the start of a recording."""
_EIGHT_BIT_STEPS: Final = 128
_FIRST_SAMPLES: Final = 4_096


class CauseName(StrEnum):
    """The facts, in the order in which they are listed."""

    EIGHT_BIT = "8 bit"
    """All samples are steps of 8 bits."""
    QUIET = "quiet"
    """The peak is below :data:`QUIET_DBFS`."""
    LEVEL = "level"
    """The peak is below full scale by more than :data:`LEVEL_DBFS`, and the recording is not quiet."""
    BEYOND_FULL_SCALE = "beyond full scale"
    """The peak is above 0 dBFS, as in floats and in lossy codecs. Integer samples cut it off."""
    DC_OFFSET = "DC"
    """The mean of a channel is above :data:`~tussis.worker.audio.quality.DC_OFFSET` of the peak."""
    RUMBLE = "rumble"
    """The share of the power below 50 Hz is above :data:`RUMBLE_SHARE`."""
    PADDING = "padding"
    """Segments reach beyond the end of the recording. The rule for the tail decides whether they exist."""


#: Fact -> the factors whose effect it explains.
EXPLAINS: Final[Mapping[CauseName, frozenset[Factor]]] = MappingProxyType(
    {
        CauseName.EIGHT_BIT: frozenset({Factor.DECODER}),
        CauseName.QUIET: frozenset({Factor.NORMALISE}),
        CauseName.LEVEL: frozenset({Factor.NORMALISE}),
        CauseName.BEYOND_FULL_SCALE: frozenset({Factor.DECODER, Factor.NORMALISE}),
        CauseName.DC_OFFSET: frozenset({Factor.HIGHPASS}),
        CauseName.RUMBLE: frozenset({Factor.HIGHPASS}),
        CauseName.PADDING: frozenset({Factor.TAIL}),
    }
)


@dataclass(frozen=True, slots=True)
class Cause:
    """One fact, and the number that was measured."""

    name: CauseName
    value: float
    text: str
    """With the number and its unit: ``quiet, peak -31.2 dBFS``."""

    def explains(self, factor: Factor) -> bool:
        """Whether the fact explains an effect of this factor."""
        return factor in EXPLAINS[self.name]


def measure(audio: Audio, wave: Tensor) -> tuple[Cause, ...]:
    """The facts of a recording, in the order of :class:`CauseName`.

    Args:
        audio: decoded by the native decoder.
        wave: float32 (m,), the recording at 16 kHz before the high-pass, in any scale.
    """
    found: list[Cause] = []
    quality = audio.quality
    if is_eight_bit(audio):
        found.append(Cause(CauseName.EIGHT_BIT, 8.0, f"8 bit, {audio.codec}"))
    peak = quality.peak_dbfs
    if peak is not None and peak < QUIET_DBFS:
        found.append(Cause(CauseName.QUIET, peak, f"quiet, peak {peak:.1f} dBFS"))
    elif peak is not None and peak < LEVEL_DBFS:
        found.append(Cause(CauseName.LEVEL, peak, f"level, peak {peak:.1f} dBFS"))
    elif peak is not None and peak > 0:
        found.append(Cause(CauseName.BEYOND_FULL_SCALE, peak, f"beyond full scale, peak {peak:+.2f} dBFS"))
    offset = quality.dc_offset / audio.peak if audio.peak else 0.0
    if offset > DC_OFFSET:
        found.append(Cause(CauseName.DC_OFFSET, offset, f"DC, {offset:.3f} of the peak"))
    rumble = rumble_share(wave)
    if rumble > RUMBLE_SHARE:
        found.append(Cause(CauseName.RUMBLE, rumble, f"rumble, {rumble:.0%} of the power below 50 Hz"))
    padded, complete = (segments_total(wave.shape[0], tail) for tail in (Tail.PAD, Tail.DROP))
    if complete < padded:
        beyond = padded - complete
        found.append(Cause(CauseName.PADDING, beyond / padded, f"padding, {beyond} of {padded} segments"))
    return tuple(found)


def is_eight_bit(audio: Audio) -> bool:
    """Whether all samples are multiples of 1/128 within full scale, and not all are zero.

    False for a recording that was streamed.
    """
    # Every float32 beyond 2 ** 17 is a multiple of 1/128.
    if audio.streamed or not 0 < audio.peak <= 1:
        return False
    samples = audio.samples
    # Most recordings are told apart by their first samples.
    return _in_steps(samples[:, :_FIRST_SAMPLES]) and _in_steps(samples)


def _in_steps(samples: npt.NDArray[np.float32]) -> bool:
    scaled = samples * np.float32(_EIGHT_BIT_STEPS)
    return bool((scaled == np.rint(scaled)).all())


def rumble_share(wave: Tensor) -> float:
    """Power below 50 Hz divided by all power, both without the DC offset: 0 to 1, and 0 for silence.

    ``wave``: float32 (m,) at 16 kHz. At most the first minute counts.
    """
    head = wave[: _RUMBLE_SECONDS * SAMPLE_RATE].to(torch.float64)
    power = torch.fft.rfft(head - head.mean()).abs() ** 2
    frequencies = torch.fft.rfftfreq(head.shape[0], 1 / SAMPLE_RATE)
    total = float(power.sum())
    return float(power[frequencies < RUMBLE_HZ].sum()) / total if total > 0 else 0.0
