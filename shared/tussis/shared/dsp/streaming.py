"""Mix and resample a recording of any length block by block, for recordings that do not fit into memory decoded.

The peak is known only at the end, so the result is not normalised: :class:`~tussis.shared.dsp.recording.Waveform`
divides by the peak. Downmix and resampling are linear, so the order of the steps changes the rounding only.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from tussis.shared.dsp.constants import SAMPLE_RATE
from tussis.shared.dsp.resampling import BLOCK_SECONDS, BlockResampler

_GROWTH_SAMPLES: Final = 10 * 60 * SAMPLE_RATE
"""The buffer grows by ten minutes: 38 MB."""


class StreamedWaveform:
    """Collects decoded blocks as one channel at 16 kHz, in a buffer of 64 kB a second of audio."""

    def __init__(self, rate_hz: int) -> None:
        self._resampler = BlockResampler(rate_hz)
        self._buffer = np.empty(_GROWTH_SAMPLES, np.float32)
        self._length = 0
        self._mixed: list[torch.Tensor] = []
        self._mixed_frames = 0
        self._block = BLOCK_SECONDS * rate_hz

    def add(self, block: npt.NDArray[np.float32]) -> None:
        """Append decoded samples, float32 (channels, n). A sum that is too large for float32 becomes infinite."""
        # numpy: torch has no read-only tensors, and a decoded block may be read-only.
        with np.errstate(over="ignore"):
            self._mixed.append(torch.from_numpy(block.mean(axis=0)))
        self._mixed_frames += block.shape[1]
        if self._mixed_frames >= self._block:
            self._convert(last=False)

    def finish(self) -> npt.NDArray[np.float32]:
        """All samples, float32 (m,), not normalised. The object cannot be used afterwards."""
        self._convert(last=True)
        # Shrinks in place. Nothing else refers to the buffer.
        self._buffer.resize(self._length, refcheck=False)
        return self._buffer

    def _convert(self, *, last: bool) -> None:
        with torch.no_grad():
            mixed = torch.cat(self._mixed) if self._mixed else torch.empty(0)
            self._mixed.clear()
            self._mixed_frames = 0
            for output in self._resampler.add(mixed, last=last):
                end = self._length + output.shape[0]
                if end > self._buffer.shape[0]:
                    # realloc moves pages instead of copying them, so the memory is never needed twice.
                    self._buffer.resize(max(end, self._buffer.shape[0] + _GROWTH_SAMPLES), refcheck=False)
                self._buffer[self._length : end] = output.numpy()
                self._length = end
