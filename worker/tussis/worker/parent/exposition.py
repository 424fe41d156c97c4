"""Serves a worker's metrics over HTTP from its parent process, in Prometheus' text format."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tussis.shared.broker import connect, redact
from tussis.shared.depth import Depth
from tussis.shared.errors import SettingsInvalid, TransientError
from tussis.shared.ledger import Ledger
from tussis.shared.pauses import Pauses
from tussis.shared.queues import PRIORITIES, QUEUES
from tussis.worker import logs
from tussis.worker.status.metrics import FILES
from tussis.worker.status.rundir import RunDir

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from tussis.worker.pipeline.child import ChildSetup

_log = logs.get("metrics")

#: The process id in the names of the files with the counts of dead children. No child has this id.
_DEAD: Final = 0


class Exposition:
    """The HTTP server of one worker, from construction to :meth:`close`.

    Raises :class:`SettingsInvalid` when the port cannot be taken.
    """

    def __init__(self, setup: ChildSetup) -> None:
        # Imported after the meter has set the folder, which prometheus-client reads at import.
        from prometheus_client import CollectorRegistry, start_http_server
        from prometheus_client.multiprocess import MultiProcessCollector

        settings = setup.settings
        self._files = setup.run_dir.path / FILES
        self._reading = threading.Lock()
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self._files))
        outer = CollectorRegistry()
        outer.register(_Locked(registry, self._reading))
        outer.register(_State(setup))
        host, port = settings.metrics_host, settings.metrics_port
        assert port is not None
        try:
            self._server, self._thread = start_http_server(port, host, outer)
        except OSError as error:
            raise SettingsInvalid(
                f"cannot serve metrics on {host}:{port} ({error.strerror}): set TUSSIS_METRICS_PORT to another port"
            ) from error
        # A child must not keep the port open when its parent dies.
        os.register_at_fork(after_in_child=self._server.socket.close)
        _log.info("metrics_served", host=host, port=self._server.server_address[1])

    def fold(self, pid: int) -> None:
        """Add the counts of a dead child to those of all dead children: files must not pile up after many crashes."""
        with self._reading:
            fold(self._files, pid)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


def fold(files: Path, pid: int) -> None:
    """Move the counts of the process ``pid`` from its files in the folder ``files`` to those of all dead processes."""
    from prometheus_client.mmap_dict import MmapedDict

    for file in files.glob(f"*_{pid}.db"):
        if file.stat().st_size:  # empty if the process died before its first count
            kind = file.name.rpartition("_")[0]
            total = MmapedDict(str(files / f"{kind}_{_DEAD}.db"))
            for key, value, timestamp, _ in MmapedDict.read_all_values_from_file(str(file)):
                total.write_value(key, total.read_value(key)[0] + value, timestamp)
            total.close()
        file.unlink()


class _Locked:
    """The children's counters. They are not read while the counts of a dead child are moved."""

    def __init__(self, registry: Any, reading: threading.Lock) -> None:
        self._registry = registry
        self._reading = reading

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        with self._reading:
            yield from self._registry.collect()


class _State:
    """The state of the broker and the run directory at the time of the scrape."""

    def __init__(self, setup: ChildSetup) -> None:
        url = setup.settings.need_broker()
        client = connect(url)
        self._ledger = Ledger(client, redact(url))
        self._pauses = Pauses(client, redact(url))
        self._run_dir: RunDir = setup.run_dir
        self._remote = setup.remote
        self._labels = [setup.worker, setup.device.value, Path(setup.model).name]

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        try:
            depth = self._ledger.depth()
            paused = {pause.queue for pause in self._pauses.read()}
        except TransientError as error:
            _log.warning("metrics_incomplete", reason=str(error))
            depth, paused = None, set()
        yield _gauge("tussis_broker_up", "Whether the broker answered this scrape.", float(depth is not None))
        if depth is not None:
            yield from self._of_broker(depth)
            yield self._of_paused(paused)
        status = self._run_dir.parent_status()
        children, ready = (status.children, status.ready) if status is not None else (0, 0)
        holding = len(self._run_dir.holds())
        yield _gauge("tussis_worker_children", "Running child processes.", children)
        yield _gauge("tussis_worker_children_ready", "Child processes that have loaded the model.", ready)
        yield _gauge("tussis_worker_children_holding", "Child processes that wait for a server or operator.", holding)
        yield _gauge("tussis_worker_ready", "Whether this worker takes work.", float(self._is_ready()))
        if self._remote:
            device = self._run_dir.device()
            up = float(device is not None and device.state == "ready")
            yield _gauge("tussis_device_ready", "Whether the device process answers.", up)
        info = GaugeMetricFamily("tussis_worker_info", "This worker; always 1.", labels=["worker", "device", "model"])
        info.add_metric(self._labels, 1)
        yield info

    def _of_broker(self, depth: Depth) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        waiting = GaugeMetricFamily(
            "tussis_queue_depth", "Waiting messages, by queue and priority.", labels=["queue", "priority"]
        )
        for queue, steps in depth.waiting.items():
            for priority in PRIORITIES:
                waiting.add_metric([queue, str(priority)], steps.get(priority, 0))
        yield waiting
        yield _gauge("tussis_in_flight", "Messages delivered to any worker and not acknowledged.", depth.in_flight)
        yield _gauge("tussis_open_jobs", "Jobs with neither result nor failure yet.", depth.open)
        yield _gauge("tussis_deferred_jobs", "Open jobs that wait for their next attempt.", depth.deferred)
        yield _gauge(
            "tussis_oldest_open_seconds", "Age of the oldest open job; 0 without one.", depth.oldest_open_s or 0.0
        )

    @staticmethod
    def _of_paused(paused: set[str]) -> Metric:
        from prometheus_client.core import GaugeMetricFamily

        gauge = GaugeMetricFamily("tussis_queue_paused", "Whether the queue is paused.", labels=["queue"])
        for queue in QUEUES:
            gauge.add_metric([queue], float(queue in paused))
        return gauge

    def _is_ready(self) -> bool:
        from tussis.worker.status.probes import is_ready

        return is_ready(self._run_dir)


def _gauge(name: str, text: str, value: float) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(name, text, value=value)
