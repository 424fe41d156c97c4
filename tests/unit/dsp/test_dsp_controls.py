"""Negative controls: each mistake that the contract warns of is noticed by the comparison with the reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torchaudio
from torch import Tensor

from tests.support.recordings import cough_like
from tests.support.reference import assert_same_images, imagenet, reference
from tussis.shared.dsp import images as images_module
from tussis.shared.dsp import waveform as waveform_module
from tussis.shared.dsp.frames import EDGE, SHIFT, FilterBank, SharedFrames, mel_power
from tussis.shared.dsp.images import images, stretched
from tussis.shared.dsp.profiles import Profile, Tail, profile_named
from tussis.shared.dsp.recording import cut_recording
from tussis.shared.dsp.segments import cut_segments
from tussis.shared.dsp.waveform import unfiltered

Floats = npt.NDArray[np.float32]
RATE = 22050


@pytest.fixture(scope="module")
def samples() -> Floats:
    # Of several segments: one segment's steps are traced, and keep what they were.
    return cough_like(4.0, RATE, channels=2, seed=5)


def tensors(samples: Floats, profile: Profile) -> Tensor:
    return images(cut_recording(torch.from_numpy(samples), RATE, profile), profile)[None]


def assert_noticed(samples: Floats, profile: Profile, name: str) -> None:
    expected = reference(samples, RATE, name)
    with pytest.raises(AssertionError):
        assert_same_images(tensors(samples, profile).numpy(), expected)


@pytest.mark.parametrize("name", ["documented", "training"])
def test_the_right_path_passes(samples: Floats, name: str) -> None:
    assert_same_images(tensors(samples, profile_named(name)).numpy(), reference(samples, RATE, name))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("documented", replace(profile_named("documented"), highpass_hz=None)),
        ("documented", replace(profile_named("documented"), highpass_hz=60.0)),
        ("documented", replace(profile_named("documented"), tail=Tail.DROP)),
        ("documented", replace(profile_named("documented"), image_float16=True)),
        ("training", replace(profile_named("training"), highpass_hz=50.0)),
        ("training", replace(profile_named("training"), tail=Tail.PAD)),
        ("training", replace(profile_named("training"), image_float16=False)),
    ],
)
def test_a_wrong_field_of_the_profile(samples: Floats, name: str, wrong: Profile) -> None:
    assert_noticed(samples, wrong, name)


def edges_of_the_neighbours(padded: Tensor, segments: int, bank: FilterBank) -> SharedFrames:
    """Frames at a segment's start as if its recording went on there, not reflected."""
    power = RIGHT_POWER(padded, segments, bank)
    power.first[1:] = power.middle[:-1, SHIFT - EDGE : SHIFT]
    return power


def shared_floor(plain: Tensor, peaks: Tensor) -> Tensor:
    """What AmplitudeToDB does to a stack without a channel axis."""
    return RIGHT_FLOOR(plain, peaks.amax(dim=0, keepdim=True))


def no_floor(plain: Tensor, peaks: Tensor) -> Tensor:
    return plain


def rounded_after_imagenet(plain: Tensor, out: Tensor) -> None:
    RIGHT_IMAGENET(plain, out)
    out.copy_(out.half().float())


def corners_aligned(plain: Tensor) -> Tensor:
    channel = plain.mT[:, None]
    return torch.nn.functional.interpolate(channel, size=(178, 224), mode="bilinear", align_corners=True)[:, 0]


def one_row_lower(plain: Tensor) -> Tensor:
    return torch.roll(RIGHT_STRETCH(plain), 1, dims=1)


def relative_to_the_loudest(power: SharedFrames) -> SharedFrames:
    db = RIGHT_DECIBELS(power)
    return SharedFrames(db.values - db.values.max(), db.segments)


RIGHT_POWER = mel_power
RIGHT_IMAGENET = images_module.imagenet
RIGHT_STRETCH = stretched
RIGHT_DECIBELS = images_module.decibels
RIGHT_FLOOR = images_module.floored
RIGHT_NORMALISE = waveform_module.normalised


@pytest.mark.parametrize(
    ("step", "mistake"),
    [
        ("mel_power", edges_of_the_neighbours),
        ("floored", shared_floor),
        ("floored", no_floor),
        ("decibels", relative_to_the_loudest),
        ("stretched", corners_aligned),
        ("stretched", one_row_lower),
        ("imagenet", rounded_after_imagenet),
    ],
)
def test_a_mistake_in_the_image(
    samples: Floats,
    step: str,
    mistake: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(images_module, step, mistake)
    assert_noticed(samples, profile_named("documented"), "documented")


def peak_of_each_channel(samples: Tensor, profile: Profile) -> Tensor:
    return samples / samples.abs().amax(dim=1, keepdim=True)


def peak_of_the_downmix(samples: Tensor, profile: Profile) -> Tensor:
    return RIGHT_NORMALISE(samples.mean(dim=0, keepdim=True), profile)


def not_normalised(samples: Tensor, profile: Profile) -> Tensor:
    return samples


@pytest.mark.parametrize("mistake", [peak_of_each_channel, peak_of_the_downmix, not_normalised])
def test_a_mistake_in_the_level(
    samples: Floats,
    mistake: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waveform_module, "normalised", mistake)
    assert_noticed(samples, profile_named("documented"), "documented")


def test_filtering_each_segment_for_itself(samples: Floats) -> None:
    profile = profile_named("documented")
    windows = cut_segments(unfiltered(torch.from_numpy(samples), RATE, profile), profile).windows
    filtered = torchaudio.functional.highpass_biquad(windows, 16000, 50.0)
    found = torch.cat([images(cut_segments(window, profile_named("training")), profile) for window in filtered])
    with pytest.raises(AssertionError):
        assert_same_images(found[None].numpy(), reference(samples, RATE, "documented"))


@pytest.mark.parametrize(
    ("steps", "one_pixel_in", "verdict"), [(1, 1100, None), (1, 900, "of the pixels"), (2, 1100, "more than one")]
)
def test_what_rounding_to_float16_may_change(
    samples: Floats, steps: int, one_pixel_in: int, verdict: str | None
) -> None:
    expected = reference(samples, RATE, "training")
    rounded = expected.plain.astype(np.float16)
    stepped = rounded
    for _ in range(steps):
        stepped = np.nextafter(stepped, np.float16(0))
    # Only where a step is larger than the tolerance, so that it counts.
    places = np.flatnonzero(np.abs(rounded) > 0.1)
    places = places[:: max(1, len(places) // (rounded.size // one_pixel_in))][: rounded.size // one_pixel_in]
    moved = rounded.copy()
    moved.flat[places] = stepped.flat[places]
    tensor = np.stack([imagenet(image.astype(np.float32)) for image in moved])[None]
    if verdict is None:
        assert_same_images(tensor, expected)
    else:
        with pytest.raises(AssertionError, match=verdict):
            assert_same_images(tensor, expected)
