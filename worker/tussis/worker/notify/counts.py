"""Counts of a notifier, and their metrics. ``docs/metrics.md`` has the table of metrics."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tussis.shared.errors import SettingsInvalid, TransientError
from tussis.worker import logs

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from tussis.worker.notify.outbox import Outbox

_log = logs.get("metrics")


@dataclass
class DeliveryCounts:
    """What a notifier counts since its start. Thread-safe."""

    delivered: int = 0
    failed: int = 0
    given_up: int = 0
    seconds: float = 0.0
    """Seconds of all requests."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def attempt(self, seconds: float, *, ok: bool) -> None:
        """A request is over. ``ok``: the receiver accepted the webhook."""
        with self._lock:
            self.seconds += seconds
            self.delivered += ok
            self.failed += not ok

    def gave_up(self) -> None:
        """A webhook was given up."""
        with self._lock:
            self.given_up += 1


class MetricsServer:
    """Serves the metrics over HTTP, until :meth:`close`. Raises :class:`SettingsInvalid` if the port is taken."""

    def __init__(
        self, host: str, port: int, counts: DeliveryCounts, outbox: Outbox, is_working: Callable[[], bool]
    ) -> None:
        from prometheus_client import CollectorRegistry, start_http_server

        registry = CollectorRegistry()
        registry.register(_Collector(counts, outbox, is_working))
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise SettingsInvalid(
                f"cannot serve metrics on {host}:{port} ({error.strerror}): set TUSSIS_METRICS_PORT to another port"
            ) from error
        _log.info("metrics_served", host=host, port=self._server.server_address[1])

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


class _Collector:
    def __init__(self, counts: DeliveryCounts, outbox: Outbox, is_working: Callable[[], bool]) -> None:
        self._counts = counts
        self._outbox = outbox
        self._is_working = is_working

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily

        counts = self._counts
        webhooks = CounterMetricFamily("tussis_webhooks", "Requests ended, and webhooks given up.", labels=["result"])
        for result, number in (
            ("delivered", counts.delivered), ("failed", counts.failed), ("given_up", counts.given_up)
        ):  # fmt: skip
            webhooks.add_metric([result], number)
        yield webhooks
        requests = counts.delivered + counts.failed
        yield SummaryMetricFamily(
            "tussis_webhook_seconds", "Seconds of requests.", count_value=requests, sum_value=counts.seconds
        )
        yield GaugeMetricFamily("tussis_notifier_working", "Whether it holds the lease.", float(self._is_working()))
        try:
            waiting, undelivered = self._outbox.counts()
            gap = bool(self._outbox.state().get("gap"))
        except TransientError as error:
            _log.warning("metrics_incomplete", reason=str(error))
            return
        yield GaugeMetricFamily("tussis_webhooks_waiting", "Webhooks that wait.", waiting)
        yield GaugeMetricFamily("tussis_webhooks_undelivered", "Webhooks that were given up.", undelivered)
        yield GaugeMetricFamily("tussis_webhooks_gap", "Whether outcomes are missing.", float(gap))
