"""``/v1/failures``: recordings that have no result, and why. It needs the database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from tussis.shared.errors import FailureUnknown, RequestInvalid
from tussis.shared.store.records import FailureFilter
from tussis.shared.uris import parse_s3_prefix
from tussis.worker.gateway.errors import ErrorFields, documented
from tussis.worker.gateway.models import Priority
from tussis.worker.gateway.services import Services
from tussis.worker.jobs.failures import as_attempt, as_object

#: Largest number of failures in one answer.
MAX_FAILURES = 1000
#: A bigint of PostgreSQL.
_MAX_ID = 2**63 - 1

AnalysisId = Annotated[int, Field(ge=1, le=_MAX_ID)]


class FailureReport(BaseModel):
    """An analysis that failed."""

    analysis_id: int
    uri: str
    state: str
    error: ErrorFields | None
    finished_at: datetime | None
    attempts: int
    model: str | None
    profile: str | None
    etag: str | None
    version_id: str | None
    job_id: str | None
    metadata: dict[str, Any] | None


class FailureHistory(FailureReport):
    """An analysis and its attempts."""

    history: list[dict[str, Any]]


class FailureList(BaseModel):
    """Failures, the newest first."""

    failures: list[FailureReport]


class FailureClasses(BaseModel):
    """Class of error -> number of failures."""

    classes: dict[str, int]


class RetryBody(BaseModel):
    """Which failures to enqueue again."""

    model_config = ConfigDict(extra="forbid")

    analysis_ids: list[AnalysisId] = Field(min_length=1, max_length=MAX_FAILURES)
    priority: Priority = 5
    dry_run: bool = Field(True, description="true: only look. Send false to enqueue.")


class RetryReport(BaseModel):
    """What became of the failures."""

    done: bool = Field(description="false: a dry run, nothing was enqueued")
    enqueued: int = Field(description="enqueued again, or in a dry run: would be")
    open: int = Field(description="open already")
    unknown: list[int] = Field(description="ids that are not those of a failure")


def failures_router(services: Services) -> APIRouter:
    """The routes of failures."""
    router = APIRouter(prefix="/v1/failures", tags=["failures"])

    @router.get("")
    def failures(
        error_class: Annotated[str | None, Query(alias="class", max_length=100)] = None,
        prefix: Annotated[str | None, Query(description="s3://bucket/start-of-key", max_length=2000)] = None,
        since: Annotated[datetime | None, Query(description="ISO 8601; UTC unless it has an offset")] = None,
        until: datetime | None = None,
        discarded: Annotated[bool, Query(description="include discarded failures")] = False,
        limit: Annotated[int, Query(ge=1, le=MAX_FAILURES)] = 100,
    ) -> FailureList:
        """Failures, the newest first."""
        wanted = _filter(error_class, prefix, since, until, discarded, limit)
        return FailureList(failures=[_report(analysis) for analysis in services.need_store().failures(wanted)])

    @router.get("/classes")
    def classes(
        prefix: Annotated[str | None, Query(description="s3://bucket/start-of-key", max_length=2000)] = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> FailureClasses:
        """The number of failures of each class of error."""
        wanted = _filter(None, prefix, since, until, False, None)
        return FailureClasses(classes=services.need_store().failures_by_class(wanted))

    @router.post("/retry", responses=documented(413))
    def retry(body: RetryBody) -> RetryReport:
        """Enqueue failures again, with `"dry_run": false`. A request may be repeated: an open job is not sent again."""
        store = services.need_store()
        found = list(store.failures(FailureFilter(ids=body.analysis_ids, include_discarded=True)))
        jobs = [replace(store.retry_job(analysis), priority=body.priority) for analysis in found]
        if body.dry_run:
            is_open = services.ledger.which_open([job.job_id for job in jobs])
            sent = len(jobs) - len(is_open)
        else:
            sent = sum(services.ledger.open_many(jobs))
        known = {analysis.id for analysis in found}
        return RetryReport(
            done=not body.dry_run,
            enqueued=sent,
            open=len(jobs) - sent,
            unknown=[number for number in dict.fromkeys(body.analysis_ids) if number not in known],
        )

    @router.get("/{analysis_id}", responses=documented(404))
    def failure(analysis_id: Annotated[int, Path(ge=1, le=_MAX_ID)]) -> FailureHistory:
        """One analysis and all its attempts, also if it has a result after a retry."""
        store = services.need_store()
        analysis = store.analysis(analysis_id)
        if analysis is None:
            raise FailureUnknown(f"no analysis has the id {analysis_id}: list the failures with GET /v1/failures")
        history = [as_attempt(attempt) for attempt in store.attempts_of(analysis_id)]
        return FailureHistory(**as_object(analysis), history=history)

    return router


def _report(analysis: Any) -> FailureReport:
    return FailureReport(**as_object(analysis))


def _filter(
    error_class: str | None,
    prefix: str | None,
    since: datetime | None,
    until: datetime | None,
    discarded: bool,
    limit: int | None,
) -> FailureFilter:
    if prefix is not None:
        parse_s3_prefix(prefix)
    since, until = _utc(since), _utc(until)
    if since is not None and until is not None and since >= until:
        raise RequestInvalid("since is not before until: give an earlier time")
    if error_class is not None and "\x00" in error_class:
        raise RequestInvalid("class has a NUL character")
    return FailureFilter(
        error_class=error_class, prefix=prefix, since=since, until=until, include_discarded=discarded, limit=limit
    )


def _utc(given: datetime | None) -> datetime | None:
    if given is None or given.tzinfo is not None:
        return given
    return given.replace(tzinfo=UTC)
