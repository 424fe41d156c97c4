"""Decode a file with the decoders of Tussis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits


def decoded(path: Path) -> tuple[npt.NDArray[np.float32], int]:
    """All channels of a recording, float32 (channels, n), and its rate in Hz. Raises the errors of ``decode``."""
    audio = decode(path.read_bytes(), Limits())
    return audio.samples, audio.rate_hz
