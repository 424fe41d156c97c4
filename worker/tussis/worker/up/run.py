"""Runs ``tussis up``, from its first line of output to the end of its last process."""

from __future__ import annotations

import time
from collections import deque
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.status import Status

from tussis.shared.broker import connect, redact
from tussis.shared.cores import available_cores
from tussis.shared.errors import ServerFailed, TransientError
from tussis.shared.ledger import Ledger
from tussis.shared.s3 import storage_errors
from tussis.shared.store.schema import SCHEMA_REVISION
from tussis.worker.detector.manifest import read_manifest
from tussis.worker.embedded.ports import free_ports
from tussis.worker.embedded.room import disk_full, is_full, naming_full_disk
from tussis.worker.embedded.server import EmbeddedServer
from tussis.worker.embedded.servers import Servers
from tussis.worker.local.bucket import bucket_client
from tussis.worker.local.database import prepare_database, worker_endpoints
from tussis.worker.local.environment_file import export_lines, source_command, write_environment, write_owner
from tussis.worker.local.interrupts import Interrupted, interrupts
from tussis.worker.local.model import ChosenModel, choose_model
from tussis.worker.local.running_program import stop_all
from tussis.worker.local.running_worker import RunningWorker, local_run_dir, start_local_worker
from tussis.worker.local.screen import Screen, count
from tussis.worker.local.surroundings import forget_deployments, writing
from tussis.worker.up.events import LogTail
from tussis.worker.up.gateway import LocalGateway

BUCKET: Final = "tussis"
_POLL_S: Final = 0.3
#: Seconds between two reads of the broker for the status line.
_STATUS_S: Final = 1.0
#: The most restarts of one server within so many seconds.
_MOST_RESTARTS: Final = 5
_RESTARTS_S: Final = 60.0


@dataclass(frozen=True)
class UpRequest:
    """The options of ``tussis up``. If ``children`` is None, the cores are divided among the workers."""

    data: Path
    workers: int = 1
    children: int | None = None
    model: Path | None = None
    serve: bool = False
    """Whether to run a gateway too."""


@dataclass
class Served:
    """One worker and its state."""

    worker: RunningWorker
    tail: LogTail
    metrics_port: int


def run(request: UpRequest, screen: Screen) -> int:
    """Serve until a signal ends it; return 0. Always stop every process that it started, also after an error.

    Raises :class:`TussisError`.
    """
    forget_deployments()
    up = Up(request, screen)
    with interrupts() as handled:
        try:
            with ExitStack() as started:
                try:
                    with naming_full_disk(request.data.absolute()):
                        up.run(started)
                finally:
                    # The clean stop follows: a second Ctrl-C must not interrupt it.
                    handled.disarm()
                    screen.line("stopping", "the workers and the servers")
        except Interrupted as interrupt:
            screen.line("stopped", f"by {interrupt.cause}; the data stays in {request.data}")
    return 0


