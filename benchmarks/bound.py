"""The bound of a worker: processes that decode, resample, make images and run the model, and do nothing else.

No queue, store, database, jail or deadline. The floor is the model alone; the bound is what a worker with these
libraries could reach if everything around them were free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tussis.worker.bench.crew import Crew, Spent
from tussis.worker.bench.environment import BenchEnvironment
from tussis.worker.bench.floor import unsteady
from tussis.worker.bench.material import Workload
from tussis.worker.bench.measurements import Cell, Column, Measurements, TargetCheck, hardware
from tussis.worker.bench.pipeline import (
    COLUMNS,
    TUSSIS,
    MeasuredWorkload,
    PipelineMeasurement,
    measured_workloads,
    notes,
)

BOUND: Final = "bound"
TARGET: Final = 0.8
"""The least ratio of the bound to Tussis, for a model that is a small part of the time."""


class _Bound:
    """The processes of one measurement. They get the recordings of a workload before its first pass."""

    name = BOUND

    def __init__(self, measurement: PipelineMeasurement, cache: Path) -> None:
        self._measurement = measurement
        self._cache = cache
        self._crew: Crew | None = None
        self._keys: list[str] = []

    def pass_over(self, workload: Workload, probabilities: Mapping[str, float]) -> Spent:
        """Analyse the recordings. The first call of a workload has some of them, without ``probabilities``."""
        keys = [item.key for item in workload.items]
        if self._crew is None or not set(keys) <= set(self._keys):
            self.close()
            data = [item.data for item in workload.items]
            processes = self._measurement.children
            self._crew = Crew(processes, _analyse, str(self._measurement.model), str(self._cache), data)
            self._crew.__enter__()
            self._keys = keys
        return self._crew.run([self._keys.index(key) for key in keys])

    def close(self) -> None:
        """End the processes."""
        if self._crew is not None:
            self._crew.__exit__(None, None, None)
            self._crew = None


def measure(
    measurement: PipelineMeasurement, cache: Path, *, quick: bool, command: str, say: Callable[[str], object]
) -> Measurements:
    """Measure floor, Tussis and bound, one after the other in every round. Raises the errors of the servers."""

    @contextmanager
    def start(_: BenchEnvironment) -> Iterator[Sequence[_Bound]]:
        bound = _Bound(measurement, cache)
        try:
            yield [bound]
        finally:
            bound.close()

    found = measured_workloads(measurement, quick=quick, say=say, start_others=start)
    return Measurements(
        title="Pipeline, compared with decoding, images and the model alone",
        command=command,
        columns=(*COLUMNS, Column("of the bound, wall", digits=2), Column("of the bound, CPU", digits=2)),
        rows=tuple(row for measured in found for row in _rows(measured)),
        hardware=hardware(),
        notes=notes(measurement, found),
        verdicts=tuple(verdict for measured in found for verdict in _verdicts(measured)),
    )


def _rows(measured: MeasuredWorkload) -> list[tuple[Cell, ...]]:
    wall, cpu = _shares(measured)
    return [(*row, wall, cpu) if row[1] == TUSSIS else (*row, None, None) for row in measured.rows()]


def _shares(measured: MeasuredWorkload) -> tuple[float, float]:
    programs = measured.medians()
    tussis, bound = programs[TUSSIS], programs[BOUND]
    return bound.wall_s / tussis.wall_s, bound.cpu_s / tussis.cpu_s


def _verdicts(measured: MeasuredWorkload) -> list[TargetCheck]:
    name, void = measured.workload.name, unsteady(measured.floor().spread)
    wall, cpu = _shares(measured)
    return [
        TargetCheck(f"{name}: of the bound, wall", wall, TARGET, void=void),
        TargetCheck(f"{name}: of the bound, CPU", cpu, TARGET),
    ]


def _analyse(model: str, cache: str, recordings: Sequence[bytes]) -> Callable[[int], object]:
    """In a process: the function that analyses the recording with this index."""
    import torch

    from tussis.shared.dsp.profiles import profile_named
    from tussis.shared.settings import load_settings
    from tussis.worker import logs
    from tussis.worker.audio.decode import decode
    from tussis.worker.detector.tuning.choice import decide, open_chosen
    from tussis.worker.pipeline.prepare import limits_of, waveform_of
    from tussis.worker.pipeline.scoring import OwnProcess

    logs.configure("console", "warning")
    torch.set_num_threads(1)
    path, folder = Path(model), Path(cache)
    choice = decide(path, intra_op_threads=1, cache_dir=folder)
    scorer = OwnProcess(open_chosen(path, choice, intra_op_threads=1, cache_dir=folder))
    scorer.warm_up()
    profile, limits = profile_named(scorer.manifest.profile), limits_of(load_settings())

    def analyse(index: int) -> None:
        with torch.inference_mode():
            waveform = waveform_of(decode(recordings[index], limits, profile.decoder), profile)
            for bag in range(waveform.num_bags):
                scorer.score(scorer.inputs(waveform.bag(bag), profile), exclusive=False)

    return analyse
