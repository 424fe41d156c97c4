"""Resample from any rate to 16 kHz, with torchaudio's default sinc interpolation, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Final

import torch
import torchaudio
from torch import Tensor

from tussis.shared.dsp.constants import SAMPLE_RATE

# The defaults of torchaudio.transforms.Resample.
LOWPASS_WIDTH: Final = 6
ROLLOFF: Final = 0.99

#: Largest kernel of torchaudio's resampler that is used, in cells: 8 MB, and about ten times that while it is built.
#: All common rates stay below it (44 100 Hz: 70 560 cells), but the kernel grows with the product of both reduced
#: rates. 44 101 Hz would need 706 million cells, so a few bytes in a file header could allocate gigabytes.
LARGEST_KERNEL: Final = 2_000_000

#: Number of products in one step of the sparse resampler: 8 MB.
SPARSE_BLOCK: Final = 2_000_000

#: Minimum length of a block in seconds. One call of torchaudio needs up to seventeen times its input's memory.
BLOCK_SECONDS: Final = 60


def resampled(wave: Tensor, rate_hz: int) -> Tensor:
    """:class:`torchaudio.transforms.Resample` to 16 kHz: float32 (n,) to (ceil(n * 16000 / rate_hz),).

    A waveform at 16 kHz is returned unchanged. Recordings of two minutes or longer are converted in blocks. The blocks
    overlap by more than the kernel's width, so that every output is the same sum. Rates whose kernel would exceed
    ``LARGEST_KERNEL`` use :func:`sparse_resampled`.
    """
    if rate_hz == SAMPLE_RATE:
        return wave
    if _needs_sparse_kernel(rate_hz):
        return sparse_resampled(wave, rate_hz)
    return torch.cat(list(BlockResampler(rate_hz).add(wave, last=True)))


class BlockResampler:
    """Resamples a waveform that arrives in pieces, in blocks of one to two minutes.

    The blocks do not depend on the pieces: a waveform in one piece gives the same output. There is never a short last
    block, because torch may use another algorithm for a short input, whose sums round differently.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._source, self._target = _reduced(rate_hz)
        self._size = BLOCK_SECONDS * rate_hz
        if rate_hz == SAMPLE_RATE:
            self._convert: Callable[[Tensor], Tensor] = lambda wave: wave
            self._context = 0
        elif _needs_sparse_kernel(rate_hz):
            self._convert = partial(sparse_resampled, rate_hz=rate_hz)
            self._context = rate_hz
        else:
            resampler = _resampler(rate_hz)
            self._convert = resampler
            self._context = (1 + (resampler.width + self._source) // rate_hz) * rate_hz
        self._held = torch.empty(0)
        self._before = 0
        """Number of samples in ``_held`` that are converted already: the context of the next block."""

    def add(self, wave: Tensor, *, last: bool) -> Iterator[Tensor]:
        """Append samples, float32 (n,); yields the blocks that are complete. ``last``: there are no more samples."""
        self._held = torch.cat([self._held, wave]) if self._held.shape[0] else wave
        # Blocks begin at whole seconds, where the times of input and output samples are equal.
        while (left := self._held.shape[0] - self._before) >= 2 * self._size or (last and left > 0):
            length = self._size if left >= 2 * self._size else left
            end = self._before + length
            block = self._convert(self._held[: end + self._context])
            start = self._before // self._rate_hz * SAMPLE_RATE
            yield block[start : start + -(-length * self._target // self._source)]
            kept = max(0, end - self._context)
            self._held = self._held[kept:]
            self._before = end - kept


def _needs_sparse_kernel(rate_hz: int) -> bool:
    source, target = _reduced(rate_hz)
    return source * target > LARGEST_KERNEL


def sparse_resampled(wave: Tensor, rate_hz: int) -> Tensor:
    """:class:`torchaudio.transforms.Resample` for any rate, with a much smaller kernel.

    For every output phase, torchaudio stores a weight for each of (reduced source rate + 2 width) samples. All but
    about 2 width of them are zero. This function stores and multiplies only the others. The sums run in another order:
    for samples in [-1, 1] the result is within 1e-6 of torchaudio's.

    Args:
        wave: float32 (n,).
        rate_hz: sample rate of ``wave``, Hz.

    Returns:
        float32 (ceil(n * 16000 / rate_hz),).
    """
    source, target = _reduced(rate_hz)
    weights, offset = _sparse_kernel(source, target)
    taps = weights.shape[1]
    length = -(-wave.shape[0] * target // source)
    padded = torch.nn.functional.pad(wave, (offset, taps))
    windows = padded.unfold(0, taps, 1)  # a view: row i has the samples around input sample i
    rows = max(1, SPARSE_BLOCK // taps)
    blocks = []
    for first in range(0, length, rows):
        output = torch.arange(first, min(first + rows, length))
        blocks.append((weights[output % target] * windows[output * source // target]).sum(dim=1))
    return torch.cat(blocks)


@lru_cache(maxsize=8)
def _sparse_kernel(source: int, target: int) -> tuple[Tensor, int]:
    """The weights, float32 (target phases, taps), and the offset of the first tap.

    The offset is the number of samples from the first tap to the last input sample that is not after the output's
    time. The arithmetic is that of ``_get_sinc_resample_kernel`` in torchaudio 2.11, including its mix of float32 and
    float64.
    """
    cutoff = min(source, target) * ROLLOFF
    width = math.ceil(LOWPASS_WIDTH * source / cutoff)
    phase = torch.arange(target)
    tap = (phase * source // target)[:, None] + torch.arange(-width, width + 2)
    distance = (tap.to(torch.float64) / source - (phase / target)[:, None]) * cutoff
    distance = distance.clamp(-LOWPASS_WIDTH, LOWPASS_WIDTH)
    window = torch.cos(distance * math.pi / LOWPASS_WIDTH / 2) ** 2
    return (torch.sinc(distance) * window * (cutoff / source)).to(torch.float32), width


def _reduced(rate_hz: int) -> tuple[int, int]:
    common = math.gcd(rate_hz, SAMPLE_RATE)
    return rate_hz // common, SAMPLE_RATE // common


# The cache is bounded, so that many unusual rates cannot fill the memory with kernels.
@lru_cache(maxsize=8)
def _resampler(rate_hz: int) -> torchaudio.transforms.Resample:
    return torchaudio.transforms.Resample(rate_hz, SAMPLE_RATE)
