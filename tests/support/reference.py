"""The plain reference of the audio contract, written only from ``docs/preprocessing.md``.

It processes one recording and one segment at a time, with torchaudio's own calls and new transforms. It imports nothing
of Tussis, so that it does not share an error with Tussis. ``reference`` turns decoded samples into the tensors.
``assert_same_images`` is the contract's "equal".
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torchaudio

Floats = npt.NDArray[np.float32]

RATE = 16000
WINDOW = 32000
HOP = 8000
CAP = 32

TOLERANCE = 1e-5
#: `training` only: share of pixels that may be the neighbouring float16 value.
FLIPPED_SHARE = 1e-3
#: Other arithmetic: largest mean and largest single difference of an image in [-1, 1].
OTHER_MEAN, OTHER_MAX = 1e-4, 2e-2

MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


@dataclass(frozen=True)
class Rules:
    """The rules of a profile in the contract."""

    peak: bool
    highpass: bool
    pad_tail: bool
    float16: bool


RULES = {
    "documented": Rules(peak=True, highpass=True, pad_tail=True, float16=False),
    "training": Rules(peak=True, highpass=False, pad_tail=False, float16=True),
    "legacy": Rules(peak=False, highpass=False, pad_tail=True, float16=False),
}


@dataclass(frozen=True)
class Reference:
    """The expected result for a recording under one profile."""

    profile: str
    wave: Floats
    """(m,) at 16 kHz."""
    plain: Floats
    """(S, 224, 224) in [-1, 1], before any rounding to float16."""
    spectrograms: Floats
    """(1, S, 3, 224, 224)."""
    segment_mask: npt.NDArray[np.bool_]
    """(1, S), all true."""
    start_s: tuple[float, ...]
    end_s: tuple[float, ...]
    num_segments_total: int
    truncated: bool
    duration_s: float
    analyzed_s: float


def from_integers(samples: npt.NDArray[np.integer[Any]], bits: int) -> Floats:
    """Decode PCM as the contract states it; 8 bits are unsigned, as in WAV."""
    exact = samples.astype(np.float64)
    if bits == 8:
        return ((exact - 128.0) / 128.0).astype(np.float32)
    return (exact / 2.0 ** (bits - 1)).astype(np.float32)


def legacy_from_pydub(samples: npt.NDArray[np.integer[Any]], width: int) -> Floats:
    """Scale pydub's one-channel integers as in `legacy`; ``width`` in bytes, 24 bits come as 4."""
    exact = samples.astype(np.float64)
    if width == 1:
        return (exact / 128.0 - 1.0).astype(np.float32)
    return (exact / {2: 32768.0, 4: 2147483648.0}[width]).astype(np.float32)


def waveform(samples: Floats, rate: int, profile: str) -> Floats:
    """Turn (channels, n) into (m,) at 16 kHz."""
    rules = RULES[profile]
    x = torch.tensor(samples, dtype=torch.float32)
    if rules.peak:
        peak = x.abs().max()
        if peak != 0:
            x = x / peak
    x = torch.mean(x, dim=0)
    if rate != RATE:
        x = torchaudio.transforms.Resample(rate, RATE)(x)
    if rules.highpass:
        x = torchaudio.functional.highpass_biquad(x, 16000, 50.0)
    return x.numpy()


def starts(length: int, profile: str) -> list[int]:
    """Return the first sample of every segment, before the cap."""
    found = []
    start = 0
    if RULES[profile].pad_tail:
        while start < length:
            found.append(start)
            start += HOP
    else:
        while start + WINDOW <= length:
            found.append(start)
            start += HOP
        if not found:
            found.append(0)
    return found


