"""``/v1/metrics``: the counts of this process for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from tussis.worker.gateway.auth import STATUSES
from tussis.worker.gateway.errors import referenced
from tussis.worker.gateway.services import Services


def metrics_router(services: Services) -> APIRouter:
    """The route of metrics."""
    router = APIRouter(tags=["health"])

    @router.get("/v1/metrics", response_class=PlainTextResponse, responses=referenced(*STATUSES))
    def metrics() -> PlainTextResponse:
        """The metrics in the text format of Prometheus. docs/metrics.md describes them."""
        return PlainTextResponse(services.counts.text(), media_type=CONTENT_TYPE_LATEST)

    return router
