"""The limits on the size of one recording, checked before memory is allocated for it.

The defaults and their reasons:

* 400 MiB: two hours of 16-bit 16 kHz WAV (220 MiB) or of any compressed format. A child holds the bytes and, after
  decoding, 64 kB for each second: together at most 1 GB.
* Two hours and five minutes: a night is recorded in pieces. Encoders add some padding to two hours.
* 4 to 192 kHz: a lower rate keeps nothing of a cough. Higher rates come from ultrasound recorders (bats, AudioMoth:
  250, 384 and 500 kHz), whose files are many times larger for the same cough.
* 8 channels: 7.1. Telephony and browsers send one or two.
* 4 GiB of samples: two hours of stereo at 48 kHz have 2.6. They are never in memory at once. A few kilobytes of
  losslessly compressed silence can decode to an hour of eight channels at 192 kHz, which is 22 GB.
* 256 MiB of samples, as decoded and as resampled, are decoded whole: an hour and ten minutes of mono up to 16 kHz, 23
  minutes of 48 kHz mono. Longer recordings are mixed and resampled while they are decoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tussis.shared.dsp.constants import SAMPLE_RATE
from tussis.shared.errors import (
    CorruptAudio,
    EmptyObject,
    ObjectTooLarge,
    TooLong,
    TooManyChannels,
    UnsupportedRate,
)

BYTES_A_SAMPLE: Final = 4
"""Decoded samples are float32."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The smallest and largest values that are accepted. Every value is inclusive."""

    max_bytes: int = 400 * 2**20
    """Bytes of the object."""
    max_duration_s: float = 7_500.0
    """Seconds of audio."""
    min_rate_hz: int = 4_000
    max_rate_hz: int = 192_000
    max_channels: int = 8
    max_decoded_bytes: int = 4 * 2**30
    """Bytes of all channels' samples as float32."""
    whole_bytes: int = 256 * 2**20
    """Bytes of samples as float32 up to which a recording is decoded whole: those of all channels, and those of the
    waveform at 16 kHz. The profile ``legacy`` refuses a recording whose channels have more."""

    def check_size(self, size: int) -> None:
        """Raise :class:`EmptyObject` or :class:`ObjectTooLarge` for an object of ``size`` bytes."""
        if size == 0:
            raise EmptyObject
        if size > self.max_bytes:
            raise ObjectTooLarge(f"the object has {size} bytes, over the limit of {self.max_bytes}")

    def check_layout(self, rate_hz: int, channels: int) -> None:
        """Check the rate and the channels of a header or of the first decoded frame.

        Raises :class:`CorruptAudio` for impossible values, :class:`UnsupportedRate`,
        :class:`TooManyChannels`.
        """
        if rate_hz <= 0:
            raise CorruptAudio(f"the header states a sample rate of {rate_hz} Hz")
        if channels <= 0:
            raise CorruptAudio(f"the header states {channels} channels")
        if not self.min_rate_hz <= rate_hz <= self.max_rate_hz:
            raise UnsupportedRate(
                f"the sample rate is {rate_hz} Hz, outside the limits TUSSIS_MIN_RATE_HZ={self.min_rate_hz} and "
                f"TUSSIS_MAX_RATE_HZ={self.max_rate_hz}"
            )
        if channels > self.max_channels:
            raise TooManyChannels(f"the audio has {channels} channels, over the limit of {self.max_channels}")

    def is_whole(self, frames: int, rate_hz: int, channels: int) -> bool:
        """Whether a recording with ``frames`` samples a channel is decoded whole."""
        resampled = frames * SAMPLE_RATE / rate_hz
        return max(frames * channels, resampled) * BYTES_A_SAMPLE <= self.whole_bytes

    def check_whole(self, frames: int, channels: int) -> None:
        """Raise :class:`TooLong` when a profile that decodes recordings whole would need too much memory."""
        if frames * channels * BYTES_A_SAMPLE > self.whole_bytes:
            raise TooLong(
                f"the profile legacy decodes a recording whole, and this one has more than the limit of "
                f"{self.whole_bytes} bytes of samples ({channels} channels): use another profile"
            )

    def check_length(self, frames: int, rate_hz: int, channels: int) -> None:
        """Raise :class:`TooLong` when ``frames``, samples a channel stated or decoded so far, exceed a limit."""
        if frames > self.max_duration_s * rate_hz:
            raise TooLong(f"the audio is longer than the limit of {self.max_duration_s:g} s")
        if frames * channels * BYTES_A_SAMPLE > self.max_decoded_bytes:
            raise TooLong(
                f"the audio decodes to more than the limit of {self.max_decoded_bytes} bytes of samples "
                f"({channels} channels at {rate_hz} Hz)"
            )
