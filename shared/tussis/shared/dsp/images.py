"""Segments of two seconds to the images that the network sees.

One path for every profile and device: torchaudio's mel spectrogram and decibels of each segment by itself, with what
neighbouring segments share computed once (:mod:`tussis.shared.dsp.frames`), and the large tensor written once.

Behind the sums over bins every step rounds as torchaudio's and torch's own do. That matters under ``training``: much
of an image lies exactly on its floor, and were the floor rounded otherwise, all of it could move by a float16 step.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from tussis.shared.dsp.frames import SharedFrames, mel_power
from tussis.shared.dsp.profiles import Profile
from tussis.shared.dsp.segments import Cut

#: Segments that take the steps behind the shared frames together on a CPU: 1.5 MB, which stay in its cache.
_SEGMENTS_TOGETHER: Final = 4

#: Offset and factor of each channel: (x + 1) / 2, minus the mean, over the deviation, is one product and one sum.
_CHANNELS: Final = tuple(
    (torch.tensor((0.5 - mean) / std), 0.5 / std) for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)
)
#: What becomes of the letterbox's margin in each channel: float32 (3, 1, 1).
_MARGIN: Final = torch.stack([offset + MARGIN_VALUE * factor for offset, factor in _CHANNELS]).view(3, 1, 1)


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
        return scaled(decibels(mel_power(cut.padded)).of(slice(None)))


def _images(padded: Tensor, kept: Tensor | None, profile: Profile) -> Tensor:
    """Images of the segments of a waveform, of all or of those ``kept``, int64 (S,)."""
    count = (padded.shape[0] - SEGMENT_SAMPLES) // HOP_SAMPLES + 1 if kept is None else kept.shape[0]
    together = _SEGMENTS_TOGETHER if padded.device.type == "cpu" else count
    made = torch.empty(count, len(IMAGENET_MEAN), IMAGE_SIZE, IMAGE_SIZE, device=padded.device)
    # Fewer checks a step than no_grad, which shows for short recordings; the result is an ordinary tensor.
    with torch.inference_mode():
        db = decibels(mel_power(padded))
        for first in range(0, count, together):
            which = slice(first, first + together)
            content = stretched(scaled(db.of(which if kept is None else kept[which])))
            if profile.image_float16:
                content = content.to(torch.float16).to(torch.float32)
            imagenet(content, out=made[which, :, MARGIN_ROWS:-MARGIN_ROWS])
        # -1.0 is a float16 too.
        made[:, :, :MARGIN_ROWS] = _MARGIN
        made[:, :, -MARGIN_ROWS:] = _MARGIN
    return made


def decibels(power: SharedFrames) -> SharedFrames:
    """``10 log10`` of the power, which counts as 1e-10 at least. The power's memory is the result's."""
    power.values.clamp_(min=POWER_FLOOR).log10_().mul_(10.0)
    return power


def scaled(db: Tensor) -> Tensor:
    """Floored 80 dB below each segment's own maximum, then ``clamp((dB + 80) / 80, 0, 1) * 2 - 1``.

    Level matters, and what is louder than 0 dB saturates.

    Args:
        db: float32 (S, 160, 201); its memory is the result's.
    """
    floor = db.amax(dim=(1, 2), keepdim=True).sub_(DYNAMIC_RANGE_DB)
    torch.maximum(db, floor, out=db)
    # A power of two and a clamp change no rounding: half the divisor is the product with 2, and -1 may come first.
    return db.add_(DYNAMIC_RANGE_DB).div_(DYNAMIC_RANGE_DB / 2.0).sub_(1.0).clamp_(-1.0, 1.0)


def letterboxed(plain: Tensor) -> Tensor:
    """Stretch to the image's width and centre it on -1.0: float32 (S, 160, 201) to (S, 224, 224), in [-1, 1]."""
    return torch.nn.functional.pad(stretched(plain), (0, 0, MARGIN_ROWS, MARGIN_ROWS), value=MARGIN_VALUE)


def stretched(plain: Tensor) -> Tensor:
    """The letterbox without its margins: float32 (S, 160, 201) to (S, 178, 224)."""
    size = (CONTENT_ROWS, IMAGE_SIZE)
    return torch.nn.functional.interpolate(plain[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def imagenet(plain: Tensor, out: Tensor) -> None:
    """Three equal channels with ImageNet's statistics: ``((x + 1) / 2 - mean) / std``.

    Args:
        plain: float32 (S, rows, 224) in [-1, 1].
        out: float32 (S, 3, rows, 224), written.
    """
    for channel, (offset, factor) in enumerate(_CHANNELS):
        torch.add(offset, plain, alpha=factor, out=out[:, channel])
