"""Limits the time of a worker's stop: the children are told, and those that exceed the grace period are ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from celery.worker import state as celery_state

from tussis.worker import logs
from tussis.worker.parent.pool import child_pids
from tussis.worker.status.rundir import RunDir

_log = logs.get("stop")

#: Seconds after the grace period during which a stopping worker may still end by itself.
_ESCALATE_AFTER_S = 5.0
#: Seconds without active work after which an unfinished stop counts as hung. A normal stop takes one or two.
_STUCK_AFTER_S = 8.0


class BoundedStop:
    """The stop of one worker.

    ``before_kill`` is called before children are killed, ``before_exit`` before this process ends itself.
    """

    def __init__(
        self,
        run_dir: RunDir,
        soft_shutdown_s: float,
        before_kill: Callable[[], object],
        before_exit: Callable[[], None],
    ) -> None:
        self._run_dir = run_dir
        self._limit_s = soft_shutdown_s + _ESCALATE_AFTER_S
        self._before_kill = before_kill
        self._before_exit = before_exit
        self._idle_since: float | None = None
        self._escalated = False

    def watch(self, worker: Any) -> None:
        """Tell the children about a stop, and end those that exceed the grace period."""
        if celery_state.should_stop is not None or celery_state.should_terminate is not None:
            self._run_dir.stop()
        elapsed_s = self._run_dir.stopping_for()
        if elapsed_s is not None:
            self._bound(worker, elapsed_s)

    def _bound(self, worker: Any, elapsed_s: float) -> None:
        """Start a cold shutdown after the grace period. Kill all processes if that or Celery's own stop hangs.

        Celery's stop once hung with no work left. Messages that are not given back before the kill come back after the
        visibility timeout.
        """
        now = time.monotonic()
        if celery_state.active_requests or self._idle_since is None:
            self._idle_since = now
        if now - self._idle_since > _STUCK_AFTER_S or elapsed_s > self._limit_s + _ESCALATE_AFTER_S:
            _log.error("stop_forced", seconds=round(elapsed_s, 1), active=len(celery_state.active_requests))
            self._before_kill()
            for pid in child_pids(worker):
                os.kill(pid, signal.SIGKILL)
            self._before_exit()
            self._run_dir.remove()
            os._exit(1 if celery_state.active_requests else 0)
        if elapsed_s > self._limit_s and not self._escalated:
            self._escalated = True
            _log.warning("grace_exceeded", seconds=round(elapsed_s, 1))
            self._before_kill()
            os.kill(os.getpid(), signal.SIGQUIT)
