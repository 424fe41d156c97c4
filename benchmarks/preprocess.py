"""The cost of a recording from its waveform to the network's input: one transform call a segment against Tussis."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torchaudio
from torch import Tensor

from tussis.shared.dsp.constants import (
    CONTENT_ROWS,
    DYNAMIC_RANGE_DB,
    FFT_SAMPLES,
    FRAME_HOP_SAMPLES,
    IMAGE_SIZE,
    IMAGENET_MEAN,
    IMAGENET_STD,
    MARGIN_ROWS,
    MARGIN_VALUE,
    MAX_SEGMENTS,
    MEL_BANDS,
    MEL_HIGH_HZ,
    MEL_LOW_HZ,
    SAMPLE_RATE,
    SEGMENT_SAMPLES,
)
from tussis.shared.dsp.images import images
from tussis.shared.dsp.profiles import PROFILES, Profile, Tail
from tussis.shared.dsp.segments import Cut, cut_segments
from tussis.shared.settings import load_settings
from tussis.worker.audio.decode import decode
from tussis.worker.audio.samples import Audio
from tussis.worker.bench.material import NAMES, Workload, workloads
from tussis.worker.bench.measurements import Cell, Column, Measurements, TargetCheck, hardware
from tussis.worker.pipeline.prepare import cut_audio, limits_of

#: The least speed relative to one transform call for each segment, by the name of the workload.
TARGETS = {"2s": 3.0, "10s": 4.5}

_SEGMENTS, _QUICK_SEGMENTS = 160, 60
#: The least CPU seconds of one timing.
_LEAST_S, _QUICK_LEAST_S = 0.2, 0.05


@dataclass(frozen=True, slots=True)
class Compared:
    """CPU seconds a recording, as medians."""

    recordings: int
    segments: int
    """The number of segments of all recordings."""
    waveform_s: float
    """From decoded samples to segments at 16 kHz: normalise, downmix, resample, filter, cut. The same for both."""
    plain_s: float
    """From segments at 16 kHz to images, with one transform call for each segment."""
    shared_s: float
    """From segments at 16 kHz to images, in Tussis."""

    @property
    def ratio(self) -> float:
        """The speed of Tussis relative to the baseline, from the waveform at 16 kHz."""
        return self.plain_s / self.shared_s

    @property
    def ratio_from_samples(self) -> float:
        """The speed of Tussis relative to the baseline, from the decoded samples."""
        return (self.waveform_s + self.plain_s) / (self.waveform_s + self.shared_s)


class OneCallASegment:
    """The baseline: torchaudio's transforms, built once and called for every segment."""

    def __init__(self, profile: Profile) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchaudio warns about its mel bands
            self._mel = torchaudio.transforms.MelSpectrogram(
                sample_rate=SAMPLE_RATE,
                n_fft=FFT_SAMPLES,
                win_length=FFT_SAMPLES,
                hop_length=FRAME_HOP_SAMPLES,
                f_min=MEL_LOW_HZ,
                f_max=MEL_HIGH_HZ,
                n_mels=MEL_BANDS,
                power=2.0,
            )
        self._db = torchaudio.transforms.AmplitudeToDB(stype="power", top_db=DYNAMIC_RANGE_DB)
        self._mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
        self._std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
        self._float16 = profile.image_float16

    def images(self, cut: Cut) -> Tensor:
        """The images, float32 (S, 3, 224, 224), as :func:`tussis.shared.dsp.images.images` returns them."""
        return torch.stack([self._image(window) for window in cut.windows])

    def _image(self, window: Tensor) -> Tensor:
        db = self._db(self._mel(window[None]))
        image = ((db + DYNAMIC_RANGE_DB) / DYNAMIC_RANGE_DB).clamp(0.0, 1.0) * 2.0 - 1.0
        stretched = torch.nn.functional.interpolate(
            image[None], size=(CONTENT_ROWS, IMAGE_SIZE), mode="bilinear", align_corners=False
        )
        plain = torch.nn.functional.pad(stretched[0], (0, 0, MARGIN_ROWS, MARGIN_ROWS), value=MARGIN_VALUE)
        if self._float16:
            plain = plain.to(torch.float16).to(torch.float32)
        result: Tensor = ((plain.expand(3, -1, -1) + 1.0) / 2.0 - self._mean) / self._std
        return result


