"""The consuming thread's heartbeat, from inside Celery's event loop: proof that the loop turns, and nothing less.

A thread of its own would beat on while the loop hangs.
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps

from tussis.worker.status.rundir import Phase, RunDir

#: Seconds between two beats.
INTERVAL_S = 1.0


def heartbeat_step(run_dir: RunDir) -> type:
    """The consumer's bootstep that beats into ``run_dir`` while the event loop turns."""

    class Heartbeat(bootsteps.StartStopStep):  # type: ignore[misc]
        """Started with every connection; the loop drops its timer when the connection is lost."""

        requires = ("celery.worker.consumer.tasks:Tasks",)

        def start(self, consumer: Any) -> None:
            run_dir.beat(Phase.CONSUMING)
            consumer.timer.call_repeatedly(INTERVAL_S, run_dir.beat, (Phase.CONSUMING,))

        def stop(self, consumer: Any) -> None:
            run_dir.beat(Phase.CONNECTING)

    return Heartbeat
