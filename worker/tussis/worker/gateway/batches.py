"""``/v1/batches``: the progress of batches. A batch begins with the first job that is enqueued in it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel

from tussis.shared.batches import BatchStatus
from tussis.worker.gateway.errors import documented
from tussis.worker.gateway.services import Services

Name = Annotated[str, Path(description="name of the batch", max_length=100)]


class BatchReport(BaseModel):
    """A batch at one moment. Times are in seconds since the epoch. docs/enqueue.md describes the fields."""

    batch: str
    state: str
    total: int
    succeeded: int
    failed: int
    cancelled: int
    open: int
    opened_at: float
    closed_at: float | None
    done_at: float | None
    rate_per_s: float | None
    rate_span_s: float | None
    left_s: float | None


class BatchList(BaseModel):
    """All batches."""

    batches: list[BatchReport]


def batches_router(services: Services) -> APIRouter:
    """The routes of batches."""
    router = APIRouter(prefix="/v1/batches", tags=["batches"])

    @router.get("")
    def all_batches() -> BatchList:
        """All batches that the broker keeps."""
        return BatchList(batches=[_report(status) for status in services.batches.all()])

    @router.post("/{name:path}/close", responses=documented(404))
    def close(name: Name) -> BatchReport:
        """Close a batch: no further job joins it. It is done when its last job has ended. It may be repeated."""
        return _report(services.batches.close(name, make=True))

    @router.get("/{name:path}", responses=documented(404))
    def batch(name: Name) -> BatchReport:
        """The progress of a batch."""
        return _report(services.batches.status(name))

    return router


def _report(status: BatchStatus) -> BatchReport:
    return BatchReport(**status.to_dict())
