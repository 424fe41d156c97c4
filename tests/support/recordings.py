"""Synthetic, seeded recordings for tests of the signal path. Each step of the path changes something in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.integer[Any]]


def cough_like(seconds: float, rate: int, *, channels: int = 1, seed: int = 0) -> Floats:
    """Return bursts of noise over hum, rumble below the high-pass and a constant offset. The channels differ.

    The loudness changes by a factor of a thousand along the recording, which reveals a floor shared by its segments.

    Returns:
        float32 (channels, round(seconds * rate)), within [-1, 1], never silent.
    """
    return cough_like_samples(max(1, round(seconds * rate)), rate, channels=channels, seed=seed)


def cough_like_samples(length: int, rate: int, *, channels: int = 1, seed: int = 0) -> Floats:
    """Return the recording of :func:`cough_like` with an exact number of samples."""
    noise = np.random.default_rng(seed)
    time = np.arange(length) / rate
    rows = []
    for channel in range(channels):
        loudness = 10 ** (-1.5 * (1 + np.cos(2 * np.pi * time / 2.6)))
        burst = noise.standard_normal(length) * np.exp(-8 * (time % 0.7)) * loudness * 0.12
        hum = 0.03 * np.sin(2 * np.pi * 440 * time + channel) * loudness
        rumble = 0.04 * np.sin(2 * np.pi * 30 * time)
        rows.append(burst + hum + rumble + 0.02 / (channel + 1))
    return np.clip(np.stack(rows), -1, 1).astype(np.float32)


def quantised(samples: Floats, width: int) -> Integers:
    """Return samples in [-1, 1] as PCM of ``width`` bytes: signed; 1 byte unsigned as in WAV; 3 bytes in an int32."""
    full = 2 ** (8 * width - 1)
    exact = np.clip(np.round(samples.astype(np.float64) * full), -full, full - 1)
    found: Integers
    match width:
        case 1:
            found = (exact + full).astype(np.uint8)
        case 2:
            found = exact.astype(np.int16)
        case _:
            found = exact.astype(np.int32)
    return found
