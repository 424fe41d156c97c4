"""The routes of the HTTP backend that Tussis replaces, for clients that change the address only.

Every failure has the body ``{"error": "..."}``, which these clients show. ``docs/old-backend.md`` describes the routes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Annotated, Any, Final

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from tussis.shared.coverage import Coverage
from tussis.shared.dsp.profiles import LEGACY
from tussis.shared.errors import (
    BrokerRefused,
    BrokerUnavailable,
    EmptyObject,
    RequestInvalid,
    SettingsInvalid,
    TussisError,
)
from tussis.shared.model_queues import ModelQueues
from tussis.shared.outcomes import JobOutcome, OutcomeAnswer, OutcomeState, SegmentScore
from tussis.shared.uploads import new_key
from tussis.shared.uris import ObjectAddress
from tussis.worker import logs
from tussis.worker.gateway.auth import bearer, caller
from tussis.worker.gateway.bodies import allow_upload
from tussis.worker.gateway.errors import PLAIN_ERRORS, answer_of, status_of
from tussis.worker.gateway.jobs import ended
from tussis.worker.gateway.models import JobOptions, UploadedJob
from tussis.worker.gateway.multipart import MultipartUpload
from tussis.worker.gateway.old_answers import (
    CANCELLED,
    FAILED,
    GONE,
    NO_FILE,
    UNANSWERED,
    UNAVAILABLE,
    old_answer,
    old_error,
    threshold_of,
)
from tussis.worker.gateway.receiving import Receiving, store_and_enqueue
from tussis.worker.gateway.recordings import upload_prefix
from tussis.worker.gateway.services import Services

_log = logs.get("gateway")

#: The field of the recording.
_FILE_FIELD: Final = "audio"
#: The first in line.
_PRIORITY: Final = 0
#: The caller of requests without a token, for the limit of the rate.
_WITHOUT_TOKEN: Final = "old routes"
#: Seconds since the last report of a worker for which its model counts as served.
_SERVED_S: Final = 60.0
#: Seconds between two looks whether the gateway stops.
_SLICE_S: Final = 2.0
#: Seconds after which a broker that did not answer is asked again.
_RETRY_S: Final = 0.5
_TB_PATHS: Final = ("/api/detect-tb", "/api/detect", "/api/predict")
#: Statuses of errors that the client made.
_TOLD: Final = (401, 408, 413, 429)
#: Headers of an answer about an error, in lower case.
_HEADERS: Final = ("connection", "retry-after", "www-authenticate")


class OldAnswer(BaseModel):
    """The answer about one recording."""

    coughDetected: bool
    confidence: float
    file_probability: float
    segment_probabilities: list[float]
    segment_timestamps: list[tuple[float, float]] = Field(description="start and end of each segment, seconds")
    num_segments: int
    threshold_used: float
    max_segment_probability: float
    mean_segment_probability: float
    job_id: str
    message: str | None = Field(None, description="only with a cough")
    model_info: dict[str, Any] | None = Field(None, description="only with a cough")
    error: str | None = Field(None, description="only without a cough")


class OldHealth(BaseModel):
    """Whether recordings can be sent, and whether a worker answers them."""

    status: str
    model_loaded: bool


class OldError(BaseModel):
    """Why there is no answer."""

    error: str
    job_id: str | None = Field(None, description="of a recording that was stored and enqueued")
    error_class: str | None = Field(None, description="docs/errors.md")


#: The body of a request to the route, for the OpenAPI document.
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [_FILE_FIELD],
                    "properties": {
                        _FILE_FIELD: {"type": "string", "format": "binary"},
                        "threshold": {"type": "string"},
                    },
                }
            }
        },
    }
}
_FAILURES: Final[dict[int | str, str]] = {
    "default": "The request failed.",
    400: "The request has no file in the field `audio`, or a threshold that is not a number from 0 to 1.",
    401: "The token is missing or wrong.",
    408: "The body did not arrive in time.",
    413: "The recording is too large.",
    429: "Too many requests were sent.",
    500: "The recording cannot be analysed.",
    503: "There is no answer yet (with a job_id), or a server is not available.",
}


class _OldRoute(APIRoute):
    """A route whose failures have the old backend's form."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_in_old_form(request: Request) -> Response:
            request.scope[PLAIN_ERRORS] = True
            try:
                return await handle(request)
            except TussisError as error:
                return _failure(error)
            except RequestValidationError:
                return _failure(RequestInvalid("the request is not valid"))
            except HTTPException as error:
                cause = error.__cause__
                return _failure(cause if isinstance(cause, TussisError) else RequestInvalid(str(error.detail)))

        return handle_in_old_form


