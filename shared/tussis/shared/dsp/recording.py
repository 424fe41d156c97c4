"""A recording at 16 kHz, and its bags: the segments that the model scores together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from tussis.shared.dsp.constants import HOP_SAMPLES, MAX_SEGMENTS, SEGMENT_SAMPLES
from tussis.shared.dsp.highpass import highpassed
from tussis.shared.dsp.profiles import Profile
from tussis.shared.dsp.segments import Cut, cut_segments, segments_total
from tussis.shared.dsp.waveform import unfiltered

LEAD_IN: Final = SEGMENT_SAMPLES
"""Samples before a bag that are filtered with it and then left out: 2 s.

The impulse response of the 50 Hz high-pass falls below 1e-9 after 0.1 s, so the state of the filter at the start of the
bag differs from that of the whole recording by rounding only.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Waveform:
    """A whole recording as one channel at 16 kHz, before the high-pass."""

    samples: Tensor
    """float32 (m,). Normalised when they are divided by ``divisor``."""
    profile: Profile
    divisor: float = 1.0
    """The peak of a recording that was mixed and resampled before its peak was known; otherwise 1."""

    @property
    def num_segments_total(self) -> int:
        """Number of segments of the whole recording."""
        return segments_total(self.samples.shape[0], self.profile.tail)

    @property
    def num_bags(self) -> int:
        """Number of bags of the whole recording. Every bag has 32 segments, except the last one."""
        return -(-self.num_segments_total // MAX_SEGMENTS)

    def bag(self, index: int) -> Cut:
        """The segments of one bag, normalised and high-passed. The first bag is the head of the recording.

        The high-pass is causal, so the samples after the bag are not filtered. In the first bag every sample is the
        same to the last bit as in the filtered recording. In the others the filter begins ``LEAD_IN`` samples earlier.

        Args:
            index: 0 to ``num_bags`` - 1.

        Raises:
            NoSamples: the recording is empty.
        """
        with torch.no_grad():
            begin = index * MAX_SEGMENTS * HOP_SAMPLES
            cut = cut_segments(self.samples, self.profile, first=index * MAX_SEGMENTS)
            heard = cut.padded[: self.samples.shape[0] - begin]  # without the zeros after it
            if self.divisor != 1.0:
                heard.div_(self.divisor)
            if self.profile.highpass_hz is not None:
                lead = self.samples[max(0, begin - LEAD_IN) : begin] / self.divisor
                filtered = highpassed(torch.cat([lead, heard]) if lead.shape[0] else heard, self.profile.highpass_hz)
                heard.copy_(filtered[lead.shape[0] :])
            return cut


def cut_recording(samples: Tensor, rate_hz: int, profile: Profile) -> Cut:
    """Normalise, downmix, resample, high-pass and cut: the first bag of a recording.

    Args:
        samples: as for :func:`~tussis.shared.dsp.waveform.unfiltered`. This function raises the same errors.
        rate_hz: sample rate of ``samples``, Hz.
        profile: selects normalisation, filter and tail rule.
    """
    return Waveform(unfiltered(samples, rate_hz, profile), profile).bag(0)
