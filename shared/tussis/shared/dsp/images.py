"""Segments of two seconds to the images that the network sees.

One path for every profile and device: torchaudio's mel spectrogram and decibels of each segment by itself, with what
neighbouring segments share computed once (:mod:`tussis.shared.dsp.frames`), and the large tensor written once.

Behind the sums over bins every step rounds as torchaudio's and torch's own do. That matters under ``training``: much
of an image lies exactly on its floor, and were the floor rounded otherwise, all of it could move by a float16 step.
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

#: Segments that take the steps behind the shared frames together on a CPU: 1.5 MB, which stay in its cache.
_SEGMENTS_TOGETHER: Final = 4

# A step takes a tensor 2 us sooner than a number of Python's: a twentieth of the time, in all of them.
_TEN: Final = torch.tensor(10.0)
_RANGE_DB: Final = torch.tensor(DYNAMIC_RANGE_DB)
_HALF_RANGE_DB: Final = torch.tensor(DYNAMIC_RANGE_DB / 2.0)
_ONE: Final = torch.tensor(1.0)
_ZERO: Final = torch.tensor(0.0)

#: Offset and factor of each channel: (x + 1) / 2, minus the mean, over the deviation, is one product and one sum.
_CHANNELS: Final = tuple(
    (torch.tensor((0.5 - mean) / std), 0.5 / std) for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)
)
#: What becomes of the letterbox's margin in each channel: float32 (3, 1, 1, 1).
_MARGIN: Final = torch.stack([offset + MARGIN_VALUE * factor for offset, factor in _CHANNELS]).view(3, 1, 1, 1)


def images(cut: Cut, profile: Profile) -> Tensor:
    """The network's input for each of a recording's S segments.

    Args:
        cut: the recording's waveform, on any device; not changed.
        profile: decides whether the image goes through float16.

    Returns:
        float32 (S, 3, 224, 224), a new tensor on that device. Each row depends on its own segment only.
    """
    return _images(cut.padded, None, profile)


def images_of_many(cuts: Sequence[Cut], profile: Profile) -> Tensor:
    """The network's input for every segment of several recordings, one recording behind the other.

    The same values as :func:`images` for each; for a device where many small steps cost more than one large one.

    Args:
        cuts: at least one, all on one device; not changed.
        profile: as for :func:`images`.

    Returns:
        float32 (sum of S, 3, 224, 224).
    """
    # Every waveform is a whole number of hops long, so its neighbours' segments keep their places. Those that begin in
    # one recording and end in the next are computed and left out.
    starts, first = [], 0
    for cut in cuts:
        starts.append(torch.arange(first, first + len(cut.start_s)))
        first += cut.padded.shape[0] // HOP_SAMPLES
    padded = torch.cat([cut.padded for cut in cuts])
    return _images(padded, torch.cat(starts).to(padded.device), profile)


def scaled_images(cut: Cut) -> Tensor:
    """The segments' mel images before the letterbox: float32 (S, 160, 201), a new tensor, in [-1, 1].

    The same for every profile: ``training`` rounds to float16 behind the letterbox.

    Args:
        cut: the recording's waveform, on any device; not changed.
    """
    with torch.no_grad():
        db = decibels(mel_power(cut.padded, segments_in(cut.padded), filter_bank(cut.padded.device)))
        peaks = db.peaks()
        # In place, so that bands stay behind each other in memory, as the result has them.
        plain = scaled(db, out=db.values)
        return floored(plain.of(slice(None)), peaks.of(slice(None))).mT


def _images(padded: Tensor, kept: Tensor | None, profile: Profile) -> Tensor:
    """Images of the segments of a waveform, of all or of those ``kept``, int64 (S,)."""
    segments, bank = segments_in(padded), filter_bank(padded.device)
    count = segments if kept is None else kept.shape[0]
    made = torch.empty(count, len(IMAGENET_MEAN), IMAGE_SIZE, IMAGE_SIZE, device=padded.device)
    # Fewer checks a step than no_grad, which shows for short recordings; the result is an ordinary tensor.
    with torch.inference_mode():
        if segments == 1 and padded.device.type == "cpu":
            _traced(profile.image_float16)(made, padded, bank.weights)
        else:
            _write(made, padded, segments, kept, bank, profile.image_float16)
    return made


def _write(made: Tensor, padded: Tensor, segments: int, kept: Tensor | None, bank: FilterBank, float16: bool) -> None:
    """Every step from a waveform of S segments to the tensor of those that are kept."""
    count = segments if kept is None else kept.shape[0]
    together = _SEGMENTS_TOGETHER if padded.device.type == "cpu" else count
    db = decibels(mel_power(padded, segments, bank))
    peaks = db.peaks()
    # From here on frames lie behind each other: first the time is stretched.
    plain = scaled(db, out=torch.empty_like(db.values, memory_format=torch.contiguous_format))
    for first in range(0, count, together):
        part = slice(first, first + together)
        which = part if kept is None else kept[part]
        content = stretched(floored(plain.of(which), peaks.of(which)))
        if float16:
            content = content.half().float()
        imagenet(content, out=made[part, :, MARGIN_ROWS:-MARGIN_ROWS])
    # -1.0 is a float16 too. The windows are the rows above the content and those below.
    made.unfold(2, MARGIN_ROWS, IMAGE_SIZE - MARGIN_ROWS).copy_(_MARGIN.to(made.device))


@cache
def _traced(float16: bool) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """:func:`_write` for one segment on a CPU, of ``made``, ``padded`` and the bank's weights.

    The same steps, traced once and then taken by torch without Python in between: one segment has so little to
    compute that Python would take a fifth of its time. Graphs with the letterbox inside take :func:`scaled_images`.
    """
    bank = filter_bank(torch.device("cpu"))

    def steps(made: Tensor, padded: Tensor, weights: Tensor) -> Tensor:
        _write(made, padded, 1, None, replace(bank, weights=weights), float16)
        return made  # A trace needs a result.

    # Sparse weights can be given to a trace, but not kept in one.
    example = (torch.zeros(1, len(IMAGENET_MEAN), IMAGE_SIZE, IMAGE_SIZE), torch.zeros(SEGMENT_SAMPLES), bank.weights)
    with warnings.catch_warnings():
        # What torch recommends instead needs a compiler where it runs. torch stays at 2.11, which has this.
        warnings.filterwarnings("ignore", "`torch.jit.trace` is deprecated", DeprecationWarning)
        traced: Callable[[Tensor, Tensor, Tensor], Tensor] = torch.jit.trace(  # type: ignore[no-untyped-call]
            steps, example, check_trace=False
        )
    return traced


def decibels(power: SharedFrames) -> SharedFrames:
    """``10 log10`` of the power, which counts as 1e-10 at least. The power's memory is the result's."""
    power.values.clamp_(min=POWER_FLOOR).log10_().mul_(_TEN)
    return power


def scaled(db: SharedFrames, out: Tensor) -> SharedFrames:
    """``clamp((dB + 80) / 80, 0, 1) * 2 - 1``. Level matters, and what is louder than 0 dB saturates.

    Args:
        db: its memory is used up.
        out: the values of the result, like ``db.values``, which it may be.
    """
    return SharedFrames(torch.clamp(_linear(db.values), -1.0, 1.0, out=out), db.segments)


def floored(plain: Tensor, peaks: Tensor) -> Tensor:
    """What lies 80 dB below each segment's own maximum, and lower, at that floor.

    The scale rises, rounding too: the floor of what is scaled is the scaled floor.

    Args:
        plain: scaled, float32 (S, 201, 160); its memory is the result's.
        peaks: each frame's largest dB, float32 (S, 201, 1).
    """
    floor = _linear(peaks.amax(dim=1, keepdim=True).sub_(_RANGE_DB)).clamp_(-1.0, 1.0)
    return torch.maximum(plain, floor, out=plain)


def _linear(db: Tensor) -> Tensor:
    """``(dB + 80) / 80 * 2 - 1``, in place. A power of two changes no rounding: half the divisor is the product."""
    return db.add_(_RANGE_DB).div_(_HALF_RANGE_DB).sub_(_ONE)


def letterboxed(plain: Tensor) -> Tensor:
    """Stretch to the image's width and centre it on -1.0: float32 (S, 160, 201) to (S, 224, 224), in [-1, 1]."""
    content = stretched(_turned(plain))
    return torch.nn.functional.pad(content, (0, 0, MARGIN_ROWS, MARGIN_ROWS), value=MARGIN_VALUE)


