"""Celery's request with two changes: callbacks when a child dies, and no failure is acknowledged."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import Terminated, WorkerLostError
from celery.exceptions import Reject
from celery.worker import request as celery_request
from celery.worker.state import task_ready

from tussis.worker import logs

_log = logs.get("request")


@dataclass(frozen=True)
class ChildEnds:
    """Callbacks for children that end without an outcome. They are called before the message is given back."""

    lost: Callable[[int], None] = lambda pid: None
    """A child died during an attempt. Called with its process id."""
    before_kill: Callable[[], Set[str]] = frozenset
    """The worker is about to kill its children. Returns the ids of the jobs whose messages were sent again: their
    delivered messages must be acknowledged."""


def request_class(ends: ChildEnds) -> type:
    """The class of a delivered message.

    It calls ``ends`` before the message is given back, so that the next claim finds the outcome of the last attempt.
    """

    class Request(celery_request.Request):  # type: ignore[misc]
        """One delivered message in the parent process."""

        def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
            error = exc_info.exception
            if isinstance(error, ExceptionWithTraceback):
                error = error.exc
            if isinstance(error, WorkerLostError | SystemExit | KeyboardInterrupt) and self.worker_pid:
                ends.lost(self.worker_pid)
            elif isinstance(error, Exception) and not isinstance(error, Reject | Terminated):
                # The task raises only Reject, so this is an error of Celery's code in the child. Stock Celery raises
                # a MemoryError again in the parent, which ends the worker, and acknowledges all other errors.
                _log.error("request_failed", reason=f"{type(error).__name__}: {error}")
                task_ready(self)
                return self.reject(requeue=True)
            return super().on_failure(exc_info, send_failed_event, return_ok)

        def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
            """Celery's cold shutdown kills the child."""
            sent_anew = ends.before_kill()
            super().cancel(pool, signal, emit_retry)
            if self.id in sent_anew:
                self.acknowledge()

    return Request
