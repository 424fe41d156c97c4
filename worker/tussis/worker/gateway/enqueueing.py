"""Enqueues the jobs of requests: all routes that enqueue use it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from tussis.shared.admission import Admission, admit
from tussis.shared.allowed import AllowedBuckets
from tussis.shared.errors import QueueFull, TussisError
from tussis.shared.job_requests import JobRequest, job_for
from tussis.shared.messages import Job, check_batch
from tussis.worker.gateway.idempotency import Occasion
from tussis.worker.gateway.services import Services

#: Seconds for which a request waits for room in the queue: a client should rather wait itself.
_WAIT_S: Final = 0.0


@dataclass(frozen=True)
class Admitted:
    """What became of a request: its job, or the error for which it was refused."""

    request: JobRequest
    job_id: str | None
    sent: bool
    """False if the job was open already, or was refused."""
    error: TussisError | None = None


def enqueue(
    services: Services, requests: Sequence[JobRequest], batch: str | None, occasion: Occasion
) -> list[Admitted]:
    """Enqueue several requests, in their order. A request that is wrong is refused, and the others are enqueued.

    The content of each is pinned by one request to S3, unless the request pins it. When there is no room for more jobs
    (TUSSIS_SERVE_MAX_DEPTH), the rest is refused with :class:`QueueFull`. Raises the errors that concern all requests.
    """
    admission = Admission(batch, services.settings.serve_max_depth, _WAIT_S)
    unpinned = [request for request in requests if not request.pinned]
    pinned = iter(services.pins.pin_many(unpinned))
    made: list[tuple[JobRequest, Job | TussisError]] = []
    now = time.time()
    allowed = AllowedBuckets.parse(services.settings.allowed_buckets)
    for number, request in enumerate(requests):
        found = request if request.pinned else next(pinned)
        made.append((request, found if isinstance(found, TussisError) else _job(found, now, occasion, number, allowed)))
    jobs = [job for _, job in made if isinstance(job, Job)]
    answers: list[bool] = []
    full: QueueFull | None = None
    try:
        for opened in admit(services.ledger, jobs, admission):
            answers.append(opened)
    except QueueFull as error:
        full = error
    told = iter(answers)
    admitted = []
    for request, job in made:
        if isinstance(job, TussisError):
            admitted.append(Admitted(request, None, sent=False, error=job))
            continue
        opened_or_none = next(told, None)
        if opened_or_none is None:
            admitted.append(Admitted(request, None, sent=False, error=full))
        else:
            admitted.append(Admitted(request, job.job_id, sent=opened_or_none))
    return admitted


def check_request(services: Services, request: JobRequest, batch: str | None) -> None:
    """Raise the error for which the request would be refused, whatever its object is."""
    check_batch(batch)
    _checked_job(request, time.time(), AllowedBuckets.parse(services.settings.allowed_buckets))


def enqueue_one(services: Services, request: JobRequest, batch: str | None, occasion: Occasion) -> Admitted:
    """Enqueue one request. Raises the error for which it is refused."""
    (admitted,) = enqueue(services, [request], batch, occasion)
    if admitted.error is not None:
        raise admitted.error
    return admitted


def _job(
    request: JobRequest, now: float, occasion: Occasion, number: int, allowed: AllowedBuckets
) -> Job | TussisError:
    """The job of a request, or its error. A job that has no id by its content has one of the occasion."""
    try:
        job = _checked_job(request, now, allowed)
    except TussisError as error:
        return error
    return replace(job, job_id=occasion.new_id(number)) if request.again else job


def _checked_job(request: JobRequest, now: float, allowed: AllowedBuckets) -> Job:
    job = job_for(request, now)
    allowed.check(job.bucket, job.key)
    job.to_json()  # raises for a message that is too large
    return job
