"""Answers to requests that fail: one JSON form with the class of the error, and the status of each class."""

from __future__ import annotations

from typing import Any, Final, Self

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from tussis.shared.errors import (
    AnalysisUnknown,
    BatchUnknown,
    BodySlow,
    BodyTooLarge,
    CallerError,
    FailureUnknown,
    IdempotencyKeyBusy,
    IdempotencyKeyReused,
    InternalFault,
    JobUnknown,
    MessageTooLarge,
    ModelUnknown,
    ObjectExists,
    ObjectTooLarge,
    OperatorError,
    PermanentError,
    QueueFull,
    RateExceeded,
    RequestInvalid,
    RouteUnknown,
    SnsRefused,
    TokenRefused,
    TransientError,
    TussisError,
)
from tussis.shared.text import printable
from tussis.worker import logs

_log = logs.get("gateway")

#: Class of error -> status. The first class that fits an error decides.
STATUSES: Final[tuple[tuple[type[TussisError], int], ...]] = (
    (TokenRefused, 401),
    (SnsRefused, 403),
    (RouteUnknown, 404),
    (JobUnknown, 404),
    (BatchUnknown, 404),
    (AnalysisUnknown, 404),
    (FailureUnknown, 404),
    (ModelUnknown, 404),
    (BodySlow, 408),
    (IdempotencyKeyBusy, 409),
    (ObjectExists, 409),
    (BodyTooLarge, 413),
    (MessageTooLarge, 413),
    (ObjectTooLarge, 413),
    (IdempotencyKeyReused, 422),
    (CallerError, 422),
    (RateExceeded, 429),
    (PermanentError, 422),
    (TransientError, 503),
    (OperatorError, 503),
    (TussisError, 500),
)
#: Key of a request's scope. Set: the error of an answer is a text, as the old backend's clients read it.
PLAIN_ERRORS: Final = "tussis.plain_errors"
#: Seconds after which a client may try again, in the header Retry-After.
_RETRY_S: Final = 5
_RETRY_FULL_S: Final = 15
#: Characters of a message. A key has 1024 bytes.
_MAX_CHARS: Final = 4_000


class ErrorFields(BaseModel):
    """Why a request failed."""

    error_class: str = Field(alias="class", description="stable name of the error, docs/errors.md")
    message: str = Field(description="what happened, and what to do; one line")

    @classmethod
    def of(cls, error: TussisError) -> Self:
        """The fields of an error."""
        return cls.model_validate({"class": error.error_class, "message": printable(str(error))[:_MAX_CHARS]})


class ErrorAnswer(BaseModel):
    """The body of every answer whose status is 400 or above."""

    error: ErrorFields


def status_of(error: TussisError) -> int:
    """The HTTP status of an error."""
    return next(status for kind, status in STATUSES if isinstance(error, kind))


def answer_of(error: TussisError) -> JSONResponse:
    """The answer about an error."""
    status = status_of(error)
    headers = {}
    if isinstance(error, RateExceeded):
        headers["Retry-After"] = str(error.retry_after_s)
    elif isinstance(error, QueueFull):
        headers["Retry-After"] = str(_RETRY_FULL_S)
    elif isinstance(error, TransientError | IdempotencyKeyBusy):
        headers["Retry-After"] = str(_RETRY_S)
    if isinstance(error, TokenRefused):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, BodySlow | BodyTooLarge):
        headers["Connection"] = "close"  # the rest of the body is not read
    return JSONResponse(body_of(error), status, headers)


def body_of(error: TussisError) -> dict[str, Any]:
    """The body of the answer about an error."""
    return {"error": ErrorFields.of(error).model_dump(by_alias=True)}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The failures of a route, for the OpenAPI document."""
    return {status: {"model": ErrorAnswer, "description": _DESCRIPTIONS[status]} for status in statuses}


def referenced(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """As :func:`documented`, for a route whose answer is no JSON: FastAPI would give its failures the same type."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{ErrorAnswer.__name__}"}}}
    return {status: {"description": _DESCRIPTIONS[status], "content": content} for status in statuses}


_DESCRIPTIONS: Final[dict[int, str]] = {
    400: "The request cannot be read.",
    401: "The token is missing or wrong.",
    403: "The message is not from an SNS topic of the settings, or its signature is wrong.",
    404: "There is nothing with this name or id.",
    405: "The path does not have this method.",
    408: "The body did not arrive in time.",
    409: "A request with the same Idempotency-Key is being processed, or another object has the key.",
    413: "The body, or the metadata, is too large.",
    422: "A value is wrong, or the object does not exist, or the Idempotency-Key belongs to another request.",
    429: "The token sent too many requests. Retry-After says when to send the next.",
    500: "A bug in Tussis. The log of the gateway has the details.",
    503: "The broker, the object store or the database is not available, or the queue is full.",
}


def install(app: FastAPI) -> None:
    """Let the app answer every failure in the one form."""

    @app.exception_handler(TussisError)
    async def tussis_error(request: Request, error: TussisError) -> Response:
        if status_of(error) >= 500:
            _log.warning("request_failed", error_class=error.error_class, reason=str(error))
        return answer_of(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return answer_of(RequestInvalid(_described(error)))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        if isinstance(error.__cause__, TussisError):  # FastAPI wraps what the reading of a body raises
            return answer_of(error.__cause__)
        if error.status_code in (404, 405):
            answer = answer_of(RouteUnknown("the gateway has no such path or method: docs/http.md lists them"))
        else:
            answer = answer_of(RequestInvalid(str(error.detail)))
        answer.status_code = error.status_code
        for name, value in (error.headers or {}).items():
            answer.headers[name] = value
        return answer

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        _log.error("gateway_bug", exc_info=error)
        fault = InternalFault("a bug in Tussis: the log of the gateway has its trace")
        return JSONResponse({"error": str(fault)} if request.scope.get(PLAIN_ERRORS) else body_of(fault), 500)


def _described(error: RequestValidationError) -> str:
    """The first problem of a request, on one line."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where} is wrong: {first['msg']}" if where else str(first["msg"])
