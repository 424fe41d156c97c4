"""The samples of a file, through the product's own decoders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits


def decoded(path: Path) -> tuple[npt.NDArray[np.float32], int]:
    """All channels of a recording, float32 (channels, n), and its rate, Hz. Raises what ``decode`` raises."""
    audio = decode(path.read_bytes(), Limits())
    return audio.samples, audio.rate_hz
