"""A GPU worker without a GPU: the device process runs on the CPU. Helpers that read its events and rows."""

from __future__ import annotations

from pathlib import Path

from tests.support.deployment import Deployment
from tests.support.processes import Running
from tussis.shared.messages import Job
from tussis.shared.states import AttemptOutcome

#: Seconds for a few recordings and some new processes on a busy machine.
DRAINED_S = 180.0


def trial(deployment: Deployment, *arguments: str, concurrency: int = 4, **settings: object) -> Running:
    """Start a faulty GPU worker on the CPU and wait until it is ready."""
    return deployment.worker(
        "--provider", "cpu", *arguments, kind="gpu", concurrency=concurrency, faulty=True, **settings
    )


def device_pids(worker: Running) -> list[int]:
    """Return the process ids of the device processes so far, in order."""
    return [event["pid"] for event in worker.events if event.get("event") == "device_ready"]


def met(file: Path) -> list[str]:
    """Return the faults that occurred so far."""
    return [line.split()[1] for line in file.read_text().splitlines()] if file.exists() else []


def outcomes(deployment: Deployment, job: Job) -> list[tuple[AttemptOutcome | None, bool]]:
    """Return the outcome of each attempt, and whether it was exclusive."""
    attempts = deployment.store.attempts_of(deployment.analysis(job).id)
    return [(attempt.outcome, attempt.exclusive) for attempt in attempts]
