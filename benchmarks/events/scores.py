"""The segment probabilities of the mixtures, computed once and kept in a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.events import mixtures
from benchmarks.events.mixtures import Mixture
from training import product
from training.events import Span
from training.pack import Wave
from training.product import askers
from tussis.shared.dsp import HOP_SAMPLES, HOP_SECONDS, MAX_SEGMENTS, SAMPLE_RATE, SEGMENT_SAMPLES, profile_named
from tussis.shared.dsp.highpass import highpassed
from tussis.shared.dsp.images import images
from tussis.shared.dsp.segments import Cut, segments_total
from tussis.shared.dsp.waveform import unfiltered
from tussis.worker.atomic import replace_file
from tussis.worker.detector.detector import Detector
from tussis.worker.detector.manifest import read_manifest


@dataclass(frozen=True, slots=True)
class Scored:
    """What a rule gets of a recording, and the true bouts."""

    starts: tuple[float, ...]
    """Start of each segment, seconds."""
    probabilities: tuple[float, ...]
    duration_s: float
    bouts: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Recordings to score: ``count`` mixtures of each split."""

    splits: tuple[str, ...]
    count: int
    seed: int


def scored(corpus: Corpus, model: Path, data: Path, cache: Path, processes: int) -> tuple[Scored, ...]:
    """The scores of a corpus. They are read from ``cache`` if model, pack and mixtures are the same as before."""
    file = cache / f"{'-'.join(corpus.splits)}-{_key(corpus, model, data)}.json"
    if not file.exists():
        made = [
            mixture
            for split in corpus.splits
            for mixture in mixtures.mixtures(mixtures.material(data, split), corpus.count, corpus.seed)
        ]
        cache.mkdir(parents=True, exist_ok=True)
        replace_file(file, json.dumps([_row(one) for one in _score(made, model, processes)]).encode())
    return tuple(
        Scored(
            tuple(HOP_SECONDS * index for index in range(len(row["probabilities"]))),
            tuple(row["probabilities"]),
            row["duration_s"],
            tuple((start, end) for start, end in row["bouts"]),
        )
        for row in json.loads(file.read_bytes())
    )


def _key(corpus: Corpus, model: Path, data: Path) -> str:
    parts = [
        read_manifest(model).sha256.encode(),
        (data / "manifest.csv").read_bytes(),
        *(Path(str(module.__file__)).read_bytes() for module in (mixtures, product)),
        Path(__file__).read_bytes(),
        repr(corpus).encode(),
    ]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]


def _score(made: Sequence[Mixture], model: Path, processes: int) -> list[Scored]:
    with askers(model, processes) as ask:
        probabilities = ask.each(_probabilities, [one.wave for one in made])
    return [
        Scored((), found, one.wave.shape[0] / SAMPLE_RATE, one.bouts)
        for one, found in zip(made, probabilities, strict=True)
    ]


def _row(one: Scored) -> dict[str, object]:
    return {"probabilities": one.probabilities, "duration_s": one.duration_s, "bouts": one.bouts}


def _probabilities(detector: Detector, wave: Wave) -> tuple[float, ...]:
    """The probability of every segment to the end of the recording, in consecutive bags of 32 segments."""
    profile = profile_named(detector.manifest.profile)
    found: list[float] = []
    with torch.no_grad():
        filtered = unfiltered(torch.from_numpy(wave)[None], SAMPLE_RATE, profile)
        if profile.highpass_hz is not None:
            filtered = highpassed(filtered, profile.highpass_hz)
        length = filtered.shape[0]
        total = segments_total(length, profile.tail)
        padded = torch.zeros((total - 1) * HOP_SAMPLES + SEGMENT_SAMPLES)
        padded[:length] = filtered[: padded.shape[0]]
        for first in range(0, total, MAX_SEGMENTS):
            count = min(MAX_SEGMENTS, total - first)
            part = padded[first * HOP_SAMPLES : (first + count - 1) * HOP_SAMPLES + SEGMENT_SAMPLES]
            starts = tuple(HOP_SECONDS * index for index in range(count))
            spectrograms = images(Cut(part, starts, count, False, length / SAMPLE_RATE), profile)[None].numpy()
            scores = detector.score(spectrograms, np.ones((1, count), dtype=np.bool_))
            found += scores.segment_probabilities[0].astype(np.float64).tolist()
    return tuple(found)
