"""Converts a file to the model's input, with one call of the transform for each segment."""

from __future__ import annotations

import io
import warnings
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import soundfile
import torch
import torchaudio

RATE, SEGMENT, HOP, MOST = 16_000, 32_000, 8_000, 32
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torchaudio warns about mel bands narrower than a bin
    MEL = torchaudio.transforms.MelSpectrogram(
        sample_rate=RATE, n_fft=1024, win_length=1024, hop_length=160, f_min=50.0, f_max=4000.0, n_mels=160
    )
DECIBELS = torchaudio.transforms.AmplitudeToDB(stype="power", top_db=80.0)


@lru_cache
def resampler(rate: int) -> torchaudio.transforms.Resample:
    """The resampling transform for one source rate, in Hz."""
    return torchaudio.transforms.Resample(rate, RATE)


def read(data: bytes) -> torch.Tensor:
    """Decode the bytes of a file to one channel at 16 kHz, float32 (m,)."""
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    wave = torch.from_numpy(samples.T)
    peak = wave.abs().max()
    if peak > 0:
        wave = wave / peak
    wave = wave.mean(dim=0)
    if rate != RATE:
        wave = resampler(rate)(wave)
    filtered: torch.Tensor = torchaudio.functional.highpass_biquad(wave, RATE, 50.0)
    return filtered


def image(piece: torch.Tensor) -> torch.Tensor:
    """Convert two seconds, float32 (32000,), to the image for the network, float32 (3, 224, 224)."""
    db = DECIBELS(MEL(piece[None]))[0]
    scaled = ((db + 80.0) / 80.0).clamp(0.0, 1.0) * 2.0 - 1.0
    stretched = torch.nn.functional.interpolate(
        scaled[None, None], size=(178, 224), mode="bilinear", align_corners=False
    )[0, 0]
    boxed = torch.nn.functional.pad(stretched, (0, 0, 23, 23), value=-1.0)
    return ((boxed[None] + 1.0) / 2.0 - MEAN) / STD


def spectrograms(data: bytes) -> npt.NDArray[np.float32]:
    """Convert the bytes of a file to the model's input, float32 (1, S, 3, 224, 224)."""
    with torch.no_grad():
        wave = read(data)
        images = []
        for start in range(0, len(wave), HOP)[:MOST]:
            piece = wave[start : start + SEGMENT]
            images.append(image(torch.nn.functional.pad(piece, (0, SEGMENT - len(piece)))))
        array: npt.NDArray[np.float32] = torch.stack(images)[None].numpy()
        return array
