"""The lease of a notifier: of several with one name, one works at a time."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Final

from tussis.shared.errors import TransientError
from tussis.worker.notify.outbox import LEASE_S, Outbox

#: Seconds between two renewals: several may fail before the lease expires.
_RENEW_S: Final = 3.0


class Lease:
    """The lease of this process. A thread renews it from :meth:`take` to :meth:`release`, whatever the others do."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._until = 0.0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def held(self) -> bool:
        """Whether this process holds the lease."""
        return time.monotonic() < self._until

    def take(self) -> str | None:
        """Take the lease. Returns None, or the token of the process that holds it. Raises the errors of the broker."""
        holder = self._renew()
        if holder is None:
            self._over = threading.Event()
            self._thread = threading.Thread(target=self._keep, args=(self._over,), name="lease", daemon=True)
            self._thread.start()
        return holder

    def release(self) -> None:
        """Give the lease back, so that the next notifier starts at once."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        if self.held:
            self._until = 0.0
            with contextlib.suppress(TransientError):  # it expires
                self._outbox.resign()

    def _renew(self) -> str | None:
        asked = time.monotonic()
        holder = self._outbox.lead()
        self._until = 0.0 if holder else asked + LEASE_S
        return holder

    def _keep(self, over: threading.Event) -> None:
        while not over.wait(_RENEW_S):
            with contextlib.suppress(TransientError):  # the next renewal may succeed
                if self._renew() is not None:
                    return
