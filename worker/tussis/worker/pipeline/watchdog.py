"""Deadlines for what may hang in native code: the process ends itself, and the claim tells how often that happened.

``faulthandler``'s timer is a C thread that needs no GIL, so that it fires even while a native call holds it. One timer
exists in a process; a child works on one recording at a time.
"""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stages:
    """Times the stages of one recording and holds each to its deadline.

    ``over`` is told each stage's name and seconds, whatever its end.
    """

    def __init__(self, over: Callable[[str, float], None] | None = None) -> None:
        self.timings_ms: dict[str, float] = {}
        self._over = over

    @contextmanager
    def stage(self, name: str, deadline_s: float | None) -> Iterator[None]:
        """Run a stage; past ``deadline_s`` seconds the process prints its stacks and exits with status 1.

        None is no deadline: for waiting on the database, which counts towards nothing.
        """
        started = time.perf_counter()
        if deadline_s is not None:
            faulthandler.dump_traceback_later(deadline_s, exit=True, file=2)  # standard error, whoever replaced it
        try:
            yield
        finally:
            if deadline_s is not None:
                faulthandler.cancel_dump_traceback_later()
            elapsed = time.perf_counter() - started
            self.timings_ms[name] = round(self.timings_ms.get(name, 0.0) + elapsed * 1000, 3)
            if self._over is not None:
                self._over(name, elapsed)
