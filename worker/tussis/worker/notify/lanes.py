"""The order of deliveries: one after the other within a recording, side by side across recordings."""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class WaitingWebhook:
    """A webhook that waits. Its body stays on the broker, so that many can wait in little memory."""

    webhook_id: str
    recording: str
    attempts: int = 0
    due_at: float = 0.0
    """Time of the next attempt, seconds since the epoch."""


class Lanes:
    """The webhooks that wait. Each recording has a lane, and only the first webhook of a lane is delivered.

    ``retries``: the largest number of webhooks in delivery that failed before. So a receiver that hangs for some
    recordings leaves the other connections to the rest. Thread-safe.
    """

    def __init__(self, retries: int, now: Callable[[], float] = time.time) -> None:
        self._retries = retries
        self._now = now
        self._changed = threading.Condition()
        self._lanes: dict[str, deque[WaitingWebhook]] = {}
        self._number = 0
        self._fresh: deque[WaitingWebhook] = deque()
        """First webhooks of lanes without an attempt."""
        self._failed: list[tuple[float, str, WaitingWebhook]] = []
        """Heap of first webhooks of lanes that failed before, by the time of their next attempt."""
        self._retrying = 0
        self._paused_until = 0.0
        self._closed = False

    def __len__(self) -> int:
        with self._changed:
            return self._number

    def add(self, waiting: WaitingWebhook) -> None:
        """Append a webhook to the lane of its recording."""
        with self._changed:
            self._number += 1
            lane = self._lanes.setdefault(waiting.recording, deque())
            lane.append(waiting)
            if len(lane) == 1:
                self._offer(waiting)

    def take(self) -> WaitingWebhook | None:
        """The next webhook to deliver; waits for one. None after :meth:`close`. Call :meth:`done` or :meth:`again`."""
        with self._changed:
            while True:
                if self._closed:
                    return None
                found, wait_s = self._next()
                if found is not None:
                    self._retrying += bool(found.attempts)
                    return found
                self._changed.wait(wait_s)

    def done(self, waiting: WaitingWebhook) -> None:
        """The webhook is delivered or given up: the next one of its recording follows."""
        with self._changed:
            self._leave(waiting)
            self._number -= 1
            lane = self._lanes[waiting.recording]
            lane.popleft()
            if lane:
                self._offer(lane[0])
            else:
                del self._lanes[waiting.recording]

    def again(self, waiting: WaitingWebhook, due_at: float) -> None:
        """The delivery failed: try again at ``due_at``. The others of its recording wait."""
        with self._changed:
            self._leave(waiting)
            later = replace(waiting, attempts=waiting.attempts + 1, due_at=due_at)
            self._lanes[waiting.recording][0] = later
            self._offer(later)

    def pause(self, until: float) -> None:
        """Start no delivery before a time: the receiver asked for it."""
        with self._changed:
            self._paused_until = max(self._paused_until, until)

    def wait_for_room(self, largest: int, timeout_s: float) -> bool:
        """Wait until fewer than ``largest`` webhooks wait. False after ``timeout_s`` seconds, or when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._number < largest, timeout_s)
            return not self._closed and self._number < largest

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def close(self) -> None:
        """Start no more deliveries."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _offer(self, first: WaitingWebhook) -> None:
        if first.attempts:
            heapq.heappush(self._failed, (first.due_at, first.webhook_id, first))
        else:
            self._fresh.append(first)
        self._changed.notify()

    def _leave(self, waiting: WaitingWebhook) -> None:
        self._retrying -= bool(waiting.attempts)
        self._changed.notify_all()

    def _next(self) -> tuple[WaitingWebhook | None, float | None]:
        """The next webhook, or how long to wait for one, seconds."""
        now = self._now()
        if now < self._paused_until:
            return None, self._paused_until - now
        free = self._retrying < self._retries
        if free and self._failed and self._failed[0][0] <= now:
            return heapq.heappop(self._failed)[2], None
        if self._fresh:
            return self._fresh.popleft(), None
        return None, self._failed[0][0] - now if free and self._failed else None
