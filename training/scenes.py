"""Draw one training scene: sounds at known times over a bed, by the same rules for both classes.

Only the sound may reveal the class. Length, number of events, noise floor, padding and codec do not depend on it. Half
of the scenes have at least one cough among their events. The others have only other sounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from training import pack, sounds, speech
from training.degrade import degraded
from training.events import Span, Spans, spans
from training.pack import Wave
from tussis.shared.dsp import SAMPLE_RATE

#: Relative frequency of the classes that were mistaken for coughs, as background or as event. Other classes have 1.
CONFUSED: Final = {"person_sneeze": 2.5, "dog_bark": 2.5, "rooster": 1.5, "baby_cry": 1.5}


@dataclass(frozen=True, slots=True, eq=False)
class Sound:
    """One recording and its parts by level."""

    wave: Wave
    spans: Spans
    kind: str


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """The sounds from which the scenes of one split are drawn."""

    coughs: tuple[Sound, ...]
    backgrounds: tuple[Sound, ...]
    speech: tuple[Sound, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A recording with the times of its coughs."""

    wave: Wave
    """float32 (n,) at 16 kHz, before the profile's normalisation and filter."""
    coughs: tuple[Span, ...]
    uncertain: tuple[Span, ...]

    @property
    def is_cough(self) -> bool:
        """Whether the scene has a cough."""
        return bool(self.coughs)


def material(root: Path, split: str, utterances: int, folder: Path, seed: int, processes: int = 1) -> Material:
    """Decode a split and synthesise its speech. The speech is kept in ``folder``."""
    found = [clip for clip in pack.clips(root, split) if clip.kind != pack.EVALUATION_ONLY]
    loaded = [(clip, pack.wave(clip.path)) for clip in found]
    analysed = [(clip, Sound(wave, spans(wave), clip.kind)) for clip, wave in loaded if np.abs(wave).max() > 0]
    voices = speech.TRAIN_VOICES if split == "train" else speech.VAL_VOICES
    said = speech.library(seed + (split != "train"), utterances, folder, voices, processes)
    return Material(
        coughs=tuple(sound for clip, sound in analysed if clip.is_cough and sound.spans.events),
        backgrounds=tuple(sound for clip, sound in analysed if not clip.is_cough),
        speech=tuple(Sound(wave, spans(wave), "speech") for wave in said),
    )


def draw(material: Material, rng: np.random.Generator) -> Scene:
    """Draw one scene, which has a cough with probability 0.5."""
    with_cough = rng.random() < 0.5
    length = int(_length_s(rng) * SAMPLE_RATE)
    bed = _bed(material, rng, length)
    wave = bed.copy()
    coughs: list[Span] = []
    uncertain: list[Span] = []
    count = int(rng.choice([1, 1, 1, 2, 3])) if length > 2 * SAMPLE_RATE else 1
    if length > 4 * SAMPLE_RATE and rng.random() < 0.4:
        count += int(rng.integers(1, 4))
    is_cough = np.zeros(count, bool)
    if with_cough:
        is_cough[: 1 + (int(rng.integers(count)) if rng.random() < 0.6 else 0)] = True
    # The level of the bed is relative to a nominal event, so that the first event need not be a cough.
    for cough in rng.permutation(is_cough):
        _place(wave, material, rng, bool(cough), coughs, uncertain)
    if with_cough and not coughs:
        return draw(material, rng)
    if not with_cough and rng.random() < 0.12:
        wave = bed  # no event
    finished, shift = degraded(wave, rng)
    return Scene(finished, _shifted(coughs, shift), _shifted(uncertain, shift))


def _length_s(rng: np.random.Generator) -> float:
    if rng.random() < 0.04:
        return float(rng.uniform(9, 16))
    return float(np.exp(rng.uniform(np.log(0.35), np.log(8.5))))


def _place(
    wave: Wave, material: Material, rng: np.random.Generator, cough: bool, coughs: list[Span], uncertain: list[Span]
) -> None:
    """Add one event to ``wave`` in place. For a cough, add its times to the lists."""
    room = wave.shape[0]
    sound = _cough(material, rng) if cough else _foreign(material, rng)
    start, end = _cut(sound, rng, room, cough)
    part = sound.wave[start:end].astype(np.float32)
    # Simulate smaller and larger sound sources than the few in the recordings.
    factor = float(np.exp(rng.uniform(-0.18, 0.18))) if rng.random() < 0.5 else 1.0
    part = _stretched(part, factor)[:room]
    part = part * _edges(part.shape[0])
    peak = float(np.abs(part).max(initial=0))
    if peak <= 0:
        return
    part = part * np.float32(10 ** (rng.uniform(-9, 3) / 20) / peak)
    at = int(rng.integers(0, max(1, room - part.shape[0] + 1)))
    part = part[: room - at]
    wave[at : at + part.shape[0]] += part
    if not cough:
        return
    first, last = at / SAMPLE_RATE, (at + part.shape[0]) / SAMPLE_RATE
    cut = start / SAMPLE_RATE
    for spans_in, spans_out in ((sound.spans.events, coughs), (sound.spans.uncertain, uncertain)):
        for begin, finish in spans_in:
            inside = (max(first, first + (begin - cut) * factor), min(last, first + (finish - cut) * factor))
            if inside[1] - inside[0] > 0.02:
                spans_out.append(inside)


