"""Synthesises sounds from seeded noise and sines: coughs, and other sounds that a microphone records.

A cough has three phases: a burst when the glottis opens, turbulent air through the vocal tract, and often a voiced end.
Every function returns float64 (n,) samples at ``rate_hz`` with a peak of 1; the same generator state gives the same
samples. The sounds are not a physical model: they resemble real ones in a spectrogram.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]
Sound = Callable[[np.random.Generator, int, int], Samples]

#: Formants of an open mouth: frequency and bandwidth in Hz, gain.
_COUGH_FORMANTS: Final = ((450.0, 200.0, 2.0), (1400.0, 300.0, 3.0), (2500.0, 400.0, 3.0))
_COUGH_DROP_DB: Final = 12.0
#: Five vowels: first and second formant in Hz.
_VOWELS: Final = ((730.0, 1090.0), (270.0, 2290.0), (530.0, 1840.0), (570.0, 840.0), (300.0, 870.0))


def cough(rng: np.random.Generator, rate_hz: int) -> Samples:
    """One cough of 0.35 to 0.5 s.

    The proportions follow the mean of 200 recorded coughs (training split of the covid19-cough dataset, CC0 1.0): a
    rise within 40 ms, about 10 dB lower after 250 ms, then a fast decay; 25 dB less at 3000 Hz than at 300 Hz.
    """
    body_s = rng.uniform(0.22, 0.33)
    samples = int((body_s + 0.15) * rate_hz)
    t = np.arange(samples) / rate_hz
    mouth = rng.uniform(0.9, 1.15)
    formants = [(mouth * at, width, gain) for at, width, gain in _COUGH_FORMANTS]
    air = _resonant(_noise(rng, samples, rate_hz, 120, 6000, slope=-1.5), rate_hz, formants)
    shape = np.minimum(t / 0.015, 1) * 10 ** (-_COUGH_DROP_DB * np.minimum(t / body_s, 1) / 20)
    shape *= np.exp(-np.maximum(t - body_s, 0) / 0.04)
    burst = _noise(rng, samples, rate_hz, 80, 2500, slope=-0.7) * np.minimum(t / 0.008, 1) * np.exp(-t / 0.03)
    sound = shape * air / _peak(air) + 0.8 * burst
    if rng.random() < 0.5:
        voice = _resonant(_voice(rng, t, rate_hz, rng.uniform(180, 350), -0.3), rate_hz, formants)
        sound += 0.2 * shape * np.clip((t - 0.08) / 0.05, 0, 1) * voice / _peak(voice)
    return _normalised(sound)


def coughs(rng: np.random.Generator, samples: int, rate_hz: int, count: int, first_s: float) -> Samples:
    """``count`` coughs, the first at ``first_s``, each a little weaker than the one before; the rest is silence."""
    sound = np.zeros(samples)
    at = first_s
    for number in range(count):
        one = cough(rng, rate_hz) * 0.85**number
        start = int(at * rate_hz)
        kept = one[: max(samples - start, 0)]
        sound[start : start + len(kept)] += kept
        at += rng.uniform(0.4, 0.7)
    return _normalised(sound)


def room(rng: np.random.Generator, samples: int, rate_hz: int) -> Samples:
    """A quiet room: low noise."""
    return _normalised(_noise(rng, samples, rate_hz, 60, 2000, slope=-0.8))


def fan(rng: np.random.Generator, samples: int, rate_hz: int) -> Samples:
    """A fan: mains hum and moving air."""
    t = np.arange(samples) / rate_hz
    hum = sum(np.sin(2 * np.pi * 50 * k * t + rng.uniform(0, 6)) / k for k in (1, 2, 3, 5))
    return _normalised(hum + 1.5 * _noise(rng, samples, rate_hz, 80, 1200, slope=-0.5))


def rain(rng: np.random.Generator, samples: int, rate_hz: int) -> Samples:
    """Rain: hiss, and drops."""
    drops = _impulses(rng, samples, rate_hz, per_s=25.0, decay_s=0.004)
    return _normalised(0.3 * _noise(rng, samples, rate_hz, 500, 9000) + 0.7 * drops)


def keyboard(rng: np.random.Generator, samples: int, rate_hz: int) -> Samples:
    """Typing: six short clicks a second."""
    return _normalised(_impulses(rng, samples, rate_hz, per_s=6.0, decay_s=0.012))


def knocks(rng: np.random.Generator, samples: int, rate_hz: int) -> Samples:
    """Knocking on wood."""
    t = np.arange(samples) / rate_hz
    sound = np.zeros(samples)
    for at in np.arange(0.2, t[-1], 0.35):
        since = np.maximum(t - at, 0)
        sound += (t >= at) * np.exp(-since / 0.03) * np.sin(2 * np.pi * rng.uniform(160, 220) * since)
    return _normalised(sound + 0.02 * _noise(rng, samples, rate_hz, 100, 3000))


def click(rng: np.random.Generator, samples: int, rate_hz: int) -> Samples:
    """One click."""
    t = np.arange(samples) / rate_hz
    return _normalised(_noise(rng, samples, rate_hz, 800, 6000) * np.exp(-np.abs(t - t[-1] / 2) / 0.004))


def melody(rng: np.random.Generator, samples: int, rate_hz: int) -> Samples:
    """A tune of plucked notes from a pentatonic scale."""
    t = np.arange(samples) / rate_hz
    sound = np.zeros(samples)
    for at in np.arange(0, t[-1], 0.3):
        since = np.maximum(t - at, 0)
        note = 220 * 2 ** (rng.choice([0, 2, 4, 7, 9, 12, 14]) / 12)
        tone = sum(np.sin(2 * np.pi * k * note * since) / k**2 for k in (1, 2, 3) if k * note < rate_hz / 2)
        sound += (t >= at) * np.exp(-since / 0.35) * tone
    return _normalised(sound)


def speech(rng: np.random.Generator, samples: int, rate_hz: int) -> Samples:
    """One voice: four syllables a second, each a vowel, some with the noise of a consonant."""
    t = np.arange(samples) / rate_hz
    source = _voice(rng, t, rate_hz, rng.uniform(100, 210), 0.0)
    hiss = _noise(rng, samples, rate_hz, 2500, 7000)
    sound = np.zeros(samples)
    for at in np.arange(0.1, t[-1], 0.25):
        low, high = _VOWELS[rng.integers(len(_VOWELS))]
        start, end = int(at * rate_hz), min(int((at + rng.uniform(0.12, 0.22)) * rate_hz), samples)
        if end - start < 16:
            continue
        window = np.hanning(end - start)
        vowel = _resonant(source[start:end], rate_hz, ((low, 90.0, 8.0), (high, 120.0, 5.0), (2600.0, 200.0, 2.0)))
        sound[start:end] += window * vowel / _peak(vowel)
        if rng.random() < 0.4:
            sound[start:end] += 0.15 * window[::-1] ** 4 * hiss[start:end]
    return _normalised(sound)


def babble(rng: np.random.Generator, samples: int, rate_hz: int) -> Samples:
    """Five voices at once."""
    return _normalised(np.sum([rng.uniform(0.4, 1.0) * speech(rng, samples, rate_hz) for _ in range(5)], axis=0))


def dial(rng: np.random.Generator, samples: int, rate_hz: int) -> Samples:
    """The two tones of a telephone, on and off."""
    t = np.arange(samples) / rate_hz
    tones = np.sin(2 * np.pi * 440 * t) + np.sin(2 * np.pi * 480 * t)
    return _normalised(tones * (t % 0.5 < 0.3) + 0.01 * _noise(rng, samples, rate_hz, 200, 3400))


def siren(rng: np.random.Generator, samples: int, rate_hz: int) -> Samples:
    """A siren that rises and falls, coming nearer."""
    t = np.arange(samples) / rate_hz
    frequency = 700 + 350 * np.sin(2 * np.pi * 0.35 * t)
    wail = np.sin(2 * np.pi * np.cumsum(frequency) / rate_hz)
    return _normalised(wail * np.linspace(0.2, 1, samples) + 0.1 * _noise(rng, samples, rate_hz, 60, 1500))


def engine(rng: np.random.Generator, samples: int, rate_hz: int) -> Samples:
    """An engine at an uneven idle."""
    t = np.arange(samples) / rate_hz
    voice = _voice(rng, t, rate_hz, 32.0, 0.0)
    return _normalised(_resonant(voice, rate_hz, ((120.0, 80.0, 4.0), (400.0, 200.0, 1.0))))


def _noise(
    rng: np.random.Generator, samples: int, rate_hz: int, low_hz: float, high_hz: float, slope: float = 0.0
) -> Samples:
    """Noise between two frequencies. Its amplitude is proportional to the frequency to the power ``slope``; peak 1."""

    def shape(frequency: Samples) -> Samples:
        band = np.sqrt((1 + (low_hz / frequency) ** 4) * (1 + (frequency / high_hz) ** 4))
        return np.asarray((frequency / 1000) ** slope / band)

    return _normalised(_filtered(rng.standard_normal(samples), rate_hz, shape))


def _resonant(sound: Samples, rate_hz: int, formants: Sequence[tuple[float, float, float]]) -> Samples:
    """The sound with peaks in its spectrum. A formant is a frequency and a bandwidth in Hz, and the added gain."""

    def shape(frequency: Samples) -> Samples:
        return np.asarray(0.1 + sum(gain / (1 + ((frequency - at) / (width / 2)) ** 2) for at, width, gain in formants))

    return _filtered(sound, rate_hz, shape)


def _filtered(sound: Samples, rate_hz: int, shape: Callable[[Samples], Samples]) -> Samples:
    """The sound with its spectrum multiplied by ``shape`` of the frequency in Hz. The frequency is above 0."""
    length = 1 << (len(sound) - 1).bit_length()  # an FFT of a length with large prime factors takes many times as long
    frequency = np.maximum(np.fft.rfftfreq(length, 1 / rate_hz), rate_hz / length)
    return np.fft.irfft(np.fft.rfft(sound, length) * shape(frequency), length)[: len(sound)]


def _voice(rng: np.random.Generator, t: Samples, rate_hz: int, pitch_hz: float, glide: float) -> Samples:
    """A sawtooth with vibrato. Its pitch changes by the factor ``1 + glide`` over the sound."""
    wander = 1 + 0.03 * np.sin(2 * np.pi * rng.uniform(2, 4) * t + rng.uniform(0, 6))
    pitch = pitch_hz * wander * (1 + glide * t / max(t[-1], 0.01))
    return np.asarray(2 * (np.cumsum(pitch) / rate_hz % 1) - 1)


def _impulses(rng: np.random.Generator, samples: int, rate_hz: int, per_s: float, decay_s: float) -> Samples:
    """Short bursts of noise at random times and with random strength."""
    sound = np.zeros(samples)
    length = min(int(6 * decay_s * rate_hz), samples)
    envelope = np.exp(-np.arange(length) / rate_hz / decay_s)
    for start in rng.integers(0, samples - length + 1, max(1, int(per_s * samples / rate_hz))):
        sound[start : start + length] += rng.uniform(0.2, 1.0) * envelope * rng.standard_normal(length)
    return sound


def _normalised(sound: Samples) -> Samples:
    return sound / _peak(sound)


def _peak(sound: Samples) -> float:
    return float(np.abs(sound).max()) or 1.0
