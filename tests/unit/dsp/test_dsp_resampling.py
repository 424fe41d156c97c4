"""Rates whose ratio to 16 kHz would make torchaudio's kernel huge."""

from __future__ import annotations

import math

import pytest
import torch
import torchaudio

from tussis.shared.dsp import waveform as waveform_module
from tussis.shared.dsp.profiles import profile_named
from tussis.shared.dsp.waveform import LARGEST_KERNEL, sparse_resampled, waveform

COMMON_RATES = [4000, 5512, 6000, 8000, 11025, 12000, 22050, 24000, 32000, 37800, 44100, 48000, 88200, 96000, 176400]
# Their kernels would take torchaudio 0.4 to 12 GB, and a third as much again while it builds them.
ODD_RATES = [22254, 44101, 47999, 191999]


def cells(rate: int) -> int:
    common = math.gcd(rate, 16000)
    return (rate // common) * (16000 // common)


def tone(rate: int, seconds: float) -> torch.Tensor:
    return torch.sin(2 * math.pi * 440 * torch.arange(round(rate * seconds), dtype=torch.float64) / rate).float()


@pytest.mark.parametrize("rate", [*COMMON_RATES, 192000])
def test_the_sparse_resampler_is_torchaudios(rate: int) -> None:
    noise = torch.rand(rate // 2 + 13, generator=torch.Generator().manual_seed(rate)) * 2 - 1
    expected = torchaudio.transforms.Resample(rate, 16000)(noise)
    found = sparse_resampled(noise, rate)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-6


@pytest.mark.parametrize("rate", COMMON_RATES)
def test_common_rates_take_torchaudios_own_transform(rate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(wave: torch.Tensor, rate_hz: int) -> torch.Tensor:
        raise AssertionError(f"{rate_hz} Hz took the sparse resampler")

    monkeypatch.setattr(waveform_module, "sparse_resampled", refuse)
    waveform(tone(rate, 0.1)[None], rate, profile_named("documented"))


@pytest.mark.parametrize("rate", ODD_RATES)
def test_odd_rates_keep_a_tone_and_build_no_huge_kernel(rate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cells(rate) > LARGEST_KERNEL

    def refuse(rate_hz: int) -> torchaudio.transforms.Resample:
        raise AssertionError(f"torchaudio's kernel for {rate_hz} Hz was asked for")

    monkeypatch.setattr(waveform_module, "_resampler", refuse)
    wave = waveform(tone(rate, 1.0)[None], rate, profile_named("training"))
    assert wave.shape == (16000,)
    # Away from the ends, where the filter sees zeros; its own pass-band ripple is below 0.2 %.
    assert (wave - tone(16000, 1.0))[100:-100].abs().max() < 2e-3


@pytest.mark.parametrize(("samples", "rate", "expected"), [(1, 44101, 1), (44101, 44101, 16000), (44102, 44101, 16001)])
def test_the_length_is_rounded_up(samples: int, rate: int, expected: int) -> None:
    assert sparse_resampled(torch.ones(samples), rate).shape == (expected,)
