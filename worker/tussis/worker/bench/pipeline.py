"""The pipeline from enqueue to committed rows, compared with the floor: ``tussis bench pipeline``.

``python -m benchmarks pipeline`` of a checkout measures other programs in the same rounds (:class:`OtherProgram`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

from tussis.worker.bench.crew import Crew, Spent
from tussis.worker.bench.environment import Answered, BenchEnvironment, bench_environment
from tussis.worker.bench.floor import Layout, Rounds, cores, floor, layouts, unsteady
from tussis.worker.bench.material import MIX, NAMES, RATE_HZ, SYNTHETIC_MIX, Workload, workloads
from tussis.worker.bench.measurements import Cell, Column, Measurements, TargetCheck, hardware
from tussis.worker.local.running_worker import RunningWorker

TUSSIS = "tussis"
TITLE = "Pipeline, from enqueue to committed rows"
#: Segments of one pass: about four seconds of the floor on two cores; with ``quick``, about one second.
_SEGMENTS, _QUICK_SEGMENTS = 320, 80
#: The least ratio of the floor's wall or CPU time to that of Tussis, by workload.
FLOOR_TARGETS: Mapping[str, float] = {"2s": 0.80, "10s": 0.90, MIX: 0.80, SYNTHETIC_MIX: 0.80}

COLUMNS = (
    Column("recordings"),
    Column("what"),
    Column("recordings", "1/s", 1),
    Column("wall", "s", 2),
    Column("CPU", "s", 2),
    Column("of the floor, wall", digits=2),
    Column("of the floor, CPU", digits=2),
)


@dataclass(frozen=True)
class PipelineMeasurement:
    """The parameters of the benchmark."""

    original: Path
    """The float32 model of the floor."""
    model: Path
    """The worker's model: the original, or one made from it."""
    names: tuple[str, ...] = NAMES
    rounds: int = 5
    recordings: Path | None = None
    """The source of the mix, see :func:`~tussis.worker.bench.material.workloads`."""
    children: int = field(default_factory=cores)

    @property
    def same_model(self) -> bool:
        """Whether the worker runs the model of the floor."""
        return self.model == self.original


class OtherProgram(Protocol):
    """A program that is measured beside Tussis in every round."""

    @property
    def name(self) -> str:
        """The name in the table."""

    def pass_over(self, workload: Workload, probabilities: Mapping[str, float]) -> Spent:
        """Analyse the recordings, which are in the bucket.

        ``probabilities`` are the bag probabilities of Tussis, by key; empty before the first round. Raises
        :class:`TussisError`.
        """


#: Starts the other programs, and stops them at the end of the ``with`` block.
StartOthers: TypeAlias = Callable[[BenchEnvironment], AbstractContextManager[Sequence[OtherProgram]]]


@dataclass(frozen=True)
class FloorMedians:
    """The floor of one workload, as medians."""

    layout: Layout
    """The faster layout."""
    wall_s: float
    cpu_s: float
    """The least CPU time of any layout: threads that wait for each other also use CPU time."""
    spread: float


@dataclass
class MeasuredWorkload:
    """The passes over one workload."""

    workload: Workload
    floors: dict[Layout, list[Spent]] = field(default_factory=lambda: defaultdict(list))
    programs: dict[str, list[Spent]] = field(default_factory=lambda: defaultdict(list))
    """The passes of Tussis, and of the other programs, by name."""
    stages: dict[str, float] = field(default_factory=dict)
    """Mean milliseconds a recording for each stage, in the last pass."""

    def floor(self) -> FloorMedians:
        """The wall time of the faster layout, and the least CPU time of any layout."""
        medians = {layout: Rounds(tuple(passes)) for layout, passes in self.floors.items()}
        layout = min(medians, key=lambda layout: medians[layout].wall_s)
        faster = medians[layout]
        return FloorMedians(layout, faster.wall_s, min(rounds.cpu_s for rounds in medians.values()), faster.spread)

    def medians(self) -> dict[str, Rounds]:
        """The rounds of each program, by name."""
        return {name: Rounds(tuple(passes)) for name, passes in self.programs.items()}

    def rows(self) -> list[tuple[Cell, ...]]:
        """The rows of the table under :data:`COLUMNS`: one for each layout of the floor, one for each program."""
        least = self.floor()
        count = len(self.workload.items)
        rows: list[tuple[Cell, ...]] = []
        for layout, passes in self.floors.items():
            rounds = Rounds(tuple(passes))
            name = f"floor, {layout.name}{' (the faster)' if layout == least.layout else ''}"
            rows.append((self.workload.name, name, count / rounds.wall_s, rounds.wall_s, rounds.cpu_s, None, None))
        for name, rounds in self.medians().items():
            shares = least.wall_s / rounds.wall_s, least.cpu_s / rounds.cpu_s
            rows.append((self.workload.name, name, count / rounds.wall_s, rounds.wall_s, rounds.cpu_s, *shares))
        return rows

    def notes(self, children: int) -> tuple[str, str]:
        """The workload, and the time of each stage of a recording in its child, in the last pass."""
        stages = ", ".join(f"{name} {milliseconds:.1f}" for name, milliseconds in self.stages.items())
        each = self.programs[TUSSIS][-1].wall_s * children / len(self.workload.items) * 1000
        rest = each - sum(self.stages.values())
        return (
            f"{self.workload.line()}; the floor varied by {self.floor().spread:.0%}.",
            f"{self.workload.name}: of {each:.1f} ms of a child for each recording of the last round: {stages}, and"
            f" {rest:.1f} for claim, commit, closing, and waiting for the next one.",
        )

    def verdicts(self) -> list[TargetCheck]:
        """The comparison with the floor, if the workload has a target."""
        name = self.workload.name
        if name not in FLOOR_TARGETS:
            return []
        least, tussis, target = self.floor(), self.medians()[TUSSIS], FLOOR_TARGETS[name]
        wall = least.wall_s / tussis.wall_s
        return [
            TargetCheck(f"{name}: of the floor, wall", wall, target, void=unsteady(least.spread)),
            TargetCheck(f"{name}: of the floor, CPU", least.cpu_s / tussis.cpu_s, target),
        ]


