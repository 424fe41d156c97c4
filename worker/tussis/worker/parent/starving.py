"""Whether a consumer that could take messages takes none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Starving:
    """Whether the consumer takes nothing although it could. The event loop may turn and no longer ask for messages."""

    since: float | None = None
    _begun: int = -1

    def look(self, waiting: int, free: int, begun: int, now: float) -> None:
        """``waiting`` messages, ``free`` children, ``begun`` tasks so far; at ``now``."""
        if waiting and free > 0 and begun == self._begun:
            self.since = self.since or now
        else:
            self.since = None
        self._begun = begun
