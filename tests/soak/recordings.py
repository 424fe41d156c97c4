"""The recordings of a soak: mostly good ones, some broken, some long, and some that crash the process."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import soundfile as sf

from tests.soak.faulty_worker import with_fault
from tussis.worker.demo import sounds


class Kind(StrEnum):
    """The kind of a recording. It determines which answers are allowed."""

    GOOD = "good"
    LONG = "long"
    SLOW = "slow"
    """Its decoding takes seconds, so that a fault is most likely to occur during it."""
    BROKEN = "broken"
    POISON = "poison"
    """It crashes every process that decodes it."""
    MISSING = "missing"
    """Enqueued, but never uploaded."""


#: Recordings of each kind in a hundred.
SHARES = {Kind.GOOD: 78, Kind.LONG: 4, Kind.SLOW: 6, Kind.BROKEN: 6, Kind.POISON: 2, Kind.MISSING: 4}
#: The failures that are correct for a kind. A good recording is `worker_crashed` when the soak killed its process three
#: times: nothing distinguishes it from a recording that crashes the process.
ALLOWED = {
    Kind.GOOD: {"worker_crashed"},
    Kind.LONG: {"worker_crashed"},
    Kind.SLOW: {"worker_crashed"},
    Kind.BROKEN: {"not_audio", "corrupt", "empty", "no_samples"},
    Kind.POISON: {"worker_crashed"},
    Kind.MISSING: {"object_missing"},
}
_RATE_HZ = 16_000


@dataclass(frozen=True)
class SoakRecording:
    """One object of the soak. ``data`` is None for one that is never uploaded."""

    key: str
    kind: Kind
    data: bytes | None


def recording(number: int, seed: int) -> SoakRecording:
    """Return the recording of this number: the same for the same seed."""
    rng = random.Random(f"{seed}-{number}")
    [kind] = rng.choices(list(SHARES), weights=list(SHARES.values()))
    sound = _wav(rng, 20.0 if kind is Kind.LONG else rng.uniform(0.3, 2.5))
    data: bytes | None = sound
    if kind is Kind.SLOW:
        data = with_fault(f"slow-{rng.uniform(1.0, 4.0):.1f}", sound)
    elif kind is Kind.POISON:
        data = with_fault("segfault", sound)
    elif kind is Kind.BROKEN:
        data = rng.choice([b"<html>502 Bad Gateway</html>", b"#EXTM3U\nfile:///etc/passwd", sound[:20], b""])
    elif kind is Kind.MISSING:
        data = None
    return SoakRecording(f"{kind}/{number:06d}.wav", kind, data)


def _wav(rng: random.Random, seconds: float) -> bytes:
    numbers = np.random.default_rng(rng.getrandbits(64))
    samples = 0.5 * sounds.coughs(numbers, int(seconds * _RATE_HZ), _RATE_HZ, 1 + int(seconds), 0.05)
    out = io.BytesIO()
    sf.write(out, samples.astype(np.float32), _RATE_HZ, format="WAV", subtype="PCM_16")
    return out.getvalue()
