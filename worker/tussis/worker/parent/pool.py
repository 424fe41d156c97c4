"""The children and the messages in work, read from Celery's pool and its tables of requests."""

from __future__ import annotations

from typing import Any

from celery.worker import state as celery_state


def child_pids(worker: Any) -> list[int]:
    """The process ids of the living children. Empty while Celery starts or ends the pool."""
    pool = getattr(worker.pool, "_pool", None)
    return [] if pool is None else [process.pid for process in tuple(pool._pool) if process.exitcode is None]


def tags_in_work() -> list[str]:
    """The delivery tags of all messages that this worker runs or is about to run, from all connections."""
    for _ in range(10):
        try:
            requests = {*celery_state.active_requests, *celery_state.reserved_requests}
            return [request.message.delivery_tag for request in requests]
        except RuntimeError:  # The consuming thread changed a set during the copy.
            continue
    return []


def busy_children() -> int:
    """The number of children that have work or are about to receive some."""
    return max(len(tags_in_work()), len(celery_state.reserved_requests), len(celery_state.active_requests))
