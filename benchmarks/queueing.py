"""The queue: the speed of enqueueing, and the cost of a message when few or very many messages wait."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.closing import Closing, measure_closing
from benchmarks.tiny import write_tiny
from tussis.shared.errors import ServerFailed
from tussis.worker.bench.environment import PASS_S, BenchEnvironment, bench_environment
from tussis.worker.bench.floor import cores
from tussis.worker.bench.material import Item, wav
from tussis.worker.bench.measurements import Cell, Column, Measurements, TargetCheck, hardware
from tussis.worker.bench.process_tree import cpu_parts
from tussis.worker.embedded.server import EmbeddedServer

#: Jobs a second that one process enqueues, including the ledger.
RATE_TARGET = 20_000.0
#: The largest CPU time of a message with many waiting messages, relative to few.
COST_TARGET = 1.10
#: The largest CPU time of a message whose outcome is told, relative to one whose outcome is not.
OUTCOME_TARGET = 1.10
FEW, MANY = 1_000, 1_000_000
_QUICK_MANY = 20_000
#: Jobs enqueued to measure the rate, and messages processed to measure the cost.
_JOBS, _QUICK_JOBS = 100_000, 20_000
_MESSAGES, _QUICK_MESSAGES = 600, 150
#: Jobs that are closed, with and without an outcome.
_CLOSED, _QUICK_CLOSED = 2_000, 400
#: Messages processed before a measurement begins.
_WARM_UP = 60
#: Seconds between two looks at the open jobs: few, because each one costs the broker CPU time.
_POLL_S = 0.05

#: The program of upstream. It runs in a separate process, because the worker does not import the producer.
_UPSTREAM = """
import json, sys, time
from tussis.producer import JobRequest, Producer
url, count, etag = sys.argv[1], int(sys.argv[2]), sys.argv[3] or None
if etag:
    requests = (JobRequest("s3://tussis-bench/short.wav", etag=etag, again=True) for _ in range(count))
else:
    requests = (JobRequest(f"s3://tussis-bench/2026/11/{n:08d}.wav", etag=f"{n:032x}") for n in range(count))
with Producer(url, head=False) as producer:
    list(producer.enqueue_many([JobRequest("s3://tussis-bench/first.wav", etag="0")], dry_run=True))
    wall, cpu = time.perf_counter(), time.process_time()
    sent = sum(item.sent for item in producer.enqueue_many(requests))
    print(json.dumps([sent, time.perf_counter() - wall, time.process_time() - cpu]))
