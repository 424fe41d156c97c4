"""Measures the quality of a recording on its decoded samples: level, clipping, DC offset, and warnings.

:class:`QualityMeter` takes the samples block by block, so that a long recording is never whole in memory.
``docs/quality.md`` says what the numbers and the warnings mean. The thresholds below were chosen by measurement on the
1,314 recordings of the test pack's training split, re-encoded copies of them, and its ``formats/variant_*`` files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from tussis.shared.dsp.constants import SEGMENT_SECONDS
from tussis.shared.errors import NonFiniteSamples, NoSamples

NEAR_FULL_SCALE: Final = 0.98
"""The smallest absolute value of a clipped sample. mu-law ends at 0.9803, A-law at 0.984, 8 bits at 0.992."""
CLIPPED_RUN: Final = 3
"""Consecutive samples that make a run of clipping. It is the default of Audacity's "Find Clipping" (its manual,
"Start Threshold"). One or two samples near full scale are the top of a loud but intact wave."""
CLIPPED_SHARE: Final = 0.001
"""A share of clipped samples from here on gives a warning. Recordings scaled to full scale and not clipped had up to
0.00004. Overdriven by 6 dB, coughs had 0.0099 as 16-bit WAV, and 0.0014 to 0.007 as AAC, MP3 and Opus at 64 kbit/s."""
SILENCE: Final = 2.0**-15
"""The largest swing of a silent channel: one step of 16 bits, which an encoder may make from digital silence."""
QUIET: Final = 10 ** (-50 / 20)
"""A smaller swing gives a warning: -50 dBFS, 104 steps of 16 bits, so that 8 of the 16 bits are unused. The quietest of
the everyday recordings has -38 dBFS."""
CANCELLED: Final = 10 ** (-20 / 10)
"""A smaller share of the power that is left in the mean of the channels gives a warning. Eight unrelated channels keep
0.125 of it. Two opposite channels keep 0.002 after AAC, and 0 without a codec."""
DC_OFFSET: Final = 0.02
"""A larger DC offset gives a warning, for floats beyond full scale as a share of the peak. Everyday recordings have up
to 0.008, which is one step of 8 bits. Those of the affected telephone lines in the pack have 0.09 or more."""
SHORT_S: Final = SEGMENT_SECONDS / 2
"""A shorter recording fills less than half of its first segment; the rest is zeros."""

_CHUNK: Final = 2**17
"""Samples of all channels that are measured at a time: 1 MB as float64."""


class QualityWarning(StrEnum):
    """Facts about a recording for which its result deserves a second look, in the order in which they are listed."""

    CLIPPED = "clipped"
    """Samples were cut off at full scale."""
    SILENT = "silent"
    """No channel has a signal: its samples differ by no more than two steps of 16 bits."""
    VERY_QUIET = "very_quiet"
    """The signal uses less than half of the bits of a 16-bit recording."""
    ONE_CHANNEL_SILENT = "one_channel_silent"
    """At least one channel is silent, and at least one is not."""
    CHANNELS_CANCEL = "channels_cancel"
    """The channels are opposite to each other, so that their mean, which is analysed, has lost the signal."""
    DC_OFFSET = "dc_offset"
    """The samples of a channel do not have a mean near zero."""
    TRUNCATED = "truncated"
    """Audio is missing: the file ended early, or a part of it could not be decoded."""
    MOSTLY_PADDING = "mostly_padding"
    """The recording fills less than half of a segment."""


@dataclass(frozen=True, slots=True)
class Quality:
    """The quality of one recording. All numbers are finite."""

    peak_dbfs: float | None
    """Largest absolute sample over all channels, dB relative to full scale 1.0. None for digital silence (all samples
    zero), whose level is minus infinity, which JSON does not have. Above 0 for floats and lossy codecs beyond full
    scale."""
    rms_dbfs: float | None
    """Root of the mean square of all samples of all channels, DC offset included, dB relative to 1.0. A sine of
    amplitude 1.0 has -3.01. None for digital silence."""
    clipped_share: float
    """Share of the samples of all channels that are clipped, 0 to 1. See :class:`QualityMeter`."""
    dc_offset: float
    """Largest absolute mean of a channel, full scale 1.0."""
    warnings: tuple[str, ...]
    """Values of :class:`QualityWarning`, in its order."""


class QualityMeter:
    """Measures decoded samples, block by block. The sizes of the blocks do not change a bit of the result.

    A sample is clipped when it is in a run of :data:`CLIPPED_RUN` or more consecutive samples of one channel, all of
    them at :data:`NEAR_FULL_SCALE` or beyond. In a run of stored samples (integers, floats, A-law, mu-law, FLAC, ALAC)
    all samples are equal. So floats beyond full scale are not clipped, nor is the top of a low tone. Lossy codecs
    change the samples and overshoot: there, a run is of one sign. They hide a part of the clipping: at 64 kbit/s, 5 to
    65 % of the clipped samples are in such runs.

    The profile ``legacy`` decodes to one mixed channel. Its level, clipping and DC offset are those of the mix,
    opposite channels are silent, and ``one_channel_silent`` and ``channels_cancel`` are never found.
    """

    def __init__(self, channels: int, *, lossless: bool) -> None:
        """``lossless``: the samples are those that were stored; see :func:`~tussis.worker.audio.table.is_lossless`."""
        self._channels = channels
        self._frames = 0
        self._low = np.full(channels, np.inf, np.float32)
        self._high = np.full(channels, -np.inf, np.float32)
        self._sums = np.zeros(channels)
        self._square = 0.0
        self._mixed_square = 0.0
        self._runs = [_ClippedRuns(lossless) for _ in range(channels)]
        self._waiting = np.empty((channels, _CHUNK // channels), np.float32)
        self._waiting_frames = 0

    def add(self, block: npt.NDArray[np.float32]) -> None:
        """Measure the next samples, float32 (channels, n) with full scale 1.0; n may be 0.

        Samples wait until a chunk is full, because a call of numpy takes longer than the few samples of one packet.

        Raises:
            NonFiniteSamples: a sample is NaN or infinite. :attr:`peak` and :meth:`quality` also raise it.
        """
        room = self._waiting.shape[1]
        start, length = 0, block.shape[1]
        while start < length:
            if self._waiting_frames == 0 and length - start >= room:
                self._measure(block[:, start : start + room])
                start += room
                continue
            taken = min(room - self._waiting_frames, length - start)
            self._waiting[:, self._waiting_frames : self._waiting_frames + taken] = block[:, start : start + taken]
            self._waiting_frames += taken
            start += taken
            if self._waiting_frames == room:
                self._measure_waiting()

    def finish(self) -> None:
        """Measure the samples that wait for a full chunk. Raises :class:`NonFiniteSamples`."""
        self._measure_waiting()

    @property
    def peak(self) -> float:
        """The largest absolute sample over all channels, exactly the divisor of the normalisation by the peak; 0.0
        before the first sample."""
        self._measure_waiting()
        return float(np.maximum(-self._low, self._high).max()) if self._frames else 0.0

    def quality(self, *, duration_s: float, incomplete: bool) -> Quality:
        """The quality of all samples so far.

        Args:
            duration_s: seconds of decoded audio.
            incomplete: whether audio is missing, as the decoder found out.

        Raises:
            NoSamples: there are none.
        """
        self._measure_waiting()
        if self._frames == 0:
            raise NoSamples
        samples = self._frames * self._channels
        clipped_share = sum(runs.clipped for runs in self._runs) / samples
        dc_offset = float(np.abs(self._sums).max()) / self._frames
        silent = self._swings <= SILENCE
        found = {
            QualityWarning.CLIPPED: clipped_share >= CLIPPED_SHARE,
            QualityWarning.SILENT: silent.all(),
            QualityWarning.VERY_QUIET: not silent.all() and self._swings.max() < QUIET,
            QualityWarning.ONE_CHANNEL_SILENT: silent.any() and not silent.all(),
            QualityWarning.CHANNELS_CANCEL: not silent.all() and self._remaining_power() < CANCELLED,
            QualityWarning.DC_OFFSET: dc_offset > DC_OFFSET * max(1.0, self.peak),
            QualityWarning.TRUNCATED: incomplete,
            QualityWarning.MOSTLY_PADDING: duration_s < SHORT_S,
        }
        is_zero = self.peak == 0
        return Quality(
            peak_dbfs=None if is_zero else 20 * math.log10(self.peak),
            rms_dbfs=None if is_zero else 10 * math.log10(self._square / samples),
            clipped_share=clipped_share,
            dc_offset=dc_offset,
            warnings=tuple(warning.value for warning in QualityWarning if found[warning]),
        )

    def _measure_waiting(self) -> None:
        if self._waiting_frames:
            chunk, self._waiting_frames = self._waiting[:, : self._waiting_frames], 0
            self._measure(chunk)

    def _measure(self, chunk: npt.NDArray[np.float32]) -> None:
        for channel, (samples, runs) in enumerate(zip(chunk, self._runs, strict=True)):
            low, high = samples.min(), samples.max()  # NaN anywhere makes both NaN
            if not (math.isfinite(low) and math.isfinite(high)):
                raise NonFiniteSamples
            self._low[channel] = min(self._low[channel], low)
            self._high[channel] = max(self._high[channel], high)
            runs.add(samples, max(-low, high))
        wide = chunk.astype(np.float64, order="C")
        square = _square(wide.reshape(-1))
        self._sums += wide.sum(axis=1)
        self._square += square
        self._mixed_square += square if self._channels == 1 else _square(sum(wide[1:], start=wide[0]))
        self._frames += chunk.shape[1]

    @property
    def _swings(self) -> npt.NDArray[np.float64]:
        """Half of the distance between the largest and the smallest sample of each channel: its peak without DC."""
        swings: npt.NDArray[np.float64] = (self._high.astype(np.float64) - self._low.astype(np.float64)) / 2
        return swings

    def _remaining_power(self) -> float:
        """Power of the mean of the channels divided by the mean power of the channels, both without DC. 1 for mono."""
        if self._channels == 1:
            return 1.0
        power = self._square - float((self._sums**2).sum()) / self._frames
        mixed = self._mixed_square - float(self._sums.sum()) ** 2 / self._frames
        return mixed / self._channels / power if power > 0 else 1.0


def _square(values: npt.NDArray[np.float64]) -> float:
    """The sum of the squares. Not ``np.dot``, which starts threads for long arrays."""
    return float(np.einsum("i,i->", values, values))


class _ClippedRuns:
    """Counts the clipped samples of one channel. A run may go on in the next block."""

    def __init__(self, lossless: bool) -> None:
        self._lossless = lossless
        self._open_length = 0
        self._open_key = 0.0
        self.clipped = 0

    def add(self, samples: npt.NDArray[np.float32], peak: float) -> None:
        """Count in the next samples (n,), n > 0. ``peak`` is their largest absolute value."""
        if peak < NEAR_FULL_SCALE:
            self._open_length = 0
            return
        near = np.flatnonzero(np.abs(samples) >= NEAR_FULL_SCALE)
        keys = samples[near] if self._lossless else np.sign(samples[near])
        ends = np.flatnonzero((np.diff(near) != 1) | (keys[1:] != keys[:-1])) + 1
        lengths = np.diff(ends, prepend=0, append=len(near))
        goes_on = self._open_length > 0 and near[0] == 0 and float(keys[0]) == self._open_key
        counted = self._open_length if goes_on else 0
        lengths[0] += counted
        self.clipped += int(lengths[lengths >= CLIPPED_RUN].sum()) - (counted if counted >= CLIPPED_RUN else 0)
        self._open_length = int(lengths[-1]) if near[-1] == len(samples) - 1 else 0
        self._open_key = float(keys[-1])
