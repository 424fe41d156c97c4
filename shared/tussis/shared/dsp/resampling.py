"""Any rate to 16 kHz, with torchaudio's default sinc interpolation and in bounded memory."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import torch
import torchaudio
from torch import Tensor

from tussis.shared.dsp.constants import SAMPLE_RATE

# torchaudio.transforms.Resample's defaults.
LOWPASS_WIDTH: Final = 6
ROLLOFF: Final = 0.99

#: Cells of torchaudio's resampling kernel up to which it is used: 8 MB, and some ten times that while it is built.
#: Every common rate stays below (44 100 Hz: 70 560 cells), but the kernel grows with the product of both reduced
#: rates: 44 101 Hz would take 706 million cells, so a few bytes in a header could take gigabytes.
LARGEST_KERNEL: Final = 2_000_000

#: Products that one step of the sparse resampler holds at a time: 8 MB.
SPARSE_BLOCK: Final = 2_000_000

#: Least seconds of audio in one of several calls of torchaudio: each takes up to seventeen times its input's memory.
BLOCK_SECONDS: Final = 60


def resampled(wave: Tensor, rate_hz: int) -> Tensor:
    """:class:`torchaudio.transforms.Resample` to 16 kHz: float32 (n,) to (ceil(n * 16000 / rate_hz),).

    Unchanged at 16 kHz. Recordings of two minutes and more are converted in blocks that overlap by more than the
    kernel's reach, so that every output is the same sum; rates whose kernel would be huge (``LARGEST_KERNEL``)
    take :func:`sparse_resampled`.
    """
    if rate_hz == SAMPLE_RATE:
        return wave
    source, target = _reduced(rate_hz)
    if source * target > LARGEST_KERNEL:
        return sparse_resampled(wave, rate_hz)
    resampler = _resampler(rate_hz)
    context_s = 1 + (resampler.width + source) // rate_hz
    blocks = []
    # Blocks begin at whole seconds, where input and output samples coincide.
    for first, end in _spans(wave.shape[0], BLOCK_SECONDS * rate_hz):
        before = min(first, context_s * rate_hz)
        block = resampler(wave[first - before : end + context_s * rate_hz])
        start = before // rate_hz * SAMPLE_RATE
        blocks.append(block[start : start + -(-(end - first) * target // source)])
    return torch.cat(blocks)


def _spans(length: int, size: int) -> list[tuple[int, int]]:
    """Consecutive spans (first, end) over ``length``, each of at least ``size`` and less than twice it.

    What is shorter than twice ``size`` stays in one piece. No short rest is left over, because torch may take
    another algorithm for a short input, whose sums round differently.
    """
    count = max(1, length // size)
    return [(index * size, length if index == count - 1 else (index + 1) * size) for index in range(count)]


def sparse_resampled(wave: Tensor, rate_hz: int) -> Tensor:
    """:class:`torchaudio.transforms.Resample` for any rate, in memory that the rates' ratio does not decide.

    torchaudio stores, for every phase of the output against the input, a weight for each of (reduced source rate
    + 2 width) samples, all but about 2 width of them zero. This keeps and multiplies the others only. The sums
    run in another order: within 1e-6 of torchaudio's on samples in [-1, 1].

    Args:
        wave: float32 (n,).
        rate_hz: its rate, Hz.

    Returns:
        float32 (ceil(n * 16000 / rate_hz),).
    """
    source, target = _reduced(rate_hz)
    weights, offset = _sparse_kernel(source, target)
    taps = weights.shape[1]
    length = -(-wave.shape[0] * target // source)
    padded = torch.nn.functional.pad(wave, (offset, taps))
    windows = padded.unfold(0, taps, 1)  # a view: row i holds the samples around input sample i
    rows = max(1, SPARSE_BLOCK // taps)
    blocks = []
    for first in range(0, length, rows):
        output = torch.arange(first, min(first + rows, length))
        blocks.append((weights[output % target] * windows[output * source // target]).sum(dim=1))
    return torch.cat(blocks)


@lru_cache(maxsize=8)
def _sparse_kernel(source: int, target: int) -> tuple[Tensor, int]:
    """Weights float32 (target phases, taps), and how far the first tap lies before the sample at or before the
    output's time. The arithmetic is ``_get_sinc_resample_kernel``'s of torchaudio 2.11, its mix of float32 and
    float64 included.
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


# Bounded: a stream of odd rates must not fill the memory with kernels.
@lru_cache(maxsize=8)
def _resampler(rate_hz: int) -> torchaudio.transforms.Resample:
    return torchaudio.transforms.Resample(rate_hz, SAMPLE_RATE)
