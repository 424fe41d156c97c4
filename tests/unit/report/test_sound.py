"""The pictures and the WAV of a recording."""

from __future__ import annotations

import io
import wave

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support.recordings import cough_like
from tussis.shared.coverage import Coverage
from tussis.shared.dsp.constants import HOP_SECONDS, IMAGENET_MEAN, IMAGENET_STD, MARGIN_ROWS, SAMPLE_RATE
from tussis.shared.dsp.images import images
from tussis.shared.dsp.profiles import profile_named
from tussis.shared.dsp.recording import Waveform
from tussis.worker.report.sound import MEL_COLUMNS, WAVE_COLUMNS, mel_strip, sound_of

PROFILE = profile_named("documented")


def waveform(seconds: float) -> Waveform:
    samples = torch.from_numpy(cough_like(seconds, SAMPLE_RATE)[0])
    return Waveform(samples / samples.abs().max(), PROFILE)


def palette_indexes(png: bytes) -> np.ndarray:
    picture = Image.open(io.BytesIO(png))
    assert picture.mode == "P"
    return np.asarray(picture)


@pytest.mark.parametrize("seconds", [0.2, 2.0, 3.3, 10.0, 16.0, 17.5])
def test_the_mel_image_is_the_model_s(seconds: float) -> None:
    """Each column at a time has the pixels of an image that the network gets there."""
    recording = waveform(seconds)
    stack = images(recording.bag(0), PROFILE).numpy()
    sound = sound_of(recording, Coverage.HEAD, with_wav=False)
    shown = palette_indexes(sound.mel_png)

    span = (len(stack) - 1) * HOP_SECONDS + 2
    assert sound.span_s == span
    assert shown.shape == (178, round(span * 112))
    assert sound.mel_column_s == 2 / 224
    assert not sound.mel_reduced
    plain = stack[:, 0, MARGIN_ROWS:-MARGIN_ROWS] * IMAGENET_STD[0] + IMAGENET_MEAN[0]
    levels = np.rint(plain * 255)[:, ::-1]
    for first in range(0, shown.shape[1], 56):  # half a second
        # The tile that starts every two seconds; behind the last one, the last image.
        index = min(first // 224 * 4, len(stack) - 1)
        if first // 56 - index >= 4 or first // 224 * 4 > len(stack) - 1:
            index = len(stack) - 1
        at = first - index * 56
        np.testing.assert_array_equal(shown[:, first : first + 56], levels[index][:, at : at + 56])


def test_a_silent_recording_has_a_picture() -> None:
    sound = sound_of(Waveform(torch.zeros(SAMPLE_RATE), PROFILE), Coverage.HEAD, with_wav=True)

    assert set(sound.envelope) == {(0.0, 0.0)}
    assert palette_indexes(sound.mel_png).max() == 0


def test_a_long_recording_is_reduced() -> None:
    recording = waveform(50.0)
    sound = sound_of(recording, Coverage.FULL, with_wav=False)
    shown = palette_indexes(sound.mel_png)

    assert sound.mel_reduced
    assert sound.span_s == 51.5
    assert len(sound.envelope) <= WAVE_COLUMNS
    assert shown.shape[1] <= MEL_COLUMNS
    assert len(sound.envelope) * sound.envelope_column_s == pytest.approx(sound.span_s, abs=sound.envelope_column_s)
    assert shown.shape[1] * sound.mel_column_s == pytest.approx(sound.span_s, abs=sound.mel_column_s)
    # Column 0 is the mean of the first columns of the first image.
    each = round(sound.mel_column_s * 112)
    first = mel_strip(images(recording.bag(0), PROFILE).numpy(), whole=False)[:, :each].mean(axis=1)
    np.testing.assert_allclose(shown[:, 0], first * 255, atol=0.51)


def test_the_head_of_a_long_recording_ends_where_the_analysis_does() -> None:
    sound = sound_of(waveform(60.0), Coverage.HEAD, with_wav=False)

    assert (sound.span_s, sound.duration_s) == (17.5, 60.0)


@settings(max_examples=15)
@given(st.integers(1, 60 * SAMPLE_RATE))
def test_the_envelope_has_each_sample(length: int) -> None:
    """For any length, the columns have the extremes of the filtered bags at their times."""
    ramp = torch.linspace(-1, 1, length) * (1 - 2 * (torch.arange(length) % 2))
    recording = Waveform(ramp, PROFILE)
    sound = sound_of(recording, Coverage.FULL, with_wav=False)

    samples = round(sound.span_s * SAMPLE_RATE)
    each = round(sound.envelope_column_s * SAMPLE_RATE)
    assert len(sound.envelope) == -(-samples // each)
    filtered = np.zeros(samples, np.float32)
    for index in range(recording.num_bags):
        padded = recording.bag(index).padded.numpy()
        filtered[index * 256_000 : index * 256_000 + len(padded)] = padded
    columns = [filtered[first : first + each] for first in range(0, samples, each)]
    low, high = zip(*sound.envelope, strict=True)
    np.testing.assert_allclose(low, [column.min() for column in columns], atol=1e-6)
    np.testing.assert_allclose(high, [column.max() for column in columns], atol=1e-6)


def test_the_player_has_the_whole_recording() -> None:
    recording = waveform(20.3)
    sound = sound_of(recording, Coverage.HEAD, with_wav=True)

    assert sound.wav is not None
    with wave.open(io.BytesIO(sound.wav)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (SAMPLE_RATE, 1, 2)
        heard = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
    np.testing.assert_allclose(heard, recording.samples.numpy(), atol=1 / 32767)
    assert sound_of(recording, Coverage.HEAD, with_wav=False).wav is None