def plain_image(segment: Floats) -> Floats:
    """Turn (32000,) into (224, 224) in [-1, 1]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some mel bands are narrower than a bin
        to_mel = torchaudio.transforms.MelSpectrogram(
            sample_rate=16000,
            n_fft=1024,
            win_length=1024,
            hop_length=160,
            f_min=50.0,
            f_max=4000.0,
            n_mels=160,
            power=2.0,
            center=True,
            pad_mode="reflect",
            norm=None,
            mel_scale="htk",
        )
    to_db = torchaudio.transforms.AmplitudeToDB(stype="power", top_db=80.0)
    mel = to_mel(torch.tensor(segment)[None, :])
    assert mel.shape == (1, 160, 201)
    image = torch.clamp((to_db(mel) + 80) / 80, 0, 1) * 2 - 1
    stretched = torch.nn.functional.interpolate(image[None], size=(178, 224), mode="bilinear", align_corners=False)
    canvas = torch.full((224, 224), -1.0)
    canvas[23 : 23 + 178] = stretched[0, 0]
    return canvas.numpy()


def imagenet(plain: Floats) -> Floats:
    """Turn (224, 224) into (3, 224, 224)."""
    colours = np.stack([plain] * 3)
    return np.asarray(
        ((colours + np.float32(1)) / np.float32(2) - MEAN[:, None, None]) / STD[:, None, None], np.float32
    )


def reference(samples: Floats, rate: int, profile: str, bag: int = 0) -> Reference:
    """Turn decoded samples (channels, n) into everything that the contract states about one bag of them.

    For ``legacy`` the samples come from ``legacy_from_pydub``, with one channel.
    """
    rules = RULES[profile]
    wave = waveform(samples, rate, profile)
    found = starts(len(wave), profile)
    kept = found[bag * CAP : (bag + 1) * CAP]
    plains, images = [], []
    for start in kept:
        segment = np.zeros(WINDOW, dtype=np.float32)
        piece = wave[start : start + WINDOW]
        segment[: len(piece)] = piece
        plain = plain_image(segment)
        plains.append(plain)
        images.append(imagenet(plain.astype(np.float16).astype(np.float32) if rules.float16 else plain))
    last_end = kept[-1] + WINDOW
    return Reference(
        profile=profile,
        wave=wave,
        plain=np.stack(plains),
        spectrograms=np.stack(images)[None],
        segment_mask=np.ones((1, len(kept)), dtype=np.bool_),
        start_s=tuple(start / RATE for start in kept),
        end_s=tuple((start + WINDOW) / RATE for start in kept),
        num_segments_total=len(found),
        truncated=len(found) > (bag + 1) * CAP and len(wave) > last_end,
        duration_s=len(wave) / RATE,
        analyzed_s=min(len(wave) / RATE, last_end / RATE),
    )


def assert_same_plain(plain: Floats, expected: Reference) -> None:
    """Fail unless images in [-1, 1], before rounding, equal the reference's."""
    assert plain.shape == expected.plain.shape
    worst = float(np.abs(plain.astype(np.float64) - expected.plain).max())
    assert worst <= TOLERANCE, f"{expected.profile}: an image differs by {worst:.2g} before rounding"


def assert_close_plain(plain: Floats, expected: Reference) -> None:
    """Fail unless images in [-1, 1] equal the reference's as the contract requires it of other arithmetic."""
    assert plain.shape == expected.plain.shape
    off = np.abs(plain.astype(np.float64) - expected.plain)
    assert off.mean() <= OTHER_MEAN, f"{expected.profile}: the images differ by {off.mean():.2g} on average"
    assert off.max() <= OTHER_MAX, f"{expected.profile}: a pixel differs by {off.max():.2g}"


def assert_same_images(spectrograms: Floats, expected: Reference) -> None:
    """Fail unless the tensor equals the reference's, as the contract requires it on one machine.

    ``training``: at most 0.1 % of the pixels may be the neighbouring float16 value.
    """
    assert spectrograms.dtype == np.float32
    assert spectrograms.shape == expected.spectrograms.shape
    assert np.isfinite(spectrograms).all()
    off = np.abs(spectrograms.astype(np.float64) - expected.spectrograms)
    if not RULES[expected.profile].float16:
        assert off.max() <= TOLERANCE, f"{expected.profile}: a pixel differs by {off.max():.2g}"
        return
    rounded = expected.plain.astype(np.float16)
    # At a power of two the step away from zero is twice the step towards zero.
    beyond = np.nextafter(rounded, np.where(rounded < 0, np.float16(-2), np.float16(2)))
    step = np.abs(beyond.astype(np.float64) - rounded.astype(np.float64))
    allowed = TOLERANCE + step[None, :, None] / (2 * STD[:, None, None])
    assert (off <= allowed).all(), "training: a pixel differs by more than one float16 step"
    share = float((off > TOLERANCE).mean())
    assert share <= FLIPPED_SHARE, f"training: {share:.2%} of the pixels differ by a float16 step"
