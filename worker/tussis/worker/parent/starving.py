"""Detects a consumer that could take messages but takes none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Starving:
    """Whether the consumer starves. Celery's event loop may run and no longer fetch messages."""

    since: float | None = None
    _begun: int = -1

    def look(self, waiting: int, free: int, begun: int, now: float) -> None:
        """Update :attr:`since` from the waiting messages, the free children and the tasks begun so far, at ``now``."""
        if waiting and free > 0 and begun == self._begun:
            self.since = self.since or now
        else:
            self.since = None
        self._begun = begun