async def _caller(request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> str:
    """Dependency: the caller. Without TUSSIS_SERVE_OLD_ROUTES=open, the request needs a token."""
    services: Services = request.app.state.services
    if services.settings.serve_old_routes == "open" and given is None:
        request.scope["tussis.caller"] = _WITHOUT_TOKEN
        services.rates.take(_WITHOUT_TOKEN)
        return _WITHOUT_TOKEN
    return await caller(request, given)


def old_backend_router(services: Services) -> APIRouter:
    """The routes of the old backend."""
    router = APIRouter(tags=["old backend"], route_class=_OldRoute)
    failures: dict[int | str, dict[str, Any]] = {
        status: {"model": OldError, "description": told} for status, told in _FAILURES.items()
    }

    @router.post(
        "/api/detect-cough",
        response_model=OldAnswer,
        responses=failures,
        openapi_extra=_BODY,
        dependencies=[Depends(allow_upload)],
    )
    async def detect_cough(
        request: Request,
        name: Annotated[str, Depends(_caller)],
        threshold: Annotated[str | None, Query(description="instead of the model's; a field of the form too")] = None,
    ) -> Response:
        """Store the recording in the field `audio`, analyse it before all others, and wait for the answer."""
        threshold_of(None, threshold)  # what is wrong already is refused before the recording is read
        try:
            form = MultipartUpload(request.headers.get("content-type", ""), request.stream(), _FILE_FIELD)
        except RequestInvalid:
            return JSONResponse(old_error(NO_FILE), 400)
        if not await form.begin():
            return JSONResponse(old_error(NO_FILE), 400)
        job = await _enqueued(services, name, form, threshold)
        used = threshold_of(form.fields.get("threshold"), threshold)
        try:
            return await _answered(services, job.job_id, used)
        except TussisError as error:
            return _failure(error, job.job_id)

    @router.get("/health", responses={503: {"model": OldHealth, "description": "The broker does not answer."}})
    async def health(response: Response) -> OldHealth:
        """Whether recordings can be sent, and whether a worker has loaded the model."""
        try:
            served = await to_thread.run_sync(ModelQueues(services.redis, services.where).last_served)
        except TussisError:
            response.status_code = 503
            return OldHealth(status="unhealthy", model_loaded=False)
        return OldHealth(status="healthy", model_loaded=min(served.values(), default=_SERVED_S + 1) <= _SERVED_S)

    async def gone() -> Response:
        """The routes of another model."""
        return JSONResponse(old_error(GONE), 410)

    for path in _TB_PATHS:
        router.add_api_route(path, gone, methods=["GET", "POST"], include_in_schema=False)
    return router


async def _enqueued(services: Services, name: str, form: MultipartUpload, query: str | None) -> UploadedJob:
    """Store the file of the form, and enqueue it. ``query`` is the threshold in the query."""
    prefix = upload_prefix(services)
    hearing = {"profile": LEGACY.name, "coverage": Coverage.HEAD} if services.settings.serve_old_legacy else {}
    options = JobOptions.model_validate({"priority": _PRIORITY, **hearing})

    async def chunks() -> AsyncIterator[bytes]:
        async for chunk in form.chunks():
            yield chunk
        # All fields are read, and the object is not complete: a wrong threshold leaves nothing.
        threshold_of(form.fields.get("threshold"), query)

    receiving = Receiving(
        name=name,
        fingerprint="",
        idempotency_key=None,
        address=lambda occasion: ObjectAddress(prefix.bucket, new_key(prefix.key, form.file_name, occasion.at)),
        options=lambda: options,
        may_exist=False,
    )
    return await store_and_enqueue(services, receiving, chunks())


async def _answered(services: Services, job_id: str, threshold: float | None) -> Response:
    """Wait for the end of the job, and answer with its outcome."""
    ends = time.monotonic() + services.settings.serve_old_wait_s
    outcome: JobOutcome | None = None
    while outcome is None:
        left_s = ends - time.monotonic()
        if left_s <= 0 or services.stopping.is_set():
            return JSONResponse(old_error(UNANSWERED, job_id), 503)
        try:
            outcome = await services.tail.wait(job_id, min(left_s, _SLICE_S), lambda: ended(services, job_id))
        except (BrokerUnavailable, BrokerRefused):  # the job is kept by the broker, and its answer by the database
            await asyncio.sleep(min(left_s, _RETRY_S))
    if outcome.state is OutcomeState.CANCELLED:
        return JSONResponse(old_error(CANCELLED, job_id), 503)
    if outcome.state is OutcomeState.FAILED:
        return JSONResponse(old_error(FAILED, job_id, outcome.error_class), 500)
    if outcome.answer is None:  # the worker could not read it from the database
        return JSONResponse(old_error(UNANSWERED, job_id), 503)
    segments = await _segments(services, outcome, outcome.answer)
    return JSONResponse(old_answer(job_id, outcome.answer, segments, threshold))


async def _segments(services: Services, outcome: JobOutcome, answer: OutcomeAnswer) -> list[SegmentScore]:
    """All scored segments. An outcome has the first ones only; the others are in the database."""
    if len(answer.segments) == answer.segments_scored:
        return list(answer.segments)
    analysis_id = outcome.analysis_id
    if services.store is None or analysis_id is None:
        raise SettingsInvalid(
            f"the recording has {answer.segments_scored} segments, and the gateway has no access to the database, "
            "which has all of them: set TUSSIS_DATABASE_URL"
        )
    rows = await to_thread.run_sync(lambda: services.need_store().segments_of(analysis_id))
    return [SegmentScore(row.start_s, row.probability) for row in rows]


def _failure(error: TussisError, job_id: str | None = None) -> Response:
    """The answer about an error. Errors of the deployment are told by their class only: their texts have addresses."""
    status, text = status_of(error), str(error)
    if isinstance(error, EmptyObject):
        status, text = 500, FAILED
    elif isinstance(error, RequestInvalid):
        status = 400
    elif status not in _TOLD:
        _log.warning("request_failed", error_class=error.error_class, reason=text)
        status, text = 503, UNAVAILABLE if job_id is None else UNANSWERED
    answer = JSONResponse(old_error(text, job_id, error.error_class), status)
    for name, value in answer_of(error).headers.items():
        if name in _HEADERS:
            answer.headers[name] = value
    return answer
