"""Celery's pool of children with one fix, and what it has in work."""

from __future__ import annotations

from typing import Any

from celery.concurrency import asynpool, prefork
from celery.worker import state as celery_state


class _KeepingPool(asynpool.AsynPool):  # type: ignore[misc]
    """A pool that waits for every message that it has passed to a child.

    At a stop and after a lost connection Celery (5.6, 5.7) forgets the messages whose children have not yet said that
    they began. The child analyses the recording nevertheless. Its message would be given back although it is done, and
    a stop would not wait for it: it would end a child with a long recording after seconds.
    """

    def flush(self) -> None:
        for job in tuple(self._cache.values()):
            if job._write_to is not None:
                job._accepted = True
        super().flush()


class Pool(prefork.TaskPool):  # type: ignore[misc]
    """Celery's ``prefork`` pool with :class:`_KeepingPool`."""

    Pool = _KeepingPool


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
