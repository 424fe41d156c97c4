"""A recording's decoded samples to its segments: the steps that see all of it, in the contract's order."""

from __future__ import annotations

import torch
from torch import Tensor

from tussis.shared.dsp.highpass import highpassed
from tussis.shared.dsp.profiles import Profile
from tussis.shared.dsp.segments import Cut, cut_segments
from tussis.shared.dsp.waveform import unfiltered


def cut_recording(samples: Tensor, rate_hz: int, profile: Profile) -> Cut:
    """Normalise, downmix, resample, high-pass, cut.

    The high-pass looks back only, so what lies behind the last kept segment is left out of it: the segments are those
    of the whole recording filtered, to the last bit. Of a minute it would be four fifths of the preprocessing.

    Args:
        samples: as for :func:`~tussis.shared.dsp.waveform.unfiltered`, whose errors this raises.
        rate_hz: sample rate of ``samples``, Hz.
        profile: decides normalisation, filter and tail.
    """
    with torch.no_grad():
        wave = unfiltered(samples, rate_hz, profile)
        cut = cut_segments(wave, profile)
        if profile.highpass_hz is not None:
            kept = cut.padded[: wave.shape[0]]  # without the zeros behind it
            kept.copy_(highpassed(kept, profile.highpass_hz))
        return cut
