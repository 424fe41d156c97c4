"""The bags of a whole recording against the plain reference, for recordings that are decoded whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.recordings import cough_like, cough_like_samples
from tests.support.reference import assert_close_plain, assert_same_images, assert_same_plain, reference
from tussis.shared.dsp.constants import HOP_SAMPLES, MAX_SEGMENTS
from tussis.shared.dsp.images import images, letterboxed, scaled_images
from tussis.shared.dsp.profiles import PROFILES, profile_named
from tussis.shared.dsp.recording import Waveform, cut_recording
from tussis.shared.dsp.waveform import unfiltered


def waveform_of(samples: np.ndarray, rate: int, name: str) -> Waveform:
    profile = profile_named(name)
    return Waveform(unfiltered(torch.from_numpy(samples), rate, profile), profile)


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("seconds", [0.4, 2.0, 17.5, 33.2, 71.3])
def test_every_bag_is_the_reference_s(seconds: float, name: str) -> None:
    samples = cough_like(seconds, 22050, channels=1 if name == "legacy" else 2)
    waveform = waveform_of(samples, 22050, name)

    for index in range(waveform.num_bags):
        cut, expected = waveform.bag(index), reference(samples, 22050, name, bag=index)
        assert cut.start_s == expected.start_s
        assert cut.end_s == expected.end_s
        assert cut.num_segments_total == expected.num_segments_total == waveform.num_segments_total
        assert cut.truncated == expected.truncated
        assert cut.analyzed_s == expected.analyzed_s
        plain = letterboxed(scaled_images(cut)).numpy()
        if index > 0 and name == "documented":
            # The filter begins two seconds before the bag: other arithmetic, with rounding of 1e-7.
            assert_close_plain(plain, expected)
        else:
            assert_same_plain(plain, expected)
            assert_same_images(images(cut, waveform.profile).numpy()[None], expected)
    with pytest.raises(IndexError):
        waveform.bag(waveform.num_bags)


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("length", [1, 8_000, 279_999, 280_001, 290_000, 600_001])
def test_the_first_bag_is_the_head_to_the_last_bit(length: int, name: str) -> None:
    samples = cough_like_samples(length, 16000, seed=length)
    head = cut_recording(torch.from_numpy(samples), 16000, profile_named(name))
    assert torch.equal(waveform_of(samples, 16000, name).bag(0).padded, head.padded)


@given(st.integers(1, 40 * MAX_SEGMENTS * HOP_SAMPLES), st.sampled_from(sorted(PROFILES)))
@settings(derandomize=True, deadline=None, max_examples=60)
def test_the_bags_are_the_segments_of_the_whole_recording(length: int, name: str) -> None:
    waveform = Waveform(torch.zeros(length), profile_named(name))
    starts = [start for index in range(waveform.num_bags) for start in waveform.bag(index).start_s]
    assert starts == [0.5 * index for index in range(waveform.num_segments_total)]
    sizes = [len(waveform.bag(index).start_s) for index in range(waveform.num_bags)]
    assert sizes[:-1] == [MAX_SEGMENTS] * (waveform.num_bags - 1)
    assert 1 <= sizes[-1] <= MAX_SEGMENTS
    assert not waveform.bag(waveform.num_bags - 1).truncated


def test_a_divisor_is_the_normalisation() -> None:
    samples = cough_like(40.0, 16000) * np.float32(0.37)
    profile = profile_named("documented")
    peak = float(np.abs(samples).max())
    normalised = Waveform(torch.from_numpy(samples / np.float32(peak))[0], profile)
    streamed = Waveform(torch.from_numpy(samples.copy())[0], profile, divisor=peak)
    for index in range(normalised.num_bags):
        assert (normalised.bag(index).padded - streamed.bag(index).padded).abs().max() <= 1e-6
    assert np.array_equal(streamed.samples.numpy(), samples[0]), "the input was changed"
