"""The time from the start of a worker until it is ready, and the time of ``tussis --help``."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from tussis.worker.bench.crew import Spent
from tussis.worker.bench.environment import bench_environment
from tussis.worker.bench.floor import Rounds, cores
from tussis.worker.bench.measurements import Column, Measurements, TargetCheck, hardware
from tussis.worker.bench.process_tree import cpu_s
from tussis.worker.local.surroundings import tussis_command

READY_TARGET_S, HELP_TARGET_S = 8.0, 0.3


def measure(model: Path, *, rounds: int, quick: bool, command: str) -> Measurements:
    """Measure a worker's start until ``worker_ready``, and ``tussis --help``; medians. Raises the servers' errors."""
    starts: list[Spent] = []
    with bench_environment() as environment:
        for number in range(1 if quick else rounds):
            began = time.monotonic()
            with environment.worker(model, cores(), name=f"worker-{number}") as worker:
                starts.append(Spent(time.monotonic() - began, cpu_s(worker)))
    helps = [_help() for _ in range(rounds)]
    ready, told = Rounds(tuple(starts)), Rounds(tuple(helps))
    return Measurements(
        title="Start",
        command=command,
        columns=(Column("what"), Column("wall", "s"), Column("CPU", "s")),
        rows=(
            (f"worker ready, {cores()} children", ready.wall_s, ready.cpu_s),
            ("tussis --help", told.wall_s, told.cpu_s),
        ),
        hardware=hardware(),
        notes=(
            f"Medians of {len(starts)} starts and {len(helps)} calls, files in the page cache. A worker is ready when"
            f" every child has loaded {model.stem} and warmed up.",
        ),
        verdicts=(
            TargetCheck("seconds until the worker is ready", ready.wall_s, READY_TARGET_S, at_most=True),
            TargetCheck("seconds of tussis --help", told.wall_s, HELP_TARGET_S, at_most=True),
        ),
    )


def _help() -> Spent:
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    subprocess.run([tussis_command(), "--help"], stdout=subprocess.DEVNULL, check=True)
    wall = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Spent(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
