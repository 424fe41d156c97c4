"""Seeded recordings for the evaluation: coughs at known times, and hours without a cough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from training import sounds
from training.events import Span, spans
from training.pack import Wave
from tussis.shared.dsp import SAMPLE_RATE

MIXTURE_S: Final = 8.0
#: All of a scene is analysed: 32 segments end at 17.5 s.
SCENE_S: Final = 15.0
JOIN_S: Final = 0.05
SNEEZE: Final = "person_sneeze"


def mixture(cough: Wave, background: Wave, snr_db: float, rng: np.random.Generator) -> tuple[Wave, Span]:
    """One cough of at most 0.8 s at a random time in 8 s of background.

    ``snr_db`` is the ratio of the cough's power during the cough to the background's power over all 8 s.

    Returns:
        float32 (128000,) and the start and end of the cough, seconds.
    """
    found = spans(cough).events
    begin, finish = max(found, key=lambda span: float(np.abs(cough[_samples(span)]).max()))
    part = cough[_samples((begin, min(finish, begin + 0.8)))]
    ramp = np.arange(part.shape[0], dtype=np.float32) / 80
    part = part * np.minimum(1, np.minimum(ramp, ramp[::-1]))
    bed = joined([background], MIXTURE_S, rng)
    gain = np.sqrt(np.square(part).mean() / max(float(np.square(bed).mean()), 1e-12)) * 10 ** (-snr_db / 20)
    wave = bed * np.float32(gain)
    at = int(rng.integers(0, wave.shape[0] - part.shape[0]))
    wave[at : at + part.shape[0]] += part
    return wave.astype(np.float32), (at / SAMPLE_RATE, (at + part.shape[0]) / SAMPLE_RATE)


def scene(own: Sequence[Wave], other: Wave, rng: np.random.Generator) -> Wave:
    """15 s of one class in random order and at random levels, over another sound that is 15 to 30 dB weaker."""
    order = [own[int(index)] * np.float32(10 ** (rng.uniform(-12, 0) / 20)) for index in rng.permutation(len(own))]
    front = joined(order, SCENE_S, rng)
    back = joined([other], SCENE_S, rng)
    return front + back * np.float32(10 ** (-rng.uniform(15, 30) / 20))


def with_noise(wave: Wave, snr_db: float | None, rng: np.random.Generator) -> Wave:
    """Add steady coloured noise ``snr_db`` below the wave's power. None: add nothing."""
    if snr_db is None:
        return wave
    noise = sounds.coloured(rng, wave.shape[0])
    ratio = float(np.square(wave).mean()) / max(float(np.square(noise).mean()), 1e-12)
    return wave + noise * np.float32(np.sqrt(ratio) * 10 ** (-snr_db / 20))


def joined(waves: Sequence[Wave], seconds: float, rng: np.random.Generator) -> Wave:
    """Concatenate and repeat waves with soft joins, and take ``seconds`` from a random start: float32 (n,)."""
    length = int(seconds * SAMPLE_RATE)
    parts = []
    total = 0
    while total < length + SAMPLE_RATE:
        for wave in waves:
            ramp = np.arange(wave.shape[0], dtype=np.float32) / (JOIN_S * SAMPLE_RATE)
            parts.append(wave * np.minimum(1, np.minimum(ramp, ramp[::-1])))
            total += wave.shape[0]
    whole = np.concatenate(parts)
    start = int(rng.integers(0, whole.shape[0] - length + 1))
    return whole[start : start + length].copy()


def merged(flags: Sequence[bool]) -> int:
    """The number of runs of adjacent flagged segments. A run is one alarm."""
    return sum(flag and not before for before, flag in zip([False, *flags], flags, strict=False))


def _samples(span: Span) -> slice:
    return slice(int(span[0] * SAMPLE_RATE), int(span[1] * SAMPLE_RATE) + 1)
