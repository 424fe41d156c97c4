"""Synthetic sounds from formulas, without coughs: music, drums, knocks, tones, breath, laughter, rustle.

Each function draws its parameters from ``rng`` and returns float32 (n,) at 16 kHz with a peak of 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from training.pack import Wave
from tussis.shared.dsp import SAMPLE_RATE

Floats = npt.NDArray[np.float64]


def draw(rng: np.random.Generator) -> Wave:
    """Draw a sound of any kind."""
    return KINDS[int(rng.integers(len(KINDS)))](rng)


def short(rng: np.random.Generator) -> Wave:
    """Draw a sound of a short kind."""
    return SHORT[int(rng.integers(len(SHORT)))](rng)


def beep(rng: np.random.Generator) -> Wave:
    """A tone, a chirp, or a ringing of two tones."""
    seconds = _time(rng, 0.05, 1.5)
    low, high = np.exp(rng.uniform(np.log(150), np.log(3_800), 2))
    frequency = low if rng.random() < 0.5 else np.linspace(low, high, seconds.shape[0])
    wave = np.sin(2 * np.pi * np.cumsum(np.broadcast_to(frequency, seconds.shape)) / SAMPLE_RATE)
    if rng.random() < 0.3:
        wave = wave + np.sin(2 * np.pi * high * seconds)
    if rng.random() < 0.3:
        wave = wave * (np.sin(2 * np.pi * rng.uniform(3, 25) * seconds) > 0)
    if rng.random() < 0.3:
        wave = np.sign(wave)
    return _finished(wave * _fades(seconds.shape[0], 0.01))


def knock(rng: np.random.Generator) -> Wave:
    """A hit object: a few decaying modes and a click, once or several times."""
    hits = int(rng.choice([1, 1, 2, 3, 4]))
    gap = rng.uniform(0.09, 0.4)
    wave = np.zeros(int((0.35 + gap * (hits - 1)) * SAMPLE_RATE))
    seconds = np.arange(int(0.3 * SAMPLE_RATE)) / SAMPLE_RATE
    modes = [
        (np.exp(rng.uniform(np.log(80), np.log(3_000))), rng.uniform(15, 120)) for _ in range(int(rng.integers(1, 6)))
    ]
    one = sum(rng.uniform(0.2, 1) * np.exp(-decay * seconds) * np.sin(2 * np.pi * f * seconds) for f, decay in modes)
    one = one + rng.uniform(0, 1) * rng.normal(size=seconds.shape[0]) * np.exp(-seconds * rng.uniform(60, 600))
    for hit in range(hits):
        start = int(hit * gap * rng.uniform(0.9, 1.0) * SAMPLE_RATE)
        wave[start : start + one.shape[0]] += rng.uniform(0.5, 1) * one[: wave.shape[0] - start]
    return _finished(wave)


def drums(rng: np.random.Generator) -> Wave:
    """A pattern of kick, snare, clap and cymbal."""
    beat = rng.uniform(0.12, 0.4)
    steps = int(rng.integers(2, 12))
    wave = np.zeros(int((steps * beat + 0.6) * SAMPLE_RATE))
    kit = [_kick(rng), _snare(rng), _snare(rng), _cymbal(rng)]
    for step in range(steps):
        for piece in kit:
            if rng.random() < 0.45:
                start = int(step * beat * SAMPLE_RATE)
                wave[start : start + piece.shape[0]] += rng.uniform(0.3, 1) * piece[: wave.shape[0] - start]
    wave[: kit[0].shape[0]] += kit[int(rng.integers(4))][: kit[0].shape[0]] if not wave.any() else 0
    return _finished(wave)


def music(rng: np.random.Generator) -> Wave:
    """Notes or chords with harmonics, plucked, struck or bowed; sometimes over drums."""
    steps, beat = int(rng.integers(3, 14)), rng.uniform(0.12, 0.6)
    wave = np.zeros(int((steps * beat + 1.0) * SAMPLE_RATE))
    root = rng.uniform(80, 500)
    scale = np.array([0, 2, 3, 5, 7, 9, 10, 12, 15])
    brightness, decay, attack = rng.uniform(0.3, 0.9), rng.uniform(0.5, 8), rng.uniform(0.003, 0.12)
    vibrato = rng.uniform(0, 0.01)
    for step in range(steps):
        seconds = np.arange(int(min(1.0, beat * rng.uniform(1, 3)) * SAMPLE_RATE)) / SAMPLE_RATE
        for _ in range(int(rng.integers(1, 4))):
            f0 = root * 2 ** (rng.choice(scale) / 12)
            phase = 2 * np.pi * f0 * (seconds + vibrato / 6 * np.sin(2 * np.pi * 5.5 * seconds))
            note = sum(brightness**k * np.sin(k * phase) for k in range(1, 9) if k * f0 < 7_500)
            note = note * np.exp(-decay * seconds) * np.minimum(1, seconds / attack) * _fades(seconds.shape[0], 0.02)
            start = int(step * beat * SAMPLE_RATE)
            wave[start : start + note.shape[0]] += note[: wave.shape[0] - start]
    if rng.random() < 0.4:
        beats = drums(rng)
        wave = _finished(wave) + rng.uniform(0.2, 1.2) * np.resize(beats, wave.shape)
    return _finished(wave)


def breath(rng: np.random.Generator) -> Wave:
    """Breath: band-limited noise that rises and falls slowly, unlike the burst of a cough. Sometimes a snore."""
    seconds = _time(rng, 0.4, 1.8)
    length = seconds.shape[0]
    rise = rng.uniform(0.3, 0.7)
    position = np.linspace(0, 1, length)
    envelope = np.minimum(position / rise, (1 - position) / (1 - rise)) ** rng.uniform(0.7, 2)
    wave = banded(_white(rng, length), *_band(rng, 150, 5_000)) * envelope
    if rng.random() < 0.25:
        wave = wave * (0.3 + np.clip(np.sin(2 * np.pi * rng.uniform(20, 70) * seconds), 0, 1))
    return _finished(wave)


def laughter(rng: np.random.Generator) -> Wave:
    """Syllables of a voice, 3 to 6.5 per second: pulses through formants, each with an aspirated start."""
    rate, count = rng.uniform(3, 6.5), int(rng.integers(2, 9))
    f0 = rng.uniform(120, 450)
    formants = (rng.uniform(500, 950), rng.uniform(1_100, 2_100), rng.uniform(2_300, 3_200))
    parts = []
    for index in range(count):
        length = int(SAMPLE_RATE / rate * rng.uniform(0.9, 1.1))
        voiced = int(length * rng.uniform(0.4, 0.75))
        pitch = f0 * (1 - 0.04 * index) * np.linspace(1.15, 0.9, voiced) * rng.uniform(0.93, 1.07)
        phase = np.cumsum(pitch) / SAMPLE_RATE
        pulses = np.diff(np.floor(phase), prepend=0) + rng.uniform(0.01, 0.1) * rng.normal(size=voiced)
        aspirated = rng.uniform(0.02, 0.25) * rng.normal(size=length - voiced) * np.hanning(length - voiced)
        syllable = np.concatenate([aspirated, pulses * np.hanning(voiced) ** 0.5])
        parts.append(rng.uniform(0.6, 1) * syllable)
    return _finished(resonant(np.concatenate(parts), formants, rng))


def syllables(rng: np.random.Generator) -> Wave:
    """One to three consonants and vowels of a synthetic voice: a burst or hiss, and pulses with gliding formants."""
    f0 = float(np.exp(rng.uniform(np.log(80), np.log(350))))
    tract = np.exp(rng.uniform(-0.2, 0.25))
    parts = []
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        stop = rng.random() < 0.6
        consonant = _white(
            rng, int(rng.uniform(0.01, 0.07) * SAMPLE_RATE if stop else rng.uniform(0.05, 0.2) * SAMPLE_RATE)
        )
        consonant = banded(consonant, *_band(rng, 400, 7_900))
        consonant = consonant / (np.abs(consonant).max() + 1e-9) * rng.uniform(0.05, 1.0)
        consonant *= (
            np.exp(-np.arange(consonant.shape[0]) / consonant.shape[0] * 2)
            if stop
            else _fades(consonant.shape[0], 0.02)
        )
        gap = np.zeros(int(rng.uniform(0, 0.06) * SAMPLE_RATE))
        vowel = _vowel(rng, f0 * rng.uniform(0.85, 1.2), tract)
        parts += [consonant, vowel, gap] if rng.random() < 0.8 else [vowel, consonant, gap]
    return _finished(np.concatenate(parts))


def _vowel(rng: np.random.Generator, f0: float, tract: float) -> Floats:
    length = int(rng.uniform(0.08, 0.35) * SAMPLE_RATE)
    pitch = f0 * np.linspace(rng.uniform(0.9, 1.25), rng.uniform(0.75, 1.1), length)
    phase = np.cumsum(pitch) / SAMPLE_RATE
    pulses = np.diff(np.floor(phase), prepend=0) + rng.uniform(0.005, 0.06) * rng.normal(size=length)
    pulses = pulses * np.minimum(1, np.arange(length) / (rng.uniform(0.005, 0.05) * SAMPLE_RATE))
    blend = np.linspace(0, 1, length)
    spoken = [
        resonant(
            pulses,
            (tract * rng.uniform(280, 850), tract * rng.uniform(850, 2_300), tract * rng.uniform(2_300, 3_300)),
            rng,
        )
        for _ in range(2)
    ]
    vowel = (spoken[0] * (1 - blend) + spoken[1] * blend) * _fades(length, 0.02)
    sounding: Floats = vowel / (np.abs(vowel).max() + 1e-9)
    return sounding


def bark(rng: np.random.Generator) -> Wave:
    """One to four barks of a dog: a rough voice through formants that rises and falls within 0.08 to 0.3 s."""
    f0 = float(np.exp(rng.uniform(np.log(150), np.log(900))))
    length = int(rng.uniform(0.08, 0.3) * SAMPLE_RATE)
    formants = (rng.uniform(400, 1_200), rng.uniform(1_200, 2_600), rng.uniform(2_600, 4_500))
    rough = rng.uniform(0.02, 0.5)
    gap = int(rng.uniform(0.08, 0.6) * SAMPLE_RATE)
    parts = []
    for _ in range(int(rng.choice([1, 1, 2, 3, 4]))):
        arc = 1 + rng.uniform(0.1, 0.6) * np.sin(np.pi * np.linspace(0, 1, length) ** rng.uniform(0.6, 1.5))
        phase = np.cumsum(f0 * arc * rng.uniform(0.95, 1.05)) / SAMPLE_RATE
        pulses = np.diff(np.floor(phase), prepend=0) + rough * 0.2 * rng.normal(size=length)
        envelope = np.minimum(1, np.arange(length) / (0.015 * SAMPLE_RATE)) * np.exp(-np.arange(length) / length * 2.5)
        parts += [rng.uniform(0.6, 1) * pulses * envelope, np.zeros(gap)]
    return _finished(resonant(np.concatenate(parts[:-1]), formants, rng))


def clap(rng: np.random.Generator) -> Wave:
    """One or several hand claps: short, decaying, band-limited noise."""
    claps, gap = int(rng.choice([1, 1, 2, 4, 8])), rng.uniform(0.12, 0.5)
    wave = np.zeros(int((0.25 + gap * (claps - 1)) * SAMPLE_RATE))
    seconds = np.arange(int(0.2 * SAMPLE_RATE)) / SAMPLE_RATE
    low = rng.uniform(400, 1_500)
    for index in range(claps):
        one = banded(_white(rng, seconds.shape[0]), low, low * rng.uniform(2, 5)) * np.exp(
            -seconds * rng.uniform(25, 180)
        )
        start = int(index * gap * rng.uniform(0.9, 1.0) * SAMPLE_RATE)
        wave[start : start + one.shape[0]] += rng.uniform(0.6, 1) * one[: wave.shape[0] - start]
    return _finished(wave)


def slam(rng: np.random.Generator) -> Wave:
    """A door or a dropped object: a thud, a crack and a rattle."""
    seconds = np.arange(int(rng.uniform(0.3, 0.9) * SAMPLE_RATE)) / SAMPLE_RATE
    wave = np.sin(2 * np.pi * rng.uniform(50, 180) * seconds) * np.exp(-seconds * rng.uniform(8, 30))
    wave = wave + rng.uniform(0.2, 1.2) * banded(_white(rng, seconds.shape[0]), *_band(rng, 80, 5_000)) * np.exp(
        -seconds * rng.uniform(15, 80)
    )
    rattle = _white(rng, seconds.shape[0]) * (rng.random(seconds.shape[0]) < 0.004)
    rattle = np.convolve(rattle, np.exp(-np.arange(200) / rng.uniform(5, 40)), mode="same")
    return _finished(wave + rng.uniform(0, 0.4) * rattle * np.exp(-seconds * 5))


def rustle(rng: np.random.Generator) -> Wave:
    """Cloth, paper, handling: noise with a varying level, or a series of clicks."""
    length = _time(rng, 0.2, 3.0).shape[0]
    if rng.random() < 0.5:
        wave = _white(rng, length) * (rng.random(length) < rng.uniform(2e-4, 3e-3))
        wave = np.convolve(wave, np.exp(-np.arange(200) / rng.uniform(3, 40)), mode="same")
    else:
        knots = np.abs(rng.normal(size=max(3, length // int(rng.integers(800, 6_000))))) ** 2
        wave = _white(rng, length) * np.interp(np.linspace(0, 1, length), np.linspace(0, 1, knots.shape[0]), knots)
    return _finished(banded(wave, *_band(rng, 100, 7_500)))


def hiss(rng: np.random.Generator) -> Wave:
    """Steady noise with soft or abrupt edges."""
    length = _time(rng, 0.2, 1.5).shape[0]
    return _finished(coloured(rng, length) * _fades(length, rng.uniform(0.005, 0.15)))


def siren(rng: np.random.Generator) -> Wave:
    """A voice-like cry or a siren: gliding harmonics for 0.4 to 2 s."""
    seconds = _time(rng, 0.4, 2.0)
    knots = np.exp(rng.uniform(np.log(200), np.log(1_200), int(rng.integers(2, 5))))
    glide = np.interp(np.linspace(0, 1, seconds.shape[0]), np.linspace(0, 1, knots.shape[0]), knots)
    phase = 2 * np.pi * np.cumsum(glide) / SAMPLE_RATE
    wave = sum(rng.uniform(0.2, 1) / k * np.sin(k * phase) for k in range(1, 7))
    return _finished(wave * _fades(seconds.shape[0], rng.uniform(0.01, 0.1)))


def coloured(rng: np.random.Generator, length: int) -> Wave:
    """Steady noise with a power that falls by 0 to 2 decades per decade: from white through pink to brown."""
    spectrum = np.fft.rfft(rng.normal(size=length))
    spectrum = spectrum / np.maximum(np.arange(spectrum.shape[0]), 1 + length / 400) ** rng.uniform(0, 1)
    return _finished(np.fft.irfft(spectrum, length))


def banded(wave: Floats, low_hz: float, high_hz: float) -> Floats:
    """Apply a band-pass with third-order slopes, in one transform."""
    frequency = np.fft.rfftfreq(wave.shape[0], 1 / SAMPLE_RATE)
    with np.errstate(divide="ignore"):
        gain = 1 / np.sqrt((1 + (low_hz / np.maximum(frequency, 1e-3)) ** 6) * (1 + (frequency / high_hz) ** 6))
    return np.fft.irfft(np.fft.rfft(wave) * gain, wave.shape[0])


def resonant(wave: Floats, formants: tuple[float, ...], rng: np.random.Generator) -> Floats:
    """Apply a vocal tract with these resonances, Hz."""
    frequency = np.fft.rfftfreq(wave.shape[0], 1 / SAMPLE_RATE)
    gain = np.full(frequency.shape, 0.03)
    for index, formant in enumerate(formants):
        gain = gain + 0.6**index / (1 + ((frequency - formant) / rng.uniform(50, 150)) ** 2)
    return np.fft.irfft(np.fft.rfft(wave) * gain, wave.shape[0])


def _kick(rng: np.random.Generator) -> Floats:
    seconds = np.arange(int(0.3 * SAMPLE_RATE)) / SAMPLE_RATE
    sweep = rng.uniform(40, 70) * seconds + rng.uniform(2, 8) * (1 - np.exp(-seconds * 30))
    kick: Floats = np.sin(2 * np.pi * sweep) * np.exp(-seconds * rng.uniform(8, 25))
    return kick


def _snare(rng: np.random.Generator) -> Floats:
    seconds = np.arange(int(0.25 * SAMPLE_RATE)) / SAMPLE_RATE
    noise = banded(_white(rng, seconds.shape[0]), rng.uniform(300, 1_500), rng.uniform(3_000, 7_900))
    tone = rng.uniform(0, 0.8) * np.sin(2 * np.pi * rng.uniform(150, 260) * seconds)
    snare: Floats = (0.5 * noise + tone) * np.exp(-seconds * rng.uniform(14, 50))
    return snare


def _cymbal(rng: np.random.Generator) -> Floats:
    seconds = np.arange(int(0.5 * SAMPLE_RATE)) / SAMPLE_RATE
    noise = banded(_white(rng, seconds.shape[0]), rng.uniform(3_000, 6_000), 7_900)
    cymbal: Floats = 0.4 * noise * np.exp(-seconds * rng.uniform(6, 60))
    return cymbal


def _white(rng: np.random.Generator, length: int) -> Floats:
    return rng.normal(size=length)


def _band(rng: np.random.Generator, low_hz: float, high_hz: float) -> tuple[float, float]:
    low = float(np.exp(rng.uniform(np.log(low_hz), np.log(high_hz / 3))))
    return low, min(high_hz, low * float(np.exp(rng.uniform(0.7, 3))))


def _time(rng: np.random.Generator, least_s: float, most_s: float) -> Floats:
    return np.arange(int(rng.uniform(least_s, most_s) * SAMPLE_RATE)) / SAMPLE_RATE


def _fades(length: int, fade_s: float) -> Floats:
    ramp = np.arange(length) / (fade_s * SAMPLE_RATE)
    return np.minimum(1, np.minimum(ramp, ramp[::-1]))


def _finished(wave: Floats) -> Wave:
    peak = float(np.abs(wave).max(initial=0))
    return (wave / peak if peak > 0 else wave).astype(np.float32)


Formula = Callable[[np.random.Generator], Wave]
SHORT: Final[tuple[Formula, ...]] = (
    beep, knock, drums, laughter, rustle, hiss, breath, syllables, syllables, syllables, bark, bark, clap, slam,
)  # fmt: skip
KINDS: Final[tuple[Formula, ...]] = (
    beep, knock, drums, drums, music, music, music, breath, breath, laughter, laughter, rustle, hiss, siren,
    syllables, bark, clap, slam,
)  # fmt: skip
