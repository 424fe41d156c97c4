"""All counters of a worker. ``docs/metrics.md`` has the table of metrics. A test compares the two.

Children count in memory-mapped files of the run directory (multiprocess mode of prometheus-client), so that the counts
survive the end of a child. The parent serves them (:mod:`tussis.worker.parent.exposition`).
"""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from tussis.shared import errors
from tussis.worker.outcome import Outcome, Succeeded

if TYPE_CHECKING:
    from tussis.shared.messages import Job

#: The outcome of every attempt at a job of the shadow model, so that its failures raise no alarm.
SHADOW_OUTCOME: Final = "shadow"
#: Name of the folder with these files, in the run directory.
FILES: Final = "metrics"
#: The environment variable from which prometheus-client reads the folder when it is imported.
_FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
#: Seconds. A stage of a ten-second recording takes milliseconds. Its deadline is two minutes.
_STAGE_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
#: Seconds. From an idle worker to a backlog of days.
_QUEUE_BUCKETS: Final = (0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0, 604_800.0)


def _classes(base: type[errors.TussisError]) -> set[str]:
    return {base.error_class}.union(*(_classes(one) for one in base.__subclasses__()))


@cache
def _known_classes() -> frozenset[str]:
    return frozenset(_classes(errors.TussisError))


def known_class(name: str | None) -> str:
    """The error class as a label: '' for None, ``other`` for a class that Tussis does not define."""
    if name is None:
        return ""
    return name if name in _known_classes() else "other"


class Meter(Protocol):
    """The interface through which the tasks and the pipeline count."""

    def began(self, job: Job) -> None:
        """An attempt begins."""

    def stage(self, name: str, seconds: float) -> None:
        """A stage of an attempt is over, whatever its end."""

    def ended(self, outcome: Outcome, *, shadow: bool = False) -> None:
        """An attempt ended and reported its outcome. ``shadow``: it was at a job of the shadow model."""

    def dead_lettered(self, error_class: str) -> None:
        """A message that cannot be read became a dead letter."""


class NoMeter:
    """Counts nothing. Used by a worker without ``--metrics-port``."""

    def began(self, job: Job) -> None:
        return

    def stage(self, name: str, seconds: float) -> None:
        return

    def ended(self, outcome: Outcome, *, shadow: bool = False) -> None:
        return

    def dead_lettered(self, error_class: str) -> None:
        return


class PrometheusMeter:
    """Counts for Prometheus. Only :func:`prometheus_meter` makes one."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram

        registry = CollectorRegistry()
        self._attempts = Counter("tussis_attempts", "Attempts started.", registry=registry)
        self._jobs = Counter("tussis_jobs", "Attempts ended.", ["outcome", "error_class"], registry=registry)
        self._audio = Counter("tussis_audio_seconds", "Seconds of audio analysed.", registry=registry)
        self._queue = Histogram(
            "tussis_queue_seconds",
            "Seconds from enqueueing to the start of an attempt.",
            registry=registry,
            buckets=_QUEUE_BUCKETS,
        )
        self._stages = Histogram(
            "tussis_stage_seconds",
            "Seconds that a stage of an attempt took.",
            ["stage"],
            registry=registry,
            buckets=_STAGE_BUCKETS,
        )

    def began(self, job: Job) -> None:
        self._attempts.inc()
        if not job.shadow:
            self._queue.observe(max(0.0, time.time() - job.enqueued_at))

    def stage(self, name: str, seconds: float) -> None:
        self._stages.labels(name).observe(seconds)

    def ended(self, outcome: Outcome, *, shadow: bool = False) -> None:
        name = SHADOW_OUTCOME if shadow else outcome_name(outcome)
        self._jobs.labels(name, known_class(getattr(outcome, "error_class", None))).inc()
        if isinstance(outcome, Succeeded):
            self._audio.inc(outcome.analyzed_s)

    def dead_lettered(self, error_class: str) -> None:
        self._jobs.labels("dead_letter", known_class(error_class)).inc()


def outcome_name(outcome: Outcome) -> str:
    """The name of the outcome's class in snake case: ``succeeded``, ``handed_back``, ``held_elsewhere``, and so on."""
    name = type(outcome).__name__
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in name).lstrip("_")


def prometheus_meter(folder: Path) -> PrometheusMeter:
    """A meter whose files are in ``folder``. Call it once, before prometheus-client is imported."""
    folder.mkdir(exist_ok=True)
    os.environ[_FOLDER_VARIABLE] = str(folder)
    return PrometheusMeter()
