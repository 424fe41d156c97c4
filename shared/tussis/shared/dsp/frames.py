"""Mel spectrograms of overlapping segments, with every frame that they share computed once.

A segment's spectrogram is centred: its frame t covers the samples from 160 t - 512 to 160 t + 511 of the segment, and
what lies outside is reflected at its edges. Segments start 8 000 samples apart, 50 frames exactly, so a frame that
lies inside two segments is the same in both. Only the first and the last four frames of a segment touch its edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import torch
import torchaudio
from torch import Tensor

from tussis.shared.dsp.constants import (
    FFT_SAMPLES,
    FRAME_HOP_SAMPLES,
    FRAMES,
    HOP_SAMPLES,
    MEL_BANDS,
    MEL_HIGH_HZ,
    MEL_LOW_HZ,
    SAMPLE_RATE,
    SEGMENT_SAMPLES,
)

EDGE: Final = -(-FFT_SAMPLES // 2 // FRAME_HOP_SAMPLES)
"""Frames at either end of a segment that hold reflected samples: 4."""
MIDDLE: Final = FRAMES - 2 * EDGE
"""Frames between them: 193."""
SHIFT: Final = HOP_SAMPLES // FRAME_HOP_SAMPLES
"""Frames between the starts of neighbouring segments: 50."""

# One edge's frames, side by side, need this many samples.
_EDGE_SAMPLES: Final = FFT_SAMPLES + (EDGE - 1) * FRAME_HOP_SAMPLES
# The first frame that holds no reflected sample starts here in its segment.
_FIRST_SAMPLE: Final = EDGE * FRAME_HOP_SAMPLES - FFT_SAMPLES // 2

#: Frames that are transformed together on a CPU: their spectra, 1.5 MB, stay in its cache.
_FRAMES_TOGETHER: Final = 384
#: Bands that share a product, which reads only the bins that some of them weigh.
_BANDS_TOGETHER: Final = 16


@dataclass(frozen=True, slots=True, eq=False)
class SharedFrames:
    """A value for every band of every frame of S neighbouring segments."""

    values: Tensor
    """float32 (bands, frames): the first four frames of every segment, those in the middle of any, the last four."""
    segments: int
    """S."""

    @property
    def first(self) -> Tensor:
        """A view (S, bands, 4) of ``values``."""
        return self.values[:, : EDGE * self.segments].view(-1, self.segments, EDGE).transpose(0, 1)

    @property
    def middle(self) -> Tensor:
        """A view (S, bands, 193) of ``values``, in which neighbours overlap."""
        inner = self.values[:, EDGE * self.segments : -EDGE * self.segments]
        return inner.unfold(1, MIDDLE, SHIFT).transpose(0, 1)

    @property
    def last(self) -> Tensor:
        """A view (S, bands, 4) of ``values``."""
        return self.values[:, -EDGE * self.segments :].view(-1, self.segments, EDGE).transpose(0, 1)

    def of(self, which: slice | Tensor) -> Tensor:
        """The frames of some segments, S' of them, in order: (S', bands, 201), a view where S is 1."""
        if self.segments == 1:
            return self.values[None][which]
        return torch.cat([self.first[which], self.middle[which], self.last[which]], dim=2)


def mel_power(padded: Tensor) -> SharedFrames:
    """``torchaudio.transforms.MelSpectrogram`` of every segment of a waveform.

    The transform of each frame is torch's own, of the same samples, and the same to the last bit. The sums over bins
    leave out those of weight zero, and add up in another order.

    Args:
        padded: float32 ((S - 1) * 8000 + 32000,) at 16 kHz, on any device; not changed.
    """
    segments = (padded.shape[0] - SEGMENT_SAMPLES) // HOP_SAMPLES + 1
    bank = _bank(padded.device)
    middle = padded[_FIRST_SAMPLE : padded.shape[0] - _FIRST_SAMPLE].unfold(0, FFT_SAMPLES, FRAME_HOP_SAMPLES)
    windows = padded.unfold(0, SEGMENT_SAMPLES, HOP_SAMPLES)
    edges = windows.index_select(1, bank.edges).view(segments, 2, -1).unfold(2, FFT_SAMPLES, FRAME_HOP_SAMPLES)
    first, last = edges[:, 0], edges[:, 1]
    before = EDGE * segments
    behind = before + middle.shape[0]
    total = behind + before
    power = SharedFrames(torch.empty(MEL_BANDS, total, device=padded.device), segments)
    if total <= _FRAMES_TOGETHER or padded.device.type != "cpu":
        windowed = torch.empty(total, FFT_SAMPLES, device=padded.device)
        torch.mul(first, bank.window, out=windowed[:before].view_as(first))
        torch.mul(middle, bank.window, out=windowed[before:behind])
        torch.mul(last, bank.window, out=windowed[behind:].view_as(last))
        bank.weigh(windowed, power.values)
    else:
        # The cap of 32 segments keeps the edges' frames few.
        bank.weigh((first * bank.window).flatten(0, 1), power.values[:, :before])
        bank.weigh((last * bank.window).flatten(0, 1), power.values[:, behind:])
        for start in range(0, middle.shape[0], _FRAMES_TOGETHER):
            frames = middle[start : start + _FRAMES_TOGETHER] * bank.window
            bank.weigh(frames, power.values[:, before + start : before + start + frames.shape[0]])
    return power


@dataclass(frozen=True, slots=True, eq=False)
class _Bands:
    """Sixteen neighbouring bands, and the bins that they weigh."""

    parts: slice
    """Of a spectrum's squared parts: real and imaginary of one bin, then of the next."""
    weights: Tensor
    """float32 (bands, parts): torchaudio's, each twice."""


