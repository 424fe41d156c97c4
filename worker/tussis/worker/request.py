"""Celery's request with two changes: who hears that a child died, and that no failure is ever acknowledged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import WorkerLostError
from celery.exceptions import Reject
from celery.worker import request as celery_request
from celery.worker.state import task_ready

from tussis.worker import logs

_log = logs.get("request")


def request_class(child_lost: Callable[[int], None]) -> type:
    """The class of a delivered message. ``child_lost`` is called with the process id of a child that died at work,
    before its message goes back: the claim of the next attempt then knows that this one is over."""

    class Request(celery_request.Request):  # type: ignore[misc]
        """One delivered message in the parent process."""

        def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
            error = exc_info.exception
            if isinstance(error, ExceptionWithTraceback):
                error = error.exc
            if isinstance(error, WorkerLostError | SystemExit | KeyboardInterrupt) and self.worker_pid:
                child_lost(self.worker_pid)
            elif isinstance(error, Exception) and not isinstance(error, Reject):
                # The task itself raises Reject only, so that this is an error of Celery's part in the child. Stock
                # Celery raises a MemoryError again in the parent, which ends the worker, and acknowledges all others.
                _log.error("request_failed", reason=f"{type(error).__name__}: {error}")
                task_ready(self)
                return self.reject(requeue=True)
            return super().on_failure(exc_info, send_failed_event, return_ok)

    return Request
