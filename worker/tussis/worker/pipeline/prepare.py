"""Turns the bytes of a recording into the two inputs of the detector.

``tussis preprocess`` and the quantisation call :func:`prepare`. The pipeline and ``tussis analyze`` call the steps one
by one. The pipeline measures the time of each step and may stop between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from tussis.shared.dsp.images import images
from tussis.shared.dsp.profiles import Normalise, Profile
from tussis.shared.dsp.recording import Waveform
from tussis.shared.dsp.segments import Cut
from tussis.shared.dsp.waveform import unfiltered
from tussis.shared.errors import NonFiniteSamples
from tussis.shared.settings import Settings
from tussis.worker.audio.decode import decode
from tussis.worker.audio.jail.decoder import JailedDecoder
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.quality import Quality
from tussis.worker.audio.samples import Audio, Tick


@dataclass(frozen=True, slots=True)
class AudioFacts:
    """The facts about a recording in a result: :class:`Audio` without its samples."""

    rate_hz: int
    """Of the source, Hz."""
    channels: int
    """Of the source."""
    container: str
    codec: str
    decoder: str
    duration_s: float
    """Seconds decoded, at the source's rate."""
    quality: Quality

    @classmethod
    def of(cls, audio: Audio) -> AudioFacts:
        """Take the facts from decoded audio, without its samples."""
        return cls(
            rate_hz=audio.rate_hz,
            channels=audio.channels,
            container=audio.container,
            codec=audio.codec,
            decoder=audio.decoder,
            duration_s=audio.duration_s,
            quality=audio.quality,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """The inputs of the detector for a recording with S segments."""

    audio: AudioFacts
    cut: Cut
    spectrograms: npt.NDArray[np.float32]
    """float32 (1, S, 3, 224, 224)."""
    segment_mask: npt.NDArray[np.bool_]
    """bool (1, S), all true."""


def prepare(data: bytes, profile: Profile, limits: Limits) -> Prepared:
    """Decode a recording and make the detector's inputs.

    Args:
        data: the whole file.
        profile: the preprocessing rules. Its decoder reads the file.
        limits: the limits above which a recording is refused.

    Raises:
        AudioError, ObjectTooLarge: what :func:`~tussis.worker.audio.decode.decode` raises.
    """
    audio = decode(data, limits, profile.decoder)
    cut = cut_audio(audio, profile)
    spectrograms = batch_of_one(images(cut, profile))
    return Prepared(
        audio=AudioFacts.of(audio),
        cut=cut,
        spectrograms=spectrograms,
        segment_mask=whole_mask(spectrograms),
    )


def limits_of(settings: Settings) -> Limits:
    """The limits for a recording in the settings."""
    return Limits(
        max_bytes=settings.max_bytes,
        max_duration_s=settings.max_duration_s,
        min_rate_hz=settings.min_rate_hz,
        max_rate_hz=settings.max_rate_hz,
        max_channels=settings.max_channels,
    )


def read_recording(
    data: bytes,
    profile: Profile,
    limits: Limits,
    tick: Tick = lambda: None,
    jail: JailedDecoder | None = None,
) -> tuple[AudioFacts, Waveform]:
    """Decode a recording, and mix and resample it. ``tick`` is called after every minute of decoded audio.

    It is decoded in ``jail``, which has limits of its own; without one in this process. Raises the errors of
    :func:`~tussis.worker.audio.decode.decode` or :meth:`JailedDecoder.decode`.
    """
    audio = decode(data, limits, profile.decoder, tick) if jail is None else jail.decode(data, profile.decoder, tick)
    return AudioFacts.of(audio), waveform_of(audio, profile)


def waveform_of(audio: Audio, profile: Profile) -> Waveform:
    """A decoded recording as one channel at 16 kHz. The decoded samples are not changed.

    Raises :class:`NonFiniteSamples` when the sum of the channels is too large for float32.
    """
    # Read-only samples are copied: torch has no read-only tensors, and warns.
    samples = torch.from_numpy(np.require(audio.samples, dtype=np.float32, requirements=["C", "W"]))
    if not audio.streamed:
        return Waveform(unfiltered(samples, audio.rate_hz, profile), profile)
    if not torch.isfinite(samples.sum()):
        raise NonFiniteSamples
    return Waveform(samples[0], profile, divisor=audio.peak or 1.0 if profile.normalise is Normalise.PEAK else 1.0)


def cut_audio(audio: Audio, profile: Profile) -> Cut:
    """The segments of the first bag of a recording. The decoded samples are not changed."""
    return waveform_of(audio, profile).bag(0)


def batch_of_one(stack: torch.Tensor) -> npt.NDArray[np.float32]:
    """Images float32 (S, 3, 224, 224) as the input ``spectrograms`` (1, S, 3, 224, 224). It shares their memory."""
    array: npt.NDArray[np.float32] = stack[None].numpy()
    return array


def whole_mask(spectrograms: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """The input ``segment_mask`` for one unpadded recording: bool (1, S), all true."""
    return np.ones(spectrograms.shape[:2], dtype=np.bool_)
