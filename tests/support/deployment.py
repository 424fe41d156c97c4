"""A complete deployment for one test: new broker database, bucket and database, a tiny model, and workers on demand."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from tests.support.preloaded import Preloaded
from tests.support.processes import Running, Spawn
from tests.support.servers import Bucket
from tests.support.sharing import session_folder
from tests.support.waiting import wait_until
from tussis.shared.broker import connect
from tussis.shared.ledger import Ledger
from tussis.shared.messages import Job, job_id_for, normalise_etag
from tussis.shared.store.records import Analysis, ResultFilter
from tussis.shared.store.repository import Store
from tussis.worker.embedded.servers import Servers

#: Seconds for a worker to become ready on a busy machine. The budget on a quiet machine is 8 s.
READY_S = 90.0


@dataclass
class Deployment:
    """The parts that a test uses. Every process of the deployment gets ``environment``."""

    servers: Servers
    environment: dict[str, str]
    bucket: Bucket
    ledger: Ledger
    store: Store
    spawn: Spawn
    preloaded: Preloaded
    jobs: dict[str, Job] = field(default_factory=dict)
    """Every job that was enqueued, by id."""

    def worker(
        self, *arguments: str, kind: str = "cpu", concurrency: int = 2, faulty: bool = False, **settings: object
    ) -> Running:
        """Start a worker and wait until it is ready. ``settings`` are TUSSIS_* by their lower-case names."""
        worker = self.start_worker(*arguments, kind=kind, concurrency=concurrency, faulty=faulty, **settings)
        worker.wait_for_event("worker_ready", READY_S)

        def all_said() -> bool:
            """A child logs that it is ready after it reports to the parent, so its line may follow the parent's."""
            said = [event.get("event") for event in worker.events]
            return said.count("child_ready") >= concurrency and (kind != "gpu" or "device_ready" in said)

        wait_until(all_said, READY_S, "the word of each of the worker's processes")
        return worker

    def start_worker(
        self, *arguments: str, kind: str = "cpu", concurrency: int = 2, faulty: bool = False, **settings: object
    ) -> Running:
        """Start a worker and do not wait. ``faulty`` starts :mod:`tests.soak.faulty_worker` in its place."""
        environment = self.environment | {f"TUSSIS_{name.upper()}": str(value) for name, value in settings.items()}
        words = [kind, "--concurrency", str(concurrency), *arguments]
        if faulty:
            words = ["-m", "tests.soak.faulty_worker", *words]
            return self.spawn(*words, environment=environment, program=sys.executable, preloaded=self.preloaded)
        return self.spawn("worker", *words, environment=environment, preloaded=self.preloaded)

    def tussis(self, *arguments: str, **settings: object) -> Running:
        """Run a ``tussis`` command against this deployment."""
        environment = self.environment | {f"TUSSIS_{name.upper()}": str(value) for name, value in settings.items()}
        return self.spawn(*arguments, environment=environment, preloaded=self.preloaded)

    def enqueue(self, key: str, data: bytes | None, **fields: object) -> Job:
        """Upload ``data`` (unless it is None) and open a job pinned to the entity tag. ``fields`` are the job's."""
        if data is not None:
            self.bucket.put(key, data)
        etag = fields.pop("etag", None)
        if etag is None and data is not None:
            etag = normalise_etag(self.bucket.client.head_object(Bucket=self.bucket.name, Key=key)["ETag"])
        named = {name: fields.get(name) for name in ("version_id", "model", "profile", "coverage")}
        fields.setdefault(
            "job_id",
            str(uuid.uuid4())
            if fields.get("again") or etag is None
            else job_id_for(self.bucket.name, key, etag=str(etag), **named),  # type: ignore[arg-type]
        )
        job = Job(bucket=self.bucket.name, key=key, etag=etag, enqueued_at=time.time(), **fields)  # type: ignore[arg-type]
        self.ledger.open(job)
        self.jobs[job.job_id] = job
        return job

    def analysis(self, job: Job) -> Analysis:
        """Return the analysis of a job. Fails when the store has none."""
        answer = self.store.job(job.job_id)
        assert answer is not None, f"the store knows nothing of {job.uri}"
        return answer.analysis

    def analyses(self) -> list[Analysis]:
        """Return every analysis in the store."""
        return list(self.store.results(ResultFilter()))

    def wait_drained(self, timeout_s: float) -> None:
        """Wait until nothing is open, waiting, in flight or deferred, twice in a row.

        Between its pop and its record as in flight, a message that the ledger does not hold is nowhere.
        """
        rounds = 0

        def drained() -> bool:
            nonlocal rounds
            depth = self.ledger.depth()
            rounds = 0 if depth.open or depth.total_waiting or depth.in_flight or depth.deferred else rounds + 1
            return rounds == 2

        try:
            wait_until(drained, timeout_s, "the queues to drain", every_s=0.1)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.ledger.depth()}\n{self.store.counts()}") from None

    def wait_results(self, count: int, timeout_s: float) -> None:
        """Wait until ``count`` analyses have succeeded."""
        wait_until(lambda: self.store.counts().succeeded >= count, timeout_s, f"{count} results")

    def assert_accounted(self, *, failures: int = 0) -> None:
        """Assert that every job has exactly one terminal row with all its segments, and that nothing is open."""
        depth = self.ledger.depth()
        assert (depth.open, depth.total_waiting, depth.in_flight, depth.deferred) == (0, 0, 0, 0)
        by_id = {job_id: self.analysis(job) for job_id, job in self.jobs.items()}
        failed = [analysis for analysis in by_id.values() if analysis.state == "failed"]
        assert len(failed) == failures, [(a.uri, a.error_class, a.error_message) for a in failed]
        assert {analysis.state.value for analysis in by_id.values()} <= {"succeeded", "failed"}
        everything = self.analyses()
        identities = [(a.uri, a.etag, a.model, a.profile, a.coverage, a.forced_by) for a in everything]
        assert len(identities) == len(set(identities))
        assert {analysis.id for analysis in everything} == {analysis.id for analysis in by_id.values()}
        for analysis in everything:
            rows = self.store.segments_of(analysis.id)
            assert [row.bag_index * 32 + row.index for row in rows] == list(range(analysis.segments or 0))
            assert bool(rows) == (analysis.state == "succeeded")

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        """Run one statement on the store."""
        with psycopg.connect(self.environment["TUSSIS_DATABASE_URL"]) as connection:
            return list(connection.execute(statement.encode()).fetchall())


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the workers of all tests cache how they run a model, so that each model is measured once."""
    return session_folder(tmp_path_factory, "model-cache")


@pytest.fixture
def deployment(
    servers: Servers,
    store_url: str,
    broker_url: str,
    bucket: Bucket,
    tiny_model: Path,
    model_cache: Path,
    spawn: Spawn,
    preloaded: Preloaded,
    tmp_path: Path,
) -> Iterator[Deployment]:
    """A deployment without a worker."""
    environment: Mapping[str, str] = servers.endpoints.environment() | {
        "TUSSIS_DATABASE_URL": store_url,
        "TUSSIS_BROKER_URL": broker_url,
        "TUSSIS_MODEL": str(tiny_model),
        "TUSSIS_MODEL_CACHE_DIR": str(model_cache),
        "TUSSIS_RUN_DIR": str(tmp_path),
    }
    with Store.connect(store_url, pool_size=2) as store:
        yield Deployment(
            servers=servers,
            environment=dict(environment),
            bucket=bucket,
            ledger=Ledger(connect(broker_url)),
            store=store,
            spawn=spawn,
            preloaded=preloaded,
        )
        spawn.end()
