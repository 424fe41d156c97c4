"""The pipeline of ``tussis bench pipeline``, compared with the floor and with the baselines in the same rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from benchmarks.baselines import CELERY, Baseline, ComparedBaseline
from tussis.worker.bench.environment import BenchEnvironment
from tussis.worker.bench.floor import unsteady
from tussis.worker.bench.material import MIX, SYNTHETIC_MIX
from tussis.worker.bench.measurements import Cell, Column, Measurements, TargetCheck, hardware
from tussis.worker.bench.pipeline import (
    COLUMNS,
    TITLE,
    TUSSIS,
    MeasuredWorkload,
    PipelineMeasurement,
    measured_workloads,
    notes,
)
from tussis.worker.local.running_program import stop_all

#: Recordings a second relative to plain Celery: with the same model, and with another one (int8) against the original.
CELERY_TARGETS: Mapping[str, float] = {"10s": 1.6, MIX: 2.0, SYNTHETIC_MIX: 2.0}
OTHER_MODEL_TARGETS: Mapping[str, float] = {"10s": 4.0, MIX: 5.0, SYNTHETIC_MIX: 5.0}


def measure(
    measurement: PipelineMeasurement,
    against: Sequence[type[Baseline]],
    *,
    quick: bool,
    command: str,
    say: Callable[[str], object] = lambda _: None,
) -> Measurements:
    """Measure the pipeline: every round runs the floor, Tussis and the baselines one after the other.

    Raises the errors of the servers. Raises :class:`TussisError` when a baseline runs the same model as Tussis and its
    answers differ.
    """
    compared: list[ComparedBaseline] = []

    @contextmanager
    def start(environment: BenchEnvironment) -> Iterator[Sequence[ComparedBaseline]]:
        try:
            for kind in against:
                baseline = kind(environment, measurement.original, measurement.children)
                compared.append(ComparedBaseline(baseline, measurement.same_model))
            yield compared
        finally:
            stop_all([one.baseline.program for one in compared])

    found = measured_workloads(measurement, quick=quick, say=say, start_others=start)
    told = "Without baselines."
    if compared:
        shift = max(one.shift for one in compared)
        told = (
            "The baselines run the model of the floor. Their bag probabilities differ from those of Tussis by at most"
            f" {shift:.1e}."
        )
    return Measurements(
        title=TITLE,
        command=command,
        columns=(*COLUMNS, Column("times plain Celery", digits=2)),
        rows=tuple(row for measured in found for row in _rows(measured)),
        hardware=hardware(),
        notes=(*notes(measurement, found), told),
        verdicts=tuple(verdict for measured in found for verdict in _verdicts(measured, measurement.same_model)),
    )


def _rows(measured: MeasuredWorkload) -> list[tuple[Cell, ...]]:
    """The rows with one more cell: recordings a second, relative to plain Celery. The floor has none."""
    programs = measured.medians()
    celery = programs.get(CELERY)
    rows: list[tuple[Cell, ...]] = []
    for row in measured.rows():
        program = programs.get(str(row[1]))
        rows.append((*row, celery.wall_s / program.wall_s if celery and program else None))
    return rows


def _verdicts(measured: MeasuredWorkload, same_model: bool) -> list[TargetCheck]:
    name, programs = measured.workload.name, measured.medians()
    verdicts = measured.verdicts() if same_model else []
    target = (CELERY_TARGETS if same_model else OTHER_MODEL_TARGETS).get(name)
    if CELERY in programs and target is not None:
        tussis, celery = programs[TUSSIS], programs[CELERY]
        wall, spread = celery.wall_s / tussis.wall_s, measured.floor().spread
        verdicts.append(TargetCheck(f"{name}: times plain Celery, wall", wall, target, void=unsteady(spread)))
        verdicts.append(TargetCheck(f"{name}: times plain Celery, CPU", celery.cpu_s / tussis.cpu_s, target))
    return verdicts
