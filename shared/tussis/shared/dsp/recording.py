"""Convert the decoded samples of a recording to segments, in the order of steps that the contract specifies."""

from __future__ import annotations

import torch
from torch import Tensor

from tussis.shared.dsp.highpass import highpassed
from tussis.shared.dsp.profiles import Profile
from tussis.shared.dsp.segments import Cut, cut_segments
from tussis.shared.dsp.waveform import unfiltered


def cut_recording(samples: Tensor, rate_hz: int, profile: Profile) -> Cut:
    """Normalise, downmix, resample, high-pass and cut.

    The high-pass is causal, so samples after the last kept segment are not filtered: filtering a whole minute took
    four fifths of its preprocessing time. The segments are the same to the last bit. (torch uses another algorithm for
    very short inputs, but a shortened waveform is at least 2 s long.)

    Args:
        samples: as for :func:`~tussis.shared.dsp.waveform.unfiltered`. This function raises the same errors.
        rate_hz: sample rate of ``samples``, Hz.
        profile: selects normalisation, filter and tail rule.
    """
    with torch.no_grad():
        wave = unfiltered(samples, rate_hz, profile)
        cut = cut_segments(wave, profile)
        if profile.highpass_hz is not None:
            kept = cut.padded[: wave.shape[0]]  # without the zeros after it
            kept.copy_(highpassed(kept, profile.highpass_hz))
        return cut
