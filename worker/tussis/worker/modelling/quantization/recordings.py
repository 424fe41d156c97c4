"""Folders of recordings, read one at a time."""

from __future__ import annotations

import hashlib
import os
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
    """How recordings become the model's input."""

    profile: Profile
    limits: Limits
    skipped: Callable[[Path, str], None]
    """Told of every file that is left out, and why."""


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """One that could be read."""

    path: Path
    sha256: str
    prepared: Prepared


def files_in(folder: Path) -> tuple[Path, ...]:
    """All plain files below a folder but hidden ones, in the order of their paths.

    Raises :class:`FileUnreadable` when there is no such folder.
    """
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise FileUnreadable(f"{folder} {what}: give a folder of recordings")
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(root, name) for name in names if not name.startswith(".")]
    return tuple(sorted(path for path in found if path.is_file()))


def shuffled(paths: tuple[Path, ...], seed: int) -> tuple[Path, ...]:
    """The paths in an order that the seed decides, and their number."""
    mixed = list(paths)
    random.Random(seed).shuffle(mixed)
    return tuple(mixed)


def read(path: Path, reading: Reading) -> Recording | None:
    """A file as the model's input; None, and a word to ``skipped``, when it cannot be read or is no audio."""
    try:
        data = read_capped(path, reading.limits.max_bytes)
        return Recording(path, hashlib.sha256(data).hexdigest(), prepare(data, reading.profile, reading.limits))
    except (PermanentError, FileUnreadable) as error:
        reading.skipped(path, str(error))
        return None
