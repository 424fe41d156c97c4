"""``/v1/cancellations``: cancel jobs that no attempt runs. It needs the database."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from tussis.shared.errors import JobUnknown, RequestInvalid
from tussis.shared.messages import is_job_id
from tussis.shared.open_jobs import OpenJobs
from tussis.shared.uris import parse_s3_prefix, shown
from tussis.worker.cancel.cancel import Cancel
from tussis.worker.cancel.selection import counts_as_json, not_cancelled, selected
from tussis.worker.gateway.auth import Caller
from tussis.worker.gateway.errors import documented
from tussis.worker.gateway.services import Services


class CancelBody(BaseModel):
    """Which jobs to cancel: one of job_ids, batch and prefix."""

    model_config = ConfigDict(extra="forbid")

    job_ids: Annotated[list[str] | None, Field(min_length=1, max_length=1000)] = None
    batch: str | None = Field(None, max_length=100)
    prefix: str | None = Field(None, description="s3://bucket/start-of-key", max_length=2000)
    dry_run: bool = Field(True, description="true: only count. Send false to cancel.")


class CancelReport(BaseModel):
    """The selected jobs. docs/operate.md describes what happens to them."""

    done: bool = Field(description="false: a dry run, nothing was cancelled")
    cancelled: int = Field(description="cancelled, or in a dry run: would be cancelled")
    queues: dict[str, int]
    deferred: int
    running: int
    answered: int
    received: int
    closed: int
    unreadable: int
    not_cancelled: dict[str, str] = Field(description="job id and reason, if job_ids were given")


def cancellations_router(services: Services) -> APIRouter:
    """The route that cancels."""
    router = APIRouter(prefix="/v1/cancellations", tags=["jobs"])

    @router.post("", responses=documented(404, 413))
    def cancel(body: CancelBody, name: Caller) -> CancelReport:
        """Count the open jobs that can be cancelled, and cancel them with `"dry_run": false`.

        A job that runs is not stopped. A request may be repeated.
        """
        if sum(given is not None for given in (body.job_ids, body.batch, body.prefix)) != 1:
            raise RequestInvalid("select jobs with one of job_ids, batch and prefix")
        prefix = None if body.prefix is None else parse_s3_prefix(body.prefix)
        job_ids = body.job_ids or []
        for job_id in job_ids:
            if not is_job_id(job_id):
                raise JobUnknown(f"{shown(job_id)} is not a job id: use the UUID of the answer that enqueued it")
        store = services.need_store()
        chosen = selected(services.redis, services.where, job_ids, body.batch, prefix)
        work = Cancel(OpenJobs(services.redis, services.where), services.ledger, store, f"{name} (http)")
        for _ in work.preview(chosen) if body.dry_run else work.run(chosen):
            pass
        reasons = not_cancelled(job_ids, work.left, store)
        return CancelReport(**counts_as_json(work.counts, not body.dry_run), not_cancelled=reasons)

    return router
