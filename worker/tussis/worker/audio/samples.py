"""Decoded samples: what ``decode`` returns, and the place where they are gathered under the limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tussis.shared.errors import NonFiniteSamples, NoSamples
from tussis.worker.audio.limits import Limits

_CHECK_BLOCK: Final = 2**20
"""Samples looked at together for NaN and infinity: bounds the memory of the answer."""


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """One decoded recording."""

    samples: npt.NDArray[np.float32]
    """float32 (channels, n), contiguous, full scale 1.0; ``legacy``'s decoder gives (1, n)."""
    rate_hz: int
    channels: int
    """Channels of the source."""
    container: str
    """A name of :class:`~tussis.worker.audio.sniff.Container`."""
    codec: str
    """FFmpeg's name of the codec, without byte order: ``pcm_s16``, ``opus``, ``amr_nb``."""
    decoder: str
    """What turned the bytes into samples: ``soundfile``, ``pyav`` or ``pydub``."""
    duration_s: float
    """Seconds of audio decoded, which a damaged or cut file's header may overstate."""


def full_scale(samples: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Scale samples of any width to float32: ``int / 2^(bits-1)``, unsigned 8-bit centred first.

    Floats keep their values, also beyond 1.0. A float64 outside float32's range becomes an infinity, which
    :func:`check_finite` refuses.
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
    """Blocks of samples as they are decoded. Stops at the limits instead of after them."""

    def __init__(self, limits: Limits, rate_hz: int, channels: int) -> None:
        """Raises what :meth:`Limits.check_layout` raises."""
        limits.check_layout(rate_hz, channels)
        self._limits = limits
        self._rate_hz = rate_hz
        self._channels = channels
        self._blocks: list[npt.NDArray[np.float32]] = []
        self._frames = 0

    def add(self, block: npt.NDArray[np.float32]) -> None:
        """Append (channels, n) samples. Raises :class:`TooLong` once a limit is passed."""
        self._frames += block.shape[1]
        self._limits.check_length(self._frames, self._rate_hz, self._channels)
        self._blocks.append(block)

    def samples(self) -> npt.NDArray[np.float32]:
        """All of it, float32 (channels, n), contiguous. Raises :class:`NoSamples`, :class:`NonFiniteSamples`."""
        if self._frames == 0:
            raise NoSamples
        samples = np.ascontiguousarray(np.concatenate(self._blocks, axis=1))
        self._blocks.clear()
        check_finite(samples)
        return samples
