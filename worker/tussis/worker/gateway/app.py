"""The FastAPI application of the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from anyio.to_thread import current_default_thread_limiter
from fastapi import APIRouter, Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware

from tussis.shared.settings import Settings
from tussis.worker.gateway import errors
from tussis.worker.gateway.auth import FAILURES, caller
from tussis.worker.gateway.batches import batches_router
from tussis.worker.gateway.bodies import BodyLimits
from tussis.worker.gateway.cancellations import cancellations_router
from tussis.worker.gateway.counts import CountRequests
from tussis.worker.gateway.failures import failures_router
from tussis.worker.gateway.health import health_router
from tussis.worker.gateway.jobs import jobs_router
from tussis.worker.gateway.metrics import metrics_router
from tussis.worker.gateway.old_backend import old_backend_router
from tussis.worker.gateway.outcomes import outcomes_router
from tussis.worker.gateway.parameters import check_parameters
from tussis.worker.gateway.recordings import recordings_router
from tussis.worker.gateway.services import Services

_DESCRIPTION = """\
Enqueue recordings, and read the outcomes of their jobs. Every failure has the body
`{"error": {"class": ..., "message": ...}}`. docs/http.md describes the routes.
"""


def create_app(settings: Settings, services: Services) -> FastAPI:
    """The application. The routes find the services in ``app.state.services``."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        current_default_thread_limiter().total_tokens = settings.serve_threads
        app.openapi()  # makes the document, which takes a while
        yield

    app = FastAPI(
        title="Tussis",
        description=_DESCRIPTION,
        version=version("tussis"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.state.services = services
    errors.install(app)
    app.add_middleware(CountRequests, counts=services.counts)
    app.add_middleware(BodyLimits, idle_s=settings.serve_idle_s, total_s=settings.serve_upload_timeout_s)
    if settings.serve_allow_origins is not None:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.serve_allow_origins.split(),
            allow_methods=["GET", "POST", "PUT"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID"],
            expose_headers=["Retry-After"],
        )
    app.include_router(health_router(services))
    if settings.serve_old_routes != "off":
        app.include_router(old_backend_router(services))
    with_token = APIRouter(dependencies=[Depends(caller), Depends(check_parameters)], responses=FAILURES)
    for router in _routers(services):
        with_token.include_router(router)
    app.include_router(with_token)
    return app


def _routers(services: Services) -> list[APIRouter]:
    """The routers below ``/v1``. All their routes need a token."""
    return [
        recordings_router(services),
        jobs_router(services),
        batches_router(services),
        outcomes_router(services),
        cancellations_router(services),
        failures_router(services),
        metrics_router(services),
    ]
