"""From bytes to the detector's inputs: against the reference, over the formats of the pack."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from _pytest.mark.structures import ParameterSet

from tests.support.encoding import interleaved, wav
from tests.support.pack import Entry, listed
from tests.support.recordings import Floats, cough_like, quantised
from tests.support.reference import assert_same_images, from_integers, reference
from tussis.shared.dsp.images import images
from tussis.shared.dsp.profiles import PROFILES, profile_named
from tussis.shared.errors import CodecUnsupportedByProfile, NotAudio, ObjectTooLarge, TooLong
from tussis.shared.settings import load_settings
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits
from tussis.worker.pipeline.prepare import AudioFacts, batch_of_one, cut_audio, limits_of, prepare, whole_mask


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def stereo_wav(seconds: float = 2.7, rate: int = 22050) -> tuple[bytes, Floats]:
    integers = quantised(cough_like(seconds, rate, channels=2), 2)
    return wav(interleaved(integers), channels=2, rate_hz=rate), from_integers(integers, 16)


@pytest.mark.parametrize("name", ["documented", "training"])
def test_a_wav_file_becomes_the_references_tensors(name: str) -> None:
    data, samples = stereo_wav()
    expected = reference(samples, 22050, name)

    prepared = prepare(data, profile_named(name), Limits())

    assert_same_images(prepared.spectrograms, expected)
    assert np.array_equal(prepared.segment_mask, expected.segment_mask)
    assert prepared.segment_mask.dtype == np.bool_
    assert prepared.cut.start_s == expected.start_s
    assert prepared.cut.analyzed_s == expected.analyzed_s
    assert prepared.audio == AudioFacts(
        rate_hz=22050,
        channels=2,
        container="wav",
        codec="pcm_s16",
        decoder="soundfile",
        duration_s=samples.shape[1] / 22050,
        quality=prepared.audio.quality,
    )


def test_legacy_mixes_integers_and_takes_no_peak() -> None:
    left = quantised(cough_like(2.0, 16000, seed=1), 2)[0].astype(np.int64)
    right = quantised(cough_like(2.0, 16000, seed=2), 2)[0].astype(np.int64)
    data = wav(interleaved(np.stack([left, right]).astype(np.int16)), channels=2, rate_hz=16000)
    # pydub floors each half before it adds them.
    mixed = (left // 2 + right // 2) / 32768
    halves = decode(data, Limits(), profile_named("legacy").decoder).samples[0]
    assert np.abs(halves - mixed).max() <= 1 / 32768

    prepared = prepare(data, profile_named("legacy"), Limits())
    assert_same_images(prepared.spectrograms, reference(halves[None], 16000, "legacy"))
    assert prepared.audio.decoder == "pydub"
    assert prepared.audio.channels == 2


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("entry", listed("formats/"))
def test_every_format_of_the_pack(entry: Entry, name: str, pack: Path) -> None:
    profile = profile_named(name)
    data = (pack / entry.path).read_bytes()
    if name == "legacy" and entry.name == "wav_f64le_mono_16k.wav":
        with pytest.raises(CodecUnsupportedByProfile):
            prepare(data, profile, Limits())
        return
    audio = decode(data, Limits(), profile.decoder)
    before = audio.samples.copy()
    expected = reference(audio.samples, audio.rate_hz, name)

    # The pipeline's own steps.
    cut = cut_audio(audio, profile)
    spectrograms = batch_of_one(images(cut, profile))

    assert_same_images(spectrograms, expected)
    assert whole_mask(spectrograms).tolist() == [[True] * len(expected.start_s)]
    assert cut.start_s == expected.start_s
    assert cut.num_segments_total == expected.num_segments_total
    assert abs(cut.duration_s - audio.duration_s) <= 1 / 16000
    assert np.array_equal(audio.samples, before)


def decodable(folder: str) -> list[ParameterSet]:
    return [one for one in listed(folder) if not (isinstance(one.values[0], Entry) and one.values[0].error_class)]


@pytest.mark.parametrize("name", ["documented", "training"])
@pytest.mark.parametrize("entry", decodable("adversarial/"))
def test_every_adversarial_file_that_decodes(entry: Entry, name: str, pack: Path) -> None:
    profile = profile_named(name)
    audio = decode((pack / entry.path).read_bytes(), Limits(), profile.decoder)
    cut = cut_audio(audio, profile)
    assert_same_images(batch_of_one(images(cut, profile)), reference(audio.samples, audio.rate_hz, name))


def test_samples_that_may_not_be_written_to_are_taken_without_a_warning() -> None:
    data, _ = stereo_wav()
    audio = decode(data, Limits())
    locked = audio.samples.copy()
    locked.flags.writeable = False
    profile = profile_named("documented")
    again = cut_audio(dataclasses.replace(audio, samples=locked), profile)
    assert torch.equal(again.padded, cut_audio(audio, profile).padded)


def test_what_the_decoder_refuses_is_refused() -> None:
    data, _ = stereo_wav()
    with pytest.raises(NotAudio):
        prepare(b"no sound at all, only text" * 10, profile_named("documented"), Limits())
    with pytest.raises(ObjectTooLarge):
        prepare(data, profile_named("documented"), Limits(max_bytes=len(data) - 1))
    with pytest.raises(TooLong):
        prepare(data, profile_named("documented"), Limits(max_duration_s=1.0))


def test_the_limits_are_the_settings() -> None:
    assert limits_of(load_settings()) == Limits()
    settings = load_settings(max_bytes=1000, max_duration_s=2.0, min_rate_hz=5, max_rate_hz=6, max_channels=7)
    assert limits_of(settings) == dataclasses.replace(
        Limits(), max_bytes=1000, max_duration_s=2.0, min_rate_hz=5, max_rate_hz=6, max_channels=7
    )
