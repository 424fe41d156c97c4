"""Segments of two seconds to the images that the network sees."""

from __future__ import annotations

import warnings
from functools import cache
from typing import cast

import torch
import torchaudio
from torch import Tensor

from tussis.shared.dsp.constants import (
    CONTENT_ROWS,
    DYNAMIC_RANGE_DB,
    FFT_SAMPLES,
    FRAME_HOP_SAMPLES,
    IMAGE_SIZE,
    IMAGENET_MEAN,
    IMAGENET_STD,
    MARGIN_ROWS,
    MARGIN_VALUE,
    MEL_BANDS,
    MEL_HIGH_HZ,
    MEL_LOW_HZ,
    POWER_FLOOR,
    SAMPLE_RATE,
)
from tussis.shared.dsp.profiles import Profile
from tussis.shared.dsp.segments import Cut


def images(cut: Cut, profile: Profile) -> Tensor:
    """The network's input for each of a recording's S segments.

    Args:
        cut: the recording's waveform; not changed.
        profile: decides whether the image goes through float16.

    Returns:
        float32 (S, 3, 224, 224), a new tensor. Each row depends on its own segment only.
    """
    with torch.no_grad():
        plain = letterboxed(scaled_images(cut))
        if profile.image_float16:
            plain = plain.to(torch.float16).to(torch.float32)
        return imagenet(plain)


def scaled_images(cut: Cut) -> Tensor:
    """The segments' mel images before the letterbox: float32 (S, 160, 201), a new tensor, in [-1, 1].

    The same for every profile: ``training`` rounds to float16 behind the letterbox.

    Args:
        cut: the recording's waveform; not changed.
    """
    with torch.no_grad():
        return scaled(decibels(mel_power(cut.windows)))


def mel_power(windows: Tensor) -> Tensor:
    """Power mel spectrogram: float32 (S, 32000) to (S, 160, 201)."""
    return cast(Tensor, _mel_spectrogram()(windows))


def decibels(power: Tensor) -> Tensor:
    """``10 log10``, floored 80 dB below each segment's own maximum: float32 (S, bands, frames) to the same."""
    # AmplitudeToDB takes its floor over the last three axes: without the channel axis all segments share one.
    return cast(Tensor, _amplitude_to_db()(power[:, None])[:, 0])


def scaled(db: Tensor) -> Tensor:
    """-80 dB to -1, 0 dB to 1, clamped: level matters, and what is louder than 0 dB saturates. Same shape."""
    return ((db + DYNAMIC_RANGE_DB) / DYNAMIC_RANGE_DB).clamp(0.0, 1.0) * 2.0 - 1.0


def letterboxed(plain: Tensor) -> Tensor:
    """Stretch to the image's width and centre it on -1.0: float32 (S, 160, 201) to (S, 224, 224), in [-1, 1]."""
    stretched = torch.nn.functional.interpolate(
        plain[:, None], size=(CONTENT_ROWS, IMAGE_SIZE), mode="bilinear", align_corners=False
    )[:, 0]
    return torch.nn.functional.pad(stretched, (0, 0, MARGIN_ROWS, MARGIN_ROWS), value=MARGIN_VALUE)


def imagenet(plain: Tensor) -> Tensor:
    """Three equal channels with ImageNet's statistics: float32 (S, 224, 224) in [-1, 1] to (S, 3, 224, 224)."""
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
    return ((plain[:, None] + 1.0) / 2.0 - mean) / std


@cache
def _mel_spectrogram() -> torchaudio.transforms.MelSpectrogram:
    with warnings.catch_warnings():
        # 160 bands up to 4 kHz are narrower than a bin (15.6 Hz) at the low end, so some hold none. The model
        # was trained on them.
        warnings.filterwarnings("ignore", message="At least one mel filterbank has all zero values")
        return torchaudio.transforms.MelSpectrogram(
            sample_rate=SAMPLE_RATE,
            n_fft=FFT_SAMPLES,
            win_length=FFT_SAMPLES,
            hop_length=FRAME_HOP_SAMPLES,
            f_min=MEL_LOW_HZ,
            f_max=MEL_HIGH_HZ,
            n_mels=MEL_BANDS,
            power=2.0,
            normalized=False,
            center=True,
            pad_mode="reflect",
            norm=None,
            mel_scale="htk",
        )


@cache
def _amplitude_to_db() -> torchaudio.transforms.AmplitudeToDB:
    transform = torchaudio.transforms.AmplitudeToDB(stype="power", top_db=DYNAMIC_RANGE_DB)
    if transform.amin != POWER_FLOOR:  # a default of torchaudio's that no argument sets
        raise RuntimeError(f"torchaudio floors powers at {transform.amin:g}, the contract at {POWER_FLOOR:g}")
    return transform
