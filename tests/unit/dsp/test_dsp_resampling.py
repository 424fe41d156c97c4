"""Resampling where torchaudio's own call would take gigabytes (odd rates, long recordings), and the high-pass."""

from __future__ import annotations

import math
import subprocess
import sys
from unittest import mock

import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.processes import ROOT
from tussis.shared.dsp import resampling
from tussis.shared.dsp.highpass import highpassed
from tussis.shared.dsp.profiles import profile_named
from tussis.shared.dsp.resampling import BLOCK_SECONDS, LARGEST_KERNEL, BlockResampler, resampled, sparse_resampled
from tussis.shared.dsp.waveform import unfiltered

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

    monkeypatch.setattr(resampling, "sparse_resampled", refuse)
    unfiltered(tone(rate, 0.1)[None], rate, profile_named("documented"))


@pytest.mark.parametrize("rate", ODD_RATES)
def test_odd_rates_keep_a_tone_and_build_no_huge_kernel(rate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cells(rate) > LARGEST_KERNEL

    def refuse(rate_hz: int) -> torchaudio.transforms.Resample:
        raise AssertionError(f"torchaudio's kernel for {rate_hz} Hz was asked for")

    monkeypatch.setattr(resampling, "_resampler", refuse)
    wave = unfiltered(tone(rate, 1.0)[None], rate, profile_named("training"))
    assert wave.shape == (16000,)
    # Away from the ends, where the filter sees zeros; its own pass-band ripple is below 0.2 %.
    assert (wave - tone(16000, 1.0))[100:-100].abs().max() < 2e-3


@pytest.mark.parametrize(("samples", "rate", "expected"), [(1, 44101, 1), (44101, 44101, 16000), (44102, 44101, 16001)])
def test_the_length_is_rounded_up(samples: int, rate: int, expected: int) -> None:
    assert sparse_resampled(torch.ones(samples), rate).shape == (expected,)


def noise(samples: int) -> torch.Tensor:
    return torch.rand(samples, generator=torch.Generator().manual_seed(samples)) * 2.2 - 0.8


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    rate=st.sampled_from([8000, 16000, 22050, 44100, 44101]),
    pieces=st.lists(st.integers(0, 60_000), min_size=1, max_size=12),
)
def test_the_pieces_in_which_a_waveform_arrives_change_no_bit(rate: int, pieces: list[int]) -> None:
    wave = noise(sum(pieces) + 1)
    with mock.patch.object(resampling, "BLOCK_SECONDS", 1):
        whole = list(BlockResampler(rate).add(wave, last=True))
        resampler = BlockResampler(rate)
        found = [block for piece in torch.split(wave[1:], pieces) for block in resampler.add(piece, last=False)]
        found += resampler.add(wave[:0], last=True)
        expected = list(BlockResampler(rate).add(wave[1:], last=True))

    assert [len(block) for block in found] == [len(block) for block in expected]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert sum(len(block) for block in whole) == -(-wave.shape[0] * 16000 // rate)
    # No block is short, unless the whole waveform is.
    assert all(16000 <= len(block) <= 32000 for block in whole) or len(whole) == 1


@pytest.mark.parametrize("rest", [0, 1, 77, 7_999])
@pytest.mark.parametrize("rate", [8000, 11025])
def test_a_long_recording_is_resampled_in_blocks_without_a_seam(rate: int, rest: int) -> None:
    wave = noise(rate * (2 * BLOCK_SECONDS + 5) + rest)
    assert len(list(BlockResampler(rate).add(wave, last=True))) == 2
    expected = torchaudio.transforms.Resample(rate, 16000)(wave)
    found = resampled(wave, rate)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-6


@pytest.mark.parametrize("samples", [280_001, 288_000, 960_000, 2_000_001])
@pytest.mark.parametrize("kept", [280_000, 32_000])
def test_the_head_of_a_recording_is_filtered_as_all_of_it(samples: int, kept: int) -> None:
    wave = noise(samples)  # with a constant in it, and clamped outputs
    whole = torchaudio.functional.highpass_biquad(wave, 16000, 50.0)
    assert whole.abs().max() == 1
    assert torch.equal(highpassed(wave[:kept], 50.0), whole[:kept])


@pytest.mark.parametrize("samples", [1, 2, 3, 160, 8_000, 32_000, 160_001])
def test_a_recording_is_filtered_as_torchaudio_does_it(samples: int) -> None:
    wave = noise(samples)
    with torch.inference_mode():
        first = highpassed(wave, 50.0)
    assert torch.equal(first, torchaudio.functional.highpass_biquad(wave, 16000, 50.0))
    # What is kept from that call serves one that may differentiate.
    assert torch.equal(highpassed(wave.requires_grad_(), 50.0).detach(), first)


def test_resampling_and_filter_stay_in_memory_that_an_hour_of_audio_allows() -> None:
    # Ten minutes at 16 kHz are 37 MiB; in one call they take 700 MiB.
    code = (
        "import torch\n"
        "from tests.support.memory import peak_bytes\n"
        "from tussis.shared.dsp.profiles import profile_named\n"
        "from tussis.shared.dsp.recording import cut_recording\n"
        "torch.set_num_threads(1)\n"
        "profile = profile_named('documented')\n"
        "cut_recording(torch.rand(1, 8000), 8000, profile)\n"
        "samples = torch.rand(1, 8000 * 600)\n"
        "before = peak_bytes()\n"
        "cut_recording(samples, 8000, profile)\n"
        "print((peak_bytes() - before) // 2**20)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert int(done.stdout) < 350
