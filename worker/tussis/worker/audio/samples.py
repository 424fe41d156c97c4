"""Decoded samples: the return value of ``decode``, and the collection of decoded blocks under the limits."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tussis.shared.dsp.streaming import StreamedWaveform
from tussis.shared.errors import NoSamples
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.quality import Quality, QualityMeter
from tussis.worker.audio.table import is_lossless

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


#: Only glibc has it.
_MALLOC_TRIM: Final = getattr(ctypes.CDLL(None), "malloc_trim", None)


def _give_back_freed_memory() -> None:
    """Let the C library give the memory of freed blocks back to the system. glibc keeps a quarter of a gigabyte."""
    if _MALLOC_TRIM is not None:
        _MALLOC_TRIM(0)


class Gathered:
    """Collects blocks of samples during decoding. Checks the limits and measures the quality at every block.

    Up to ``limits.whole_bytes`` of samples are kept as they are. If there are more, they are mixed and resampled from
    then on, the blocks before included, so that a recording of two hours needs half a gigabyte.
    """

    def __init__(
        self, limits: Limits, rate_hz: int, channels: int, source: Source, tick: Tick, listen: Listen | None = None
    ) -> None:
        """Raises what :meth:`Limits.check_layout` raises."""
        limits.check_layout(rate_hz, channels)
        self._limits = limits
        self._rate_hz = rate_hz
        self._channels = channels
        self._source = source
        self._tick = tick
        self._listener = None if listen is None else listen(rate_hz, channels)
        self._next_tick = TICK_SECONDS * rate_hz
        self._meter = QualityMeter(channels, lossless=is_lossless(source.codec))
        self._blocks: list[npt.NDArray[np.float32]] = []
        self._streamed: StreamedWaveform | None = None
        self._frames = 0

    def add(self, block: npt.NDArray[np.float32]) -> None:
        """Append (channels, n) samples. Raises :class:`TooLong` when a limit is exceeded, :class:`NonFiniteSamples`."""
        self._frames += block.shape[1]
        self._limits.check_length(self._frames, self._rate_hz, self._channels)
        self._meter.add(block)
        if self._listener is not None:
            self._listener.add(block)
        if self._streamed is not None:
            self._streamed.add(block)
        else:
            self._blocks.append(block)
            if not self._limits.is_whole(self._frames, self._rate_hz, self._channels):
                self._streamed = StreamedWaveform(self._rate_hz)
                for held in self._blocks:
                    self._streamed.add(held)
                self._blocks.clear()
                _give_back_freed_memory()
        if self._frames >= self._next_tick:
            self._next_tick = self._frames + TICK_SECONDS * self._rate_hz
            self._tick()

    def audio(self, *, incomplete: bool) -> Audio:
        """The recording. ``incomplete``: audio is missing. Raises :class:`NoSamples`, :class:`NonFiniteSamples`."""
        if self._frames == 0:
            raise NoSamples
        self._meter.finish()
        if self._streamed is None:
            samples = np.ascontiguousarray(np.concatenate(self._blocks, axis=1))
            self._blocks.clear()
        else:
            samples = self._streamed.finish()[np.newaxis]
        return Audio(
            samples=samples,
            rate_hz=self._rate_hz,
            channels=self._channels,
            container=self._source.container,
            codec=self._source.codec,
            decoder=self._source.decoder,
            duration_s=self._frames / self._rate_hz,
            meter=self._meter,
            incomplete=incomplete,
            streamed=self._streamed is not None,
            listener=self._listener,
        )