def stretched(plain: Tensor) -> Tensor:
    """The letterbox without its margins: float32 (S, 201, 160) to (S, 178, 224).

    Bilinear, in time and then in frequency. torch takes 16 channels at a time, and the image has but one; so the axis
    that is not stretched is given to it as the channels. The products and sums are those of one call, in order.
    """
    return _rows_stretched(_turned(_rows_stretched(plain, IMAGE_SIZE)), CONTENT_ROWS)


def _rows_stretched(rows: Tensor, count: int) -> Tensor:
    """float32 (S, n, m), one row behind the other, to (S, ``count``, m)."""
    channels = rows.mT.unsqueeze(2)
    result = torch.nn.functional.interpolate(channels, size=(1, count), mode="bilinear", align_corners=False)
    return result.squeeze(2).mT


def _turned(plain: Tensor) -> Tensor:
    """float32 (S, n, m) to a new (S, m, n). A sum, because a mere copy goes through blocks and takes twice as long."""
    return torch.add(plain.mT, _ZERO, out=torch.empty_like(plain.mT, memory_format=torch.contiguous_format))


def imagenet(plain: Tensor, out: Tensor) -> None:
    """Three equal channels with ImageNet's statistics: ``((x + 1) / 2 - mean) / std``.

    Args:
        plain: float32 (S, rows, 224) in [-1, 1].
        out: float32 (S, 3, rows, 224), written.
    """
    for channel, (offset, factor) in enumerate(_CHANNELS):
        torch.add(offset, plain, alpha=factor, out=out[:, channel])
