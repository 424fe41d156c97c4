"""A recording that is too long to be decoded whole: mixed and resampled block by block, and still the reference's."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final
from unittest import mock

import numpy as np
import pytest

from tests.support.encoding import encoded, interleaved, wav
from tests.support.processes import ROOT
from tests.support.recordings import cough_like, quantised
from tests.support.reference import assert_close_plain, reference
from tussis.shared.dsp import resampling, streaming
from tussis.shared.dsp.images import letterboxed, scaled_images
from tussis.shared.dsp.profiles import Decoder, profile_named
from tussis.shared.errors import NonFiniteSamples, TooLong
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits
from tussis.worker.audio.samples import TICK_SECONDS
from tussis.worker.pipeline.prepare import waveform_of

#: Nothing is decoded whole.
STREAMED: Final = Limits(whole_bytes=0)


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of two to four seconds, so that a recording of a minute has many borders."""
    monkeypatch.setattr(resampling, "BLOCK_SECONDS", 2)
    monkeypatch.setattr(streaming, "BLOCK_SECONDS", 2)
    monkeypatch.setattr(streaming, "_GROWTH_SAMPLES", 50_000)


@pytest.mark.parametrize("name", ["documented", "training"])
@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (48000, 2), (44100, 1), (11025, 3)])
def test_every_bag_is_the_reference_s_across_the_borders_of_blocks(rate: int, channels: int, name: str) -> None:
    integers = quantised(cough_like(41.3, rate, channels=channels) * np.float32(0.3), 2)
    data = wav(interleaved(integers), channels=channels, rate_hz=rate)
    whole, streamed = decode(data, Limits()), decode(data, STREAMED)
    assert (whole.streamed, streamed.streamed) == (False, True)
    assert streamed.peak == float(np.abs(whole.samples).max())
    assert streamed.quality == whole.quality
    assert streamed.duration_s == whole.duration_s

    waveform = waveform_of(streamed, profile_named(name))

    for index in range(waveform.num_bags):
        cut, expected = waveform.bag(index), reference(whole.samples, rate, name, bag=index)
        assert cut.start_s == expected.start_s
        assert cut.num_segments_total == expected.num_segments_total
        assert_close_plain(letterboxed(scaled_images(cut)).numpy(), expected)


def test_a_compressed_recording_is_streamed_too() -> None:
    data = encoded(cough_like(20.0, 48000), 48000, "ogg", "libopus")
    whole, streamed = decode(data, Limits()), decode(data, STREAMED)
    one, other = (waveform_of(audio, profile_named("training")) for audio in (whole, streamed))
    for index in range(one.num_bags):
        assert (one.bag(index).padded - other.bag(index).padded).abs().max() <= 1e-6


def test_it_is_streamed_from_the_first_byte_beyond_the_limit() -> None:
    data = wav(bytes(2 * 16_000), rate_hz=16000)
    assert not decode(data, Limits(whole_bytes=4 * 16_000)).streamed
    assert decode(data, Limits(whole_bytes=4 * 16_000 - 1)).streamed


def test_silence_stays_silence() -> None:
    waveform = waveform_of(decode(wav(bytes(2 * 48_000)), STREAMED), profile_named("documented"))
    assert not waveform.bag(0).padded.any()


def test_the_profile_legacy_refuses_it_by_name() -> None:
    data = wav(bytes(2 * 16_000), rate_hz=16000)
    with pytest.raises(TooLong, match=r"legacy.*another profile"):
        decode(data, STREAMED, Decoder.PYDUB)
    with pytest.raises(TooLong, match=r"legacy.*another profile"):
        decode(encoded(cough_like(2.0, 48000), 48000, "ogg", "libopus"), STREAMED, Decoder.PYDUB)


def test_the_sum_of_enormous_channels_is_refused() -> None:
    samples = np.full((2, 48_000), 3e38, np.float32)
    data = wav(interleaved(samples), tag=3, channels=2, rate_hz=16000, bits=32)
    with pytest.raises(NonFiniteSamples):
        waveform_of(decode(data, STREAMED), profile_named("training"))


def test_every_minute_of_audio_is_a_tick_that_may_end_it() -> None:
    data = wav(bytes(2 * 8_000 * 200), rate_hz=8000)
    tick = mock.Mock()
    decode(data, dataclasses.replace(STREAMED), tick=tick)
    assert 200 // (2 * TICK_SECONDS) <= tick.call_count <= 200 // TICK_SECONDS

    class Enough(Exception):
        pass

    tick.side_effect = Enough
    with pytest.raises(Enough):
        decode(data, STREAMED, tick=tick)


MEASURE: Final = """
import json, sys
from pathlib import Path
import torch
from tests.support.memory import peak_bytes
from tussis.shared.dsp.profiles import profile_named
from tussis.shared.dsp.images import images
from tussis.worker.audio.limits import Limits
from tussis.worker.pipeline.prepare import read_recording

profile = profile_named("documented")
def run(path):
    audio, waveform = read_recording(Path(path).read_bytes(), profile, Limits())
    for index in (0, waveform.num_bags // 2, waveform.num_bags - 1):
        images(waveform.bag(index), profile)
    return audio.duration_s, waveform.num_bags

run(sys.argv[1])
before = peak_bytes()
print(json.dumps([*run(sys.argv[2]), peak_bytes() - before]))
"""


@pytest.mark.acceptance
@pytest.mark.parametrize("kind", ["flac", "wav"])
def test_two_hours_need_a_gigabyte_at_most(kind: str, pack: Path, tmp_path: Path) -> None:
    """Given two hours, decoded in a fresh process, then the peak of its memory grows by less than 1 GB."""
    if kind == "wav":
        data = wav(np.tile(quantised(cough_like(60.0, 16000), 2)[0], 120).tobytes(), rate_hz=16000)
    else:
        data = (pack / "adversarial/silence_2h_8k.flac").read_bytes()
    for name, content in (("warm-up", wav(bytes(64_000))), ("two-hours", data)):
        (tmp_path / name).write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path / "warm-up", tmp_path / "two-hours"],
        capture_output=True, text=True, check=True, timeout=400, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    seconds, bags, grown = json.loads(done.stdout)
    assert seconds == pytest.approx(7200, abs=0.1)
    assert bags == 450
    assert grown < 1e9
