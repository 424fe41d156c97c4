"""The pipeline from enqueue to committed rows, compared with the floor and with the baselines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tussis.shared.errors import TussisError
from tussis.worker.bench.baselines import CELERY, HTTP, Baseline, HttpBackend, PlainCelery, find
from tussis.worker.bench.crew import Crew, Spent
from tussis.worker.bench.floor import Layout, Rounds, cores, floor, layouts, unsteady
from tussis.worker.bench.material import MIX, NAMES, RATE_HZ, SYNTHETIC_MIX, Workload, workloads
from tussis.worker.bench.place import Answered, Place, Program, place, stop
from tussis.worker.bench.report import Cell, Column, Report, Verdict, hardware

TUSSIS = "tussis"
#: The largest difference between bag probabilities of a baseline and of Tussis. Above it, they do not do the same work.
AGREEMENT = 1e-3
#: Segments of one pass: about four seconds of the floor on two cores; with ``quick``, about one second.
_SEGMENTS, _QUICK_SEGMENTS = 320, 80
#: The least ratio of the floor's wall or CPU time to that of Tussis, by workload.
FLOOR_TARGETS: Mapping[str, float] = {"2s": 0.80, "10s": 0.90, MIX: 0.80, SYNTHETIC_MIX: 0.80}
#: Recordings a second relative to plain Celery: with the same model, and with another one (int8) against the original.
CELERY_TARGETS: Mapping[str, float] = {"10s": 1.6, MIX: 2.0, SYNTHETIC_MIX: 2.0}
OTHER_MODEL_TARGETS: Mapping[str, float] = {"10s": 4.0, MIX: 5.0, SYNTHETIC_MIX: 5.0}

_COLUMNS = (
    Column("recordings"),
    Column("what"),
    Column("recordings", "1/s", 1),
    Column("wall", "s", 2),
    Column("CPU", "s", 2),
    Column("of the floor, wall", digits=2),
    Column("of the floor, CPU", digits=2),
    Column("times plain Celery", digits=2),
)


@dataclass(frozen=True)
class Plan:
    """The parameters of the benchmark."""

    original: Path
    """The float32 model of the floor and of the baselines."""
    model: Path
    """The worker's model: the original, or one made from it."""
    names: tuple[str, ...] = NAMES
    rounds: int = 5
    recordings: Path | None = None
    """The source of the mix, see :func:`~tussis.worker.bench.material.workloads`."""
    baseline: Path | None = None
    """The folder of the baselines. None: that of the checkout; without a checkout no baseline runs."""
    against: tuple[str, ...] = (CELERY, HTTP)
    children: int = field(default_factory=cores)


@dataclass(frozen=True)
class _Least:
    """The floor of one workload, as medians."""

    layout: Layout
    """The faster layout."""
    wall_s: float
    cpu_s: float
    """The least CPU time of any layout: threads that wait for each other also use CPU time."""
    spread: float


@dataclass
class _Passes:
    """The measurements of one workload."""

    floors: dict[Layout, list[Spent]] = field(default_factory=lambda: defaultdict(list))
    programs: dict[str, list[Spent]] = field(default_factory=lambda: defaultdict(list))
    shift: float = 0.0
    """The largest difference between bag probabilities of a baseline and of Tussis."""
    stages: dict[str, float] = field(default_factory=dict)
    """Mean milliseconds a recording for each stage, in the last pass."""

    def floor(self) -> _Least:
        """The wall time of the faster layout, and the least CPU time of any layout."""
        medians = {layout: Rounds(tuple(passes)) for layout, passes in self.floors.items()}
        layout = min(medians, key=lambda layout: medians[layout].wall_s)
        faster = medians[layout]
        return _Least(layout, faster.wall_s, min(rounds.cpu_s for rounds in medians.values()), faster.spread)


