"""The signal path against the plain reference, over rates, channels, widths, lengths and profiles."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.support.recordings import Integers, cough_like, cough_like_samples, quantised
from tests.support.reference import (
    TOLERANCE,
    Reference,
    assert_same_images,
    assert_same_plain,
    from_integers,
    legacy_from_pydub,
    reference,
)
from tussis.shared.dsp.highpass import highpassed
from tussis.shared.dsp.images import images, letterboxed, scaled_images
from tussis.shared.dsp.legacy import scale_integers
from tussis.shared.dsp.profiles import PROFILES, profile_named
from tussis.shared.dsp.recording import cut_recording
from tussis.shared.dsp.segments import Cut, cut_segments
from tussis.shared.dsp.waveform import unfiltered

Floats = npt.NDArray[np.float32]


def assert_agrees(samples: Floats, rate: int, name: str) -> tuple[Cut, Reference]:
    """Run both on the same samples; compare the whole waveform, the cut, the image before rounding and the tensor."""
    profile = profile_named(name)
    before = samples.copy()
    expected = reference(samples, rate, name)

    wave = unfiltered(torch.from_numpy(samples), rate, profile)
    if profile.highpass_hz is not None:
        wave = highpassed(wave, profile.highpass_hz)
    cut = cut_recording(torch.from_numpy(samples), rate, profile)
    tensor = images(cut, profile)

    assert wave.shape == expected.wave.shape
    assert np.abs(wave.numpy() - expected.wave).max() <= TOLERANCE
    assert torch.equal(cut.padded, cut_segments(wave, profile).padded)
    assert cut.start_s == expected.start_s
    assert cut.end_s == expected.end_s
    assert cut.num_segments_total == expected.num_segments_total
    assert cut.truncated == expected.truncated
    assert cut.duration_s == expected.duration_s
    assert cut.analyzed_s == expected.analyzed_s
    assert_same_plain(letterboxed(scaled_images(cut)).numpy(), expected)
    assert_same_images(tensor.numpy()[None], expected)
    assert np.array_equal(samples, before), "the input was changed"
    return cut, expected


RATES = [8000, 11025, 16000, 22050, 44100, 48000]


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("rate", RATES)
def test_rates(rate: int, name: str) -> None:
    assert_agrees(cough_like(2.7, rate, seed=rate), rate, name)


# Not legacy: its decoder has mixed the channels before anything here.
@pytest.mark.parametrize("name", ["documented", "training"])
@pytest.mark.parametrize(("rate", "channels"), [*((rate, 2) for rate in RATES), (44100, 6), (16000, 3)])
def test_several_channels(rate: int, channels: int, name: str) -> None:
    assert_agrees(cough_like(2.1, rate, channels=channels, seed=rate), rate, name)


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_sample_widths(width: int, name: str) -> None:
    integers = quantised(cough_like(2.2, 22050, seed=width), width)
    if name != "legacy":
        assert_agrees(from_integers(integers, 8 * width), 22050, name)
        return
    # What pydub holds: 8 bits centred, 24 bits widened to 32.
    held: Integers = integers
    held_width = width
    if width == 1:
        held = integers.astype(np.int16) - 128
    elif width == 3:
        held, held_width = integers * 256, 4
    samples = scale_integers(held, held_width)
    assert samples.dtype == np.float32
    assert np.array_equal(samples, legacy_from_pydub(held, held_width))
    assert_agrees(samples, 22050, name)


LENGTHS = [
    1, 2, 159, 160, 7_999, 8_000, 8_001, 16_000, 31_999, 32_000, 32_001, 39_999, 40_000, 40_001,
    256_000, 256_001, 279_999, 280_000, 280_001, 287_999, 288_000,
]  # fmt: skip


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("length", LENGTHS)
def test_lengths_around_the_hop_the_window_and_the_cap(length: int, name: str) -> None:
    assert_agrees(cough_like_samples(length, 16000, seed=length), 16000, name)


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize(("length", "rate"), [(1, 8000), (1, 48000), (3, 44100), (441, 44100), (16_000, 8000)])
def test_short_recordings_at_other_rates(length: int, rate: int, name: str) -> None:
    assert_agrees(cough_like_samples(length, rate), rate, name)


@pytest.mark.parametrize(("name", "total"), [("documented", 120), ("training", 117), ("legacy", 120)])
def test_a_minute(name: str, total: int) -> None:
    channels = 1 if name == "legacy" else 2
    cut, expected = assert_agrees(cough_like(60, 44100, channels=channels), 44100, name)
    assert (len(cut.start_s), cut.num_segments_total) == (32, total)
    assert cut.truncated
    assert cut.analyzed_s == 17.5
    assert expected.duration_s == 60.0


@pytest.mark.parametrize("name", PROFILES)
def test_a_recording_long_enough_to_be_taken_in_blocks(name: str) -> None:
    assert_agrees(cough_like(130.3, 8000), 8000, name)


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("rate", [8000, 48000])
def test_silence(rate: int, name: str) -> None:
    cut, expected = assert_agrees(np.zeros((1, 3 * rate), np.float32), rate, name)
    assert (expected.plain == -1.0).all()
    assert cut.windows.abs().max() == 0


@pytest.mark.parametrize("name", ["documented", "training"])
def test_right_is_minus_left(name: str) -> None:
    left = cough_like(2.0, 16000)
    _, expected = assert_agrees(np.concatenate([left, -left]), 16000, name)
    assert (expected.plain == -1.0).all()


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("level", [1.0, -1.0, 0.1])
def test_a_constant(level: float, name: str) -> None:
    assert_agrees(np.full((1, 40_000), level, np.float32), 16000, name)


@pytest.mark.parametrize("name", PROFILES)
def test_full_scale_square_wave(name: str) -> None:
    time = np.arange(44100) / 44100
    assert_agrees(np.sign(np.sin(2 * np.pi * 997 * time) + 1e-9).astype(np.float32)[None], 44100, name)
