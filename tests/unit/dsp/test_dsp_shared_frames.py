"""Frames that segments share are computed once: every image is still that of one transform call for its segment."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.recordings import cough_like, cough_like_samples
from tests.support.reference import TOLERANCE, assert_same_images, assert_same_plain, reference
from tussis.shared.dsp.constants import FRAMES, HOP_SAMPLES, IMAGENET_STD, MEL_BANDS, SEGMENT_SAMPLES
from tussis.shared.dsp.frames import EDGE, MIDDLE, SHIFT, SharedFrames, mel_power
from tussis.shared.dsp.images import images, images_of_many, letterboxed, scaled_images
from tussis.shared.dsp.profiles import PROFILES, Profile, profile_named
from tussis.shared.dsp.segments import Cut, cut_segments
from tussis.shared.dsp.waveform import waveform

repeatable = settings(derandomize=True, deadline=None)
profiles = st.sampled_from(list(PROFILES.values()))
every_profile = pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)


def cut_of(seconds: float, profile: Profile, seed: int = 0) -> Cut:
    return cut_segments(torch.from_numpy(cough_like(seconds, 16000, seed=seed)[0]), profile)


@settings(repeatable, max_examples=24)
@given(st.integers(1, 320_000), profiles, st.floats(-7, 0), st.integers(0, 1000))
def test_any_length_equals_one_call_a_segment(length: int, profile: Profile, level: float, seed: int) -> None:
    samples = (cough_like_samples(length, 16000, seed=seed) * 10**level).astype(np.float32)
    expected = reference(samples, 16000, profile.name)
    cut = cut_segments(waveform(torch.from_numpy(samples), 16000, profile), profile)
    assert_same_plain(letterboxed(scaled_images(cut)).numpy(), expected)
    assert_same_images(images(cut, profile)[None].numpy(), expected)


@pytest.mark.parametrize("hops", [0, 1, 2, 3, 4, 7, 30, 31])
def test_each_frame_is_the_segments_own(hops: int) -> None:
    padded = torch.from_numpy(np.random.default_rng(hops).normal(0, 0.1, SEGMENT_SAMPLES + hops * HOP_SAMPLES)).float()
    shared = mel_power(padded)
    assert shared.segments == hops + 1
    assert shared.values.shape == (MEL_BANDS, 2 * EDGE * (hops + 1) + MIDDLE + SHIFT * hops)
    found = shared.of(slice(None))
    windows = padded.unfold(0, SEGMENT_SAMPLES, HOP_SAMPLES)
    one_call = torchaudio.transforms.MelSpectrogram(
        16000, n_fft=1024, hop_length=160, f_min=50.0, f_max=4000.0, n_mels=MEL_BANDS
    )
    for window, power in zip(windows, found, strict=True):
        assert power.shape == (MEL_BANDS, FRAMES)
        torch.testing.assert_close(power, one_call(window), rtol=1e-3, atol=1e-6)


def test_the_parts_of_shared_frames_are_views_in_their_places() -> None:
    segments = 3
    values = torch.arange(2 * (2 * EDGE * segments + MIDDLE + SHIFT * (segments - 1))).view(2, -1)
    shared = SharedFrames(values, segments)
    inner = values[:, EDGE * segments :]
    assert shared.first[1, 0].tolist() == [4, 5, 6, 7]
    assert torch.equal(shared.last[0], values[:, -12:-8])
    for index in range(segments):
        assert torch.equal(shared.middle[index], inner[:, SHIFT * index : SHIFT * index + MIDDLE])
    assert shared.middle.data_ptr() == inner.data_ptr()
    whole = shared.of(slice(None))
    assert torch.equal(shared.of(slice(1, 3)), whole[1:3])
    assert torch.equal(shared.of(torch.tensor([2, 0])), whole[[2, 0]])


@every_profile
def test_several_recordings_together_are_each_as_alone(profile: Profile) -> None:
    cuts = [cut_of(seconds, profile, seed) for seed, seconds in enumerate((2.3, 0.01, 6.0, 18.0, 2.0))]
    together = images_of_many(cuts, profile)
    alone = [images(cut, profile) for cut in cuts]
    assert together.shape[0] == sum(len(cut.start_s) for cut in cuts)
    # A pixel may land on the neighbouring float16 value where the profile rounds.
    off = (together - torch.cat(alone)).abs()
    assert (off > TOLERANCE).float().mean() <= (1e-3 if profile.image_float16 else 0.0)
    assert off.max() <= (3e-3 if profile.image_float16 else TOLERANCE)


@every_profile
def test_one_recording_among_many_is_the_only_one(profile: Profile) -> None:
    cut = cut_of(1.0, profile)
    assert torch.equal(images_of_many([cut], profile), images(cut, profile))


@every_profile
@pytest.mark.parametrize("exponent", [-30, -10, -3])
def test_almost_silent_recordings(profile: Profile, exponent: int) -> None:
    samples = cough_like(3.2, 16000, seed=2) * np.float32(10.0**exponent)
    cut = cut_segments(waveform(torch.from_numpy(samples), 16000, profile), profile)
    assert_same_images(images(cut, profile)[None].numpy(), reference(samples, 16000, profile.name))


@every_profile
def test_one_click_in_silence_and_clipped_noise(profile: Profile) -> None:
    click = np.zeros((1, 100_000), np.float32)
    click[0, 31_990] = 1.0
    clipped = np.clip(cough_like(4.1, 16000, seed=4) * 50, -1, 1).astype(np.float32)
    for samples in (click, clipped):
        cut = cut_segments(waveform(torch.from_numpy(samples), 16000, profile), profile)
        assert_same_images(images(cut, profile)[None].numpy(), reference(samples, 16000, profile.name))


def test_what_a_caller_differentiates_or_changes_is_an_ordinary_tensor() -> None:
    profile = profile_named("documented")
    found = images(cut_of(2.2, profile), profile)
    assert not found.is_inference()
    assert not scaled_images(cut_of(2.2, profile)).is_inference()
    assert found.is_contiguous()


def test_the_steps_stay_on_the_waveforms_device() -> None:
    # "meta" computes nothing, but refuses tensors of two devices as a GPU does.
    cut = cut_of(9.0, profile_named("training"))
    there = letterboxed(scaled_images(dataclasses.replace(cut, padded=cut.padded.to("meta"))))
    assert there.device.type == "meta"
    assert there.shape == (15, 224, 224)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@every_profile
def test_a_gpu_computes_the_same_within_its_bounds(profile: Profile) -> None:
    cuts = [cut_of(2.3, profile), cut_of(11.0, profile, seed=1)]
    expected = torch.cat([images(cut, profile) for cut in cuts])
    there = [dataclasses.replace(cut, padded=cut.padded.to("cuda")) for cut in cuts]
    for found in (images_of_many(there, profile), torch.cat([images(cut, profile) for cut in there])):
        off = (found.cpu() - expected).abs() * 2 * max(IMAGENET_STD)  # in the scale of [-1, 1]
        assert off.mean() <= 1e-4
        assert off.max() <= 2e-2