def measure(plan: Plan, *, quick: bool, command: str, say: Callable[[str], object] = lambda _: None) -> Report:
    """Measure the pipeline: every round runs the floor, Tussis and the baselines one after the other.

    Raises the errors of the servers. Raises :class:`TussisError` when a baseline runs the same model as Tussis and its
    answers differ by more than :data:`AGREEMENT`.
    """
    chosen = workloads(plan.names, _QUICK_SEGMENTS if quick else _SEGMENTS, plan.recordings)
    sizes = [count for workload in chosen for count in workload.segments]
    measured: dict[str, _Passes] = {}
    with ExitStack() as stack:
        floors = {layout: stack.enter_context(floor(plan.original, layout, sizes)) for layout in layouts(plan.children)}
        made = stack.enter_context(place())
        worker, baselines = stack.enter_context(_programs(made, plan))
        for workload in chosen:
            say(workload.line())
            measured[workload.name] = passes = _Passes()
            made.upload(workload.items)
            made.pass_over(_warm_up(workload), worker)
            for baseline in baselines:
                baseline.pass_over(_warm_up(workload).items)
            for number in range(plan.rounds):
                say(f"  round {number + 1} of {plan.rounds}")
                _round(made, workload, floors, worker, baselines, passes, same_model=plan.model == plan.original)
    return _report(chosen, measured, plan, command)


@contextmanager
def _programs(made: Place, plan: Plan) -> Iterator[tuple[Program, list[Baseline]]]:
    """The worker and the baselines, ready and idle."""
    folder = find(plan.baseline) if plan.against else None
    started: list[Program] = []
    try:
        worker = made.worker(plan.model, plan.children)
        started.append(worker)
        baselines: list[Baseline] = []
        for kind in (PlainCelery, HttpBackend):
            if folder is not None and kind.name in plan.against:
                baselines.append(kind(made, folder, plan.original, plan.children))
                started.append(baselines[-1].program)
        yield worker, baselines
    finally:
        stop(started)


def _warm_up(workload: Workload) -> Workload:
    """The first recordings of the workload: enough that every process gets one."""
    return Workload(workload.name, workload.items[: 4 * cores()])


def _round(
    made: Place,
    workload: Workload,
    floors: Mapping[Layout, Crew],
    worker: Program,
    baselines: Sequence[Baseline],
    passes: _Passes,
    *,
    same_model: bool,
) -> None:
    for layout, crew in floors.items():
        passes.floors[layout].append(crew.run(workload.segments))
    answered = made.pass_over(workload, worker)
    passes.programs[TUSSIS].append(answered.spent)
    ours, passes.stages = _answers(made, answered)
    for baseline in baselines:
        theirs = baseline.pass_over(workload.items)
        passes.programs[baseline.name].append(theirs.spent)
        shift = max(abs(theirs.answers[key] - probability) for key, probability in ours.items())
        passes.shift = max(passes.shift, shift)
        if same_model and shift > AGREEMENT:
            raise TussisError(f"{baseline.name} answers otherwise than Tussis: by {shift:.4f} on {workload.name}")


def _answers(made: Place, answered: Answered) -> tuple[dict[str, float], dict[str, float]]:
    """The bag probabilities by key, and the mean milliseconds of each stage."""
    probabilities: dict[str, float] = {}
    stages: dict[str, float] = defaultdict(float)
    for job in answered.jobs:
        analysis = made.analysis(job)
        assert analysis.bag_probability is not None, job.uri
        probabilities[job.key] = analysis.bag_probability
        for stage, milliseconds in analysis.timings_ms.items():
            stages[stage] += milliseconds / len(answered.jobs)
    return probabilities, dict(stages)


