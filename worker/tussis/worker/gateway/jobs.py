"""``/v1/jobs``: enqueue recordings by their keys, and read the state of jobs."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel

from tussis.shared.errors import JobUnknown, RequestInvalid
from tussis.shared.messages import is_job_id
from tussis.shared.outcomes import JobOutcome
from tussis.shared.uris import shown
from tussis.worker.gateway.auth import Caller
from tussis.worker.gateway.enqueueing import Admitted, enqueue, enqueue_one
from tussis.worker.gateway.errors import ErrorFields, documented, status_of
from tussis.worker.gateway.idempotency import IdempotencyHeader
from tussis.worker.gateway.models import EnqueuedJob, EnqueuedJobs, ManyJobs, OneJob, RefusedJob
from tussis.worker.gateway.services import Services

#: The longest wait of one request for the end of a job, seconds.
MAX_WAIT_S = 60.0


class JobReport(BaseModel, extra="allow"):
    """A job, as `tussis job --json` prints it: docs/http.md describes the fields."""

    job_id: str
    state: str


def jobs_router(services: Services) -> APIRouter:
    """The routes of jobs."""
    router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

    @router.post("", status_code=202, responses=documented(409, 413))
    def enqueue_recording(body: OneJob, name: Caller, idempotency_key: IdempotencyHeader = None) -> EnqueuedJob:
        """Enqueue one recording. When this is answered, the broker holds the job."""
        occasion = services.idempotency.begin(idempotency_key, name, fingerprint("jobs", body))
        if occasion.answer is not None:
            return EnqueuedJob(**occasion.answer)
        with services.idempotency.releasing(occasion):
            answer = _enqueued(enqueue_one(services, body.request(), body.batch, occasion))
            services.idempotency.answered(occasion, answer.model_dump())
        return answer

    @router.post("/many", status_code=202, responses=documented(409, 413))
    def enqueue_recordings(
        body: ManyJobs, name: Caller, response: Response, idempotency_key: IdempotencyHeader = None
    ) -> EnqueuedJobs:
        """Enqueue up to 1000 recordings. One that is wrong, or missing in S3, is refused; the others are enqueued.

        If there is no room for any of them, the answer is 503 with the class queue_full.
        """
        if body.close_batch and body.batch is None:
            raise RequestInvalid("close_batch needs batch")
        occasion = services.idempotency.begin(idempotency_key, name, fingerprint("many", body))
        if occasion.answer is not None:
            return EnqueuedJobs(**occasion.answer)
        with services.idempotency.releasing(occasion):
            admitted = enqueue(services, [job.request() for job in body.jobs], body.batch, occasion)
            told: list[EnqueuedJob | RefusedJob] = [
                _enqueued(item) if item.error is None else _refused(item) for item in admitted
            ]
            refused = [item.error for item in admitted if item.error is not None]
            again = [error for error in refused if status_of(error) >= 500]
            if len(again) == len(admitted):
                raise again[0]
            if body.close_batch and body.batch is not None and not again:
                services.batches.close(body.batch, make=True)
            answer = EnqueuedJobs(jobs=told, enqueued=len(told) - len(refused), refused=len(refused))
            if again:  # a repeated request must try these again
                services.idempotency.release(occasion)
            else:
                services.idempotency.answered(occasion, answer.model_dump(by_alias=True))
        return answer

    @router.get("/{job_id}", responses=documented(404))
    async def job(
        job_id: Annotated[str, Path(max_length=100)],
        wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="wait for the end of the job")] = 0,
        full: Annotated[bool, Query(description="read the database, which has all segments and attempts")] = False,
    ) -> JobReport:
        """The state of a job, and its answer or failure if it has ended."""
        if not is_job_id(job_id):
            raise JobUnknown(f"{shown(job_id)} is not a job id: use the UUID of the answer that enqueued it")
        if wait_s:
            with suppress(JobUnknown):  # the database may know it
                await services.tail.wait(job_id, wait_s, lambda: ended(services, job_id))
        return JobReport(**await to_thread.run_sync(_report, services, job_id, full))

    return router


def fingerprint(route: str, body: BaseModel) -> str:
    """What is the same in a repeated request."""
    text = json.dumps([route, body.model_dump()], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _enqueued(item: Admitted) -> EnqueuedJob:
    assert item.job_id is not None
    return EnqueuedJob(job_id=item.job_id, uri=item.request.uri, sent=item.sent)


def _refused(item: Admitted) -> RefusedJob:
    assert item.error is not None
    error = ErrorFields.of(item.error)
    return RefusedJob(uri=item.request.uri, error=error)


def ended(services: Services, job_id: str) -> JobOutcome | None:
    """The outcome of a job that is not open. Raises :class:`JobUnknown` if none is kept, which ends the wait."""
    status = services.outcomes.statuses([job_id])[job_id]
    if status.open_since is not None:
        return None
    if status.outcome is None:
        raise JobUnknown("the job is not open, and the broker keeps no outcome of it")
    return status.outcome


def _report(services: Services, job_id: str, full: bool) -> dict[str, Any]:
    return services.reports.of(job_id) if full else services.reports.soon(job_id)