@dataclass(frozen=True, slots=True, eq=False)
class _Bank:
    """What the transform multiplies with, on one device."""

    window: Tensor
    """float32 (1024,): periodic Hann."""
    edges: Tensor
    """int64 (3008,): the samples of a segment under its first four frames and under its last four, with the reflected
    ones in their places."""
    groups: tuple[_Bands, ...]

    def weigh(self, frames: Tensor, power: Tensor) -> None:
        """Windowed frames, float32 (n, 1024), to their bands' power, written to ``power`` (160, n)."""
        parts = torch.view_as_real(torch.fft.rfft(frames)).flatten(1)[:, : self.groups[-1].parts.stop].square_().T
        for group, bands in zip(self.groups, torch.split(power, _BANDS_TOGETHER), strict=True):
            # Each part's square has its own weight: adding the two first would read them with gaps, and cost more.
            torch.mm(group.weights, parts[group.parts], out=bands)


@cache
@torch.inference_mode(False)  # kept, so it must serve callers outside that mode too
def _bank(device: torch.device) -> _Bank:
    weights = torchaudio.functional.melscale_fbanks(
        n_freqs=FFT_SAMPLES // 2 + 1,
        f_min=MEL_LOW_HZ,
        f_max=MEL_HIGH_HZ,
        n_mels=MEL_BANDS,
        sample_rate=SAMPLE_RATE,
        norm=None,
        mel_scale="htk",
    ).T
    reflected = torch.arange(_EDGE_SAMPLES).sub(FFT_SAMPLES // 2).abs()
    return _Bank(
        window=torch.hann_window(FFT_SAMPLES).to(device),
        edges=torch.cat([reflected, SEGMENT_SAMPLES - 1 - reflected.flip(0)]).to(device),
        groups=tuple(_group(bands, device) for bands in torch.split(weights, _BANDS_TOGETHER)),
    )


def _group(weights: Tensor, device: torch.device) -> _Bands:
    bins = weights.any(dim=0).nonzero()
    low, high = int(bins[0]), int(bins[-1]) + 1
    return _Bands(parts=slice(2 * low, 2 * high), weights=weights[:, low:high].repeat_interleave(2, dim=1).to(device))
