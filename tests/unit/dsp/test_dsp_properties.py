"""What holds for every recording, tried on generated ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp
from torch import Tensor

from tests.support.recordings import cough_like, cough_like_samples
from tussis.shared.dsp.constants import HOP_SAMPLES, IMAGENET_MEAN, IMAGENET_STD, MAX_SEGMENTS, SEGMENT_SAMPLES
from tussis.shared.dsp.images import images, letterboxed, scaled_images
from tussis.shared.dsp.profiles import PROFILES, Normalise, Profile, Tail
from tussis.shared.dsp.recording import cut_recording
from tussis.shared.dsp.segments import cut_segments

Floats = npt.NDArray[np.float32]

# The same examples on every run: a failure here is a fact about the code, not about the day.
repeatable = settings(derandomize=True, deadline=None, max_examples=40)
lengths = st.one_of(
    st.integers(1, 320_000),
    st.builds(lambda hops, off: max(1, hops * HOP_SAMPLES + off), st.integers(0, 40), st.integers(-2, 2)),
)
profiles = st.sampled_from(list(PROFILES.values()))
peak_profiles = st.sampled_from([p for p in PROFILES.values() if p.normalise is Normalise.PEAK])
rates = st.sampled_from([8000, 11025, 16000, 22050, 44100, 47999, 48000])
any_samples = stnp.arrays(
    np.float32,
    stnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=64),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)


def tensors(samples: Floats, rate: int, profile: Profile) -> Tensor:
    return images(cut_recording(torch.from_numpy(samples), rate, profile), profile)


@settings(repeatable, max_examples=300)
@given(lengths, profiles)
def test_segments_are_counted_and_placed_by_the_formula(length: int, profile: Profile) -> None:
    wave = torch.arange(length, dtype=torch.float32) + 1
    cut = cut_segments(wave, profile)

    if profile.tail is Tail.PAD:
        total = sum(1 for start in range(0, length, HOP_SAMPLES) if start < length)
    else:
        total = max(1, sum(1 for start in range(0, length, HOP_SAMPLES) if start + SEGMENT_SAMPLES <= length))
    kept = min(total, MAX_SEGMENTS)
    last_end = (kept - 1) * HOP_SAMPLES + SEGMENT_SAMPLES

    assert cut.num_segments_total == total
    assert cut.windows.shape == (kept, SEGMENT_SAMPLES)
    assert cut.start_s == tuple(index * 0.5 for index in range(kept))
    assert cut.end_s == tuple(index * 0.5 + 2.0 for index in range(kept))
    assert cut.duration_s == length / 16000
    assert cut.analyzed_s == min(length, last_end) / 16000
    assert cut.truncated == (total > MAX_SEGMENTS and length > last_end)
    for index, window in enumerate(cut.windows):
        piece = wave[index * HOP_SAMPLES : index * HOP_SAMPLES + SEGMENT_SAMPLES]
        assert torch.equal(window[: len(piece)], piece)
        assert not window[len(piece) :].any()


@settings(repeatable, max_examples=100)
@given(st.integers(1, 400_000))
def test_padding_the_tail_leaves_nothing_unheard_up_to_the_cap(length: int) -> None:
    cut = cut_segments(torch.ones(length), PROFILES["documented"])
    assert cut.truncated == (length > 280_000)
    assert cut.truncated == (cut.analyzed_s < cut.duration_s)


@settings(repeatable, max_examples=30)
@given(st.integers(-100, 100), peak_profiles, rates)
def test_peak_profiles_do_not_hear_the_level(exponent: int, profile: Profile, rate: int) -> None:
    # Powers of two change no mantissa, so nothing at all may change. 2 ** -100 leaves no denormals here.
    samples = cough_like(0.6, rate, channels=2, seed=exponent + 200)
    samples[np.abs(samples) < 1e-7] = 0
    louder = np.ldexp(samples, exponent)
    assert np.isfinite(louder).all()
    assert torch.equal(tensors(louder, rate, profile), tensors(samples, rate, profile))


@settings(repeatable, max_examples=20)
@given(st.floats(1e-3, 1.0), peak_profiles)
def test_any_gain_moves_peak_profiles_by_rounding_only(gain: float, profile: Profile) -> None:
    samples = cough_like(1.0, 16000, seed=3)
    difference = (tensors(samples * np.float32(gain), 16000, profile) - tensors(samples, 16000, profile)).abs()
    # Two roundings before the filter: the contract's bounds for "any other arithmetic", in ImageNet's scale.
    assert difference.mean() <= 1e-4
    assert difference.max() <= 2e-2 / (2 * min(IMAGENET_STD))


@settings(repeatable, max_examples=20)
@given(st.integers(1, 40_000), peak_profiles, rates)
def test_mono_is_duplicated_stereo(length: int, profile: Profile, rate: int) -> None:
    mono = cough_like_samples(length, rate, seed=length)
    assert torch.equal(tensors(np.concatenate([mono, mono]), rate, profile), tensors(mono, rate, profile))


@settings(repeatable, max_examples=20)
@given(st.integers(1, 40_000), peak_profiles)
def test_the_order_of_two_channels_does_not_matter(length: int, profile: Profile) -> None:
    stereo = cough_like_samples(length, 16000, channels=2, seed=length)
    assert torch.equal(tensors(stereo[::-1].copy(), 16000, profile), tensors(stereo, 16000, profile))


@settings(repeatable, max_examples=100)
@given(any_samples, peak_profiles, rates)
def test_finite_samples_give_finite_images_in_range(samples: Floats, profile: Profile, rate: int) -> None:
    found = tensors(samples, rate, profile)
    assert torch.isfinite(found).all()
    for channel, (mean, std) in enumerate(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)):
        assert found[:, channel].min() >= (0 - mean) / std - 1e-5
        assert found[:, channel].max() <= (1 - mean) / std + 1e-5


@settings(repeatable, max_examples=60)
@given(stnp.arrays(np.float32, st.tuples(st.just(1), st.integers(1, 64)), elements=st.floats(-2, 2, width=32)), rates)
def test_legacy_samples_give_finite_images(samples: Floats, rate: int) -> None:
    assert torch.isfinite(tensors(samples, rate, PROFILES["legacy"])).all()


@settings(repeatable, max_examples=15)
@given(st.lists(st.floats(-4, 0), min_size=3, max_size=6), profiles)
def test_a_segments_image_depends_on_its_own_window_only(levels: list[float], profile: Profile) -> None:
    pieces = [torch.from_numpy(cough_like(1.1, 16000, seed=i)[0]) * 10**level for i, level in enumerate(levels)]
    cut = cut_segments(torch.cat(pieces), profile)
    together = images(cut, profile)
    assert together.shape[0] == len(cut.windows) > 1
    for window, image in zip(cut.windows, together, strict=True):
        alone = images(cut_segments(window, PROFILES["training"]), profile)
        assert (alone[0] - image).abs().max() <= 1e-5


@settings(repeatable, max_examples=15)
@given(st.integers(0, 1000), st.floats(-3, 0))
def test_the_image_before_imagenet_is_in_range_with_its_margins(seed: int, level: float) -> None:
    window = torch.from_numpy(cough_like(2.0, 16000, seed=seed)[0]) * 10**level
    plain = letterboxed(scaled_images(cut_segments(window, PROFILES["training"])))
    assert plain.shape == (1, 224, 224)
    assert plain.abs().max() <= 1 + 1e-6
    assert (plain[:, :23] == -1).all()
    assert (plain[:, -23:] == -1).all()
    assert (plain[:, 23:-23] > -1).any()
