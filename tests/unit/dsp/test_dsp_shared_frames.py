"""Frames that segments share are computed once: every image is still that of one transform call for its segment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.recordings import cough_like, cough_like_samples
from tests.support.reference import TOLERANCE, assert_same_images, assert_same_plain, reference
from tussis.shared.dsp import images as images_module
from tussis.shared.dsp.constants import (
    CONTENT_ROWS,
    FRAMES,
    HOP_SAMPLES,
    IMAGE_SIZE,
    IMAGENET_STD,
    MEL_BANDS,
    SEGMENT_SAMPLES,
)
from tussis.shared.dsp.frames import EDGE, MIDDLE, SHIFT, SharedFrames, filter_bank, mel_power, segments_in
from tussis.shared.dsp.images import images, images_of_many, letterboxed, scaled_images
from tussis.shared.dsp.profiles import PROFILES, Profile, profile_named
from tussis.shared.dsp.recording import cut_recording
from tussis.shared.dsp.segments import Cut, cut_segments

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
    cut = cut_recording(torch.from_numpy(samples), 16000, profile)
    assert_same_plain(letterboxed(scaled_images(cut)).numpy(), expected)
    assert_same_images(images(cut, profile)[None].numpy(), expected)


@pytest.mark.parametrize("hops", [0, 1, 2, 3, 4, 7, 30, 31])
def test_each_frame_is_the_segments_own(hops: int) -> None:
    padded = torch.from_numpy(np.random.default_rng(hops).normal(0, 0.1, SEGMENT_SAMPLES + hops * HOP_SAMPLES)).float()
    assert segments_in(padded) == hops + 1
    shared = mel_power(padded, hops + 1, filter_bank(padded.device))
    assert shared.segments == hops + 1
    assert shared.values.shape == (2 * EDGE * (hops + 1) + MIDDLE + SHIFT * hops, MEL_BANDS)
    found = shared.of(slice(None))
    windows = padded.unfold(0, SEGMENT_SAMPLES, HOP_SAMPLES)
    one_call = torchaudio.transforms.MelSpectrogram(
        16000, n_fft=1024, hop_length=160, f_min=50.0, f_max=4000.0, n_mels=MEL_BANDS
    )
    for window, power in zip(windows, found, strict=True):
        assert power.shape == (FRAMES, MEL_BANDS)
        torch.testing.assert_close(power.T, one_call(window), rtol=1e-3, atol=1e-6)


@pytest.mark.skipif(not torch._C.has_mkl, reason="torch has no sparse products here")
@pytest.mark.parametrize("segments", [1, 3])
def test_sparse_weights_sum_as_all_of_them_do(segments: int) -> None:
    bank = filter_bank(torch.device("cpu"))
    dense = replace(bank, weights=bank.weights.to_dense())
    assert bank.weights.layout is torch.sparse_csr
    assert dense.weights.shape == (MEL_BANDS, bank.bins)
    assert (dense.weights > 0).sum(dim=0).max() == 2
    padded = torch.from_numpy(cough_like(2.0 + 0.5 * (segments - 1), 16000)[0])
    found, expected = (mel_power(padded, segments, each).values for each in (bank, dense))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("segments", [1, 3])
def test_decibels_scale_and_floor_round_as_those_of_one_segment(segments: int) -> None:
    padded = torch.from_numpy(cough_like(2.0 + 0.5 * (segments - 1), 16000)[0]) * 0.3
    padded[:20_000] *= 1e-7  # so that a part lies on its floor
    power = mel_power(padded, segments, filter_bank(padded.device))
    to_db = torchaudio.transforms.AmplitudeToDB(top_db=80.0)
    expected = torch.stack([to_db(one.T[None])[0] for one in power.of(slice(None)).clone()])
    expected = ((expected + 80.0) / 80.0).clamp(0.0, 1.0) * 2.0 - 1.0

    db = images_module.decibels(power)
    peaks = db.peaks()
    for out in (torch.empty(db.values.shape), db.values):
        plain = images_module.scaled(SharedFrames(db.values.clone(), segments), out)
        found = images_module.floored(plain.of(slice(None)), peaks.of(slice(None)).clone())
        assert torch.equal(found.mT, expected)
        assert ((found > -1) & (found == found.amin(dim=(1, 2), keepdim=True))).float().mean() > 0.1


@pytest.mark.parametrize("segments", [1, 3])
def test_the_stretch_is_that_of_one_call(segments: int) -> None:
    plain = torch.rand(segments, MEL_BANDS, FRAMES, generator=torch.Generator().manual_seed(1)) * 2 - 1
    plain[:, 40:90, 30:120] = -0.7312345  # a part on its floor
    size = (CONTENT_ROWS, IMAGE_SIZE)
    expected = torch.nn.functional.interpolate(plain[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    found = images_module.stretched(plain.mT.contiguous())
    assert found.is_contiguous()
    # Another processor's instructions for channels may round otherwise, once.
    assert (found - expected).abs().max() <= 1.2e-7


def test_without_mkl_the_weights_are_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    weights = filter_bank.__wrapped__(torch.device("cpu")).weights
    assert torch.equal(weights, filter_bank(torch.device("cpu")).weights.to_dense())
    assert weights.layout is torch.strided


@every_profile
def test_the_trace_of_one_segments_steps_is_those_steps(profile: Profile) -> None:
    padded = torch.from_numpy(cough_like(2.0, 16000, seed=3)[0])
    bank = filter_bank(padded.device)
    for level in (0.0, 1e-6, 0.1, 1.0):
        # What a trace kept of its example, or of the call before, would show here.
        taken, traced = torch.empty(2, 1, 3, 224, 224)
        images_module._write(taken, level * padded, 1, None, bank, profile.image_float16)
        images_module._traced(profile.image_float16)(traced, level * padded, bank.weights)
        assert torch.equal(traced, taken)


def test_threads_may_take_the_traced_steps_at_once() -> None:
    profile = profile_named("training")
    cuts = [cut_of(1.5, profile, seed) for seed in range(4)]
    expected = [images(cut, profile) for cut in cuts]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: [images(cut, profile) for cut in cuts], range(16)):
            assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_the_parts_of_shared_frames_are_views_in_their_places() -> None:
    segments = 3
    values = torch.arange(2 * (2 * EDGE * segments + MIDDLE + SHIFT * (segments - 1))).view(2, -1).T
    shared = SharedFrames(values, segments)
    inner = values[EDGE * segments :]
    assert shared.first[1, :, 0].tolist() == [4, 5, 6, 7]
    assert torch.equal(shared.last[0], values[-12:-8])
    for index in range(segments):
        assert torch.equal(shared.middle[index], inner[SHIFT * index : SHIFT * index + MIDDLE])
    assert shared.middle.data_ptr() == inner.data_ptr()
    whole = shared.of(slice(None))
    assert torch.equal(shared.of(slice(1, 3)), whole[1:3])
    assert torch.equal(shared.of(torch.tensor([2, 0])), whole[[2, 0]])
    assert torch.equal(shared.peaks().of(slice(None)), whole.amax(dim=2, keepdim=True))


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
    cut = cut_recording(torch.from_numpy(samples), 16000, profile)
    assert_same_images(images(cut, profile)[None].numpy(), reference(samples, 16000, profile.name))


@every_profile
def test_one_click_in_silence_and_clipped_noise(profile: Profile) -> None:
    click = np.zeros((1, 100_000), np.float32)
    click[0, 31_990] = 1.0
    clipped = np.clip(cough_like(4.1, 16000, seed=4) * 50, -1, 1).astype(np.float32)
    for samples in (click, clipped):
        cut = cut_recording(torch.from_numpy(samples), 16000, profile)
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
    there = letterboxed(scaled_images(replace(cut, padded=cut.padded.to("meta"))))
    assert there.device.type == "meta"
    assert there.shape == (15, 224, 224)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@every_profile
def test_a_gpu_computes_the_same_within_its_bounds(profile: Profile) -> None:
    cuts = [cut_of(2.3, profile), cut_of(11.0, profile, seed=1)]
    expected = torch.cat([images(cut, profile) for cut in cuts])
    there = [replace(cut, padded=cut.padded.to("cuda")) for cut in cuts]
    for found in (images_of_many(there, profile), torch.cat([images(cut, profile) for cut in there])):
        off = (found.cpu() - expected).abs() * 2 * max(IMAGENET_STD)  # in the scale of [-1, 1]
        assert off.mean() <= 1e-4
        assert off.max() <= 2e-2
