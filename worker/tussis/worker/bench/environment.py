"""The environment of a benchmark: embedded servers, a bucket with the recordings, a real worker."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
from tussis.worker.bench.process_tree import cpu_s
from tussis.worker.embedded.servers import Servers
from tussis.worker.local.bucket import bucket_client
from tussis.worker.local.running_worker import RunningWorker, worker_command
from tussis.worker.local.surroundings import forget_deployments

BUCKET = "tussis-bench"
#: Seconds that one pass may take.
PASS_S = 600.0
#: Seconds between two checks whether a pass is over. A check is one short command to the broker.
_POLL_S = 0.01
_CACHE = "TUSSIS_MODEL_CACHE_DIR"
#: The number of jobs that are enqueued in one step.
_BATCH = 500


@dataclass(frozen=True)
class Answered:
    """One pass of the pipeline over a workload."""

    spent: Spent
    jobs: tuple[Job, ...]


@dataclass
class BenchEnvironment:
    """The servers, the store and the bucket, for the time of :func:`bench_environment`."""

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

    @contextmanager
    def worker(
        self,
        model: Path,
        children: int,
        *arguments: str,
        device: str = "cpu",
        name: str = "worker",
        settings: Mapping[str, str] | None = None,
    ) -> Iterator[RunningWorker]:
        """A worker that is ready, for the time of a ``with`` block. ``arguments`` follow those of its command line."""
        run_dir = self.data / f"run-{name}"
        run_dir.mkdir(exist_ok=True)
        worker = RunningWorker(
            self.servers,
            self.data,
            name,
            worker_command(device, model, children, *arguments),
            run_dir=run_dir,
            environment={**self.kept, **(settings or {})},
        )
        try:
            worker.wait_ready()
            yield worker
        finally:
            worker.stop()

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

    def open_jobs(self) -> int:
        """The number of open jobs. A job is closed after its rows are committed."""
        return int(self.broker.zcard(OPEN_KEY))

    def wait_open(self, worker: RunningWorker, most: int, poll_s: float = _POLL_S) -> None:
        """Wait until at most ``most`` jobs are open. Raises :class:`ServerFailed`: too late, or the worker ended."""
        ends = time.monotonic() + PASS_S
        while self.open_jobs() > most:
            time.sleep(poll_s)
            worker.check()
            if time.monotonic() > ends:
                raise ServerFailed(f"the recordings are not done after {PASS_S:g} s; see {worker.log}")

    def pass_over(self, workload: Workload, worker: RunningWorker) -> Answered:
        """Enqueue a workload and wait for its committed rows. Raises :class:`TussisError` when a result is missing."""
        jobs = self.jobs(workload.items)
        cpu, began = cpu_s(worker), time.monotonic()
        self.enqueue(jobs)
        self.wait_open(worker, 0)
        spent = Spent(time.monotonic() - began, cpu_s(worker) - cpu)
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
            raise TussisError(f"the store does not have {job.uri}")
        return answer.analysis


@contextmanager
def bench_environment() -> Iterator[BenchEnvironment]:
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
            yield BenchEnvironment(
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
