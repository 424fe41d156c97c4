"""Find the loud, the quiet and the uncertain parts of a recording.

The pack has no times for its coughs. They are found by the short-term level: a cough is the loudest sound in its
recording, rises within tens of milliseconds and lasts 0.25 to 0.75 s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from training.pack import Wave
from tussis.shared.dsp import SAMPLE_RATE

FRAME: Final = SAMPLE_RATE // 100
"""10 ms in samples."""
PEAK_DB: Final = -12.0
"""An event has a frame above this level, relative to the loudest frame."""
EDGE_DB: Final = -22.0
"""An event extends to both sides while frames are above this level."""
UNCERTAIN_DB: Final = -32.0
"""Parts above this level that are not events are uncertain: labelled neither cough nor background."""
MIN_EVENT_S: Final = 0.08
BRIDGED_S: Final = 0.06
"""Gaps in an event up to this length, in seconds, are part of it."""
MIN_QUIET_S: Final = 0.4

Span = tuple[float, float]
"""Start and end, seconds."""


@dataclass(frozen=True, slots=True)
class Spans:
    """The parts of a recording, in seconds from its start."""

    events: tuple[Span, ...]
    uncertain: tuple[Span, ...]
    quiet: tuple[Span, ...]


def levels_db(wave: Wave) -> npt.NDArray[np.float32]:
    """Level of each 10 ms frame in dB relative to the loudest: float32 (frames,), at most 0. Silence is -120."""
    frames = max(1, -(-wave.shape[0] // FRAME))
    padded = np.zeros(frames * FRAME, np.float32)
    padded[: wave.shape[0]] = wave
    # The first difference removes rumble and DC, which would hide the start of the sound.
    edged = np.diff(padded, prepend=padded[:1])
    power = np.square(edged.reshape(frames, FRAME)).mean(axis=1)
    smooth = np.convolve(power, np.ones(3) / 3, mode="same")
    top = float(smooth.max())
    if top <= 0:
        return np.full(frames, -120.0, np.float32)
    relative: npt.NDArray[np.float32] = (10 * np.log10(np.maximum(smooth / top, 1e-12))).astype(np.float32)
    return relative


def spans(wave: Wave) -> Spans:
    """The events, uncertain parts and quiet parts of float32 (n,) at 16 kHz."""
    level = levels_db(wave)
    if level.max() <= -120:
        return Spans((), (), ((0.0, wave.shape[0] / SAMPLE_RATE),))
    edge = _bridged(level > EDGE_DB, round(BRIDGED_S * 100))
    events = [
        (start, end)
        for start, end in _runs(edge)
        if end - start >= MIN_EVENT_S * 100 and level[start:end].max() > PEAK_DB
    ]
    inside = np.zeros(level.shape[0], bool)
    for start, end in events:
        inside[start:end] = True
    uncertain = _runs((level > UNCERTAIN_DB) & ~inside)
    # Coughs have a tail: the part directly after one is not quiet.
    near = np.convolve((level > UNCERTAIN_DB).astype(np.float32), np.ones(21), mode="same") > 0
    quiet = [run for run in _runs(~near) if run[1] - run[0] >= MIN_QUIET_S * 100]
    return Spans(_seconds(events), _seconds(uncertain), _seconds(quiet))


def _runs(mask: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def _bridged(mask: npt.NDArray[np.bool_], longest: int) -> npt.NDArray[np.bool_]:
    filled = mask.copy()
    for start, end in _runs(~mask):
        if start > 0 and end < mask.shape[0] and end - start <= longest:
            filled[start:end] = True
    return filled


def _seconds(runs: list[tuple[int, int]]) -> tuple[Span, ...]:
    return tuple((start / 100, end / 100) for start, end in runs)
