"""The cost of a segment in the model: the original graph, its rewritten forms, and other model files."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tussis.shared.dsp.constants import FRAMES, MEL_BANDS
from tussis.worker.bench.measurements import Cell, Column, Measurements, TargetCheck, hardware
from tussis.worker.detector.detector import Detector
from tussis.worker.detector.manifest import check_sha256, read_manifest, read_model
from tussis.worker.detector.tuning.choice import valid_candidates
from tussis.worker.detector.tuning.comparison import Candidate, spectrograms_of

#: Segments of a recording: the shortest, 2 s, 10 s, and the limit.
SEGMENTS = (1, 4, 20, 32)
_QUICK_SEGMENTS = (4,)
#: The least ratio to the original. No candidate may be slower, apart from the noise of a measurement of CPU seconds.
LEAST = 0.98

_SEED = 0
#: The least CPU seconds of one round of one row.
_LEAST_S, _QUICK_LEAST_S = 0.5, 0.1


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU milliseconds a segment, medians over rounds. Each round runs every candidate in turn."""

    model: str
    form: str
    threads: int
    segments: int
    run_ms: float
    """``session.run`` alone, with its tensors ready. For the original this is the floor."""
    whole_ms: float
    """From mel images: letterbox, channels and ``session.run``."""
    ratio: float
    """The original's ``whole_ms`` divided by this one's."""


def measure(
    models: Sequence[Path], *, threads: Sequence[int] | None, rounds: int, quick: bool, command: str
) -> Measurements:
    """Measure every valid candidate of every model, each against the original graph of the same model.

    Args:
        models: at least one ONNX file, with its manifest beside it.
        threads: numbers of threads of a run, each measured separately; None: one thread, and one for each core.
        rounds: the number of rounds for the medians.

    Raises :class:`ModelRefused`.
    """
    torch.set_num_threads(1)  # torch's threads spin while they wait, which would count as CPU time of the other runtime
    cores = len(os.sched_getaffinity(0))
    counts = threads or sorted({1, cores})
    costs: list[Cost] = []
    for path in models:
        for count in counts[:1] if quick else counts:
            costs += costs_of(path, threads=count, rounds=rounds, quick=quick)
    return Measurements(
        title="Inference: CPU milliseconds a segment",
        command=command,
        columns=(
            Column("model"),
            Column("graph"),
            Column("threads"),
            Column("segments"),
            Column("run", "ms"),
            Column("from mel images", "ms"),
            Column("times the original"),
        ),
        rows=tuple(_row(cost) for cost in costs),
        hardware=hardware(),
        notes=(
            "run: session.run alone, tensors ready; the original's is the floor",
            "from mel images: letterbox, channels and ImageNet's step as well, which rewritten graphs hold",
        ),
        verdicts=tuple(
            TargetCheck(f"{cost.model}: {cost.form}, {cost.segments} segments, against the original", cost.ratio, LEAST)
            for cost in costs
            if cost.form != "original" and cost.threads == 1
        ),
    )


def costs_of(path: Path, *, threads: int, rounds: int, quick: bool) -> list[Cost]:
    """The costs of one model's valid candidates: those that give the same results as the original."""
    manifest = read_manifest(path)
    data = read_model(path)
    check_sha256(data, manifest, str(path))
    original, others = valid_candidates(data, manifest, str(path), threads=threads)
    ways = [original, *others]
    costs = []
    for segments in _QUICK_SEGMENTS if quick else SEGMENTS:
        mels = np.random.default_rng(_SEED).uniform(-1, 1, size=(1, segments, MEL_BANDS, FRAMES)).astype(np.float32)
        spent = _spent(ways, mels, rounds, _QUICK_LEAST_S if quick else _LEAST_S)
        for way, (run, whole) in zip(ways, spent, strict=True):
            ratio = statistics.median(a / b for a, b in zip(spent[0][1], whole, strict=True))
            run_ms, whole_ms = (1000 * statistics.median(values) / segments for values in (run, whole))
            costs.append(Cost(path.stem, way.form, threads, segments, run_ms, whole_ms, ratio))
    return costs


def _spent(
    ways: Sequence[Candidate], mels: NDArray[np.float32], rounds: int, least_s: float
) -> list[tuple[list[float], list[float]]]:
    """CPU seconds for each candidate and round: of the run alone, and of the whole."""
    mask = np.ones(mels.shape[:2], dtype=np.bool_)
    ready = spectrograms_of(mels, rounded=False)

    def run(way: Candidate) -> object:
        if isinstance(way.detector, Detector):
            return way.detector.score(ready, mask)
        return way.score(mels, mask, rounded=False)

    def whole(way: Candidate) -> object:
        return way.score(mels, mask, rounded=False)

    for way in ways:
        whole(way)
    repeats = max(1, round(least_s / max(_repeated(whole, ways[0], 1), 1e-6)))
    spent: list[tuple[list[float], list[float]]] = [([], []) for _ in ways]
    for _ in range(rounds):
        for way, (runs, wholes) in zip(ways, spent, strict=True):
            runs.append(_repeated(run, way, repeats))
            wholes.append(_repeated(whole, way, repeats))
    return spent


def _repeated(step: Callable[[Candidate], object], way: Candidate, repeats: int) -> float:
    return _timed(lambda: [step(way) for _ in range(repeats)]) / repeats


def _timed(step: Callable[[], object]) -> float:
    """The CPU seconds of ``step``, of all threads of this process."""
    began = time.process_time()
    step()
    return time.process_time() - began


def _row(cost: Cost) -> tuple[Cell, ...]:
    return (
        cost.model,
        cost.form,
        cost.threads,
        cost.segments,
        cost.run_ms,
        cost.whole_ms,
        cost.ratio,
    )
