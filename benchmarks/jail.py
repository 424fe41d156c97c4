"""What the jail of the decoder costs: the time to decode a recording in it, beside the same in the own process."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
import psutil
import soundfile

from tussis.worker.audio.decode import decode
from tussis.worker.audio.jail.decoder import JailedDecoder
from tussis.worker.audio.limits import Limits
from tussis.worker.bench.measurements import Column, Measurements, TargetCheck, hardware

TARGET_MS: Final = 3.0
"""Milliseconds of wall time that a recording may take more, on a machine that does nothing else."""
_LIMITS: Final = Limits()


def measure(*, rounds: int, command: str) -> Measurements:
    """Decode each recording ``rounds`` times in both ways, in turn, and take the least time."""
    began = time.perf_counter()
    # One process for all recordings: a fresh one would have no memory to measure yet.
    jail = JailedDecoder(_LIMITS, recordings=sys.maxsize)
    start_ms = (time.perf_counter() - began) * 1000
    rows = []
    try:
        for name, data in _recordings():
            outside, inside = _least(rounds, partial(decode, data, _LIMITS), partial(jail.decode, data))
            rows.append((name, outside, inside, inside - outside))
        assert jail.pid is not None
        memory = psutil.Process(jail.pid).memory_info().rss / 2**20
    finally:
        jail.close()
    return Measurements(
        title="Decoder process: least wall time of decoding",
        command=command,
        columns=(
            Column("recording"),
            Column("outside", "ms", 2),
            Column("in the jail", "ms", 2),
            Column("more", "ms", 2),
        ),
        rows=tuple(rows),
        hardware=hardware(),
        notes=(f"The process started in {start_ms:.0f} ms, and had {memory:.0f} MiB after the recordings.",),
        verdicts=(
            TargetCheck("ms more for a recording of 10 s", max(row[3] for row in rows[:4]), TARGET_MS, at_most=True),
        ),
    )


def _recordings() -> list[tuple[str, bytes]]:
    """Recordings of 10 s in the common formats, and one of 2 min."""
    noise = np.random.default_rng(16).normal(0, 0.1, (120 * 16_000, 1)).clip(-1, 1).astype(np.float32)
    made = [
        (f"{kind}, 10 s", _encoded(noise[: 10 * 16_000], kind, subtype))
        for kind, subtype in (("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"))
    ]
    return [*made, ("WAV, 2 min", _encoded(noise, "WAV", "PCM_16"))]


def _encoded(samples: object, kind: str, subtype: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format=kind, subtype=subtype)
    return file.getvalue()


def _least(rounds: int, *calls: Callable[[], object]) -> tuple[float, ...]:
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, taken in zip(calls, times, strict=True):
            began = time.perf_counter()
            call()
            taken.append((time.perf_counter() - began) * 1000)
    return tuple(min(taken) for taken in times)
