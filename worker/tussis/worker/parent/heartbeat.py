"""The beats of the consuming thread, written from inside Celery's event loop: they prove that the loop runs.

A separate thread would continue to beat while the loop hangs.
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps

from tussis.worker.status.rundir import Phase, RunDir

#: Seconds between two beats.
INTERVAL_S = 1.0


def heartbeat_step(run_dir: RunDir) -> type:
    """The consumer's bootstep that writes beats to ``run_dir`` while the event loop runs."""

    class Heartbeat(bootsteps.StartStopStep):  # type: ignore[misc]
        """Started with every connection. The loop drops the timer when the connection is lost."""

        requires = ("celery.worker.consumer.tasks:Tasks",)

        def start(self, consumer: Any) -> None:
            run_dir.beat(Phase.CONSUMING)
            consumer.timer.call_repeatedly(INTERVAL_S, run_dir.beat, (Phase.CONSUMING,))

        def stop(self, consumer: Any) -> None:
            run_dir.beat(Phase.CONNECTING)

    return Heartbeat
