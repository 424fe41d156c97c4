"""Simulate the recording of a sound: room, filter, noise, level, codec. The draw does not depend on the class."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from training import codecs
from training.pack import Wave
from training.sounds import coloured
from tussis.shared.dsp import SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Strength:
    """The probability of each step."""

    room: float = 0.35
    filter: float = 0.55
    noise: float = 0.4
    clip: float = 0.08
    codec: float = 0.7
    padding: float = 0.25


def degraded(wave: Wave, rng: np.random.Generator, strength: Strength = Strength()) -> tuple[Wave, float]:
    """Apply random steps of a recording to a wave.

    Args:
        wave: float32 (n,) at 16 kHz, not silent; not changed.
        rng: random generator.
        strength: the probability of each step.

    Returns:
        float32 (m,) with a peak of at most 1, and the length of the padding at the start, seconds.
    """
    if rng.random() < strength.room:
        wave = reverberant(wave, rng)
    if rng.random() < strength.filter:
        wave = filtered(wave, rng)
    if rng.random() < strength.noise:
        active = np.sqrt(np.square(wave).mean()) + 1e-9
        wave = wave + coloured(rng, wave.shape[0]) * np.float32(active * 10 ** (-rng.uniform(0, 35) / 20) * 3)
    peak = float(np.abs(wave).max(initial=0)) + 1e-9
    if rng.random() < strength.clip:
        wave = np.clip(wave / peak * 10 ** (rng.uniform(2, 15) / 20), -1, 1)
        peak = 1.0
    wave = (wave / peak * 10 ** (-rng.uniform(0, 30) * rng.random() / 20)).astype(np.float32)
    if rng.random() < strength.codec:
        wave = codecs.round_trip(wave, codecs.draw(rng))
    before = 0
    if rng.random() < strength.padding:  # digital silence, as added by editors and recorders
        before, after = (int(s * SAMPLE_RATE) for s in rng.uniform(0, 1.5, 2) * (rng.random(2) < 0.6))
        wave = np.pad(wave, (before, after))
    return wave.astype(np.float32), before / SAMPLE_RATE


def reverberant(wave: Wave, rng: np.random.Generator) -> Wave:
    """Add reverberation: noise after the direct sound that decays by 60 dB in 0.08 to 0.8 s. Adds no delay."""
    decay_s = float(np.exp(rng.uniform(np.log(0.08), np.log(0.8))))
    length = int(decay_s * SAMPLE_RATE)
    response = rng.normal(size=length) * np.exp(-6.9 * np.arange(length) / length)
    response[: int(rng.uniform(0.001, 0.012) * SAMPLE_RATE)] = 0
    for _ in range(int(rng.integers(2, 7))):  # early reflections
        response[int(rng.uniform(0.001, 0.03) * SAMPLE_RATE) % length] += rng.normal() * 3
    response *= 10 ** (rng.uniform(-20, 2) / 20) / (np.sqrt(np.square(response).sum()) + 1e-9)
    response[0] = 1
    size = 1 << (wave.shape[0] + length).bit_length()
    wet = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(response, size), size)
    return wet[: wave.shape[0]].astype(np.float32)


def filtered(wave: Wave, rng: np.random.Generator) -> Wave:
    """Apply an uneven microphone response of up to 10 dB, and in half of the cases a band-pass, as of a telephone."""
    frequency = np.fft.rfftfreq(wave.shape[0], 1 / SAMPLE_RATE)
    knots = _knots()
    gain_db = np.interp(np.log(np.maximum(frequency, 20)), knots, rng.normal(0, 3.5, knots.shape[0]).clip(-10, 10))
    if rng.random() < 0.5:
        telephone = rng.random() < 0.5
        low = rng.uniform(200, 350) if telephone else rng.uniform(60, 400)
        high = rng.uniform(3_200, 3_500) if telephone else rng.uniform(1_800, 7_000)
        order = rng.uniform(2, 12)
        gain_db = gain_db - 10 * np.log10(1 + (low / np.maximum(frequency, 1)) ** order)
        gain_db = gain_db - 10 * np.log10(1 + (frequency / high) ** (2 * order))
    shaped = np.fft.rfft(wave) * 10 ** (gain_db / 20)
    return np.fft.irfft(shaped, wave.shape[0]).astype(np.float32)


@cache
def _knots() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.log(np.array([20, 60, 120, 250, 500, 1_000, 2_000, 4_000, 8_000], np.float64))
