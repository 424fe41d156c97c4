"""Compares a GPU worker with ``session.run`` alone on the same device, 10 s recordings: ``tussis bench device``.

This is the only benchmark that needs a GPU. ``--provider cpu`` runs its code without one, but the numbers mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tussis.worker.bench.crew import Crew, Spent
from tussis.worker.bench.floor import Rounds, unsteady
from tussis.worker.bench.material import workloads
from tussis.worker.bench.place import Place, Program, place, stop
from tussis.worker.bench.report import Cell, Column, Report, Verdict, hardware
from tussis.worker.detector.manifest import read_manifest
from tussis.worker.device.arguments import DeviceArguments, OnDevice
from tussis.worker.local.surroundings import tussis_command

#: Recordings a second, as a share of ``session.run`` alone on the same device.
TARGET = 0.8
#: The number of segments of a 10 s recording.
_SEGMENTS = 20
#: The number of recordings in one pass.
_RECORDINGS, _QUICK_RECORDINGS = 2000, 40

_COLUMNS = (
    Column("what"),
    Column("recordings a run", digits=1),
    Column("recordings", "1/s", 1),
    Column("wall", "s", 2),
    Column("of session.run alone", digits=2),
)


@dataclass(frozen=True)
class Plan:
    """The parameters of the benchmark."""

    model: Path
    on: OnDevice
    children: int
    batch_segments: int = 256
    rounds: int = 5


def measure(plan: Plan, *, quick: bool, command: str, say: Callable[[str], object] = lambda _: None) -> Report:
    """Every round runs the model alone, with one and with the most recordings a run, and then the worker.

    Raises the errors of the servers, and :class:`ServerFailed` when the worker refuses the device.
    """
    count = _QUICK_RECORDINGS if quick else _RECORDINGS
    (workload,) = workloads(("10s",), count * _SEGMENTS, None)
    most = max(1, min(plan.children, plan.batch_segments // _SEGMENTS))
    sizes = sorted({1, most})
    alone: dict[int, list[Spent]] = {size: [] for size in sizes}
    worked: list[Spent] = []
    order = _order(plan)
    with ExitStack() as stack:
        crew = stack.enter_context(Crew(1, _session_run, order.to_json(), sizes))
        made = stack.enter_context(place())
        worker = stack.enter_context(_worker(made, plan))
        made.upload(workload.items)
        made.pass_over(workload, worker)
        for number in range(plan.rounds):
            say(f"round {number + 1} of {plan.rounds}")
            for size in sizes:
                alone[size].append(crew.run([size] * (len(workload.items) // size)))
            worked.append(made.pass_over(workload, worker).spent)
        device = next(iter(_events(worker, "device_ready")), {}).get("device", plan.on.provider.value)
    return _report(plan, command, len(workload.items), alone, Rounds(tuple(worked)), str(device))


def _report(plan: Plan, command: str, count: int, alone: dict[int, list[Spent]], worked: Rounds, device: str) -> Report:
    floors = {size: Rounds(tuple(passes)) for size, passes in alone.items()}
    rates = {size: (count // size * size) / rounds.wall_s for size, rounds in floors.items()}
    best = max(rates, key=lambda size: rates[size])
    rate = count / worked.wall_s
    rows: list[tuple[Cell, ...]] = [
        ("session.run alone", float(size), rates[size], floors[size].wall_s, rates[size] / rates[best])
        for size in sorted(rates)
    ]
    rows.append(("the worker, enqueue to rows", None, rate, worked.wall_s, rate / rates[best]))
    return Report(
        title=f"GPU worker on {device}, {plan.on.provider.value}",
        command=command,
        columns=_COLUMNS,
        rows=tuple(rows),
        hardware=hardware(),
        notes=(
            f"{count} recordings of 10 s, {_SEGMENTS} segments each; {plan.model.stem}; {plan.children} children;"
            f" {plan.rounds} rounds, medians. session.run alone: inputs and outputs on the device, nothing else done.",
        ),
        verdicts=(
            Verdict("of session.run alone, 10 s", rate / rates[best], TARGET, void=unsteady(floors[best].spread)),
        ),
    )


def _order(plan: Plan) -> DeviceArguments:
    return DeviceArguments(
        model=str(plan.model),
        sha256=read_manifest(plan.model).sha256,
        provider=plan.on.provider,
        device_index=plan.on.index,
        threads=1,
        carriers=plan.children,
        batch_segments=plan.batch_segments,
        batch_wait_ms=2.0,
        deadline_s=120.0,
        run_dir="",
        cache_dir=str(plan.model.parent),
        metered=False,
        lifeline=-1,
        log_format="json",
        log_level="warning",
    )


def _session_run(order: str, sizes: Sequence[int]) -> Callable[[int], object]:
    """The model alone on the device. An item is the number of recordings in one run."""
    import torch

    from tussis.worker.device.engine import Engine

    told = DeviceArguments.from_json(order)
    torch.set_num_threads(told.threads)
    engine = Engine.load(told)
    runs = {size: engine.bare_run(size, _SEGMENTS) for size in sizes}
    for run in runs.values():
        run()
    return lambda size: runs[size]()


@contextmanager
def _worker(made: Place, plan: Plan) -> Iterator[Program]:
    run_dir = made.data / "run-device"
    run_dir.mkdir()
    on = ("--provider", plan.on.provider.value, "--device-index", str(plan.on.index))
    argv = (tussis_command(), "worker", "gpu", *on, "--concurrency", str(plan.children), "--model", str(plan.model))
    settings = {"TUSSIS_RUN_DIR": str(run_dir), "TUSSIS_BATCH_SEGMENTS": str(plan.batch_segments), **made.kept}
    program = made.run("device-worker", argv, made.data, settings)
    try:
        program.wait(lambda: bool(_events(program, "worker_ready")))
        yield program
    finally:
        stop([program])


def _events(program: Program, name: str) -> list[dict[str, object]]:
    import json

    found = []
    for line in program.lines():
        if line.startswith("{") and line.endswith("}"):
            event = json.loads(line)
            if event.get("event") == name:
                found.append(event)
    return found
