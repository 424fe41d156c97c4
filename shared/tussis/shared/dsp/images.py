"""Convert segments of two seconds to the images that the network takes.

All profiles and devices use the same code. It computes torchaudio's mel spectrogram and decibels of each segment
separately. Frames that neighbouring segments share are computed once (:mod:`tussis.shared.dsp.frames`), and the large
output tensor is written once.

After the sums over bins, every step rounds as torchaudio and torch do. This matters for the profile ``training``: a
large part of an image lies exactly on its floor. If the floor were rounded differently, all of that part could change
by one float16 step.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Final

import torch
from torch import Tensor

from tussis.shared.dsp.constants import (
    CONTENT_ROWS,
    DYNAMIC_RANGE_DB,
    HOP_SAMPLES,
    IMAGE_SIZE,
    IMAGENET_MEAN,
    IMAGENET_STD,
    MARGIN_ROWS,
    MARGIN_VALUE,
    POWER_FLOOR,
    SEGMENT_SAMPLES,
)
from tussis.shared.dsp.frames import FilterBank, SharedFrames, filter_bank, mel_power, segments_in
from tussis.shared.dsp.profiles import Profile
from tussis.shared.dsp.segments import Cut

#: Number of segments that a CPU processes together after the shared frames: 1.5 MB, which fit into its cache.
_SEGMENTS_TOGETHER: Final = 4

# A step with a tensor as operand is 2 us faster than with a Python number. All steps together save 5 % of the time.
_TEN: Final = torch.tensor(10.0)
_RANGE_DB: Final = torch.tensor(DYNAMIC_RANGE_DB)
_HALF_RANGE_DB: Final = torch.tensor(DYNAMIC_RANGE_DB / 2.0)
_ONE: Final = torch.tensor(1.0)
_ZERO: Final = torch.tensor(0.0)

#: Offset and factor of each channel: ((x + 1) / 2 - mean) / std as one product and one sum.
_CHANNELS: Final = tuple(
    (torch.tensor((0.5 - mean) / std), 0.5 / std) for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)
)
#: The value of the letterbox's margin in each channel: float32 (3, 1, 1, 1).
_MARGIN: Final = torch.stack([offset + MARGIN_VALUE * factor for offset, factor in _CHANNELS]).view(3, 1, 1, 1)


def images(cut: Cut, profile: Profile) -> Tensor:
    """The network's input for each of a recording's S segments.

    Args:
        cut: the recording's waveform, on any device; not changed.
        profile: selects whether the image is rounded to float16.

    Returns:
        float32 (S, 3, 224, 224), a new tensor on that device. Each row depends on its own segment only.
    """
    return _images(cut.padded, None, profile)


def images_of_many(cuts: Sequence[Cut], profile: Profile) -> Tensor:
    """The network's input for every segment of several recordings, one recording after the other.

    The values are the same as those of :func:`images`. Use it on a device where one large step is faster than many
    small ones.

    Args:
        cuts: at least one, all on one device; not changed.
        profile: as for :func:`images`.

    Returns:
        float32 (sum of S, 3, 224, 224).
    """
    # Every waveform is a whole number of hops long, so segments stay aligned after concatenation. Segments that begin
    # in one recording and end in the next are computed and then left out.
    starts, first = [], 0
    for cut in cuts:
        starts.append(torch.arange(first, first + len(cut.start_s)))
        first += cut.padded.shape[0] // HOP_SAMPLES
    padded = torch.cat([cut.padded for cut in cuts])
    return _images(padded, torch.cat(starts).to(padded.device), profile)


def scaled_images(cut: Cut) -> Tensor:
    """The segments' mel images before the letterbox: float32 (S, 160, 201), a new tensor, in [-1, 1].

    They are the same for every profile: ``training`` rounds to float16 after the letterbox.

    Args:
        cut: the recording's waveform, on any device; not changed.
    """
    with torch.no_grad():
        db = decibels(mel_power(cut.padded, segments_in(cut.padded), filter_bank(cut.padded.device)))
        peaks = db.peaks()
        # In place, so that the values stay stored band by band, as in the result.
        plain = scaled(db, out=db.values)
        return floored(plain.of(slice(None)), peaks.of(slice(None))).mT


def _images(padded: Tensor, kept: Tensor | None, profile: Profile) -> Tensor:
    """Images of all segments of a waveform, or of the segments with the indexes ``kept``, int64 (S,)."""
    segments, bank = segments_in(padded), filter_bank(padded.device)
    count = segments if kept is None else kept.shape[0]
    made = torch.empty(count, len(IMAGENET_MEAN), IMAGE_SIZE, IMAGE_SIZE, device=padded.device)
    # Makes fewer checks per step than no_grad, which saves time for short recordings. `made` is an ordinary tensor.
    with torch.inference_mode():
        if segments == 1 and padded.device.type == "cpu":
            _traced(profile.image_float16)(made, padded, bank.weights)
        else:
            _write(made, padded, segments, kept, bank, profile.image_float16)
    return made


def _write(made: Tensor, padded: Tensor, segments: int, kept: Tensor | None, bank: FilterBank, float16: bool) -> None:
    """Run all steps on a waveform of S segments, and write the images of the kept segments to ``made``."""
    count = segments if kept is None else kept.shape[0]
    together = _SEGMENTS_TOGETHER if padded.device.type == "cpu" else count
    db = decibels(mel_power(padded, segments, bank))
    peaks = db.peaks()
    # From here on the values are stored frame by frame, because time is stretched first.
    plain = scaled(db, out=torch.empty_like(db.values, memory_format=torch.contiguous_format))
    for first in range(0, count, together):
        part = slice(first, first + together)
        which = part if kept is None else kept[part]
        content = stretched(floored(plain.of(which), peaks.of(which)))
        if float16:
            content = content.half().float()
        imagenet(content, out=made[part, :, MARGIN_ROWS:-MARGIN_ROWS])
    # float16 holds -1.0 exactly. The two windows are the rows above the content and the rows below it.
    made.unfold(2, MARGIN_ROWS, IMAGE_SIZE - MARGIN_ROWS).copy_(_MARGIN.to(made.device))


@cache
def _traced(float16: bool) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """:func:`_write` for one segment on a CPU, as a function of ``made``, ``padded`` and the bank's weights.

    The steps are traced once, and torch then runs them without Python. For one segment, Python would take a fifth of
    the time. Models whose graph contains the letterbox use :func:`scaled_images` instead.
    """
    bank = filter_bank(torch.device("cpu"))

    def steps(made: Tensor, padded: Tensor, weights: Tensor) -> Tensor:
        _write(made, padded, 1, None, replace(bank, weights=weights), float16)
        return made  # torch.jit.trace needs a result.

    # A trace accepts sparse weights as an argument, but not as a constant.
    example = (torch.zeros(1, len(IMAGENET_MEAN), IMAGE_SIZE, IMAGE_SIZE), torch.zeros(SEGMENT_SAMPLES), bank.weights)
    with warnings.catch_warnings():
        # The replacement that torch recommends needs a compiler at run time. torch is pinned to 2.11, which has trace.
        warnings.filterwarnings("ignore", "`torch.jit.trace` is deprecated", DeprecationWarning)
        traced: Callable[[Tensor, Tensor, Tensor], Tensor] = torch.jit.trace(  # type: ignore[no-untyped-call]
            steps, example, check_trace=False
        )
    return traced


def decibels(power: SharedFrames) -> SharedFrames:
    """``10 log10`` of the power, at least 1e-10. Works in place: the result shares the memory of ``power``."""
    power.values.clamp_(min=POWER_FLOOR).log10_().mul_(_TEN)
    return power


def scaled(db: SharedFrames, out: Tensor) -> SharedFrames:
    """``clamp((dB + 80) / 80, 0, 1) * 2 - 1``. The result depends on the level, and saturates above 0 dB.

    Args:
        db: its values are overwritten.
        out: memory for the result, with the shape of ``db.values``. It may be ``db.values``.
    """
    return SharedFrames(torch.clamp(_linear(db.values), -1.0, 1.0, out=out), db.segments)


def floored(plain: Tensor, peaks: Tensor) -> Tensor:
    """Raise values more than 80 dB below the maximum of their segment to that floor.

    The scale is monotonic, also with rounding, so the floor can be applied to scaled values.

    Args:
        plain: scaled values, float32 (S, 201, 160). Changed in place; the result shares its memory.
        peaks: the largest value of each frame in dB, float32 (S, 201, 1).
    """
    floor = _linear(peaks.amax(dim=1, keepdim=True).sub_(_RANGE_DB)).clamp_(-1.0, 1.0)
    return torch.maximum(plain, floor, out=plain)


def _linear(db: Tensor) -> Tensor:
    """``(dB + 80) / 80 * 2 - 1``, in place. Dividing by 40 gives the same: a factor of two changes no rounding."""
    return db.add_(_RANGE_DB).div_(_HALF_RANGE_DB).sub_(_ONE)


def letterboxed(plain: Tensor) -> Tensor:
    """Stretch to the image's width and pad with -1.0 to its height: float32 (S, 160, 201) to (S, 224, 224)."""
    content = stretched(_turned(plain))
    return torch.nn.functional.pad(content, (0, 0, MARGIN_ROWS, MARGIN_ROWS), value=MARGIN_VALUE)


