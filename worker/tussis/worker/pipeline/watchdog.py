"""Deadlines for stages that may hang in native code: the process ends itself. The claim counts how often that happened.

The kernel's interval timer sends SIGALRM when the deadline passes. The handler of ``faulthandler`` is C code that does
not need the GIL, so it runs even while a native call holds the GIL. It prints the stacks of all threads, and then the
default action of SIGALRM ends the process. A process has one such timer. That is enough, because a child works on one
recording at a time. A child process of this process does not inherit the timer.
"""

from __future__ import annotations

import faulthandler
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def end_at_deadlines() -> None:
    """Prepare the process for the deadlines of :class:`Stages`. Otherwise a deadline ends it without its stacks."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    faulthandler.register(signal.SIGALRM, file=2, all_threads=True, chain=True)  # file 2: sys.stderr may be replaced


class Stages:
    """Measures the stages of one recording and enforces the deadline of each.

    ``over`` is called with the name and the seconds of each stage, also after an error.
    """

    def __init__(self, over: Callable[[str, float], None] | None = None) -> None:
        self.timings_ms: dict[str, float] = {}
        self._over = over

    @contextmanager
    def stage(self, name: str, deadline_s: float | None) -> Iterator[Callable[[], None]]:
        """Run a stage. After ``deadline_s`` seconds the process prints its stacks and is ended by SIGALRM.

        None means no deadline: for waiting for the database, or for a device process with its own deadline. The value
        is a function that starts the deadline again: a stage of a long recording calls it when a part is done.
        """
        started = time.perf_counter()

        def set_deadline() -> None:
            if deadline_s is not None:
                signal.setitimer(signal.ITIMER_REAL, deadline_s)

        set_deadline()
        try:
            yield set_deadline
        finally:
            if deadline_s is not None:
                signal.setitimer(signal.ITIMER_REAL, 0)
            elapsed = time.perf_counter() - started
            self.timings_ms[name] = round(self.timings_ms.get(name, 0.0) + elapsed * 1000, 3)
            if self._over is not None:
                self._over(name, elapsed)