def measure(
    measurement: PipelineMeasurement, *, quick: bool, command: str, say: Callable[[str], object] = lambda _: None
) -> Measurements:
    """Measure the floor and Tussis, one after the other in every round. Raises the errors of the servers."""
    found = measured_workloads(measurement, quick=quick, say=say)
    return Measurements(
        title=TITLE,
        command=command,
        columns=COLUMNS,
        rows=tuple(row for measured in found for row in measured.rows()),
        hardware=hardware(),
        notes=notes(measurement, found),
        verdicts=tuple(verdict for measured in found for verdict in measured.verdicts() if measurement.same_model),
    )


def measured_workloads(
    measurement: PipelineMeasurement,
    *,
    quick: bool,
    say: Callable[[str], object],
    start_others: StartOthers = lambda _: nullcontext(()),
) -> list[MeasuredWorkload]:
    """The passes over each workload. Every round runs the floor, Tussis and the other programs one after the other.

    Raises the errors of the servers and of the other programs.
    """
    chosen = workloads(measurement.names, _QUICK_SEGMENTS if quick else _SEGMENTS, measurement.recordings)
    sizes = [count for workload in chosen for count in workload.segments]
    found: list[MeasuredWorkload] = []
    with ExitStack() as stack:
        floors = {
            layout: stack.enter_context(floor(measurement.original, layout, sizes))
            for layout in layouts(measurement.children)
        }
        environment = stack.enter_context(bench_environment())
        worker = stack.enter_context(environment.worker(measurement.model, measurement.children))
        others = stack.enter_context(start_others(environment))
        for workload in chosen:
            say(workload.line())
            found.append(MeasuredWorkload(workload))
            environment.upload(workload.items)
            # A whole pass: after some recordings a child prepares its statements, and the database keeps their plans.
            environment.pass_over(workload, worker)
            for other in others:
                other.pass_over(_warm_up(workload), {})
            for number in range(measurement.rounds):
                say(f"  round {number + 1} of {measurement.rounds}")
                _round(environment, floors, worker, others, found[-1])
    return found


def _warm_up(workload: Workload) -> Workload:
    """The first recordings of the workload: enough that every process gets one."""
    return Workload(workload.name, workload.items[: 4 * cores()])


def _round(
    environment: BenchEnvironment,
    floors: Mapping[Layout, Crew],
    worker: RunningWorker,
    others: Sequence[OtherProgram],
    measured: MeasuredWorkload,
) -> None:
    workload = measured.workload
    for layout, crew in floors.items():
        measured.floors[layout].append(crew.run(workload.segments))
    answered = environment.pass_over(workload, worker)
    measured.programs[TUSSIS].append(answered.spent)
    probabilities, measured.stages = _answers(environment, answered)
    for other in others:
        measured.programs[other.name].append(other.pass_over(workload, probabilities))


def _answers(environment: BenchEnvironment, answered: Answered) -> tuple[dict[str, float], dict[str, float]]:
    """The bag probabilities by key, and the mean milliseconds of each stage."""
    probabilities: dict[str, float] = {}
    stages: dict[str, float] = defaultdict(float)
    for job in answered.jobs:
        analysis = environment.analysis(job)
        assert analysis.bag_probability is not None, job.uri
        probabilities[job.key] = analysis.bag_probability
        for stage, milliseconds in analysis.timings_ms.items():
            stages[stage] += milliseconds / len(answered.jobs)
    return probabilities, dict(stages)


def notes(measurement: PipelineMeasurement, found: Sequence[MeasuredWorkload]) -> tuple[str, ...]:
    """What was measured, in sentences."""
    rounds = "One round"
    if measurement.rounds > 1:
        rounds = f"Medians of {measurement.rounds} rounds, each of which runs all of them one after the other"
    told = [
        f"Recordings of one length: 16-bit mono WAV at {RATE_HZ} Hz, synthesised. {rounds}.",
        f"The worker serves {measurement.model.stem} in {measurement.children} children; the floor runs"
        f" {measurement.original.stem} in float32. CPU: user and system seconds of parent and children, without"
        " the servers.",
    ]
    for measured in found:
        told += measured.notes(measurement.children)
    if MIX in measurement.names and measurement.recordings is None:
        told.append("No real recordings were given (--recordings DIR): the mix is synthetic.")
    return tuple(told)
