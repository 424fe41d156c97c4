"""Decoded samples: the return value of ``decode``, and what receives the blocks of a stream while it is decoded.

This module imports no torch, because the decoder process of :mod:`tussis.worker.audio.jail` imports it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from tussis.worker.audio.quality import Quality, QualityMeter

TICK_SECONDS: Final = 60
"""Seconds of decoded audio between two calls of the ``tick`` of :func:`~tussis.worker.audio.decode.decode`."""

Tick = Callable[[], None]
"""Called during the decoding of a long recording. It may raise, to end the decoding."""


class Listener(Protocol):
    """Receives all samples of one audio stream while they are decoded, at the rate and with the channels of the source.

    A long recording is mixed and resampled while it is decoded, so :attr:`Audio.samples` does not have them.
    """

    def add(self, block: npt.NDArray[np.float32]) -> None:
        """The next float32 (channels, n) samples, full scale 1.0."""


Listen = Callable[[int, int], Listener]
"""Makes the listener of a stream from its rate in Hz and its number of channels. Called again for another stream."""


class Source(NamedTuple):
    """Where the samples of a recording come from: three fields of :class:`Audio`."""

    container: str
    codec: str
    decoder: str


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """One decoded recording."""

    samples: npt.NDArray[np.float32]
    """float32 (channels, n), contiguous, full scale 1.0; (1, n) from the decoder of ``legacy``. If ``streamed``:
    (1, m), mixed and resampled to 16 kHz, not normalised."""
    rate_hz: int
    channels: int
    """Channels of the source."""
    container: str
    """A name of :class:`~tussis.worker.audio.sniff.Container`."""
    codec: str
    """FFmpeg's name of the codec, without byte order: ``pcm_s16``, ``opus``, ``amr_nb``."""
    decoder: str
    """The library that turned the bytes into samples: ``soundfile``, ``pyav`` or ``pydub``."""
    duration_s: float
    """Seconds of decoded audio. The header of a damaged or cut file may state more."""
    meter: QualityMeter
    """Has measured all decoded samples."""
    incomplete: bool = False
    """Whether audio is missing: the file ended early, or a part of it could not be decoded."""
    streamed: bool = False
    """Whether the recording was too long to be decoded whole: more than ``Limits.whole_bytes``."""
    listener: Listener | None = None
    """The listener that received these samples, if the caller of ``decode`` wanted one."""

    @property
    def peak(self) -> float:
        """Largest absolute decoded sample over all channels."""
        return self.meter.peak

    @property
    def quality(self) -> Quality:
        """Levels, clipping, DC offset and warnings."""
        return self.meter.quality(duration_s=self.duration_s, incomplete=self.incomplete)


class Decoded(Protocol):
    """What the decoders need to know of a stream that they have decoded."""

    @property
    def peak(self) -> float:
        """Largest absolute decoded sample over all channels."""

    @property
    def duration_s(self) -> float:
        """Seconds of decoded audio."""

    @property
    def incomplete(self) -> bool:
        """Whether audio is missing."""


D = TypeVar("D", bound=Decoded)
D_co = TypeVar("D_co", bound=Decoded, covariant=True)


class Gathering(Protocol[D_co]):
    """Receives the blocks of one stream."""

    def add(self, block: npt.NDArray[np.float32]) -> None:
        """The next float32 (channels, n) samples. Raises :class:`TooLong`, :class:`NonFiniteSamples`."""

    def audio(self, *, incomplete: bool) -> D_co:
        """End the stream. Raises :class:`NoSamples`, :class:`NonFiniteSamples`."""


OpenStream = Callable[[int, int, Source], Gathering[D]]
"""Opens a stream with its rate in Hz, channels and source. Raises what :meth:`Limits.check_layout` raises."""


def full_scale(samples: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Scale samples of any width to float32: ``int / 2^(bits-1)``; unsigned 8-bit samples are centred first.

    Floats keep their values, also above 1.0. A float64 outside the range of float32 becomes an infinity, for which
    :class:`~tussis.worker.audio.quality.QualityMeter` raises an error.
    """
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - np.float32(128)) / np.float32(128)
    if samples.dtype.kind == "i":
        bits = 8 * samples.dtype.itemsize
        return samples.astype(np.float32) / np.float32(2.0 ** (bits - 1))
    with np.errstate(over="ignore"):
        return samples.astype(np.float32, copy=False)
