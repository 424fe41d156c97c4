"""Recordings at the edges: extreme floats, wrong calls, and what may not be changed or shared."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support.recordings import cough_like
from tests.support.reference import reference
from tussis.shared.dsp.images import images, scaled_images
from tussis.shared.dsp.legacy import scale_integers
from tussis.shared.dsp.profiles import PROFILES, Profile, profile_named
from tussis.shared.dsp.recording import cut_recording
from tussis.shared.dsp.segments import cut_segments
from tussis.shared.dsp.waveform import unfiltered
from tussis.shared.errors import NonFiniteSamples, NoSamples

PEAK = [profile_named("documented"), profile_named("training")]
ALL = list(PROFILES.values())
by_name = pytest.mark.parametrize("profile", PEAK, ids=lambda profile: profile.name)
every_profile = pytest.mark.parametrize("profile", ALL, ids=lambda profile: profile.name)


def whole(samples: torch.Tensor, profile: Profile, rate: int = 16000) -> torch.Tensor:
    return images(cut_recording(samples, rate, profile), profile)


@by_name
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_peaks_near_the_limit_of_float32(profile: Profile, channels: int) -> None:
    # Their sum over channels, or their square, overflows.
    quiet = torch.from_numpy(cough_like(1.0, 16000)).repeat(channels, 1)
    quiet = quiet / quiet.abs().max()
    loud = quiet * 3.4e38
    assert torch.isfinite(loud).all()
    assert torch.isinf(loud.sum(dim=0)).any() or channels == 1
    found = whole(loud, profile)
    assert torch.isfinite(found).all()
    assert (found - whole(quiet, profile)).abs().mean() < 1e-4


@by_name
def test_denormal_samples_are_raised_to_full_scale(profile: Profile) -> None:
    least = torch.tensor([[0.0, 1.0, -2.0, 2.0] * 4000]) * 1.4e-45
    assert least.abs().max() > 0
    wave = unfiltered(least, 16000, PROFILES["training"])
    assert torch.equal(wave[:4], torch.tensor([0.0, 0.5, -1.0, 1.0]))
    assert torch.isfinite(whole(least, profile)).all()


@every_profile
def test_silence_is_the_darkest_image(profile: Profile) -> None:
    found = whole(torch.zeros(1, 16000), profile)
    darkest = torch.tensor([(0 - m) / s for m, s in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)])
    assert (found - darkest.view(1, 3, 1, 1)).abs().max() <= 1e-6


@every_profile
def test_one_sample(profile: Profile) -> None:
    cut = cut_recording(torch.tensor([[0.25]]), 16000, profile)
    assert (cut.num_segments_total, cut.truncated, cut.duration_s) == (1, False, 1 / 16000)
    assert cut.analyzed_s == 1 / 16000
    assert cut.end_s == (2.0,)
    assert torch.isfinite(images(cut, profile)).all()


@pytest.mark.parametrize(
    ("seconds", "total", "truncated", "analyzed"),
    [
        (15.5, 31, False, 15.5), (16.0, 32, False, 16.0), (16.001, 33, False, 16.001), (17.0, 34, False, 17.0),
        (17.5, 35, False, 17.5), (17.501, 36, True, 17.5), (60.0, 120, True, 17.5),
    ],
)  # fmt: skip
def test_truncated_only_when_audio_is_unheard(seconds: float, total: int, truncated: bool, analyzed: float) -> None:
    cut = cut_segments(torch.zeros(round(seconds * 16000)), profile_named("documented"))
    assert (cut.num_segments_total, cut.truncated) == (total, truncated)
    assert cut.analyzed_s == pytest.approx(analyzed, abs=1e-9)


@pytest.mark.parametrize(
    ("samples", "total", "truncated", "analyzed"),
    [(31_999, 1, False, 31_999), (39_999, 1, False, 32_000), (40_000, 2, False, 40_000),
     (287_999, 32, False, 280_000), (288_000, 33, True, 280_000)],
)  # fmt: skip
def test_a_dropped_tail_is_unheard_but_not_truncated(samples: int, total: int, truncated: bool, analyzed: int) -> None:
    cut = cut_segments(torch.zeros(samples), profile_named("training"))
    assert (cut.num_segments_total, cut.truncated, cut.analyzed_s * 16000) == (total, truncated, analyzed)


@every_profile
@pytest.mark.parametrize("shape", [(1, 0), (0, 10)])
def test_no_samples(profile: Profile, shape: tuple[int, int]) -> None:
    with pytest.raises(NoSamples):
        unfiltered(torch.zeros(shape), 16000, profile)


def test_an_empty_waveform_has_no_segments() -> None:
    with pytest.raises(NoSamples):
        cut_segments(torch.zeros(0), profile_named("documented"))


@every_profile
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 500, 999])
def test_samples_that_are_not_finite(profile: Profile, bad: float, place: int) -> None:
    samples = torch.zeros(1, 1000)
    samples[0, place] = bad
    with pytest.raises(NonFiniteSamples):
        unfiltered(samples, 16000, profile)


@pytest.mark.parametrize(
    "samples", [torch.zeros(10), torch.zeros(1, 10, dtype=torch.float64), torch.zeros(1, 10, dtype=torch.int16)]
)
def test_another_shape_or_type_is_a_mistake_of_the_caller(samples: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"float32 \(channels, n\)"):
        unfiltered(samples, 16000, profile_named("documented"))


@pytest.mark.parametrize("samples", [torch.zeros(2, 10), torch.full((1, 10), -2.5)])
def test_legacy_refuses_samples_of_another_decoder(samples: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="its own decoder"):
        unfiltered(samples, 16000, profile_named("legacy"))


@every_profile
@pytest.mark.parametrize("rate", [8000, 16000])
def test_nothing_given_is_changed_or_shared(profile: Profile, rate: int) -> None:
    samples = torch.from_numpy(cough_like(4.0, rate))
    before = samples.clone()
    wave = unfiltered(samples, rate, profile)
    wave_before = wave.clone()
    cut = cut_segments(wave, profile)
    padded_before = cut.padded.clone()
    mel = scaled_images(cut)
    found = images(cut, profile)
    found_before = found.clone()
    assert torch.equal(images(cut_recording(samples, rate, profile), profile), whole(before, profile, rate))
    assert torch.equal(samples, before)
    assert torch.equal(wave, wave_before)
    assert torch.equal(cut.padded, padded_before)
    # Results are ordinary tensors of their own: writing to them reaches nothing before them, nor later calls.
    found.zero_()
    found[0].fill_(7)
    assert not found[1].any()
    mel.zero_()
    assert torch.equal(cut.padded, padded_before)
    assert torch.equal(images(cut, profile), found_before)
    cut.padded.fill_(7)
    assert torch.equal(wave, wave_before)
    wave.zero_()
    assert torch.equal(samples, before)


def test_one_exact_window_is_a_copy_too() -> None:
    wave = torch.ones(32_000)
    cut_segments(wave, profile_named("training")).padded.zero_()
    assert wave.min() == 1


def test_the_float16_round_trip_comes_before_imagenet() -> None:
    samples = cough_like(2.0, 16000)
    found = whole(torch.from_numpy(samples), profile_named("training"))
    grid = np.unique(reference(samples, 16000, "training").plain.astype(np.float16)).astype(np.float32)
    allowed = ((grid + np.float32(1)) / np.float32(2) - np.float32(0.485)) / np.float32(0.229)
    pixels = found[0, 0].flatten().numpy()
    assert len(grid) < 10_000 < len(pixels)
    nearest = np.abs(allowed[np.searchsorted(allowed, pixels - 1e-6).clip(max=len(allowed) - 1)] - pixels)
    assert (nearest <= 1e-6).mean() > 0.999


def test_legacy_scaling_by_width() -> None:
    assert scale_integers(np.array([-128, 0, 127]), 1).tolist() == [-2.0, -1.0, -0.0078125]
    assert scale_integers(np.array([-32768, 0, 32767]), 2).tolist() == [-1.0, 0.0, 0.999969482421875]
    assert scale_integers(np.array([-(2**31), 0, 2**30], np.int32), 4).tolist() == [-1.0, 0.0, 0.5]
    # 24 bits, widened by pydub to 32.
    assert scale_integers(np.array([-(2**23) * 256, 2**22 * 256], np.int32), 4).tolist() == [-1.0, 0.5]
    with pytest.raises(ValueError, match="not 3"):
        scale_integers(np.array([0]), 3)
