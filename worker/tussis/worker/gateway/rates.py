"""The rate limit of each token, in the memory of this process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from tussis.shared.errors import RateExceeded


class RateLimit:
    """A token bucket for each caller: ``per_s`` requests in a second, of which a second's worth may come at once.

    Not for several threads: the event loop calls it.
    """

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._most = max(1.0, per_s)
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}
        """Caller -> requests that it may send, and when that was computed."""

    def take(self, caller: str) -> None:
        """Count a request. Raises :class:`RateExceeded`, whose ``retry_after_s`` says when the next is allowed."""
        now = self._clock()
        left, since = self._left.get(caller, (self._most, now))
        left = min(self._most, left + (now - since) * self._per_s)
        if left < 1:
            self._left[caller] = (left, now)
            wait_s = math.ceil((1 - left) / self._per_s)
            raise RateExceeded(
                f"more than {self._per_s:g} requests in a second with the token {caller}: try again in {wait_s} s",
                retry_after_s=wait_s,
            )
        self._left[caller] = (left - 1, now)
