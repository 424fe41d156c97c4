"""Clips are the samples of the recording, however the decoder divides it into blocks."""

from __future__ import annotations

import tempfile
import wave
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tussis.worker.export.clip_files import ClipFiles, ClipSpan, pcm_16

RATE = 1_000
LENGTH = 400


@given(
    st.integers(1, 3),
    st.lists(st.integers(0, LENGTH), max_size=6),
    st.lists(st.tuples(st.integers(-50, LENGTH + 50), st.integers(1, LENGTH + 50)), min_size=1, max_size=4),
)
def test_a_clip_is_the_slice_of_the_recording(channels: int, cuts: list[int], spans: list[tuple[int, int]]) -> None:
    recording = np.arange(channels * LENGTH, dtype=np.float32).reshape(channels, LENGTH) / np.float32(2**15)

    with tempfile.TemporaryDirectory() as folder:
        wanted = {
            Path(folder, f"{index}.wav"): ClipSpan(first / RATE, (first + length) / RATE)
            for index, (first, length) in enumerate(spans)
        }
        files = ClipFiles(wanted, RATE, channels)
        for begin, end in pairwise(sorted({0, *cuts, LENGTH})):
            files.add(recording[:, begin:end])
        files.close()

        for (first, length), path in zip(spans, wanted, strict=True):
            expected = recording[:, max(0, first) : max(0, first + length)].T * 2**15
            assert path.exists() == (len(expected) > 0)
            if path.exists():
                with wave.open(str(path)) as clip:
                    found = np.frombuffer(clip.readframes(LENGTH), "<i2").reshape(-1, channels)
                    assert (clip.getframerate(), clip.getnchannels(), clip.getsampwidth()) == (RATE, channels, 2)
                    assert clip.getnframes() == len(expected)
                np.testing.assert_array_equal(found, expected)


def test_every_16_bit_sample_keeps_its_value() -> None:
    every = np.arange(-(2**15), 2**15, dtype=np.int16)

    np.testing.assert_array_equal(pcm_16(every[None].astype(np.float32) / np.float32(2**15))[:, 0], every)


@pytest.mark.parametrize(
    ("sample", "value"), [(1.0, 32767), (1.5, 32767), (-1.0, -32768), (-7.0, -32768), (3e38, 32767), (0.0, 0)]
)
def test_a_sample_above_full_scale_is_clipped(sample: float, value: int) -> None:
    assert pcm_16(np.array([[sample]], np.float32)).tolist() == [[value]]
