"""The cost of an audit, relative to one analysis of the same recordings for each variant that is scored."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from tussis.shared.dsp.profiles import PROFILES
from tussis.shared.settings import load_settings
from tussis.worker.audit.audit import ATTRIBUTE_ABOVE, Audit, Plan, others_of, run
from tussis.worker.bench.material import MIX, Workload, workloads
from tussis.worker.bench.measurements import Column, Measurements, TargetCheck, hardware
from tussis.worker.detector.detector import Detector
from tussis.worker.pipeline.analysis import Analyzer

#: The most times one analysis of the recordings, for each variant that is scored.
TARGET = 1.5
_SEGMENTS, _QUICK_SEGMENTS = 1_100, 150


def measure(model: Path, *, rounds: int, quick: bool, recordings: Path | None, command: str) -> Measurements:
    """Compare an audit under all profiles with an analysis under the model's own, in turn, on one thread.

    Raises :class:`TussisError`.
    """
    torch.set_num_threads(1)
    (workload,) = workloads([MIX], _QUICK_SEGMENTS if quick else _SEGMENTS, recordings)
    detector = Detector.load(model, intra_op_threads=1)
    analyzer = Analyzer.of(detector, None, None, load_settings(), lambda: None)
    plan = Plan(
        detector,
        analyzer.profile,
        others_of(analyzer.profile, list(PROFILES.values())),
        analyzer.coverage,
        analyzer.coverage,
        analyzer.limits,
        ATTRIBUTE_ABOVE,
    )
    with tempfile.TemporaryDirectory() as folder:
        sources = _written(workload, Path(folder))
        audits: list[Audit] = []
        ways: tuple[Callable[[], object], ...] = (
            lambda: [analyzer.analyze(source) for source in sources],
            lambda: audits.append(run(plan, sources, analyzer.read)),
        )
        for way in ways:
            way()
        timings = [[_cpu_s(way) for way in ways] for _ in range(rounds)]
    analysis_s, audit_s = (statistics.median(each) / len(sources) for each in zip(*timings, strict=True))
    variants = audits[-1].scored_variants / len(sources)
    ratio = audit_s / (analysis_s * variants)
    return Measurements(
        title="An audit under all profiles, against one analysis for each variant that is scored",
        command=command,
        columns=(
            Column("recordings"),
            Column("one analysis", "ms", 1),
            Column("audit", "ms", 1),
            Column("variants scored"),
            Column("times one analysis a variant"),
        ),
        rows=((len(sources), analysis_s * 1000, audit_s * 1000, variants, ratio),),
        hardware=hardware(),
        notes=(
            f"{workload.line()}; {model.stem}. CPU time a recording on one thread, the time of ffmpeg for the profile"
            f" legacy included, medians of {rounds} rounds in which both take turns.",
        ),
        verdicts=(TargetCheck("audit: times one analysis a variant", ratio, TARGET, at_most=True),),
    )


def _written(workload: Workload, folder: Path) -> list[str]:
    paths = [folder / item.key.replace("/", "-") for item in workload.items]
    for path, item in zip(paths, workload.items, strict=True):
        path.write_bytes(item.data)
    return list(map(str, paths))


def _cpu_s(way: Callable[[], object]) -> float:
    """The CPU seconds of this process and of the programs that it runs."""
    before = os.times()
    way()
    return sum(os.times()[:4]) - sum(before[:4])
