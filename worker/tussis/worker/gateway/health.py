"""``/healthz``: whether the gateway lives, and whether it can enqueue."""

from __future__ import annotations

from typing import Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Response
from pydantic import BaseModel

from tussis.shared.broker import broker_errors
from tussis.shared.errors import TussisError
from tussis.worker.gateway.services import Services


class Health(BaseModel):
    """Whether the gateway is well. ``reason`` is the class of the error, which has no address in it."""

    status: Literal["live", "ready", "not_ready"]
    reason: str | None = None


def health_router(services: Services) -> APIRouter:
    """The routes of probes. They need no token."""
    router = APIRouter(prefix="/healthz", tags=["health"])

    @router.get("/live")
    async def live() -> Health:
        """Whether the process answers. A restart does not help if the broker is away."""
        return Health(status="live")

    @router.get("/ready", responses={503: {"model": Health, "description": "Send it no requests now."}})
    async def ready(response: Response) -> Health:
        """Whether the gateway can enqueue: the broker answers, and it is not stopping."""
        if services.stopping.is_set():
            reason: str | None = "stopping"
        else:
            reason = await run_sync(_reason, services)
        if reason is None:
            return Health(status="ready")
        response.status_code = 503
        return Health(status="not_ready", reason=reason)

    return router


def _reason(services: Services) -> str | None:
    try:
        with broker_errors(services.where):
            services.redis.ping()
    except TussisError as error:
        return error.error_class
    return None
