"""A recording's decoded samples to its segments, in the contract's order."""

from __future__ import annotations

import torch
from torch import Tensor

from tussis.shared.dsp.highpass import highpassed
from tussis.shared.dsp.profiles import Profile
from tussis.shared.dsp.segments import Cut, cut_segments
from tussis.shared.dsp.waveform import unfiltered


def cut_recording(samples: Tensor, rate_hz: int, profile: Profile) -> Cut:
    """Normalise, downmix, resample, high-pass, cut.

    The high-pass looks back only, so what lies behind the last kept segment is left out of it: filtering all of a
    minute was four fifths of its preprocessing. The segments are the same to the last bit. (torch takes another
    algorithm for very short inputs; what is shortened keeps 2 s at least.)

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
