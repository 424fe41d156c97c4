"""Run the shipped model with the worker's code: bytes or samples in, scores out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from training.pack import Wave
from training.processes import pool
from tussis.shared.dsp import SAMPLE_RATE, Profile, profile_named
from tussis.shared.dsp.images import images
from tussis.shared.dsp.recording import cut_recording
from tussis.worker.audio.decode import decode
from tussis.worker.audio.limits import Limits
from tussis.worker.detector.detector import Detector

Task = TypeVar("Task")
Done = TypeVar("Done")


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """The model's scores for one recording."""

    bag: float
    """Probability."""
    bag_logit: float
    segments: npt.NDArray[np.float64]
    """(S,), probabilities."""
    segment_logits: npt.NDArray[np.float64]


def score_file(detector: Detector, path: Path, profile: Profile) -> Scored:
    """Score a file with a profile. Raises the errors of ``decode``."""
    audio = decode(path.read_bytes(), Limits(), profile.decoder)
    return score(detector, torch.from_numpy(audio.samples), audio.rate_hz, profile)


def score_wave(detector: Detector, wave: Wave) -> Scored:
    """Score samples at 16 kHz, float32 (n,), with the model's own profile."""
    return score(detector, torch.from_numpy(wave)[None], SAMPLE_RATE, profile_named(detector.manifest.profile))


def score(detector: Detector, samples: torch.Tensor, rate_hz: int, profile: Profile) -> Scored:
    """Score decoded samples, float32 (channels, n)."""
    cut = cut_recording(samples, rate_hz, profile)
    spectrograms = images(cut, profile)[None].numpy()
    found = detector.score(spectrograms, np.ones(spectrograms.shape[:2], dtype=np.bool_))
    return Scored(
        float(found.bag_probability[0]),
        float(found.bag_logit[0]),
        found.segment_probabilities[0].astype(np.float64),
        found.segment_logits[0].astype(np.float64),
    )


class Askers:
    """Processes with a loaded model, for many recordings. :func:`askers` starts and ends them."""

    def __init__(self, executor: ProcessPoolExecutor) -> None:
        self._executor = executor

    def each(self, work: Callable[[Detector, Task], Done], tasks: Iterable[Task]) -> list[Done]:
        """Run ``work`` on every task and return the results in order. Function and tasks must be picklable."""
        return list(self._executor.map(_Work(work), tasks, chunksize=4))


@contextmanager
def askers(model: Path, processes: int) -> Iterator[Askers]:
    """Start the processes, and end them on exit."""
    with pool(processes, _load, model) as executor:
        yield Askers(executor)


_detector: Detector | None = None


def _load(model: Path) -> None:
    global _detector
    _detector = Detector.load(model, intra_op_threads=1)


@dataclass(frozen=True, slots=True)
class _Work(Generic[Task, Done]):
    work: Callable[[Detector, Task], Done]

    def __call__(self, task: Task) -> Done:
        assert _detector is not None
        return self.work(_detector, task)