def stretched(plain: Tensor) -> Tensor:
    """The letterbox without its margins: float32 (S, 201, 160) to (S, 178, 224).

    Bilinear, first in time and then in frequency. torch processes 16 channels at a time, and the image has one, so the
    axis that is not stretched is passed as the channels. The products and sums are those of a single call, in the same
    order.
    """
    return _rows_stretched(_turned(_rows_stretched(plain, IMAGE_SIZE)), CONTENT_ROWS)


def _rows_stretched(rows: Tensor, count: int) -> Tensor:
    """Stretch the rows: float32 (S, n, m), stored row by row, to (S, ``count``, m)."""
    channels = rows.mT.unsqueeze(2)
    result = torch.nn.functional.interpolate(channels, size=(1, count), mode="bilinear", align_corners=False)
    return result.squeeze(2).mT


def _turned(plain: Tensor) -> Tensor:
    """Transpose float32 (S, n, m) to a new (S, m, n). Adds zero: a copy works in blocks and takes twice as long."""
    return torch.add(plain.mT, _ZERO, out=torch.empty_like(plain.mT, memory_format=torch.contiguous_format))


def imagenet(plain: Tensor, out: Tensor) -> None:
    """Write three channels, each normalised with its ImageNet statistics: ``((x + 1) / 2 - mean) / std``.

    Args:
        plain: float32 (S, rows, 224) in [-1, 1].
        out: float32 (S, 3, rows, 224), overwritten.
    """
    for channel, (offset, factor) in enumerate(_CHANNELS):
        torch.add(offset, plain, alpha=factor, out=out[:, channel])
