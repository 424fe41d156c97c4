"""Decoded samples to one waveform at 16 kHz: normalise, downmix, resample, high-pass, over the whole recording."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, cast

import torch
import torchaudio
from torch import Tensor

from tussis.shared.dsp.constants import SAMPLE_RATE
from tussis.shared.dsp.profiles import Normalise, Profile
from tussis.shared.errors import NonFiniteSamples, NoSamples

# torchaudio.transforms.Resample's defaults.
LOWPASS_WIDTH: Final = 6
ROLLOFF: Final = 0.99

#: Cells of torchaudio's resampling kernel up to which it is used: 8 MB, and some ten times that while it is built.
#: Every common rate stays below (44 100 Hz: 70 560 cells), but the kernel grows with the product of both reduced
#: rates: 44 101 Hz would take 706 million cells, so a few bytes in a header could take gigabytes.
LARGEST_KERNEL: Final = 2_000_000

#: Products that one step of the sparse resampler holds at a time: 8 MB.
SPARSE_BLOCK: Final = 2_000_000


def waveform(samples: Tensor, rate_hz: int, profile: Profile) -> Tensor:
    """The whole recording as one channel at 16 kHz.

    Args:
        samples: float32 (channels, n), full scale 1.0; not changed. For a profile with bit-depth normalisation
            (1, n), as the decoder that it names gives them.
        rate_hz: sample rate of ``samples``, Hz.
        profile: decides normalisation and filter.

    Returns:
        float32 (m,), m = ceil(n * 16000 / rate_hz).

    Raises:
        NoSamples: n or the number of channels is 0.
        NonFiniteSamples: a sample is NaN or infinite.
        ValueError: the tensor is not of this shape or type, or was not decoded as the profile wants.
    """
    if samples.ndim != 2 or samples.dtype != torch.float32:
        raise ValueError(f"samples must be float32 (channels, n), not {samples.dtype} {tuple(samples.shape)}")
    with torch.no_grad():
        return highpassed(resampled(downmixed(normalised(samples, profile)), rate_hz), profile)


def normalised(samples: Tensor, profile: Profile) -> Tensor:
    """Divide by the peak over all channels, or leave samples that the decoder has scaled as they are.

    float32 (channels, n) to the same; errors as :func:`waveform`.
    """
    if samples.numel() == 0:
        raise NoSamples
    low, high = torch.aminmax(samples)  # NaN anywhere makes both NaN
    peak = torch.maximum(-low, high)
    if not torch.isfinite(peak):
        raise NonFiniteSamples
    match profile.normalise:
        case Normalise.PEAK:
            # A division, never a product with the reciprocal: that of a denormal peak is infinite.
            return samples / peak if peak > 0 else samples
        case Normalise.BIT_DEPTH:
            if samples.shape[0] != 1 or peak > 2:
                raise ValueError(
                    f"profile {profile.name} takes one channel in [-2, 2] from its own decoder"
                    f" ({profile.decoder}), not {samples.shape[0]} up to {peak.item():g}"
                )
            return samples


def downmixed(samples: Tensor) -> Tensor:
    """Arithmetic mean over channels: float32 (channels, n) to (n,).

    After normalisation no sum can overflow; before it, two channels near float32's limit would.
    """
    return samples.mean(dim=0)


def resampled(wave: Tensor, rate_hz: int) -> Tensor:
    """To 16 kHz with torchaudio's default sinc interpolation: float32 (n,) to (m,); unchanged at 16 kHz.

    Rates whose kernel would be huge (see ``LARGEST_KERNEL``) take the same formula without storing its zeros.
    """
    if rate_hz == SAMPLE_RATE:
        return wave
    source, target = _reduced(rate_hz)
    if source * target > LARGEST_KERNEL:
        return sparse_resampled(wave, rate_hz)
    return cast(Tensor, _resampler(rate_hz)(wave))


def highpassed(wave: Tensor, profile: Profile) -> Tensor:
    """torchaudio's second-order high-pass, clamped to [-1, 1], when the profile has one: float32 (n,) to (n,)."""
    if profile.highpass_hz is None:
        return wave
    filtered = torchaudio.functional.highpass_biquad(wave, SAMPLE_RATE, profile.highpass_hz)
    return cast(Tensor, filtered)


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
