"""The time from enqueueing one recording until its outcome arrives, on an idle worker and beside a backlog."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.quantiles import quantile
from tussis.producer import Producer
from tussis.shared.errors import TussisError
from tussis.worker.bench.environment import BUCKET, BenchEnvironment, bench_environment
from tussis.worker.bench.floor import cores
from tussis.worker.bench.material import Item, workloads
from tussis.worker.bench.measurements import Cell, Column, Measurements, TargetCheck, hardware
from tussis.worker.bench.process_tree import cpu_s
from tussis.worker.local.running_worker import RunningWorker

#: Milliseconds of an answer beside the model, on an idle worker: the median, and the 99th percentile.
MEDIAN_MS: Final = 25.0
P99_MS: Final = 60.0
#: The priorities of the recordings that are timed, and of the backlog.
_FIRST, _LAST = 0, 9
#: Seconds between an outcome and the next recording: an idle worker is idle then.
_PAUSE_S = 0.05
_TIMEOUT_S = 120.0
_WARM_UP = 10


@dataclass(frozen=True, slots=True)
class Asked:
    """One recording. All numbers are milliseconds, seen by the upstream system."""

    total: float
    """From before its enqueueing until its outcome was received."""
    stages: Mapping[str, float]
    """The stages of the attempt, as the worker stored them."""

    @property
    def beside_model(self) -> float:
        """The time that the model does not explain."""
        return self.total - self.stages["inference"]


@dataclass(frozen=True, slots=True)
class Sizes:
    """The numbers of recordings."""

    idle: int
    beside: int
    backlog: int


def measure(model: Path, sizes: Sizes, *, command: str) -> Measurements:
    """Time recordings of 2 s: one after the other on an idle worker, then beside a backlog of a lower priority.

    Beside the backlog, ``sizes.beside`` recordings are timed one after the other, and as many again that are enqueued
    at once. Raises the errors of the servers.
    """
    (workload,) = workloads(["2s"], 256, None)
    with ExitStack() as stack:
        environment = stack.enter_context(bench_environment())
        environment.upload(workload.items)
        worker = stack.enter_context(environment.worker(model, cores()))
        producer = stack.enter_context(Producer(environment.servers.endpoints.broker_url, head=False))
        upstream = _Upstream(environment, producer, workload.items)
        upstream.one_by_one(_WARM_UP, pause_s=_PAUSE_S)
        before = cpu_s(worker)
        idle = upstream.one_by_one(sizes.idle, pause_s=_PAUSE_S)
        spent = (cpu_s(worker) - before) / sizes.idle * 1000
        for number in range(sizes.backlog):
            upstream.enqueue(number, _LAST)
        alone = upstream.one_by_one(sizes.beside, pause_s=0.0)
        _backlog_left(environment, worker)
        together = upstream.at_once(sizes.beside)
        waiting = _backlog_left(environment, worker)
    beside = [one.beside_model for one in idle]
    return Measurements(
        title="Latency, from enqueue to outcome",
        command=command,
        columns=(
            Column("recordings of 2 s"),
            Column("count"),
            Column("median", "ms", 1),
            Column("90 %", "ms", 1),
            Column("99 %", "ms", 1),
            Column("most", "ms", 1),
        ),
        rows=(
            _row("idle worker", [one.total for one in idle]),
            _row("idle worker, beside the model", beside),
            _row("beside a backlog, one after the other", [one.total for one in alone]),
            _row("beside a backlog, enqueued at once", [one.total for one in together]),
        ),
        hardware=hardware(),
        notes=(
            f"A worker with {cores()} children serves {model.stem}; servers and upstream system on the same cores.",
            f"Idle: one recording at a time, with a pause of {_PAUSE_S * 1000:g} ms;"
            f" {spent:.1f} ms of the worker's CPU for each, its waiting included.",
            f"Of an answer on the idle worker (medians, ms): {_stages(idle)}.",
            f"The backlog: {sizes.backlog:,} recordings of priority {_LAST}, of which {waiting:,} were open at the end;"
            f" the timed recordings have priority {_FIRST}.",
        ),
        verdicts=(
            TargetCheck("ms of an answer beside the model, median", statistics.median(beside), MEDIAN_MS, at_most=True),
            TargetCheck("ms of an answer beside the model, 99 %", quantile(beside, 0.99), P99_MS, at_most=True),
        ),
    )


def _row(what: str, values: Sequence[float]) -> tuple[Cell, ...]:
    return what, len(values), statistics.median(values), quantile(values, 0.9), quantile(values, 0.99), max(values)


def _stages(asked: Sequence[Asked]) -> str:
    """The median of each stage, and of the time outside the stages, as text."""
    medians = {stage: statistics.median(one.stages[stage] for one in asked) for stage in asked[0].stages}
    medians["the rest"] = statistics.median(one.total - sum(one.stages.values()) for one in asked)
    return ", ".join(f"{stage} {ms:.1f}" for stage, ms in medians.items())


def _backlog_left(environment: BenchEnvironment, worker: RunningWorker) -> int:
    """The number of open jobs. Raises :class:`TussisError` when the backlog is gone: the times would be of no use."""
    worker.check()
    waiting = environment.open_jobs()
    if not waiting:
        raise TussisError("the backlog ended before the measurement")
    return waiting


@dataclass(frozen=True)
class _Upstream:
    """The upstream system: enqueues recordings again and again, and waits for their outcomes."""

    environment: BenchEnvironment
    producer: Producer
    items: Sequence[Item]

    def enqueue(self, number: int, priority: int) -> str:
        key = self.items[number % len(self.items)].key
        etag = self.environment.etags[key]
        return self.producer.enqueue(f"s3://{BUCKET}/{key}", etag=etag, priority=priority, again=True)

    def one_by_one(self, count: int, *, pause_s: float) -> list[Asked]:
        """Each recording is enqueued when the one before has its outcome."""
        asked = []
        for number in range(count):
            time.sleep(pause_s)
            began = time.monotonic()
            job_id = self.enqueue(number, _FIRST)
            self.producer.wait([job_id], timeout_s=_TIMEOUT_S)
            asked.append((job_id, time.monotonic() - began))
        return [self._asked(job_id, seconds) for job_id, seconds in asked]

    def at_once(self, count: int) -> list[Asked]:
        """All recordings are enqueued, and then all outcomes awaited."""
        began: dict[str, float] = {}
        for number in range(count):
            before = time.monotonic()
            began[self.enqueue(number, _FIRST)] = before
        ended = {outcome.job_id: time.monotonic() for outcome in self.producer.wait_each(began, timeout_s=_TIMEOUT_S)}
        return [self._asked(job_id, ended[job_id] - start) for job_id, start in began.items()]

    def _asked(self, job_id: str, seconds: float) -> Asked:
        found = self.environment.store.job(job_id)
        if found is None or "inference" not in found.analysis.timings_ms:
            raise TussisError(f"the store does not have the answer of {job_id}")
        return Asked(seconds * 1000, found.analysis.timings_ms)
