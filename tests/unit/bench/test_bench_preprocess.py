"""The measurement of preprocessing compares two ways to the same images."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from benchmarks.preprocess import OneCallASegment, compared, measure
from tests.support.recordings import cough_like
from tussis.shared.dsp.images import images
from tussis.shared.dsp.profiles import PROFILES, Profile, profile_named
from tussis.shared.dsp.segments import cut_segments
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits
from tussis.worker.bench.material import wav


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_both_ways_give_the_same_images(profile: Profile) -> None:
    cut = cut_segments(torch.from_numpy(cough_like(3.7, 16000)[0]), profile)
    off = (OneCallASegment(profile).images(cut) - images(cut, profile)).abs()
    assert (off > 1e-5).float().mean() <= (1e-3 if profile.image_float16 else 0.0)


def test_times_are_a_recordings() -> None:
    profile = profile_named("documented")
    recordings = [decode(wav(seconds, seed=1), Limits(), profile.decoder) for seconds in (1.0, 3.0)]

    found = compared(recordings, profile, rounds=1, least_s=0.001)

    assert (found.recordings, found.segments) == (2, 2 + 6)
    assert 0 < found.shared_s < found.plain_s
    assert found.waveform_s > 0
    assert 1 < found.ratio_from_samples < found.ratio


def test_the_report_has_a_row_for_each_profile() -> None:
    report = measure(names=["2s"], rounds=1, quick=True, recordings=None, command="python -m benchmarks preprocess")

    assert [row[:3] for row in report.rows] == [
        ("2s", "documented", 4.0),
        ("2s", "training", 1.0),
        ("2s", "legacy", 4.0),
    ]
    assert [verdict.what for verdict in report.verdicts] == [
        f"2s, {name}: times one call a segment" for name in PROFILES
    ]
