"""Compares a GPU worker with ``session.run`` alone on the same device, 10 s recordings: ``tussis bench device``.

This is the only benchmark that needs a GPU. ``--provider cpu`` runs its code without one, but the numbers mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tussis.worker.bench.crew import Crew, Spent
from tussis.worker.bench.environment import bench_environment
from tussis.worker.bench.floor import Rounds, unsteady
from tussis.worker.bench.material import workloads
from tussis.worker.bench.measurements import Cell, Column, Measurements, TargetCheck, hardware
from tussis.worker.detector.manifest import read_manifest
from tussis.worker.device.arguments import DeviceArguments, OnDevice

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
class DeviceMeasurement:
    """The parameters of the benchmark."""

    model: Path
    on: OnDevice
    children: int
    batch_segments: int = 256
    rounds: int = 5


def measure(
    measurement: DeviceMeasurement, *, quick: bool, command: str, say: Callable[[str], object] = lambda _: None
) -> Measurements:
    """Every round runs the model alone, with one and with the most recordings a run, and then the worker.

    Raises the errors of the servers, and :class:`ServerFailed` when the worker refuses the device.
    """
    count = _QUICK_RECORDINGS if quick else _RECORDINGS
    (workload,) = workloads(("10s",), count * _SEGMENTS, None)
    most = max(1, min(measurement.children, measurement.batch_segments // _SEGMENTS))
    sizes = sorted({1, most})
    alone: dict[int, list[Spent]] = {size: [] for size in sizes}
    worked: list[Spent] = []
    arguments = _arguments(measurement)
    with ExitStack() as stack:
        crew = stack.enter_context(Crew(1, _session_run, arguments.to_json(), sizes))
        environment = stack.enter_context(bench_environment())
        on = ("--provider", measurement.on.provider.value, "--device-index", str(measurement.on.index))
        settings = {"TUSSIS_BATCH_SEGMENTS": str(measurement.batch_segments)}
        worker = stack.enter_context(
            environment.worker(
                measurement.model, measurement.children, *on, device="gpu", name="device-worker", settings=settings
            )
        )
        environment.upload(workload.items)
        environment.pass_over(workload, worker)
        for number in range(measurement.rounds):
            say(f"round {number + 1} of {measurement.rounds}")
            for size in sizes:
                alone[size].append(crew.run([size] * (len(workload.items) // size)))
            worked.append(environment.pass_over(workload, worker).spent)
        device = next(iter(worker.events("device_ready")), {}).get("device", measurement.on.provider.value)
    return _measurements(measurement, command, len(workload.items), alone, Rounds(tuple(worked)), str(device))


def _measurements(
    measurement: DeviceMeasurement, command: str, count: int, alone: dict[int, list[Spent]], worked: Rounds, device: str
) -> Measurements:
    floors = {size: Rounds(tuple(passes)) for size, passes in alone.items()}
    rates = {size: (count // size * size) / rounds.wall_s for size, rounds in floors.items()}
    best = max(rates, key=lambda size: rates[size])
    rate = count / worked.wall_s
    rows: list[tuple[Cell, ...]] = [
        ("session.run alone", float(size), rates[size], floors[size].wall_s, rates[size] / rates[best])
        for size in sorted(rates)
    ]
    rows.append(("the worker, enqueue to rows", None, rate, worked.wall_s, rate / rates[best]))
    return Measurements(
        title=f"GPU worker on {device}, {measurement.on.provider.value}",
        command=command,
        columns=_COLUMNS,
        rows=tuple(rows),
        hardware=hardware(),
        notes=(
            f"{count} recordings of 10 s, {_SEGMENTS} segments each; {measurement.model.stem};"
            f" {measurement.children} children; {measurement.rounds} rounds, medians. session.run alone: inputs and"
            " outputs on the device, nothing else done.",
        ),
        verdicts=(
            TargetCheck("of session.run alone, 10 s", rate / rates[best], TARGET, void=unsteady(floors[best].spread)),
        ),
    )


def _arguments(measurement: DeviceMeasurement) -> DeviceArguments:
    return DeviceArguments(
        model=str(measurement.model),
        sha256=read_manifest(measurement.model).sha256,
        provider=measurement.on.provider,
        device_index=measurement.on.index,
        threads=1,
        children=measurement.children,
        batch_segments=measurement.batch_segments,
        batch_wait_ms=2.0,
        deadline_s=120.0,
        run_dir="",
        cache_dir=str(measurement.model.parent),
        metered=False,
        lifeline=-1,
        log_format="json",
        log_level="warning",
    )


def _session_run(arguments: str, sizes: Sequence[int]) -> Callable[[int], object]:
    """The model alone on the device. An item is the number of recordings in one run."""
    import torch

    from tussis.worker.device.engine import Engine

    told = DeviceArguments.from_json(arguments)
    torch.set_num_threads(told.threads)
    engine = Engine.load(told)
    runs = {size: engine.bare_run(size, _SEGMENTS) for size in sizes}
    for run in runs.values():
        run()
    return lambda size: runs[size]()
