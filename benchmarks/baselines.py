"""The baselines, programs to compare Tussis with. Their code is in ``benchmarks/baseline/``."""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit, urlunsplit

from tussis.shared.errors import ServerFailed, TussisError
from tussis.worker.bench.crew import Spent
from tussis.worker.bench.environment import BUCKET, PASS_S, BenchEnvironment
from tussis.worker.bench.material import Item, Workload
from tussis.worker.bench.process_tree import cpu_s, process_tree
from tussis.worker.embedded.ports import free_ports
from tussis.worker.local.running_program import RunningProgram

_FOLDER = Path(__file__).with_name("baseline")
HTTP, CELERY = "old backend", "plain Celery"
#: The largest difference between bag probabilities of a baseline and of Tussis. Above it, they do not do the same work.
AGREEMENT = 1e-3


class Baseline(ABC):
    """A running baseline. ``model`` is the float32 model that it runs, ``processes`` the number of its processes."""

    #: The name in the table.
    name: ClassVar[str]
    program: RunningProgram

    @abstractmethod
    def __init__(self, environment: BenchEnvironment, model: Path, processes: int) -> None:
        """Start it and wait until it is ready. Raises :class:`ServerFailed`."""

    @abstractmethod
    def analyse(self, items: Sequence[Item]) -> tuple[Spent, Mapping[str, float]]:
        """Analyse the recordings once; return the bag probabilities by key. Raises :class:`ServerFailed`."""


@dataclass
class ComparedBaseline:
    """A baseline in the rounds of the pipeline, and how far its answers are from those of Tussis."""

    baseline: Baseline
    same_model: bool
    """Whether Tussis runs the same model. If not, the answers may differ."""
    shift: float = 0.0
    """The largest difference between bag probabilities of the baseline and of Tussis."""

    @property
    def name(self) -> str:
        """The name in the table."""
        return self.baseline.name

    def pass_over(self, workload: Workload, probabilities: Mapping[str, float]) -> Spent:
        """Analyse the recordings once.

        Raises :class:`TussisError` when the models are the same and an answer differs by more than :data:`AGREEMENT`.
        """
        spent, answers = self.baseline.analyse(workload.items)
        shift = max((abs(answers[key] - probability) for key, probability in probabilities.items()), default=0.0)
        self.shift = max(self.shift, shift)
        if self.same_model and shift > AGREEMENT:
            raise TussisError(
                f"the answers of {self.name} differ from those of Tussis: by {shift:.4f} on {workload.name}"
            )
        return spent


class HttpBackend(Baseline):
    """The old backend: gunicorn and Flask. The recordings are uploaded to it; it fetches and stores nothing."""

    name = HTTP

    def __init__(self, environment: BenchEnvironment, model: Path, processes: int) -> None:
        (self._port,) = free_ports(1)
        self._workers = processes
        argv = [sys.executable, "-m", "gunicorn", "--workers", str(processes), "--bind", f"127.0.0.1:{self._port}"]
        argv += ["--timeout", "120", "http_backend:app"]
        self.program = _start(environment, "old-backend", argv, {"BASELINE_MODEL": str(model)})
        # The arbiter listens at once, but every worker loads the model before it accepts a request.
        self.program.wait(lambda: len(process_tree(self.program)) > processes and self._healthy())

    def analyse(self, items: Sequence[Item]) -> tuple[Spent, Mapping[str, float]]:
        """Upload the recordings, one at a time for each worker."""
        answers: dict[str, float] = {}
        local = threading.local()

        def one(item: Item) -> None:
            if not hasattr(local, "connection"):
                local.connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PASS_S)
            answers[item.key] = self._ask(local.connection, item.data)

        cpu, began = cpu_s(self.program), time.monotonic()
        with ThreadPoolExecutor(self._workers) as pool:
            list(pool.map(one, items))
        return Spent(time.monotonic() - began, cpu_s(self.program) - cpu), answers

    def _ask(self, connection: http.client.HTTPConnection, data: bytes) -> float:
        connection.request("POST", "/analyze", body=data, headers={"Content-Type": "application/octet-stream"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise ServerFailed(f"{self.name} answered {answer.status}; see {self.program.log}")
        return float(json.loads(body)["confidence"])

    def _healthy(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


class PlainCelery(Baseline):
    """Unmodified Celery on the same broker (another logical database) and database server (another database)."""

    name = CELERY

    def __init__(self, environment: BenchEnvironment, model: Path, processes: int) -> None:
        import psycopg
        from celery import Celery

        endpoints = environment.servers.endpoints
        with psycopg.connect(endpoints.database_url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE plain")
        database = urlunsplit(urlsplit(endpoints.database_url)._replace(path="/plain"))
        broker = urlunsplit(urlsplit(endpoints.broker_url)._replace(path="/1"))
        settings = {
            "BASELINE_MODEL": str(model),
            "BASELINE_BROKER_URL": broker,
            "BASELINE_DATABASE_URL": database,
        }
        made = _start(environment, "plain-celery-tables", (sys.executable, "plain_celery.py"), settings)
        if made.process.wait(120) != 0:
            raise ServerFailed(f"the plain Celery baseline cannot make its tables; see {made.log}")
        argv = [sys.executable, "-m", "celery", "-A", "plain_celery", "worker", "--pool", "prefork"]
        argv += ["--concurrency", str(processes), "--loglevel", "INFO"]
        self.program = _start(environment, "plain-celery", argv, settings)
        self.program.wait(lambda: any(" ready." in line for line in self.program.lines()))
        self._app: Any = Celery("bench", broker=broker, set_as_current=False)
        self._connection = psycopg.connect(database, autocommit=True)

    def analyse(self, items: Sequence[Item]) -> tuple[Spent, Mapping[str, float]]:
        """Send a task for each recording and wait for its rows."""
        batch = uuid.uuid4().hex
        cpu, began = cpu_s(self.program), time.monotonic()
        with self._app.connection_for_write() as connection:
            for item in items:
                self._app.send_task("plain.analyze", (batch, BUCKET, item.key), connection=connection)
        count = "SELECT count(*) FROM recordings WHERE batch = %s"
        while self._connection.execute(count, (batch,)).fetchall()[0][0] < len(items):
            time.sleep(0.02)
            self.program.check()
            if time.monotonic() - began > PASS_S:
                raise ServerFailed(f"plain Celery is not done after {PASS_S:g} s; see {self.program.log}")
        spent = Spent(time.monotonic() - began, cpu_s(self.program) - cpu)
        rows = self._connection.execute("SELECT key, probability FROM recordings WHERE batch = %s", (batch,))
        return spent, dict(rows.fetchall())


def _start(
    environment: BenchEnvironment, name: str, argv: Sequence[str], settings: Mapping[str, str]
) -> RunningProgram:
    return RunningProgram(environment.servers, environment.data, name, argv, cwd=_FOLDER, environment=settings)
