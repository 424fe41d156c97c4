"""Whether a worker is live and whether it is ready, from the files in its run directory.

This module imports nothing large, because a probe runs every few seconds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tussis.worker.status.rundir import Phase, RunDir, run_dirs

#: Seconds without a beat after which a worker is not live. The event loop may wait 5 s for a half-open connection.
SILENCE_S: Final = 15.0
#: Seconds allowed for the first checks and the download of the model.
START_S: Final = 300.0
#: Seconds allowed for the consumer to reconnect once the broker answers. Celery waits up to 30 s between two tries.
RECONNECT_S: Final = 60.0
#: A worker with waiting messages and free children that takes nothing for this many times ``silence_s`` is not live.
_STARVING_FACTOR: Final = 2.0


@dataclass(frozen=True)
class ProbeResult:
    """The finding of a probe. ``reason`` is empty when the worker passes. ``remark`` does not change the finding."""

    worker: str
    reason: str = ""
    remark: str = ""

    @property
    def well(self) -> bool:
        return not self.reason


def live(folder: Path, worker: str | None = None, silence_s: float = SILENCE_S) -> list[ProbeResult]:
    """A verdict for each worker in ``folder``, or only for ``worker``. The list is empty when there is none.

    A worker is live in each of these cases: it starts; its children load the model; its event loop runs and takes
    waiting messages; the broker is not available and the housekeeper has noticed it; it stops.
    """
    return [ProbeResult(one.worker, _not_live(one, silence_s)) for one in _living(folder, worker)]


def ready(folder: Path, worker: str | None = None, silence_s: float = SILENCE_S) -> list[ProbeResult]:
    """As :func:`live`. A ready worker is live and consumes, every child has loaded the model, and no process waits.

    The remark says whether another model is active, which queues are paused, and what the decoder's jail lacks. Such a
    worker is ready: it answers jobs that name its model, and takes messages again when the queue is resumed.
    """
    return [
        ProbeResult(one.worker, _not_live(one, silence_s) or _not_ready(one), _remark(one))
        for one in _living(folder, worker)
    ]


def is_ready(one: RunDir) -> bool:
    """Whether one worker is ready."""
    return not (_not_live(one, SILENCE_S) or _not_ready(one))


def _remark(one: RunDir) -> str:
    status = one.parent_status()
    paused = f"paused: {status.paused}" if status is not None and status.paused else ""
    jail = f"decoder jail: {lacks}" if (lacks := one.jail_lacks()) else ""
    return "; ".join(filter(None, [one.not_active(), paused, jail]))


def _living(folder: Path, worker: str | None) -> list[RunDir]:
    return [one for one in run_dirs(folder) if one.held and worker in (None, one.worker)]


def _not_live(one: RunDir, silence_s: float) -> str:
    now = time.monotonic()
    beat, status = one.last_beat(), one.parent_status()
    if beat is None:
        return "it has not started"
    silent = now - beat.at
    if one.stopping_for() is None:
        if beat.phase is Phase.STARTING:
            return f"it did not finish its start within {silent:.0f} s" if silent > START_S else ""
        if beat.phase in (Phase.LOADING, Phase.CONSUMING) and silent > silence_s:
            return f"it hangs: {beat.phase}, no beat for {silent:.0f} s"
        if beat.phase is Phase.LOADING:
            return ""
    if status is None:
        return f"no report from the housekeeper for {silent:.0f} s" if silent > silence_s else ""
    if now - status.at > silence_s:
        return f"the housekeeper hangs: no report for {now - status.at:.0f} s"
    if one.stopping_for() is not None:
        return ""
    if beat.phase is Phase.CONNECTING and status.broker_since is not None:
        idle = now - max(beat.at, status.broker_since)
        return f"not connected to the broker for {idle:.0f} s, although it answers" if idle > RECONNECT_S else ""
    if status.starving_since is not None and (idle := now - status.starving_since) > _STARVING_FACTOR * silence_s:
        return f"took no message for {idle:.0f} s, although messages wait and children are free"
    return ""


def _not_ready(one: RunDir) -> str:
    beat, status = one.last_beat(), one.parent_status()
    if one.stopping_for() is not None:
        return "it is stopping"
    if beat is None or status is None or beat.phase in (Phase.STARTING, Phase.LOADING):
        return "it is loading the model"
    if beat.phase is Phase.CONNECTING:
        return "no connection to the broker"
    if status.ready < status.children or not status.children:
        return f"{status.ready} of {status.children} children have loaded the model"
    for reason in one.holds().values():
        return f"a process waits: {reason}"
    return ""
