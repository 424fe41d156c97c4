"""Mel spectrograms of overlapping segments. Frames that segments share are computed once.

The spectrogram of a segment is centred: frame t covers the samples from 160 t - 512 to 160 t + 511 of the segment.
Samples outside the segment are reflected at its edges. Segments start 8 000 samples apart, exactly 50 frames, so a
frame that lies inside two segments is the same in both. Only the first four and the last four frames of a segment
contain reflected samples.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
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
"""Frames at each end of a segment that contain reflected samples: 4."""
MIDDLE: Final = FRAMES - 2 * EDGE
"""Frames of a segment without reflected samples: 193."""
SHIFT: Final = HOP_SAMPLES // FRAME_HOP_SAMPLES
"""Frames between the starts of neighbouring segments: 50."""

# Number of samples that the frames of one edge cover.
_EDGE_SAMPLES: Final = FFT_SAMPLES + (EDGE - 1) * FRAME_HOP_SAMPLES
# Start, in its segment, of the first frame without reflected samples.
_FIRST_SAMPLE: Final = EDGE * FRAME_HOP_SAMPLES - FFT_SAMPLES // 2

#: Number of frames that a CPU transforms in one call when there are many. Their samples and spectra take 1.6 MB.
_FRAMES_TOGETHER: Final = 201

#: The number n of some frames, and their samples, float32 (n, 1024). The number is not taken from the tensor's shape,
#: so that it stays a constant in a trace of the steps (:mod:`tussis.shared.dsp.images`).
_Part = tuple[int, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class SharedFrames:
    """Values for all bands of all frames of S neighbouring segments."""

    values: Tensor
    """float32 (frames, bands): the first four frames of every segment, then all middle frames, then the last four
    frames of every segment."""
    segments: int
    """The number of segments, S."""

    @property
    def first(self) -> Tensor:
        """A view (S, 4, bands) of ``values``."""
        return self.values[: EDGE * self.segments].view(self.segments, EDGE, -1)

    @property
    def middle(self) -> Tensor:
        """A view (S, 193, bands) of ``values``. Neighbouring segments overlap in it."""
        return self.values[EDGE * self.segments : -EDGE * self.segments].unfold(0, MIDDLE, SHIFT).transpose(1, 2)

    @property
    def last(self) -> Tensor:
        """A view (S, 4, bands) of ``values``."""
        return self.values[-EDGE * self.segments :].view(self.segments, EDGE, -1)

    def of(self, which: slice | Tensor) -> Tensor:
        """The frames of S' selected segments, in order: (S', 201, bands). A view if S is 1 and ``which`` is a slice.

        The memory layout (by frame or by band) is that of ``values``.
        """
        if self.segments == 1:
            return self.values[None][which]
        parts = self.first[which], self.middle[which], self.last[which]
        if self.values.is_contiguous():
            return torch.cat(parts, dim=1)
        return torch.cat([part.mT for part in parts], dim=2).mT

    def peaks(self) -> SharedFrames:
        """The largest value of each frame, as one band."""
        return SharedFrames(self.values.T.amax(dim=0)[:, None], self.segments)


@dataclass(frozen=True, slots=True, eq=False)
class FilterBank:
    """The tensors that transform a frame, on one device."""

    window: Tensor
    """float32 (1024,): periodic Hann."""
    edges: Tensor
    """int64 (3008,): the indexes of the samples that the first four and the last four frames of a segment cover,
    including the reflected samples."""
    bins: int
    """Number of bins in a spectrum, up to the highest one with a weight: 256."""
    weights: Tensor
    """float32 (160, bins): the weights of torchaudio, sparse on a CPU. A bin has a weight in at most two bands."""

    def power(self, parts: Sequence[_Part], out: Tensor) -> None:
        """Write the power in each bin of n frames to ``out``, float32 (bins, n)."""
        windowed = out.new_empty(sum(count for count, _ in parts), FFT_SAMPLES)
        first = 0
        for count, frames in parts:
            torch.mul(frames, self.window, out=windowed[first : first + count])
            first += count
        spectra = torch.view_as_real(torch.fft.rfft(windowed))
        # Square while real and imaginary parts are adjacent in memory. The sum also transposes bins and frames.
        squares = spectra[:, : self.bins].square_().transpose(0, 1)
        torch.add(squares[..., 0], squares[..., 1], out=out)


def segments_in(padded: Tensor) -> int:
    """The number of segments S in a waveform ((S - 1) * 8000 + 32000,)."""
    return (padded.shape[0] - SEGMENT_SAMPLES) // HOP_SAMPLES + 1


def mel_power(padded: Tensor, segments: int, bank: FilterBank) -> SharedFrames:
    """``torchaudio.transforms.MelSpectrogram`` of every segment of a waveform.

    The transform of each frame is the one of torch on the same samples, and the same to the last bit. The sums over
    bins leave out bins with weight zero and add in another order.

    Args:
        padded: float32 ((S - 1) * 8000 + 32000,) at 16 kHz, on any device; not changed.
        segments: S. It is an argument because a number taken from a tensor's shape becomes a tensor in a trace.
        bank: the filter bank of that device.

    Returns:
        Values (frames, bands), stored band by band.
    """
    parts = _parts(padded, segments, bank)
    total = sum(count for count, _ in parts)
    if padded.device.type != "cpu" or total <= 2 * _FRAMES_TOGETHER:
        batches = [parts]
    else:
        batches = [[piece] for part in parts for piece in _pieces(part)]
    power = padded.new_empty(bank.bins, total)
    first = 0
    for batch in batches:
        count = sum(count for count, _ in batch)
        bank.power(batch, out=power[:, first : first + count])
        first += count
    return SharedFrames(torch.mm(bank.weights, power).T, segments)


def _parts(padded: Tensor, segments: int, bank: FilterBank) -> list[_Part]:
    """All frames, in the order of :class:`SharedFrames`."""
    if segments == 1:
        half = FFT_SAMPLES // 2
        before, behind = padded[1 : half + 1].flip(0), padded[SEGMENT_SAMPLES - half - 1 : -1].flip(0)
        reflected = torch.cat([before, padded, behind])
        return [(FRAMES, reflected.unfold(0, FFT_SAMPLES, FRAME_HOP_SAMPLES))]
    windows = padded.unfold(0, SEGMENT_SAMPLES, HOP_SAMPLES)
    edges = windows.index_select(1, bank.edges).view(segments, 2, -1).unfold(2, FFT_SAMPLES, FRAME_HOP_SAMPLES)
    middle = padded[_FIRST_SAMPLE : padded.shape[0] - _FIRST_SAMPLE].unfold(0, FFT_SAMPLES, FRAME_HOP_SAMPLES)
    return [
        (EDGE * segments, edges[:, 0].flatten(0, 1)),
        (MIDDLE + SHIFT * (segments - 1), middle),
        (EDGE * segments, edges[:, 1].flatten(0, 1)),
    ]


def _pieces(part: _Part) -> Iterator[_Part]:
    """Split a part into pieces whose transform fits into the cache of a CPU."""
    count, frames = part
    for first in range(0, count, _FRAMES_TOGETHER):
        yield min(_FRAMES_TOGETHER, count - first), frames[first : first + _FRAMES_TOGETHER]


@cache
@torch.inference_mode(False)  # the cached tensors are also used outside inference mode
def filter_bank(device: torch.device) -> FilterBank:
    """The filter bank of a device, built once."""
    weights = torchaudio.functional.melscale_fbanks(
        n_freqs=FFT_SAMPLES // 2 + 1,
        f_min=MEL_LOW_HZ,
        f_max=MEL_HIGH_HZ,
        n_mels=MEL_BANDS,
        sample_rate=SAMPLE_RATE,
        norm=None,
        mel_scale="htk",
    ).T
    bins = int(weights.any(dim=0).nonzero().max()) + 1
    reflected = torch.arange(_EDGE_SAMPLES).sub(FFT_SAMPLES // 2).abs()
    return FilterBank(
        window=torch.hann_window(FFT_SAMPLES).to(device),
        edges=torch.cat([reflected, SEGMENT_SAMPLES - 1 - reflected.flip(0)]).to(device),
        bins=bins,
        weights=_sparse_on_cpu(weights[:, :bins].to(device)),
    )


def _sparse_on_cpu(weights: Tensor) -> Tensor:
    """Convert the weights to a sparse matrix on a CPU, where torch has MKL.

    500 of 41 000 weights are not zero. The product for one segment takes 25 us sparse, 100 us with groups of
    neighbouring bands, and 190 us dense. torch multiplies sparse matrices on a CPU only with MKL.
    """
    if weights.device.type != "cpu" or not torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        return weights
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        return weights.to_sparse_csr()
