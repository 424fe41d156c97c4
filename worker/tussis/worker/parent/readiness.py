"""Waits until the children and the device process have loaded the model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tussis.shared.errors import OperatorError
from tussis.worker.device.host import DeviceHost
from tussis.worker.parent.pool import child_pids
from tussis.worker.status.rundir import Phase, RunDir

#: Seconds a child may take to load the model and warm up.
READY_TIMEOUT_S = 120.0
#: Seconds between two checks, and between two beats for the probes.
_LOOK_S, _BEAT_S = 0.05, 1.0


class NotReady(OperatorError):
    """A child of the worker did not become ready."""

    error_class = "worker_not_ready"


def wait_for_children(worker: Any, run_dir: RunDir, model: Path, device: DeviceHost | None) -> None:
    """Return when all children, and the device process if there is one, have loaded the model.

    Raises :class:`NotReady` when one of them refuses, or a child ends, or the time limit is over. The limit is
    :data:`READY_TIMEOUT_S`, or the device's ``load_s`` + 10 s if that is longer.
    """
    limit_s = READY_TIMEOUT_S if device is None else max(READY_TIMEOUT_S, device.load_s + 10)
    began, beaten = time.monotonic(), 0.0
    while True:
        now = time.monotonic()
        if device is not None:
            device.look()
            if device.refused is not None:
                raise NotReady(device.refused)
        if now - beaten >= _BEAT_S:
            beaten = now
            run_dir.beat(Phase.LOADING)
        reports = run_dir.children()
        for report in reports.values():
            if report.state == "refused":
                raise NotReady(report.message)
        dead = [process for process in worker.pool._pool._pool if process.exitcode is not None]
        if dead:
            raise NotReady(f"a child ended while loading {model} (exit status {dead[0].exitcode})")
        if all(pid in reports for pid in child_pids(worker)) and (device is None or device.ready):
            run_dir.beat(Phase.CONNECTING)
            return
        if now - began > limit_s:
            raise NotReady(f"the worker did not load {model} within {limit_s:g} s")
        time.sleep(_LOOK_S)