def _cut(sound: Sound, rng: np.random.Generator, room: int, cough: bool) -> tuple[int, int]:
    """The part of a sound that is used, in samples: all, a section, or one event. Same rules for both classes."""
    length = sound.wave.shape[0]
    style = rng.random()
    if style < 0.35 and length <= room:
        return 0, length
    if style < 0.55 or not sound.spans.events:
        size = min(length, room, int(rng.uniform(0.8, 5) * SAMPLE_RATE))
        if cough:  # around an event, so that the section has one
            begin, finish = sound.spans.events[int(rng.integers(len(sound.spans.events)))]
            middle = int((begin + finish) / 2 * SAMPLE_RATE)
            start = middle - int(rng.uniform(0.2, 0.8) * size)
        else:
            start = int(rng.integers(0, max(1, length - size + 1)))
        start = max(0, min(start, length - size))
        return start, start + size
    begin, finish = sound.spans.events[int(rng.integers(len(sound.spans.events)))]
    start = max(0, int((begin - rng.uniform(0, 0.08)) * SAMPLE_RATE))
    longest = int(rng.uniform(0.25, 0.8) * SAMPLE_RATE)
    end = min(
        length, start + min(longest, int((finish - begin + rng.uniform(0.05, 0.3)) * SAMPLE_RATE) + 1), start + room
    )
    return start, max(end, min(length, start + SAMPLE_RATE // 8))


def _stretched(wave: Wave, factor: float) -> Wave:
    """Play slower and lower (factor above 1) or faster and higher: float32 (n,) to (n * factor,)."""
    length = round(wave.shape[0] * factor)
    if length in (wave.shape[0], 0):
        return wave
    slower: Wave = (np.fft.irfft(np.fft.rfft(wave), length) * (length / wave.shape[0])).astype(np.float32)
    return slower


def _cough(material: Material, rng: np.random.Generator) -> Sound:
    return material.coughs[int(rng.integers(len(material.coughs)))]


def _foreign(material: Material, rng: np.random.Generator) -> Sound:
    kind = rng.random()
    if kind < 0.42:
        return _background(material, rng)
    if kind < 0.74:
        return material.speech[int(rng.integers(len(material.speech)))]
    wave = sounds.draw(rng) if rng.random() < 0.6 else sounds.short(rng)
    return Sound(wave, spans(wave), "formula")


def _background(material: Material, rng: np.random.Generator) -> Sound:
    while True:
        sound = material.backgrounds[int(rng.integers(len(material.backgrounds)))]
        if rng.random() * 2.5 < CONFUSED.get(sound.kind, 1.0):
            return sound


def _bed(material: Material, rng: np.random.Generator, length: int) -> Wave:
    """The background of the events: float32 (length,), with a level for events with a peak near 1."""
    kind = rng.random()
    if kind < 0.2:
        return np.zeros(length, np.float32)
    if kind < 0.42:  # a noise floor
        return coloured_at(rng, length, rng.uniform(-75, -30))
    if kind < 0.62:  # a quiet part of a cough recording: its channel without the cough
        quiet = _quiet(material, rng)
        if quiet is not None:
            bed = _repeated(quiet, length, rng)
            peak = float(np.abs(bed).max(initial=0)) + 1e-9
            return (bed / peak * 10 ** (rng.uniform(-55, -20) / 20)).astype(np.float32)
    # Everyday sound, sometimes as loud as the events. With less of it, coughs in rain were not found.
    sound = (
        material.speech[int(rng.integers(len(material.speech)))] if rng.random() < 0.25 else _background(material, rng)
    )
    if rng.random() < 0.12:
        wave = sounds.music(rng)
        sound = Sound(wave, spans(wave), "formula")
    bed = _repeated(sound.wave, length, rng)
    return (bed * 10 ** (rng.uniform(-40, -3) / 20)).astype(np.float32)


def coloured_at(rng: np.random.Generator, length: int, peak_db: float) -> Wave:
    """Steady noise with this peak, in dB relative to full scale: float32 (length,)."""
    return (sounds.coloured(rng, length) * 10 ** (peak_db / 20)).astype(np.float32)


def _quiet(material: Material, rng: np.random.Generator) -> Wave | None:
    for _ in range(20):
        sound = _cough(material, rng)
        if sound.spans.quiet:
            begin, finish = sound.spans.quiet[int(rng.integers(len(sound.spans.quiet)))]
            return sound.wave[int(begin * SAMPLE_RATE) : int(finish * SAMPLE_RATE)]
    return None


def _repeated(wave: Wave, length: int, rng: np.random.Generator) -> Wave:
    if wave.shape[0] >= length:
        start = int(rng.integers(0, wave.shape[0] - length + 1))
        return wave[start : start + length].astype(np.float32)
    faded = wave * _edges(wave.shape[0])
    return np.roll(np.resize(faded, length), int(rng.integers(length))).astype(np.float32)


def _edges(length: int) -> Wave:
    ramp = np.arange(length, dtype=np.float32) / 80  # 5 ms, so that cuts do not click
    return np.minimum(1, np.minimum(ramp, ramp[::-1]))


def _shifted(found: list[Span], shift: float) -> tuple[Span, ...]:
    return tuple((start + shift, end + shift) for start, end in sorted(found))
