"""Altered recordings of a cough, in which only the cough can explain the result.

A network that has learnt the channel, the length or the noise floor scores well on the pack, but not on the probes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from training.events import levels_db, spans
from training.pack import Wave
from training.scenes import coloured_at
from tussis.shared.dsp import SAMPLE_RATE

CROPPED_S = 0.46


def variants(wave: Wave, rng: np.random.Generator) -> Iterator[tuple[str, Wave]]:
    """Name and samples of each probe of one cough recording, float32 (n,) at 16 kHz."""
    event = loudest(wave)
    yield "cropped", event
    yield "cropped in silence", padded(event, 1.5, 2.5)
    yield "cropped over faint noise", over_noise(padded(event, 1.5, 2.5), rng, -50)
    yield "silence around", padded(wave, 2.0, 2.0)
    yield "faint noise around", over_noise(padded(wave, 2.0, 2.0), rng, -50)
    yield "noise floor", over_noise(wave, rng, -35)
    yield "telephone band", telephone(wave)


def loudest(wave: Wave) -> Wave:
    """0.46 s from just before the loudest event, with fades, or all of a shorter recording."""
    length = int(CROPPED_S * SAMPLE_RATE)
    level = levels_db(wave)
    top = int(level.argmax()) / 100
    found = [span for span in spans(wave).events if span[0] <= top <= span[1]]
    begin = (found[0][0] if found else top) - 0.05
    start = max(0, min(int(begin * SAMPLE_RATE), wave.shape[0] - length))
    ramp = np.arange(min(length, wave.shape[0]), dtype=np.float32) / 80
    return wave[start : start + length] * np.minimum(1, np.minimum(ramp, ramp[::-1]))


def padded(wave: Wave, before_s: float, after_s: float) -> Wave:
    """Add digital silence before and after."""
    return np.pad(wave, (int(before_s * SAMPLE_RATE), int(after_s * SAMPLE_RATE)))


def over_noise(wave: Wave, rng: np.random.Generator, peak_db: float) -> Wave:
    """Add steady noise with its peak at ``peak_db`` relative to the recording's peak."""
    return wave + coloured_at(rng, wave.shape[0], peak_db) * np.float32(np.abs(wave).max())


def telephone(wave: Wave) -> Wave:
    """Limit the band to 300 to 3400 Hz."""
    spectrum = np.fft.rfft(wave)
    frequency = np.fft.rfftfreq(wave.shape[0], 1 / SAMPLE_RATE)
    spectrum[(frequency < 300) | (frequency > 3_400)] = 0
    return np.fft.irfft(spectrum, wave.shape[0]).astype(np.float32)
