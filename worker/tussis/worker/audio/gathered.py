"""Collects the decoded blocks of a stream under the limits."""

from __future__ import annotations

import ctypes
from typing import Final

import numpy as np
import numpy.typing as npt

from tussis.shared.dsp.streaming import StreamedWaveform
from tussis.shared.errors import NoSamples
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.quality import QualityMeter
from tussis.worker.audio.samples import TICK_SECONDS, Audio, Listen, Source, Tick
from tussis.worker.audio.table import is_lossless

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
        self,
        limits: Limits,
        rate_hz: int,
        channels: int,
        source: Source,
        tick: Tick = lambda: None,
        listen: Listen | None = None,
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
