"""The processes of a soak: the servers, a bucket, workers, and the proxies between workers and servers."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tests.soak.s3_proxy import S3Proxy
from tests.soak.tcp_proxy import TcpProxy
from tussis.shared.broker import connect
from tussis.shared.ledger import Ledger
from tussis.shared.store import migrate
from tussis.shared.store.repository import Store
from tussis.worker.embedded.servers import Servers
from tussis.worker.local.bucket import bucket_client
from tussis.worker.local.running_program import stop_all
from tussis.worker.local.running_worker import RunningWorker
from tussis.worker.status.rundir import RunDir

BUCKET = "tussis-soak"
#: Short delays and timeouts, so that a soak of minutes covers what otherwise takes hours.
_SETTINGS = {
    "TUSSIS_VISIBILITY_TIMEOUT_S": "10",
    "TUSSIS_RETRY_BASE_S": "0.5",
    "TUSSIS_RETRY_CAP_S": "5",
    "TUSSIS_SOFT_SHUTDOWN_S": "10",
}


@dataclass
class Plant:
    """All processes of a soak, while :func:`plant` is active."""

    servers: Servers
    data: Path
    model: Path
    broker_proxy: TcpProxy
    database_proxy: TcpProxy
    s3_proxy: S3Proxy
    client: Any
    ledger: Ledger
    store: Store
    workers: list[RunningWorker] = field(default_factory=list)
    started: int = 0

    def start_worker(self) -> RunningWorker:
        """Start one more worker with one child; do not wait for it."""
        self.started += 1
        run_dir = self.data / f"run-{self.started}"
        run_dir.mkdir(parents=True)
        worker = RunningWorker(
            self.servers,
            self.data,
            f"worker-{self.started}",
            (sys.executable, "-m", "tests.soak.faulty_worker", "cpu", "--concurrency", "1"),
            run_dir=run_dir,
            environment=self.environment(),
            stop_s=40.0,
        )
        self.workers.append(worker)
        return worker

    def environment(self) -> dict[str, str]:
        """Return the settings of a worker, with the address of a proxy for each server."""
        own = self.servers.endpoints.environment()
        return {
            **own,
            **_SETTINGS,
            "TUSSIS_BROKER_URL": _through(own["TUSSIS_BROKER_URL"], self.broker_proxy.port),
            "TUSSIS_DATABASE_URL": _through(own["TUSSIS_DATABASE_URL"], self.database_proxy.port),
            "TUSSIS_S3_ENDPOINT_URL": self.s3_proxy.url,
            "TUSSIS_MODEL": str(self.model),
            # The faulty worker is not part of the installed package.
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }

    def replace_dead(self) -> int:
        """Start a worker for each one that ended, as a supervisor does. Return how many ended."""
        dead = [worker for worker in self.workers if not worker.running]
        for worker in dead:
            worker.stop()
            self.workers.remove(worker)
            self.start_worker()
        return len(dead)

    def kill_child(self, rng: random.Random) -> str:
        """SIGKILL one child and return a description of it."""
        pids = [pid for worker in self.workers for pid in _ready_children(worker)]
        if not pids:
            return "no child to kill"
        pid = rng.choice(pids)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return f"child {pid} had ended"
        return f"kill -9 child {pid}"


@contextmanager
def plant(data: Path, model: Path, workers: int) -> Iterator[Plant]:
    """Start all processes, and stop all at the end. Raises the errors of the servers and the store."""
    with ExitStack() as stack:
        servers = stack.enter_context(Servers(data / "servers"))
        endpoints = servers.endpoints
        migrate.upgrade(endpoints.database_url)
        client = bucket_client(endpoints)
        if BUCKET not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
            client.create_bucket(Bucket=BUCKET)
        made = Plant(
            servers=servers,
            data=data,
            model=model,
            broker_proxy=stack.enter_context(TcpProxy("127.0.0.1", _port(endpoints.broker_url))),
            database_proxy=stack.enter_context(TcpProxy("127.0.0.1", _port(endpoints.database_url))),
            s3_proxy=stack.enter_context(S3Proxy(endpoints.s3_endpoint_url, slow_s=6.0)),
            client=client,
            ledger=Ledger(connect(endpoints.broker_url)),
            store=stack.enter_context(Store.connect(endpoints.database_url, pool_size=2)),
        )
        try:
            for _ in range(workers):
                made.start_worker()
            yield made
        finally:
            stop_all(made.workers)


def _ready_children(worker: RunningWorker) -> list[int]:
    """Return the process ids of its ready children."""
    found = []
    for folder in worker.run_dir.glob("tussis-*"):
        found += [pid for pid, report in RunDir(folder).children().items() if report.state == "ready"]
    return found


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def _through(url: str, port: int) -> str:
    parts = urlsplit(url)
    credentials = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{credentials}@127.0.0.1:{port}"))
