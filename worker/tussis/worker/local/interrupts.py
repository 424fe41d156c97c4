"""Ctrl-C, SIGTERM, a closed terminal and the parent's death: each ends the demo through its own clean-up."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

#: Seconds between two looks whether the process that started the demo still lives.
_PARENT_CHECK_S: Final = 0.5
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """Somebody wants the demo to stop."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    @property
    def status(self) -> int:
        """The exit status, as shells count: 128 and the signal's number."""
        return 128 + self.number

    @property
    def cause(self) -> str:
        """For people."""
        return "Ctrl-C" if self.number == signal.SIGINT else signal.Signals(self.number).name


class Interrupts:
    """Raises :class:`Interrupted` in the main thread, once: nothing cuts the clean stop short."""

    def __init__(self) -> None:
        self._armed = True

    def disarm(self) -> None:
        """Raise nothing from now on."""
        self._armed = False

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """The signal handler."""
        if self._armed:
            self._armed = False
            raise Interrupted(number)


@contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Take the signals, and watch the parent, for the time of a ``with`` block in the main thread.

    A signal that is ignored already stays so: under ``nohup`` neither a closed terminal nor the parent's end matters.
    """
    handled = Interrupts()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    taken = [number for number, handler in before.items() if handler != signal.SIG_IGN]
    over = threading.Event()
    for number in taken:
        signal.signal(number, handled.handle)
    if signal.SIGHUP in taken:
        threading.Thread(target=_watch_parent, args=(os.getppid(), over), name="parent-watch", daemon=True).start()
    try:
        yield handled
    finally:
        over.set()
        for number in taken:
            signal.signal(number, before[number])


def _watch_parent(parent: int, over: threading.Event) -> None:
    """Send ourselves SIGTERM when the process that started us is gone: nobody is left to stop us."""
    while not over.wait(_PARENT_CHECK_S):
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
            return
