"""Handles Ctrl-C, SIGTERM, a closed terminal and the end of the parent process: each leads to a clean stop."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

#: Seconds between two checks that the parent process still runs.
_PARENT_CHECK_S: Final = 0.5
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal interrupted the command."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    @property
    def status(self) -> int:
        """The exit status as in a shell: 128 plus the number of the signal."""
        return 128 + self.number

    @property
    def cause(self) -> str:
        """The cause as text for the screen."""
        return "Ctrl-C" if self.number == signal.SIGINT else signal.Signals(self.number).name


class Interrupts:
    """Raises :class:`Interrupted` in the main thread, only once: a second signal does not interrupt the clean stop."""

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
    """Handle the signals, and watch the parent process, for the time of a ``with`` block in the main thread.

    An ignored signal stays ignored. Under ``nohup`` neither a closed terminal nor the end of the parent has an effect.
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
    """Send SIGTERM to this process when its parent has ended, because no other process would stop it."""
    while not over.wait(_PARENT_CHECK_S):
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
            return
