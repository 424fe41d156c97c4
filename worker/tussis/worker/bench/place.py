"""The environment of a benchmark: embedded servers, a bucket with the recordings, a real worker."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tussis.shared.broker import connect
from tussis.shared.errors import ServerFailed, TussisError
from tussis.shared.ledger import Ledger
from tussis.shared.messages import Job, normalise_etag
from tussis.shared.queues import OPEN_KEY
from tussis.shared.states import AnalysisState
from tussis.shared.store import migrate
from tussis.shared.store.records import Analysis
from tussis.shared.store.repository import Store
from tussis.worker.bench.crew import Spent
from tussis.worker.bench.material import Item, Workload
from tussis.worker.embedded.process import Command, GuardedProcess, StopStep
from tussis.worker.embedded.servers import Servers
from tussis.worker.local.bucket import bucket_client
from tussis.worker.local.surroundings import forget_deployments, said_last, tussis_command

BUCKET = "tussis-bench"
#: Seconds that a program may take to be ready, and that one pass may take.
READY_S, PASS_S = 180.0, 600.0
#: Seconds between two checks whether a pass is over. A check is one short command to the broker.
_POLL_S = 0.01
_CACHE = "TUSSIS_MODEL_CACHE_DIR"
#: The number of jobs that are enqueued in one step.
_BATCH = 500


@dataclass
class Program:
    """A measured process beside the servers."""

    name: str
    process: GuardedProcess
    log: Path

    def cpu_s(self) -> float:
        """User and system seconds of the process and its descendants, each since its start."""
        return sum(self.cpu_parts())

    def cpu_parts(self) -> tuple[float, float]:
        """The same, separately for the process and for its descendants."""
        parent, *children = map(_cpu_s, self.tree())
        return parent, sum(children)

    def tree(self) -> list[Any]:
        """The process and its descendants. Raises :class:`ServerFailed` when it has ended."""
        try:
            parent = psutil.Process(self.process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            raise ServerFailed(f"{self.name} ended: {said_last(self.lines())}; see {self.log}") from None

    def lines(self) -> list[str]:
        """The lines of its log."""
        return self.log.read_text(errors="replace").splitlines()

    def wait(self, ready: Callable[[], bool], timeout_s: float = READY_S) -> None:
        """Wait for a condition. Raises :class:`ServerFailed` after ``timeout_s`` or when the process ends."""
        ends = time.monotonic() + timeout_s
        while not ready():
            if not self.process.running:
                raise ServerFailed(f"{self.name} ended: {said_last(self.lines())}; see {self.log}")
            if time.monotonic() > ends:
                raise ServerFailed(f"{self.name} is not ready after {timeout_s:g} s; see {self.log}")
            time.sleep(0.05)


@dataclass(frozen=True)
class Answered:
    """One pass of the pipeline over a workload."""

    spent: Spent
    jobs: tuple[Job, ...]


@dataclass
class Place:
    """The servers, the store and the bucket, for the time of :func:`place`."""

    servers: Servers
    data: Path
    client: Any
    ledger: Ledger
    broker: Any
    store: Store
    kept: Mapping[str, str]
    """The settings in the environment that do not belong to a deployment."""
    etags: dict[str, str] = field(default_factory=dict)
    """Entity tags of the uploaded recordings, by key."""

    def upload(self, items: Sequence[Item]) -> None:
        """Upload recordings into the bucket."""
        for item in items:
            answer = self.client.put_object(Bucket=BUCKET, Key=item.key, Body=item.data)
            self.etags[item.key] = normalise_etag(answer["ETag"])

    def run(self, name: str, argv: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> Program:
        """Start a program that ends with this process."""
        log = self.data / f"{name}.log"
        command = Command(
            name=name,
            argv=tuple(argv),
            cwd=cwd,
            log=log,
            stop=(StopStep("SIGTERM", 30.0),),
            death_signal="SIGKILL",
            environment={**os.environ, **self.servers.endpoints.environment(), **environment},
        )
        return Program(name, self.servers.run_beside(command), log)

    def worker(self, model: Path, children: int, *, name: str = "worker", **settings: object) -> Program:
        """Start ``tussis worker cpu`` and wait until it is ready. ``settings``: TUSSIS_* by their lower-case names."""
        run_dir = self.data / f"run-{name}"
        run_dir.mkdir(exist_ok=True)
        environment = {f"TUSSIS_{key.upper()}": str(value) for key, value in settings.items()}
        argv = (tussis_command(), "worker", "cpu", "--concurrency", str(children), "--model", str(model))
        program = self.run(name, argv, self.data, {"TUSSIS_RUN_DIR": str(run_dir), **self.kept, **environment})
        program.wait(lambda: any(_event(line) == "worker_ready" for line in program.lines()))
        return program

    def jobs(self, items: Sequence[Item]) -> list[Job]:
        """Make a new job for each recording, also for recordings that already have an answer."""
        now = time.time()
        return [
            Job(
                job_id=str(uuid.uuid4()),
                bucket=BUCKET,
                key=item.key,
                etag=self.etags[item.key],
                enqueued_at=now,
                again=True,
            )
            for item in items
        ]

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Enqueue all jobs."""
        for start in range(0, len(jobs), _BATCH):
            self.ledger.open_many(jobs[start : start + _BATCH])

    def drain(self, worker: Program) -> None:
        """Wait until no job is open. A job is closed after its rows are committed. Raises :class:`ServerFailed`."""
        ends = time.monotonic() + PASS_S
        while self.broker.zcard(OPEN_KEY):
            time.sleep(_POLL_S)
            if not worker.process.running or time.monotonic() > ends:
                raise ServerFailed(f"the worker does not get done: {said_last(worker.lines())}; see {worker.log}")

    def pass_over(self, workload: Workload, worker: Program) -> Answered:
        """Enqueue a workload and wait for its committed rows. Raises :class:`TussisError` when a result is missing."""
        jobs = self.jobs(workload.items)
        cpu, began = worker.cpu_s(), time.monotonic()
        self.enqueue(jobs)
        self.drain(worker)
        spent = Spent(time.monotonic() - began, worker.cpu_s() - cpu)
        for job, item in zip(jobs, workload.items, strict=True):
            analysis = self.analysis(job)
            if analysis.state is not AnalysisState.SUCCEEDED or analysis.segments != item.segments:
                what = f"{analysis.state}, {analysis.error_class}: {analysis.error_message}"
                raise TussisError(f"{item.key} is {what} ({analysis.segments} of {item.segments} segments)")
        return Answered(spent, tuple(jobs))

    def analysis(self, job: Job) -> Analysis:
        """The analysis of a job. Raises :class:`TussisError` when the store does not have the job."""
        answer = self.store.job(job.job_id)
        if answer is None:
            raise TussisError(f"the store knows nothing of {job.uri}")
        return answer.analysis


