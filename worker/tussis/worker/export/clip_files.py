"""Cuts spans of a recording out of its decoded samples, and writes each as a WAV file."""

from __future__ import annotations

import wave
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

_FULL_SCALE: Final = 2**15


class ClipSpan(NamedTuple):
    """A part of a recording, in seconds from its start. The part after the end of the recording is left out."""

    start_s: float
    end_s: float


@dataclass
class _Open:
    """A clip that is being written. ``first`` and ``end`` are numbers of samples of a channel."""

    first: int
    end: int
    path: Path
    writer: wave.Wave_write | None = None


class ClipFiles:
    """Writes the spans of one stream while it is decoded. Implements ``tussis.worker.audio.samples.Listener``.

    A clip is 16-bit PCM with the rate and the channels of the stream. A sample of a 16-bit recording keeps its value. A
    clip is on disk as it is decoded, so that hours need no memory.
    """

    def __init__(self, spans: Mapping[Path, ClipSpan], rate_hz: int, channels: int) -> None:
        """``spans`` are the spans by the file to write."""
        self._rate_hz = rate_hz
        self._channels = channels
        self._position = 0
        self._open = [
            _Open(round(max(0.0, span.start_s) * rate_hz), round(span.end_s * rate_hz), path)
            for path, span in spans.items()
        ]

    def add(self, block: npt.NDArray[np.float32]) -> None:
        """The next float32 (channels, n) samples, full scale 1.0. Raises OSError."""
        begin, self._position = self._position, self._position + block.shape[1]
        for clip in list(self._open):
            if clip.first < self._position and begin < clip.end:
                self._append(clip, block[:, max(0, clip.first - begin) : clip.end - begin])
            if clip.end <= self._position:
                self._close(clip)

    def close(self) -> None:
        """Close the files of all clips. A clip without samples has no file."""
        for clip in list(self._open):
            self._close(clip)

    def _append(self, clip: _Open, part: npt.NDArray[np.float32]) -> None:
        if clip.writer is None:
            clip.writer = wave.open(str(clip.path), "wb")  # noqa: SIM115 - closed with the last sample
            clip.writer.setnchannels(self._channels)
            clip.writer.setsampwidth(2)
            clip.writer.setframerate(self._rate_hz)
        clip.writer.writeframesraw(pcm_16(part).tobytes())

    def _close(self, clip: _Open) -> None:
        self._open.remove(clip)
        if clip.writer is not None:
            clip.writer.close()


def pcm_16(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """(channels, n) samples as interleaved little-endian 16-bit integers (n, channels), clipped at full scale."""
    scaled = np.rint(samples.T.astype(np.float64) * _FULL_SCALE)
    return np.clip(scaled, -_FULL_SCALE, _FULL_SCALE - 1).astype("<i2")