class Up:
    """One run of ``tussis up``."""

    def __init__(self, request: UpRequest, screen: Screen) -> None:
        self._request = request
        self._screen = screen
        self._data = request.data.absolute()
        self._children = request.children or max(1, available_cores() // request.workers)
        self._ended: dict[str, int] = {}
        self._restarts: dict[str, deque[float]] = {}
        """The times of the last restarts of each server."""

    def run(self, started: ExitStack) -> None:
        """Run all steps. Each started process is registered in ``started``, which stops it."""
        request, screen = self._request, self._screen
        with writing(self._data):
            self._data.mkdir(parents=True, exist_ok=True)
        if request.model is not None:
            read_manifest(request.model)
        with screen.step("servers", "starting PostgreSQL, the broker and the S3 store") as step:
            servers = started.enter_context(Servers(self._data / "servers"))
            step.text = "PostgreSQL, the broker and the S3 store on 127.0.0.1"
        with screen.step("schema", "migrating") as step:
            prepare_database(servers.endpoints)
            step.text = f"revision {SCHEMA_REVISION}"
        self._make_bucket(servers)
        with screen.step("model", "finding the model, or exporting one with random weights, only once") as step:
            chosen = choose_model(request.model, self._data, servers)
            started.callback(chosen.stop)
            manifest = read_manifest(chosen.wait())
            random = "; RANDOM WEIGHTS: it detects nothing" if chosen.random else ""
            step.text = f"{manifest.label}, profile {manifest.profile}{random}"
        serving: dict[str, Served] = {}
        started.callback(lambda: stop_all([served.worker for served in serving.values()]))
        with screen.step("workers", "starting the workers: each child loads the model") as step:
            for number in range(1, request.workers + 1):
                serving[f"worker-{number}"] = self._start(servers, chosen, f"worker-{number}")
            for served in serving.values():
                served.worker.wait_ready()
            step.text = f"{count(request.workers, 'worker')} with {count(self._children, 'process', 'processes')} each"
        gateway = self._start_gateway(servers, started) if request.serve else None
        self._tell(servers, chosen, serving, gateway)
        self._watch(servers, chosen, serving)

    def _make_bucket(self, servers: Servers) -> None:
        client = bucket_client(servers.endpoints)
        with storage_errors(f"s3://{BUCKET}"):
            if BUCKET not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
                client.create_bucket(Bucket=BUCKET)

    def _start(self, servers: Servers, chosen: ChosenModel, name: str) -> Served:
        (port,) = free_ports(1)
        arguments = ("--metrics-port", str(port))
        tail = LogTail(self._data / f"{name}.log")
        worker = start_local_worker(servers, self._data, chosen.path, self._children, name, arguments)
        return Served(worker, tail, port)

    def _start_gateway(self, servers: Servers, started: ExitStack) -> LocalGateway:
        with self._screen.step("gateway", "starting the gateway") as step:
            gateway = LocalGateway(servers, self._data, f"s3://{BUCKET}/uploads/")
            started.callback(gateway.stop)
            gateway.wait_ready()
            step.text = gateway.url
        return gateway

    def _tell(
        self, servers: Servers, chosen: ChosenModel, serving: dict[str, Served], gateway: LocalGateway | None
    ) -> None:
        """Show the addresses, and write the environment file for shells."""
        endpoints = worker_endpoints(servers.endpoints)
        variables = write_environment(self._data, endpoints, chosen.path, local_run_dir(self._data))
        write_owner(self._data, servers.endpoints.database_url)
        screen = self._screen
        screen.show("")
        for line in export_lines(variables):
            screen.console.print(line, markup=False, highlight=False, soft_wrap=True)
        screen.show("")
        screen.line("bucket", f"s3://{BUCKET}")
        for name, served in serving.items():
            screen.line("metrics", f"http://127.0.0.1:{served.metrics_port}/metrics ({name})")
        if gateway is not None:
            screen.line("http", f"{gateway.url}/v1 (the token is behind the colon in {gateway.tokens_file})")
        source = source_command(self._request.data)
        screen.line("next step", f"in another terminal: {source}; tussis enqueue s3://{BUCKET}/KEY")
        screen.line("running", "until Ctrl-C")

    def _watch(self, servers: Servers, chosen: ChosenModel, serving: dict[str, Served]) -> None:
        url = servers.endpoints.broker_url
        ledger = Ledger(connect(url), redact(url))
        console = self._screen.console
        due = 0.0
        with ExitStack() as shown:
            status = shown.enter_context(console.status("idle")) if console.is_terminal else None
            while True:
                for name, served in serving.items():
                    for told in served.tail.events():
                        if told.outcome is not None:
                            self._ended[told.outcome] = self._ended.get(told.outcome, 0) + 1
                        self._screen.line(name, told.text)
                self._restart(servers, chosen, serving)
                if status is not None and time.monotonic() > due:
                    due = time.monotonic() + _STATUS_S
                    self._update(status, ledger)
                time.sleep(_POLL_S)

    def _restart(self, servers: Servers, chosen: ChosenModel, serving: dict[str, Served]) -> None:
        """Restart ended servers and workers. Raises :class:`ServerFailed` if a worker ended before it was ready."""
        for server in (servers.postgres, servers.broker, servers.s3):
            if not server.running:
                self._check_restarts(server)
                self._screen.line(server.name, "it ended; restarting it")
                server.start()
        for name, served in tuple(serving.items()):
            if served.worker.running:
                continue
            if not served.worker.ready:
                raise ServerFailed(f"{name} ended: {served.worker.last_message()}; see {served.worker.log}")
            self._screen.line(name, f"it ended: {served.worker.last_message()}; restarting it")
            serving[name] = self._start(servers, chosen, name)

    def _check_restarts(self, server: EmbeddedServer) -> None:
        """Raise :class:`ServerFailed` for a server that ends again and again, :class:`DiskFull` on a full disk.

        On an almost full disk a server starts, and ends with its first write.
        """
        if is_full(server.home):
            raise disk_full(server.home)
        now = time.monotonic()
        recent = self._restarts.setdefault(server.name, deque(maxlen=_MOST_RESTARTS))
        if len(recent) == _MOST_RESTARTS and now - recent[0] < _RESTARTS_S:
            raise ServerFailed(f"{server.name} ended {_MOST_RESTARTS + 1} times within a minute: {server.last_error()}")
        recent.append(now)

    def _update(self, status: Status, ledger: Ledger) -> None:
        with suppress(TransientError):  # read it again after a second
            depth = ledger.depth()
            ended = "  ".join(f"{name} {count}" for name, count in sorted(self._ended.items()))
            status.update(
                f"open {depth.open}  waiting {depth.total_waiting}  in flight {depth.in_flight}  "
                f"deferred {depth.deferred}  {ended}"
            )
