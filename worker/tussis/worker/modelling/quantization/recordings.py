"""Read folders of recordings, one recording at a time."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tussis.shared.dsp.profiles import Profile
from tussis.shared.errors import FileUnreadable, PermanentError
from tussis.worker.audio.limits import Limits
from tussis.worker.local_files import read_capped
from tussis.worker.pipeline.prepare import Prepared, prepare


@dataclass(frozen=True, slots=True)
class Reading:
    """How recordings are converted to the model's input."""

    profile: Profile
    limits: Limits
    skipped: Callable[[Path, str], None]
    """Called with every file that is skipped, and the reason."""


@dataclass(frozen=True, slots=True, eq=False)
class ReadRecording:
    """A recording that could be read."""

    path: Path
    sha256: str
    prepared: Prepared


def shuffled(paths: tuple[Path, ...], seed: int) -> tuple[Path, ...]:
    """The paths in random order. It depends on the seed and on the number of paths."""
    mixed = list(paths)
    random.Random(seed).shuffle(mixed)
    return tuple(mixed)


def read(path: Path, reading: Reading) -> ReadRecording | None:
    """Read a file as the model's input. If it cannot be read or is not audio, call ``skipped`` and return None."""
    try:
        data = read_capped(path, reading.limits.max_bytes)
        return ReadRecording(path, hashlib.sha256(data).hexdigest(), prepare(data, reading.profile, reading.limits))
    except (PermanentError, FileUnreadable) as error:
        reading.skipped(path, str(error))
        return None
