"""What a soak enqueues: mostly good recordings, some broken, some long, some that kill the process that takes them."""

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
    """What a recording is, and so how it may end."""

    GOOD = "good"
    LONG = "long"
    SLOW = "slow"
    """Its decoding takes seconds: most likely to be met by a fault."""
    BROKEN = "broken"
    POISON = "poison"
    """Ends its process, whoever takes it."""
    MISSING = "missing"
    """Enqueued, never uploaded."""


#: Out of a hundred recordings.
SHARES = {Kind.GOOD: 78, Kind.LONG: 4, Kind.SLOW: 6, Kind.BROKEN: 6, Kind.POISON: 2, Kind.MISSING: 4}
#: The failures that a kind may rightly end in. A good recording whose process was killed three times by the soak is
#: `worker_crashed`, rightly so: it looks no different from one that kills it.
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
    """One object to be. ``data`` is None for one that is never uploaded."""

    key: str
    kind: Kind
    data: bytes | None


def recording(number: int, seed: int) -> SoakRecording:
    """The recording of this number: the same for the same seed."""
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
