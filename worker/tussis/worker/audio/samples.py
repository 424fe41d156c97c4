"""Decoded samples: the return value of ``decode``, and the collection of decoded blocks under the limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tussis.shared.errors import NonFiniteSamples, NoSamples
from tussis.worker.audio.limits import Limits

_CHECK_BLOCK: Final = 2**20
"""Samples checked for NaN and infinity at a time. This limits the memory that the check needs."""


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """One decoded recording."""

    samples: npt.NDArray[np.float32]
    """float32 (channels, n), contiguous, full scale 1.0; (1, n) from the decoder of ``legacy``."""
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
    incomplete: bool = False
    """Whether audio is missing: the file ended early, or a part of it could not be decoded."""


def full_scale(samples: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Scale samples of any width to float32: ``int / 2^(bits-1)``; unsigned 8-bit samples are centred first.

    Floats keep their values, also above 1.0. A float64 outside the range of float32 becomes an infinity, for which
    :func:`check_finite` raises an error.
    """
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - np.float32(128)) / np.float32(128)
    if samples.dtype.kind == "i":
        bits = 8 * samples.dtype.itemsize
        return samples.astype(np.float32) / np.float32(2.0 ** (bits - 1))
    with np.errstate(over="ignore"):
        return samples.astype(np.float32, copy=False)


def check_finite(samples: npt.NDArray[np.float32]) -> None:
    """Raise :class:`NonFiniteSamples` when (channels, n) samples hold NaN or infinity."""
    for start in range(0, samples.shape[1], _CHECK_BLOCK):
        if not np.isfinite(samples[:, start : start + _CHECK_BLOCK]).all():
            raise NonFiniteSamples


class Gathered:
    """Collects blocks of samples during decoding. Checks the limits at every block."""

    def __init__(self, limits: Limits, rate_hz: int, channels: int) -> None:
        """Raises what :meth:`Limits.check_layout` raises."""
        limits.check_layout(rate_hz, channels)
        self._limits = limits
        self._rate_hz = rate_hz
        self._channels = channels
        self._blocks: list[npt.NDArray[np.float32]] = []
        self._frames = 0

    def add(self, block: npt.NDArray[np.float32]) -> None:
        """Append (channels, n) samples. Raises :class:`TooLong` when a limit is exceeded."""
        self._frames += block.shape[1]
        self._limits.check_length(self._frames, self._rate_hz, self._channels)
        self._blocks.append(block)

    def samples(self) -> npt.NDArray[np.float32]:
        """All samples, float32 (channels, n), contiguous. Raises :class:`NoSamples`, :class:`NonFiniteSamples`."""
        if self._frames == 0:
            raise NoSamples
        samples = np.ascontiguousarray(np.concatenate(self._blocks, axis=1))
        self._blocks.clear()
        check_finite(samples)
        return samples