@contextmanager
def place() -> Iterator[Place]:
    """Start the servers in a new folder; at the end stop them and remove it. Raises the errors of servers and store.

    The settings of a deployment are removed from the environment of this process.
    """
    cache = os.environ.get(_CACHE)
    forget_deployments()
    data = Path(tempfile.mkdtemp(prefix="tussis-bench-"))
    # For root, PostgreSQL runs as another user, which must be able to enter the folder.
    data.chmod(0o711)
    try:
        with ExitStack() as stack:
            servers = stack.enter_context(Servers(data / "servers"))
            endpoints = servers.endpoints
            migrate.upgrade(endpoints.database_url)
            client = bucket_client(endpoints)
            client.create_bucket(Bucket=BUCKET)
            broker = connect(endpoints.broker_url)
            yield Place(
                servers=servers,
                data=data,
                client=client,
                ledger=Ledger(broker),
                broker=broker,
                kept={} if cache is None else {_CACHE: cache},
                store=stack.enter_context(Store.connect(endpoints.database_url, pool_size=1, direct=True)),
            )
    finally:
        shutil.rmtree(data, ignore_errors=True)


def stop(programs: Sequence[Program]) -> None:
    """Stop programs in parallel; return when they have ended."""
    for program in programs:
        program.process.ask_to_stop()
    for program in programs:
        program.process.stop()


def _cpu_s(process: Any) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def _event(line: str) -> str | None:
    if not line.startswith("{"):
        return None
    try:
        return str(json.loads(line).get("event"))
    except ValueError:  # an incomplete line
        return None
