"""The scaling of the profile ``legacy``: integer samples of pydub to float, as in the old backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def scale_integers(samples: npt.NDArray[np.integer[Any]], sample_width: int) -> npt.NDArray[np.float32]:
    """Divide the samples of pydub by the full scale of their width.

    One-byte samples become ``s / 128 - 1``. pydub has already centred 8-bit audio, so the -1 is a constant offset and
    all values lie in [-2, 0). This is a bug of the old backend. It is kept because this profile reproduces its results.

    Args:
        samples: integers of any shape, as returned by ``AudioSegment.get_array_of_samples()``.
        sample_width: bytes per sample: 1, 2 or 4. pydub widens 24-bit audio to 4 bytes.

    Returns:
        float32 of the same shape, a new array. A 4-byte sample is rounded once; the divisions are exact.

    Raises:
        ValueError: another width. pydub never returns one.
    """
    floats = samples.astype(np.float32)
    match sample_width:
        case 1:
            return floats / np.float32(128) - np.float32(1)
        case 2:
            return floats / np.float32(2**15)
        case 4:
            return floats / np.float32(2**31)
        case _:
            raise ValueError(f"pydub gives samples of 1, 2 or 4 bytes, not {sample_width}")
