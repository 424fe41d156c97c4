"""The metrics of the device process. ``docs/metrics.md`` lists them; a test compares the list with this module."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

#: The environment variable from which prometheus-client takes the folder of its files on import.
_FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
#: Seconds. A run takes milliseconds and its deadline is two minutes. A recording waits some milliseconds for others.
_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0)


class DeviceMeter(Protocol):
    """The events that the device process counts."""

    def started(self) -> None:
        """Count a process that became ready."""

    def ran(self, segments: Sequence[int], padded: int, waited_s: Sequence[float], seconds: float) -> None:
        """Count a run.

        Args:
            segments: number of segments of each recording.
            padded: number of segments computed, padding included.
            waited_s: seconds that each recording waited.
            seconds: duration of the run.
        """


class NoDeviceMeter:
    """Counts nothing."""

    def started(self) -> None:
        return

    def ran(self, segments: Sequence[int], padded: int, waited_s: Sequence[float], seconds: float) -> None:
        return


class PrometheusDeviceMeter:
    """Counts for Prometheus. Only :func:`device_meter` creates one."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram

        registry = CollectorRegistry()
        self._starts = Counter("tussis_device_starts", "Device processes that became ready.", registry=registry)
        self._runs = Counter("tussis_device_runs", "Runs of the model.", registry=registry)
        self._recordings = Counter("tussis_device_recordings", "Recordings in these runs.", registry=registry)
        self._segments = Counter("tussis_device_segments", "Segments in these runs.", registry=registry)
        self._padding = Counter("tussis_device_padding_segments", "Padding segments in these runs.", registry=registry)
        self._wait = Histogram(
            "tussis_device_wait_seconds",
            "Seconds from a recording's arrival at the device process to its run.",
            registry=registry,
            buckets=_BUCKETS,
        )
        self._run = Histogram(
            "tussis_device_run_seconds",
            "Seconds that a run took, images included.",
            registry=registry,
            buckets=_BUCKETS,
        )

    def started(self) -> None:
        self._starts.inc()

    def ran(self, segments: Sequence[int], padded: int, waited_s: Sequence[float], seconds: float) -> None:
        self._runs.inc()
        self._recordings.inc(len(segments))
        self._segments.inc(sum(segments))
        self._padding.inc(padded - sum(segments))
        for one in waited_s:
            self._wait.observe(one)
        self._run.observe(seconds)


def device_meter(folder: Path) -> PrometheusDeviceMeter:
    """A meter whose files are in the same folder as those of the worker's children."""
    os.environ[_FOLDER_VARIABLE] = str(folder)
    return PrometheusDeviceMeter()
