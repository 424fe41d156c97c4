"""Counts of requests, and their metrics. ``docs/metrics.md`` has the table of metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tussis.shared.errors import TransientError
from tussis.worker import logs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

_log = logs.get("gateway")

#: Seconds: from a job that is enqueued to a recording that is uploaded, or a wait for its answer.
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
#: The route of a request to a path that the gateway does not have.
_NO_ROUTE: Final = "none"


class Counts:
    """What a gateway counts since its start. Thread-safe."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "tussis_http_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "tussis_http_request_seconds",
            "Seconds from a request to the start of its answer.",
            ["method", "route"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.uploaded_bytes = Counter("tussis_http_uploaded_bytes", "Bytes of stored uploads.", registry=self.registry)
        self.uploads = Gauge("tussis_http_uploads", "Uploads that are being received.", registry=self.registry)
        self.streams = Gauge("tussis_http_streams", "Open streams of outcomes.", registry=self.registry)

    def show_open_jobs(self, open_jobs: Callable[[], int]) -> None:
        """Add the number of open jobs to the metrics."""
        self.registry.register(_OpenJobs(open_jobs))

    def text(self) -> bytes:
        """The metrics in the text format of Prometheus."""
        return generate_latest(self.registry)


class _OpenJobs:
    def __init__(self, open_jobs: Callable[[], int]) -> None:
        self._open_jobs = open_jobs

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        try:
            number = self._open_jobs()
        except TransientError as error:
            _log.warning("metrics_incomplete", reason=str(error))
            return
        yield GaugeMetricFamily("tussis_http_open_jobs", "Open jobs of the deployment.", number)


class CountRequests:
    """ASGI middleware: counts each request under its route, without its path, and logs it at the level debug."""

    def __init__(self, app: ASGIApp, counts: Counts) -> None:
        self._app = app
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500
        seconds = None

        async def counted(message: Message) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.start":
                status, seconds = message["status"], time.perf_counter() - began
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            route = getattr(scope.get("route"), "path", _NO_ROUTE)
            method = scope["method"] if scope["method"] in _METHODS else "other"
            took = time.perf_counter() - began if seconds is None else seconds
            self._counts.requests.labels(method, route, str(status)).inc()
            self._counts.seconds.labels(method, route).observe(took)
            _log.debug(
                "http_request",
                method=method,
                route=route,
                status=status,
                ms=round(took * 1000, 3),
                caller=scope.get("tussis.caller"),
            )


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
