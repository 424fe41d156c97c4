"""``/v1/s3-events``: object stores report uploads, which are enqueued. ``docs/s3-events.md`` describes the route."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials
from pydantic import BaseModel, Field

from tussis.shared.errors import SettingsInvalid, TokenRefused
from tussis.shared.job_requests import JobRequest
from tussis.shared.queues import DEFAULT_PRIORITY
from tussis.shared.s3_events import ObjectFilter, in_order, parse
from tussis.worker import logs
from tussis.worker.gateway.auth import FAILURES, bearer, caller
from tussis.worker.gateway.enqueueing import enqueue
from tussis.worker.gateway.errors import documented, status_of
from tussis.worker.gateway.idempotency import Occasion
from tussis.worker.gateway.models import Priority
from tussis.worker.gateway.services import Services
from tussis.worker.gateway.sns import SnsMessages, is_sns_message, parse_topics

_log = logs.get("s3_webhook")


_BODY: Final = {"requestBody": {"required": True, "content": {"application/json": {"schema": {}}}}}


class S3EventsAnswer(BaseModel):
    """What became of the events of a notification."""

    enqueued: int = Field(description="jobs that were sent")
    open_already: int = Field(description="jobs that were open already: nothing was sent")
    left_out: dict[str, int] = Field(description="events that create no job, by reason")


class S3EventsQuery(BaseModel, extra="forbid"):
    """The query of the URL that is configured in the store: which objects are enqueued, and how."""

    bucket: list[str] = Field([], description="enqueue only objects of these buckets")
    prefix: list[str] = Field([], description="enqueue only keys that start with one of these")
    suffix: list[str] = Field([], description="enqueue only keys that end with one of these")
    model: str | None = Field(None, description="name or name@version")
    profile: str | None = None
    coverage: Literal["head", "full"] | None = None
    priority: Priority = DEFAULT_PRIORITY
    device: Literal["any", "cpu", "gpu"] = "any"

    @property
    def wanted(self) -> ObjectFilter:
        """Which objects are enqueued."""
        return ObjectFilter(tuple(self.bucket), tuple(self.prefix), tuple(self.suffix))

    @property
    def like(self) -> JobRequest:
        """The fields of every job."""
        return JobRequest(
            "",
            model=self.model,
            profile=self.profile,
            coverage=self.coverage,
            priority=self.priority,
            device=self.device,
        )


def s3_webhook_router(services: Services, sns: SnsMessages | None = None) -> APIRouter:
    """The route of notifications. ``sns`` None: that of the settings. Raises :class:`SettingsInvalid`."""
    router = APIRouter(
        prefix="/v1/s3-events", tags=["events of object stores"], responses=FAILURES | documented(403, 413)
    )
    messages = SnsMessages(_topics(services)) if sns is None else sns

    @router.post("", openapi_extra=_BODY)
    async def notified(
        request: Request,
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
        query: Annotated[S3EventsQuery, Query()],
    ) -> S3EventsAnswer:
        """Enqueue the objects that a notification names: of S3, SNS, EventBridge, MinIO, Ceph or SeaweedFS.

        The request needs a token, or is a message of SNS with a valid signature.
        """
        signed = given is None and services.tokens is not None
        if not signed:
            await caller(request, given)
        body = await request.body()
        return await to_thread.run_sync(_received, services, messages, body, query, signed)

    return router


def _topics(services: Services) -> frozenset[str]:
    try:
        return parse_topics(services.settings.serve_sns_topics)
    except ValueError as error:
        raise SettingsInvalid(
            f"TUSSIS_SERVE_SNS_TOPICS is wrong: {error} is not the ARN of a topic, arn:aws:sns:REGION:ACCOUNT:NAME"
        ) from None


def _received(services: Services, sns: SnsMessages, body: bytes, query: S3EventsQuery, signed: bool) -> S3EventsAnswer:
    """``signed``: the body is accepted only if SNS signed it. The topics are those of the settings."""
    message = _sns_message(body)
    if signed and message is None:
        raise TokenRefused("the request has no valid token, and is no message that SNS signed: send the header "
                           "Authorization: Bearer TOKEN")  # fmt: skip
    if message is not None and (signed or message["Type"] != "Notification"):
        sns.verify(message)
    if message is not None and message["Type"] != "Notification":
        return _subscription(sns, message)
    told = query.wanted.apply(parse(body))
    requests = [
        replace(query.like, uri=found.uri, version_id=found.version_id, etag=found.etag)
        for found in in_order(told.created, lambda found: found)
    ]
    left_out = dict(Counter(entry.reason.value for entry in told.left_out))
    sent = _enqueue(services, requests)
    answer = S3EventsAnswer(enqueued=sum(sent), open_already=len(sent) - sum(sent), left_out=left_out)
    _log.info("s3_webhook_received", **answer.model_dump())
    return answer


def _enqueue(services: Services, requests: Sequence[JobRequest]) -> list[bool]:
    """For each request, whether it was sent; False: it was open already.

    Raises the error of a refused request after the others are enqueued: one that may end, so that the store reports
    the objects again, before one that will not.
    """
    if not requests:
        return []
    admitted = enqueue(services, requests, None, Occasion.unrepeated())
    errors = [item.error for item in admitted if item.error is not None]
    if errors:
        raise max(errors, key=status_of)
    return [item.sent for item in admitted]


def _sns_message(body: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if is_sns_message(document) else None


def _subscription(sns: SnsMessages, message: dict[str, Any]) -> S3EventsAnswer:
    """Confirm a subscription. The topic is one of the settings, and SNS signed the message."""
    if message["Type"] == "SubscriptionConfirmation":
        sns.confirm(message)
        _log.info("sns_subscription_confirmed", topic=message["TopicArn"])
    else:
        _log.warning("sns_unsubscribed", topic=message["TopicArn"])
    return S3EventsAnswer(enqueued=0, open_already=0, left_out={message["Type"]: 1})
