"""Seeded recordings with bouts at known times.

The pack has no times for its coughs. A clip that is trimmed to its loud part is one bout: its start and its end are
known when it is added to a background.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from training import pack, trials
from training.events import Span, spans
from training.pack import Wave
from tussis.shared.dsp import SAMPLE_RATE
from tussis.worker.evaluation.events import BOUT_PAUSE_S

LONGEST_CLIP_S: Final = 4.0
"""Longer clips are left out. So are clips with an inner pause of ``BOUT_PAUSE_S`` or more."""
LENGTH_S: Final = (20.0, 40.0)
RATIO_DB: Final = (5.0, 25.0)
"""Power of a cough during the cough, relative to the power of the background over the whole recording."""
WITHOUT_BOUT: Final = 0.33
"""Share of recordings without a cough."""
SERIES: Final = 5
"""Number of coughs in a series of single coughs, whose starts are ``SERIES_STEP_S`` apart."""
SERIES_STEP_S: Final = 3.0
SERIES_SHARE: Final = 0.13
"""Share of recordings with a series."""


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """The sounds of one split."""

    clips: tuple[Wave, ...]
    """Trimmed coughs, in the order of the pack."""
    backgrounds: tuple[Wave, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """A recording and its bouts."""

    wave: Wave
    """float32 (n,) at 16 kHz."""
    bouts: tuple[Span, ...]
    """Seconds, in order, with pauses of at least ``BOUT_PAUSE_S``."""


def material(root: Path, split: str) -> Material:
    """Decode the coughs and backgrounds of a split of the pack. Spoken digits are left out."""
    found = [clip for clip in pack.clips(root, split) if clip.kind != pack.EVALUATION_ONLY]
    trimmed = [_trimmed(pack.wave(clip.path)) for clip in found if clip.is_cough]
    backgrounds = [pack.wave(clip.path) for clip in found if not clip.is_cough]
    return Material(
        tuple(clip for clip in trimmed if clip is not None),
        tuple(wave for wave in backgrounds if np.abs(wave).max() > 0),
    )


def mixtures(material: Material, count: int, seed: int) -> list[Mixture]:
    """Draw ``count`` recordings. Clips and backgrounds are used in a random order, each as often as any other."""
    rng = np.random.default_rng(seed)
    clips, backgrounds = _Deck(material.clips, rng), _Deck(material.backgrounds, rng)
    return [_mixture(clips, backgrounds, rng) for _ in range(count)]


class _Deck:
    """Deals waves in random order, and shuffles when all have been dealt."""

    def __init__(self, waves: Sequence[Wave], rng: np.random.Generator) -> None:
        self._waves, self._rng, self._order = waves, rng, list[int]()

    def next(self) -> Wave:
        if not self._order:
            self._order = self._rng.permutation(len(self._waves)).tolist()
        return self._waves[self._order.pop()]


def _trimmed(wave: Wave) -> Wave | None:
    """The part from the start of the first loud sound to the end of the last, or None if that is not one bout."""
    events = spans(wave).events
    if not events or events[-1][1] - events[0][0] > LONGEST_CLIP_S:
        return None
    if any(after[0] - before[1] >= BOUT_PAUSE_S for before, after in itertools.pairwise(events)):
        return None
    return wave[round(events[0][0] * SAMPLE_RATE) : round(events[-1][1] * SAMPLE_RATE)]


def _mixture(clips: _Deck, backgrounds: _Deck, rng: np.random.Generator) -> Mixture:
    length_s = float(rng.uniform(*LENGTH_S))
    bed = trials.joined([backgrounds.next()], length_s, rng)
    bed /= np.float32(max(float(np.sqrt(np.square(bed).mean())), 1e-6))
    kind = rng.random()
    placed: list[tuple[float, Wave]] = []
    if kind > WITHOUT_BOUT + SERIES_SHARE:
        placed = _scattered(clips, length_s, rng)
    elif kind > WITHOUT_BOUT:
        placed = _series(clips, length_s, rng)
    level = rng.uniform(*RATIO_DB)
    for start_s, clip in placed:
        at = round(start_s * SAMPLE_RATE)
        ramp = np.arange(clip.shape[0], dtype=np.float32) / 80  # 5 ms
        part = clip * np.minimum(1, np.minimum(ramp, ramp[::-1]))
        power = max(float(np.square(part).mean()), 1e-12)
        ratio_db = level + rng.uniform(-3, 3)
        bed[at : at + clip.shape[0]] += part * np.float32(10 ** (ratio_db / 20) / np.sqrt(power))
    return Mixture(
        bed / np.abs(bed).max(), _bouts([(start_s, start_s + clip.shape[0] / SAMPLE_RATE) for start_s, clip in placed])
    )


def _scattered(clips: _Deck, length_s: float, rng: np.random.Generator) -> list[tuple[float, Wave]]:
    """One to five clips at random times that do not overlap: start in seconds, clip."""
    placed: list[tuple[float, Wave]] = []
    for _ in range(int(rng.integers(1, 6))):
        clip = clips.next()
        seconds = clip.shape[0] / SAMPLE_RATE
        for _ in range(20):
            start_s = float(rng.uniform(0, length_s - seconds))
            apart = (
                start_s >= begin + other.shape[0] / SAMPLE_RATE or start_s + seconds <= begin for begin, other in placed
            )
            if all(apart):
                placed.append((start_s, clip))
                break
    return sorted(placed, key=lambda item: item[0])


def _series(clips: _Deck, length_s: float, rng: np.random.Generator) -> list[tuple[float, Wave]]:
    """Single coughs whose starts are 3 s apart: the first second of a clip at most, each a bout of its own."""
    first_s = float(rng.uniform(0, length_s - SERIES * SERIES_STEP_S))
    longest = round((SERIES_STEP_S - BOUT_PAUSE_S) * SAMPLE_RATE)
    return [(first_s + number * SERIES_STEP_S, clips.next()[:longest]) for number in range(SERIES)]


def _bouts(coughs: Sequence[Span]) -> tuple[Span, ...]:
    """Join coughs, in order, whose pause is shorter than ``BOUT_PAUSE_S``."""
    bouts: list[Span] = []
    for start, end in coughs:
        if bouts and start - bouts[-1][1] < BOUT_PAUSE_S - 1e-9:
            bouts[-1] = (bouts[-1][0], max(bouts[-1][1], end))
        else:
            bouts.append((start, end))
    return tuple(bouts)