def _report(chosen: Sequence[Workload], measured: Mapping[str, _Passes], plan: Plan, command: str) -> Report:
    rows: list[tuple[Cell, ...]] = []
    verdicts: list[Verdict] = []
    notes = [
        f"Recordings of one length: 16-bit mono WAV at {RATE_HZ} Hz, synthesised. {_rounds(plan.rounds)}.",
        f"The worker serves {plan.model.stem} in {plan.children} children; floor and baselines run {plan.original.stem}"
        " in float32. CPU: user and system seconds of parent and children, without the servers.",
    ]
    for workload in chosen:
        passes = measured[workload.name]
        least = passes.floor()
        programs = {name: Rounds(tuple(spent)) for name, spent in passes.programs.items()}
        celery = programs.get(CELERY)
        count = len(workload.items)
        for other, spent in passes.floors.items():
            rounds = Rounds(tuple(spent))
            name = f"floor, {other.name}{' (the faster)' if other == least.layout else ''}"
            rows.append((workload.name, name, count / rounds.wall_s, rounds.wall_s, rounds.cpu_s, None, None, None))
        for name, rounds in programs.items():
            rows.append(
                (
                    workload.name,
                    name,
                    count / rounds.wall_s,
                    rounds.wall_s,
                    rounds.cpu_s,
                    least.wall_s / rounds.wall_s,
                    least.cpu_s / rounds.cpu_s,
                    celery.wall_s / rounds.wall_s if celery else None,
                )
            )
        notes.append(f"{workload.line()}; the floor varied by {least.spread:.0%}.")
        notes.append(_stages_note(workload, passes, plan.children))
        verdicts += _verdicts(workload.name, least, programs, same_model=plan.model == plan.original)
    if any(name in (MIX,) for name in plan.names) and plan.recordings is None:
        notes.append("No real recordings were given (--recordings DIR): the mix is synthetic.")
    if not plan.against:
        notes.append("Without baselines.")
    elif all(len(passes.programs) == 1 for passes in measured.values()):
        notes.append("Without baselines: they come with a checkout (--baseline benchmarks/baseline).")
    else:
        shift = max(passes.shift for passes in measured.values())
        notes.append(f"The baselines' bag probabilities differ from those of Tussis by at most {shift:.1e}.")
    return Report(
        title="Pipeline, from enqueue to committed rows",
        command=command,
        columns=_COLUMNS,
        rows=tuple(rows),
        hardware=hardware(),
        notes=tuple(notes),
        verdicts=tuple(verdicts),
    )


def _rounds(count: int) -> str:
    return (
        f"Medians of {count} rounds, each of which runs all of them one after the other" if count > 1 else "One round"
    )


def _stages_note(workload: Workload, passes: _Passes, children: int) -> str:
    """The time of each stage of a recording in its child, in the last pass."""
    stages = ", ".join(f"{name} {milliseconds:.1f}" for name, milliseconds in passes.stages.items())
    each = passes.programs[TUSSIS][-1].wall_s * children / len(workload.items) * 1000
    rest = each - sum(passes.stages.values())
    return (
        f"{workload.name}: of {each:.1f} ms of a child for each recording of the last round: {stages}, and {rest:.1f}"
        " for claim, commit, closing, and waiting for the next one."
    )


def _verdicts(name: str, least: _Least, programs: Mapping[str, Rounds], *, same_model: bool) -> list[Verdict]:
    tussis, celery = programs[TUSSIS], programs.get(CELERY)
    found = []
    if same_model and name in FLOOR_TARGETS:
        target = FLOOR_TARGETS[name]
        found.append(
            Verdict(f"{name}: of the floor, wall", least.wall_s / tussis.wall_s, target, void=unsteady(least.spread))
        )
        found.append(Verdict(f"{name}: of the floor, CPU", least.cpu_s / tussis.cpu_s, target))
    against = (CELERY_TARGETS if same_model else OTHER_MODEL_TARGETS).get(name)
    if celery is not None and against is not None:
        ratio = celery.wall_s / tussis.wall_s
        found.append(Verdict(f"{name}: times plain Celery, wall", ratio, against, void=unsteady(least.spread)))
        found.append(Verdict(f"{name}: times plain Celery, CPU", celery.cpu_s / tussis.cpu_s, against))
    return found
