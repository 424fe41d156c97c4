"""The memory of a worker while it analyses many recordings: how much it needs, and whether it grows."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tussis.shared.errors import ServerFailed
from tussis.worker.bench.environment import PASS_S, BenchEnvironment, bench_environment
from tussis.worker.bench.floor import cores
from tussis.worker.bench.material import Item, wav
from tussis.worker.bench.measurements import Column, Measurements, TargetCheck, hardware
from tussis.worker.bench.process_tree import process_tree
from tussis.worker.local.running_worker import RunningWorker

COUNT, _QUICK_COUNT = 10_000, 300
#: The largest memory at the end, relative to the memory after the warm-up.
TARGET = 1.05
#: The share of all recordings for the warm-up, and the share for each mean.
_WARM_UP, _SHARE = 0.1, 0.1
#: The least number of open jobs. When fewer are open, more are enqueued.
_AHEAD = 200
_POLL_S = 0.5
_MIB = 2**20


@dataclass(frozen=True)
class Sample:
    """One measurement of the memory, in bytes."""

    done: int
    parent_pss: int
    parent_uss: int
    children_pss: int
    """The sum over the children."""
    children_uss: int

    @property
    def pss(self) -> int:
        """The PSS of the whole worker: memory shared between its processes counts once."""
        return self.parent_pss + self.children_pss

    @property
    def uss(self) -> int:
        """The USS of the whole worker, the memory of its processes alone. It shows a leak and no other program.

        The PSS of a library's pages grows when another program that has mapped them ends.
        """
        return self.parent_uss + self.children_uss


def measure(
    model: Path, *, count: int | None, quick: bool, command: str, say: Callable[[str], object] = lambda _: None
) -> Measurements:
    """Analyse ``count`` recordings and measure the worker's processes meanwhile. Raises the errors of the servers."""
    wanted = count or (_QUICK_COUNT if quick else COUNT)
    with bench_environment() as environment, environment.worker(model, cores()) as worker:
        items = _items()
        environment.upload(items)
        samples = _work(environment, worker, items, wanted, say)
    return _measurements(samples, wanted, model, command)


def _items() -> list[Item]:
    """198 recordings of 0.4 to 4 s, one of 10 s and one of 60 s: all sizes for which memory may grow."""
    draw = random.Random(0)
    lengths = [60.0, 10.0, *(draw.choice((0.4, 0.4, 0.4, 0.8, 1.4, 4.0)) for _ in range(198))]
    return [Item(f"{number}.wav", wav(seconds, number), 1, seconds) for number, seconds in enumerate(lengths)]


def _work(
    environment: BenchEnvironment,
    worker: RunningWorker,
    items: list[Item],
    wanted: int,
    say: Callable[[str], object],
) -> list[Sample]:
    """Keep the queue filled, and sample the memory until all recordings are done."""
    draw = random.Random(1)
    samples: list[Sample] = []
    enqueued = 0
    ends = time.monotonic() + 4 * PASS_S
    told = 0
    while True:
        opened = environment.open_jobs()
        samples.append(_sample(worker, enqueued - opened))
        if enqueued - opened >= told + wanted // 10:
            told = enqueued - opened
            say(f"{told} recordings, {samples[-1].pss / _MIB:.0f} MiB")
        if enqueued == wanted and opened == 0:
            return samples
        worker.check()
        if time.monotonic() > ends:
            raise ServerFailed(f"the recordings are not done after {4 * PASS_S:g} s; see {worker.log}")
        if opened < _AHEAD and enqueued < wanted:
            more = min(2 * _AHEAD - opened, wanted - enqueued)
            environment.enqueue(environment.jobs(draw.choices(items, k=more)))
            enqueued += more
        time.sleep(_POLL_S)


def _sample(worker: RunningWorker, done: int) -> Sample:
    parent, *children = process_tree(worker)
    own = parent.memory_full_info()
    others = []
    for child in children:
        with suppress(psutil.NoSuchProcess):
            others.append(child.memory_full_info())
    return Sample(done, own.pss, own.uss, sum(info.pss for info in others), sum(info.uss for info in others))


def _measurements(samples: list[Sample], wanted: int, model: Path, command: str) -> Measurements:
    first = [sample for sample in samples if _WARM_UP * wanted <= sample.done <= (_WARM_UP + _SHARE) * wanted]
    last = [sample for sample in samples if sample.done >= (1 - _SHARE) * wanted]
    if not first:  # with few recordings: the first sample after the warm-up
        first = [next(sample for sample in samples if sample.done >= _WARM_UP * wanted)]

    def mean(among: list[Sample], field: str) -> float:
        return statistics.fmean(getattr(sample, field) for sample in among) / _MIB

    rows = []
    for what, field in (
        ("parent, PSS", "parent_pss"),
        ("parent, USS", "parent_uss"),
        ("children, PSS", "children_pss"),
        ("children, USS", "children_uss"),
        ("all, PSS", "pss"),
        ("all, USS", "uss"),
    ):
        before, after = mean(first, field), mean(last, field)
        rows.append((what, before, after, after / before - 1, max(getattr(one, field) for one in samples) / _MIB))
    growth = mean(last, "uss") / mean(first, "uss")
    return Measurements(
        title="Memory of a worker",
        command=command,
        columns=(
            Column("what"),
            Column("after the warm-up", "MiB", 1),
            Column("at the end", "MiB", 1),
            Column("growth", digits=3),
            Column("most", "MiB", 1),
        ),
        rows=tuple(rows),
        hardware=hardware(),
        notes=(
            f"{wanted} recordings of 0.4 to 60 s, {model.stem}, {cores()} children. After the warm-up: the mean between"
            f" {_WARM_UP:.0%} and {_WARM_UP + _SHARE:.0%} of them; at the end: over the last {_SHARE:.0%}.",
        ),
        verdicts=(
            TargetCheck(f"own memory after {wanted} recordings, of that after the warm-up", growth, TARGET, True),
        ),
    )
