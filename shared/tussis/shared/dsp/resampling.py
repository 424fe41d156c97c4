"""Resample from any rate to 16 kHz, with torchaudio's default sinc interpolation, in bounded memory."""

from __future__ import annotations

import math
from functools import lru_cache
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
    source, target = _reduced(rate_hz)
    if source * target > LARGEST_KERNEL:
        return sparse_resampled(wave, rate_hz)
    resampler = _resampler(rate_hz)
    context_s = 1 + (resampler.width + source) // rate_hz
    blocks = []
    # Blocks begin at whole seconds, where the times of input and output samples are equal.
    for first, end in _spans(wave.shape[0], BLOCK_SECONDS * rate_hz):
        before = min(first, context_s * rate_hz)
        block = resampler(wave[first - before : end + context_s * rate_hz])
        start = before // rate_hz * SAMPLE_RATE
        blocks.append(block[start : start + -(-(end - first) * target // source)])
    return torch.cat(blocks)


def _spans(length: int, size: int) -> list[tuple[int, int]]:
    """Split ``length`` into consecutive spans (first, end), each at least ``size`` and less than twice ``size`` long.

    A length below twice ``size`` gives one span. There is never a short last span, because torch may use another
    algorithm for a short input, whose sums round differently.
    """
    count = max(1, length // size)
    return [(index * size, length if index == count - 1 else (index + 1) * size) for index in range(count)]


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
