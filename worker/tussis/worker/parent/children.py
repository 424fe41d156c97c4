"""Watching the children and the device process.

The files of dead processes are removed. A process that cannot start ends the worker with the reason.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from celery.worker import state as celery_state

from tussis.worker import logs
from tussis.worker.device.host import DeviceHost
from tussis.worker.parent.pool import child_pids
from tussis.worker.status.rundir import RunDir

_log = logs.get("children")


def watch_children(worker: Any, run_dir: RunDir, fold_metrics: Callable[[int], None]) -> None:
    """Remove the files of dead children, and stop the worker when a replacement cannot start.

    ``fold_metrics`` is called with the process id of each dead child.
    """
    # Read the files before the processes: every child with a file is then in the list of processes, unless it died.
    reports, holds = run_dir.children(), run_dir.holds()
    living = set(child_pids(worker))
    # A replacement that died while it waited for the database has no report but a hold, and a hold makes the worker not
    # ready.
    for pid in {*reports, *holds} - living - {os.getpid()}:
        fold_metrics(pid)
        run_dir.forget(pid)
    for pid, report in reports.items():
        if pid in living and report.state == "refused":
            _log.error("child_refused", reason=report.message)
            celery_state.should_stop = 1


def watch_device(device: DeviceHost) -> str | None:
    """Replace a device process that ended. If none can start, stop the worker and return the reason, otherwise None."""
    device.look()
    if device.refused is not None:
        _log.error("device_refused", reason=device.refused)
        celery_state.should_stop = 1
    return device.refused