def compared(recordings: Sequence[Audio], profile: Profile, *, rounds: int, least_s: float) -> Compared:
    """Measure the baseline and Tussis in every round, on the calling thread. It must be torch's only thread.

    Args:
        recordings: at least one, decoded with the decoder of the profile.
        profile: the preprocessing rules.
        rounds: the number of rounds for the medians.
        least_s: the least CPU seconds of each timing in a round.
    """
    plain = OneCallASegment(profile)
    with torch.no_grad():
        # The allocator keeps the memory for the longest recording, as in a worker after such a recording.
        longest = _longest(profile)
        plain.images(longest)
        images(longest, profile)
        cuts = [cut_audio(audio, profile) for audio in recordings]
        ways: tuple[Callable[[], None], ...] = (
            lambda: _each(recordings, lambda audio: cut_audio(audio, profile)),
            lambda: _each(cuts, plain.images),
            lambda: _each(cuts, lambda cut: images(cut, profile)),
        )
        timings = [[_cpu_s(way, least_s) for way in ways] for _ in range(rounds)]
    waveform_s, plain_s, shared_s = (statistics.median(each) / len(recordings) for each in zip(*timings, strict=True))
    return Compared(len(recordings), sum(len(cut.start_s) for cut in cuts), waveform_s, plain_s, shared_s)


def measure(*, names: Sequence[str], rounds: int, quick: bool, recordings: Path | None, command: str) -> Measurements:
    """Measure every profile on every workload, with one thread.

    Raises :class:`TussisError`.
    """
    torch.set_num_threads(1)
    limits = limits_of(load_settings())
    made = workloads(names or NAMES, _QUICK_SEGMENTS if quick else _SEGMENTS, recordings)
    rows: list[tuple[Cell, ...]] = []
    verdicts = []
    for workload in made:
        for profile in PROFILES.values():
            audio = [decode(item.data, limits, profile.decoder) for item in workload.items]
            found = compared(audio, profile, rounds=rounds, least_s=_QUICK_LEAST_S if quick else _LEAST_S)
            rows.append(_row(workload, profile, found))
            if workload.name in TARGETS:
                what = f"{workload.name}, {profile.name}: times one call a segment"
                verdicts.append(TargetCheck(what, found.ratio, TARGETS[workload.name]))
    return Measurements(
        title="Preprocessing, from the waveform to the network's input, on one core",
        command=command,
        columns=(
            Column("recordings"),
            Column("profile"),
            Column("segments a recording", digits=1),
            Column("one call a segment", "ms", 2),
            Column("Tussis", "ms", 2),
            Column("a segment", "ms", 3),
            Column("times as fast", digits=1),
            Column("waveform", "ms", 2),
            Column("times as fast with it", digits=1),
        ),
        rows=tuple(rows),
        hardware=hardware(),
        notes=(
            *(workload.line() for workload in made),
            f"CPU time a recording on one thread, medians of {rounds} rounds in which both ways take turns. The"
            " waveform (decoded samples to segments at 16 kHz: normalise, downmix, resample, filter, cut) is the same"
            " either way.",
        ),
        verdicts=tuple(verdicts),
    )


def _row(workload: Workload, profile: Profile, found: Compared) -> tuple[Cell, ...]:
    segments = found.segments / found.recordings
    return (
        workload.name,
        profile.name,
        segments,
        found.plain_s * 1000,
        found.shared_s * 1000,
        found.shared_s * 1000 / segments,
        found.ratio,
        found.waveform_s * 1000,
        found.ratio_from_samples,
    )


def _longest(profile: Profile) -> Cut:
    hops = MAX_SEGMENTS - 1 if profile.tail is Tail.DROP else MAX_SEGMENTS
    generator = torch.Generator().manual_seed(0)
    return cut_segments(torch.randn(hops * SAMPLE_RATE // 2 + SEGMENT_SAMPLES, generator=generator) * 0.1, profile)


def _each(items: Sequence[object], work: Callable[..., object]) -> None:
    for item in items:
        work(item)


def _cpu_s(way: Callable[[], None], least_s: float) -> float:
    """The CPU seconds of one pass, measured over enough passes to take ``least_s``."""
    way()
    passes = 0
    start = time.process_time()
    while True:
        way()
        passes += 1
        spent = time.process_time() - start
        if spent >= least_s:
            return spent / passes