"""


@dataclass(frozen=True)
class Bulk:
    """One bulk enqueue."""

    jobs: int
    wall_s: float
    cpu_s: float
    """The CPU seconds of the enqueueing process."""
    broker_cpu_s: float


@dataclass(frozen=True)
class Cost:
    """The CPU seconds of one message."""

    parent_s: float
    children_s: float
    broker_s: float

    @property
    def total_s(self) -> float:
        """The sum over all processes."""
        return self.parent_s + self.children_s + self.broker_s


def measure(
    *, rounds: int, quick: bool, many: int | None, command: str, say: Callable[[str], object] = lambda _: None
) -> Measurements:
    """Make both measurements. ``many``: waiting messages in the larger case. Raises the errors of the servers."""
    jobs, messages = (_QUICK_JOBS, _QUICK_MESSAGES) if quick else (_JOBS, _MESSAGES)
    large = many or (_QUICK_MANY if quick else MANY)
    with bench_environment() as environment:
        bulk = [_bulk(environment, jobs, "") for _ in range(rounds)]
        say(f"enqueued {jobs} jobs {rounds} times")
        server = environment.servers.broker
        closing = measure_closing(environment.broker, lambda: _cpu_s(server), _QUICK_CLOSED if quick else _CLOSED)
        say("closed jobs with and without outcomes")
        model = write_tiny(environment.data)
        environment.upload([Item("short.wav", wav(0.4, 0), 1, 0.4)])
        costs: dict[int, list[Cost]] = {FEW: [], large: []}
        # Few, many, few: if the machine slows down meanwhile, the two measurements with few differ.
        for waiting in (FEW, large, FEW):
            say(f"working off {rounds} times {messages} messages before {waiting} others")
            costs[waiting] += _costs(environment, model, waiting, messages, rounds)
    return _measurements(bulk, costs, closing, large, command)


def _bulk(environment: BenchEnvironment, jobs: int, etag: str) -> Bulk:
    """Enqueue ``jobs`` jobs into an empty broker, in a separate process."""
    environment.broker.flushdb()
    environment.broker.bgrewriteaof()
    before = _cpu_s(environment.servers.broker)
    argv = [sys.executable, "-c", _UPSTREAM, environment.servers.endpoints.broker_url, str(jobs), etag]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=PASS_S)
    if ended.returncode != 0:
        raise ServerFailed(f"enqueueing failed: {(ended.stderr.strip().splitlines() or ['no output'])[-1]}")
    sent, wall, cpu = json.loads(ended.stdout)
    if sent != jobs:
        raise ServerFailed(f"of {jobs} jobs {sent} were sent")
    return Bulk(jobs, wall, cpu, _cpu_s(environment.servers.broker) - before)


def _costs(environment: BenchEnvironment, model: Path, waiting: int, messages: int, rounds: int) -> list[Cost]:
    """Measure the CPU seconds of a message ``rounds`` times, with ``waiting`` other messages in the queue."""
    _bulk(environment, waiting + _WARM_UP + messages * rounds, environment.etags["short.wav"])
    costs = []
    with environment.worker(model, cores(), name=f"worker-{waiting}") as worker:
        environment.wait_open(worker, waiting + messages * rounds, _POLL_S)
        for left in reversed(range(rounds)):
            opened = environment.open_jobs()
            before = (*cpu_parts(worker), _cpu_s(environment.servers.broker))
            environment.wait_open(worker, waiting + messages * left, _POLL_S)
            done = opened - environment.open_jobs()
            after = (*cpu_parts(worker), _cpu_s(environment.servers.broker))
            costs.append(Cost(*((late - early) / done for early, late in zip(before, after, strict=True))))
    return costs


def _cpu_s(server: EmbeddedServer) -> float:
    """User and system seconds of a server, without the processes that it forks to rewrite its file."""
    times = psutil.Process(server.pid).cpu_times()
    return float(times.user + times.system)


def _measurements(
    bulk: list[Bulk], costs: dict[int, list[Cost]], closing: tuple[Closing, Closing], large: int, command: str
) -> Measurements:
    rate = statistics.median(run.jobs / run.wall_s for run in bulk)
    each = {count: statistics.median(cost.total_s for cost in found) for count, found in costs.items()}
    rows: list[tuple[Cell, ...]] = [
        (
            "bulk enqueue, one process",
            None,
            rate,
            statistics.median(run.cpu_s / run.jobs for run in bulk) * 1e6,
            None,
            None,
            statistics.median(run.broker_cpu_s / run.jobs for run in bulk) * 1e6,
        )
    ]
    for count, found in costs.items():
        rows.append(
            (
                "a message worked off",
                count,
                None,
                None,
                statistics.median(cost.parent_s for cost in found) * 1e6,
                statistics.median(cost.children_s for cost in found) * 1e6,
                statistics.median(cost.broker_s for cost in found) * 1e6,
            )
        )
    for what, close in zip(("closing a job", "closing a job, outcome told"), closing, strict=True):
        rows.append((what, None, None, None, None, close.worker_s * 1e6, close.broker_s * 1e6))
    without, told = closing
    # A message worked off includes its outcome.
    silent_s = each[FEW] - (told.total_s - without.total_s)
    return Measurements(
        title="Queue",
        command=command,
        columns=(
            Column("what"),
            Column("waiting"),
            Column("messages", "1/s", 0),
            Column("upstream's CPU", "us", 1),
            Column("worker's parent", "us", 0),
            Column("its children", "us", 0),
            Column("broker's CPU", "us", 1),
        ),
        rows=tuple(rows),
        hardware=hardware(),
        notes=(
            f"Enqueue: {bulk[0].jobs} pinned jobs with the ledger, into a broker that writes every step to its file"
            f" before it answers; medians of {len(bulk)} runs.",
            "Worked off: recordings of 0.4 s and a model that costs nothing; CPU microseconds a message;"
            f" medians of {len(costs[FEW])} and {len(costs[large])} windows.",
        ),
        verdicts=(
            TargetCheck("jobs enqueued a second", rate, RATE_TARGET),
            TargetCheck("CPU a message with its outcome against without", each[FEW] / silent_s, OUTCOME_TARGET, True),
            TargetCheck(f"CPU a message before {large:,} against {FEW:,}", each[large] / each[FEW], COST_TARGET, True),
        ),
    )
