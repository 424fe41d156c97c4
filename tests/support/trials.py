"""A GPU worker without a GPU: the device process on the CPU, and what its events and rows say."""

from __future__ import annotations

from pathlib import Path

from tests.support.deployment import Deployment
from tests.support.processes import Running
from tussis.shared.messages import Job
from tussis.shared.states import AttemptOutcome

#: Seconds for a handful of recordings and some new processes on a busy machine.
DRAINED_S = 180.0


def trial(deployment: Deployment, *arguments: str, concurrency: int = 4, **settings: object) -> Running:
    """A faulty GPU worker on the CPU, ready."""
    return deployment.worker(
        "--provider", "cpu", *arguments, kind="gpu", concurrency=concurrency, faulty=True, **settings
    )


def device_pids(worker: Running) -> list[int]:
    """The process ids of the device processes so far, in order."""
    return [event["pid"] for event in worker.events if event.get("event") == "device_ready"]


def met(file: Path) -> list[str]:
    """The faults that recordings have met."""
    return [line.split()[1] for line in file.read_text().splitlines()] if file.exists() else []


def outcomes(deployment: Deployment, job: Job) -> list[tuple[AttemptOutcome | None, bool]]:
    """Each attempt's end, and whether it ran alone."""
    attempts = deployment.store.attempts_of(deployment.analysis(job).id)
    return [(attempt.outcome, attempt.alone) for attempt in attempts]
