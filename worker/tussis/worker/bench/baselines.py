"""The baselines, programs to compare Tussis with: ``benchmarks/baseline/`` of the repository, not in the package."""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from tussis.shared.errors import ServerFailed
from tussis.worker.bench.crew import Spent
from tussis.worker.bench.material import Item
from tussis.worker.bench.place import BUCKET, PASS_S, Place, Program
from tussis.worker.embedded.ports import free_ports

#: The folder of the baselines in a checkout.
FOLDER = Path("benchmarks/baseline")
HTTP, CELERY = "old backend", "plain Celery"


@dataclass(frozen=True)
class Measured:
    """One pass of a baseline."""

    spent: Spent
    answers: Mapping[str, float]
    """Bag probability by key."""


class Baseline(Protocol):
    """A running baseline."""

    program: Program

    @property
    def name(self) -> str:
        """The name in the table."""

    def pass_over(self, items: Sequence[Item]) -> Measured:
        """Analyse the recordings, which are in the bucket. Raises :class:`ServerFailed`."""


def find(given: Path | None) -> Path | None:
    """The folder of the baselines: the given one, that of the current directory, or that of the checkout; else None.

    Raises :class:`ServerFailed` when the given folder contains no baseline.
    """
    if given is not None:
        if not (given / "plain_celery.py").is_file():
            raise ServerFailed(f"{given} holds no baseline: give benchmarks/baseline of a checkout")
        return given
    for folder in (FOLDER, Path(__file__).resolve().parents[4] / FOLDER):
        if (folder / "plain_celery.py").is_file():
            return folder.resolve()
    return None


class HttpBackend:
    """The old backend: gunicorn and Flask. The recordings are uploaded to it; it fetches and stores nothing."""

    name = HTTP

    def __init__(self, place: Place, folder: Path, model: Path, workers: int) -> None:
        (self._port,) = free_ports(1)
        self._workers = workers
        argv = [sys.executable, "-m", "gunicorn", "--workers", str(workers), "--bind", f"127.0.0.1:{self._port}"]
        argv += ["--timeout", "120", "http_backend:app"]
        self.program = place.run("old-backend", argv, folder, {"BASELINE_MODEL": str(model)})
        # The arbiter listens at once, but every worker loads the model before it accepts a request.
        self.program.wait(lambda: len(self.program.tree()) > workers and self._healthy())

    def pass_over(self, items: Sequence[Item]) -> Measured:
        """Upload the recordings, one at a time for each worker."""
        answers: dict[str, float] = {}
        local = threading.local()

        def one(item: Item) -> None:
            if not hasattr(local, "connection"):
                local.connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PASS_S)
            answers[item.key] = self._ask(local.connection, item.data)

        cpu, began = self.program.cpu_s(), time.monotonic()
        with ThreadPoolExecutor(self._workers) as pool:
            list(pool.map(one, items))
        return Measured(Spent(time.monotonic() - began, self.program.cpu_s() - cpu), answers)

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


class PlainCelery:
    """Unmodified Celery on the same broker (another logical database) and database server (another database)."""

    name = CELERY

    def __init__(self, place: Place, folder: Path, model: Path, children: int) -> None:
        import psycopg
        from celery import Celery

        endpoints = place.servers.endpoints
        with psycopg.connect(endpoints.database_url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE plain")
        database = urlunsplit(urlsplit(endpoints.database_url)._replace(path="/plain"))
        broker = urlunsplit(urlsplit(endpoints.broker_url)._replace(path="/1"))
        environment = {
            "BASELINE_MODEL": str(model),
            "BASELINE_BROKER_URL": broker,
            "BASELINE_DATABASE_URL": database,
        }
        made = place.run("plain-celery-tables", (sys.executable, "plain_celery.py"), folder, environment)
        if made.process.wait(120) != 0:
            raise ServerFailed(f"the plain Celery baseline cannot make its tables; see {made.log}")
        argv = [sys.executable, "-m", "celery", "-A", "plain_celery", "worker", "--pool", "prefork"]
        argv += ["--concurrency", str(children), "--loglevel", "INFO"]
        self.program = place.run("plain-celery", argv, folder, environment)
        self.program.wait(lambda: any(" ready." in line for line in self.program.lines()))
        self._app: Any = Celery("bench", broker=broker, set_as_current=False)
        self._connection = psycopg.connect(database, autocommit=True)

    def pass_over(self, items: Sequence[Item]) -> Measured:
        """Send a task for each recording and wait for its rows."""
        batch = uuid.uuid4().hex
        cpu, began = self.program.cpu_s(), time.monotonic()
        with self._app.connection_for_write() as connection:
            for item in items:
                self._app.send_task("plain.analyze", (batch, BUCKET, item.key), connection=connection)
        count = "SELECT count(*) FROM recordings WHERE batch = %s"
        while self._connection.execute(count, (batch,)).fetchall()[0][0] < len(items):
            time.sleep(0.02)
            if not self.program.process.running or time.monotonic() - began > PASS_S:
                raise ServerFailed(f"the plain Celery baseline does not get done; see {self.program.log}")
        spent = Spent(time.monotonic() - began, self.program.cpu_s() - cpu)
        rows = self._connection.execute("SELECT key, probability FROM recordings WHERE batch = %s", (batch,))
        return Measured(spent, dict(rows.fetchall()))
