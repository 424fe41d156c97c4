"""Deadlines for stages that may hang in native code: the process ends itself. The claim counts how often that happened.

The timer of ``faulthandler`` is a C thread that does not need the GIL, so it fires even while a native call holds the
GIL. A process has one such timer. That is enough, because a child works on one recording at a time.
"""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Least seconds between two settings of a deadline.
_LEAST_S = 1.0


class Stages:
    """Measures the stages of one recording and enforces the deadline of each.

    ``over`` is called with the name and the seconds of each stage, also after an error.
    """

    def __init__(self, over: Callable[[str, float], None] | None = None) -> None:
        self.timings_ms: dict[str, float] = {}
        self._over = over

    @contextmanager
    def stage(self, name: str, deadline_s: float | None) -> Iterator[Callable[[], None]]:
        """Run a stage. After ``deadline_s`` seconds the process prints its stacks and exits with status 1.

        None means no deadline: for waiting for the database, or for a device process with its own deadline. The value
        is a function that starts the deadline again: a stage of a long recording calls it when a part is done.
        """
        started = time.perf_counter()
        set_at = time.monotonic()

        def set_deadline() -> None:
            if deadline_s is not None:
                faulthandler.dump_traceback_later(deadline_s, exit=True, file=2)  # file 2: sys.stderr may be replaced

        def set_again() -> None:
            nonlocal set_at
            if (now := time.monotonic()) - set_at > _LEAST_S:  # it starts a thread
                set_at = now
                set_deadline()

        set_deadline()
        try:
            yield set_again
        finally:
            if deadline_s is not None:
                faulthandler.cancel_dump_traceback_later()
            elapsed = time.perf_counter() - started
            self.timings_ms[name] = round(self.timings_ms.get(name, 0.0) + elapsed * 1000, 3)
            if self._over is not None:
                self._over(name, elapsed)
