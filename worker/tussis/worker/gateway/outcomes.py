"""``/v1/outcomes``: the outcomes of all jobs as server-sent events."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from tussis.shared.broker import broker_errors
from tussis.shared.errors import GatewayBusy, RequestInvalid
from tussis.shared.queues import OUTCOMES_KEY
from tussis.worker.gateway.auth import STATUSES
from tussis.worker.gateway.errors import documented, referenced
from tussis.worker.gateway.outcome_events import GroupEvents, NewEvents, stream
from tussis.worker.gateway.services import Services

_GROUP = r"^[A-Za-z0-9._:-]{1,64}$"
_EVENT_ID = re.compile(r"\d{1,15}-\d{1,18}")
#: Entries of one acknowledgement.
_MAX_IDS = 1000

GroupName = Annotated[str, Field(pattern=_GROUP)]


class AcknowledgeBody(BaseModel):
    """The ids of events that a reader of a group has handled."""

    model_config = ConfigDict(extra="forbid")

    group: GroupName
    ids: list[Annotated[str, Field(pattern=r"^\d{1,15}-\d{1,18}$")]] = Field(min_length=1, max_length=_MAX_IDS)


class Acknowledged(BaseModel):
    """The number of events that were not acknowledged before."""

    acknowledged: int


class EventStream(StreamingResponse):
    """A stream of server-sent events."""

    media_type = "text/event-stream"


def outcomes_router(services: Services) -> APIRouter:
    """The routes of outcomes."""
    router = APIRouter(prefix="/v1/outcomes", tags=["outcomes"])

    @router.get(
        "",
        response_class=EventStream,
        responses=referenced(*STATUSES)
        | {
            200: {
                "description": "Events `outcome`, `batch` and `gap`, until the client closes the connection.",
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            }
        },
    )
    async def outcome_stream(
        group: Annotated[str | None, Query(pattern=_GROUP, description="group of readers, which is remembered")] = None,
        consumer: Annotated[str, Query(pattern=_GROUP, description="name of this reader in the group")] = "http",
        acknowledge: Annotated[
            Literal["client", "sent"],
            Query(description="with group: by POST /v1/outcomes/acknowledge, or when an event was sent"),
        ] = "client",
        last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=40)] = None,
    ) -> StreamingResponse:
        """The outcomes of all jobs as they end: from now on, behind Last-Event-ID, or where the group stopped.

        With a group, an event that is not acknowledged within 60 seconds comes again.
        """
        if last_event_id is not None and not _EVENT_ID.fullmatch(last_event_id):
            raise RequestInvalid("the header Last-Event-ID is not the id of an event")
        if services.stopping.is_set() or len(services.streams) >= services.settings.serve_streams:
            raise GatewayBusy(
                f"the gateway is stopping, or sends {services.settings.serve_streams} streams of outcomes already "
                "(TUSSIS_SERVE_STREAMS): try again later"
            )
        if group is None:
            source: NewEvents | GroupEvents = NewEvents(services, last_event_id)
        else:
            source = GroupEvents(services, group, consumer, acknowledge == "sent")
        await source.begin()
        return EventStream(stream(services, source), headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    @router.post("/acknowledge", responses=documented(413))
    def acknowledge(body: AcknowledgeBody) -> Acknowledged:
        """Acknowledge events of a group, so that they do not come again. A request may be repeated."""
        with broker_errors(services.where):
            number = services.redis.xack(OUTCOMES_KEY, body.group, *body.ids)
        return Acknowledged(acknowledged=int(number))

    return router
