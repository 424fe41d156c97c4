"""Which recordings share a run: those that wait at the same time, of one profile and of similar length."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tussis.worker.device.wire import Request

#: The share of a run's segments that must be real: padding is computed as well.
_LEAST_FILL: Final = 0.75


@dataclass(frozen=True, eq=False)
class Queued:
    """A request that waits for a run. ``owner`` is sent the reply; it has one request at a time."""

    request: Request
    owner: Any
    arrived: float = field(default_factory=time.monotonic)
    """Seconds of the machine's monotonic clock."""

    @property
    def segments(self) -> int:
        """Of the recording."""
        return self.request.wave.segments

    @property
    def exclusive(self) -> bool:
        """No other recording may share the run."""
        return self.request.exclusive

    @property
    def profile(self) -> str:
        """The recording's."""
        return self.request.wave.profile


@dataclass(frozen=True)
class Limits:
    """Of one run."""

    segments: int
    """The most, padding included; at least those of one recording."""
    wait_s: float
    """The longest time that a recording waits for others."""
    recordings: int | None = None
    """The most; None: no limit of its own."""
    fixed_segments: int | None = None
    """Of a graph that takes no other number: every recording is padded to it."""

    def width(self, segments: int) -> int:
        """What a recording of so many segments, the longest of its run, is padded to."""
        return self.fixed_segments or segments


def choose(waiting: Sequence[Queued], limits: Limits) -> tuple[list[Queued], bool]:
    """The next run from the waiting requests, oldest first, and whether it is full: no other could join it.

    The oldest is always in it, so that none waits for ever. An exclusive request gets a run of its own.
    """
    first = waiting[0]
    if first.exclusive:
        return [first], True
    batch = [first]
    candidates = [one for one in waiting[1:] if not one.exclusive and one.profile == first.profile]
    # The nearest in length first: sorting is stable, so that the older goes before the younger of one length.
    candidates.sort(key=lambda one: abs(one.segments - first.segments))
    for one in candidates:
        if limits.recordings is not None and len(batch) >= limits.recordings:
            break
        joined = [*batch, one]
        width = max(request.segments for request in joined)
        real = sum(request.segments for request in joined)
        fits = limits.width(width) * len(joined) <= limits.segments
        if fits and (limits.fixed_segments is not None or real >= _LEAST_FILL * width * len(joined)):
            batch = joined
    widest = limits.width(max(request.segments for request in batch))
    full = len(batch) == limits.recordings or widest * (len(batch) + 1) > limits.segments
    return batch, full


class Waiting:
    """The waiting requests, between the threads that read them and the thread that runs them.

    ``owners`` gives the number of owners: when all of them wait here, no other request can come.
    """

    def __init__(self, limits: Limits, owners: Callable[[], int]) -> None:
        self._limits = limits
        self._owners = owners
        self._requests: list[Queued] = []
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, request: Queued) -> None:
        """Add a request that has arrived."""
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()

    def drop(self, owner: Any) -> None:
        """Remove the requests of an owner that is gone."""
        with self._changed:
            self._requests = [one for one in self._requests if one.owner is not owner]
            self._changed.notify_all()

    def close(self) -> None:
        """Let :meth:`take` return."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self) -> list[Queued]:
        """Wait for the next run: until it is full, every owner has a request in it, or its oldest has waited enough.

        Empty when closed.
        """
        with self._changed:
            while not self._closed:
                if not self._requests:
                    self._changed.wait()
                    continue
                batch, full = choose(self._requests, self._limits)
                left = self._requests[0].arrived + self._limits.wait_s - time.monotonic()
                if full or left <= 0 or len(self._requests) >= self._owners():
                    self._requests = [one for one in self._requests if one not in batch]
                    return batch
                self._changed.wait(left)
            return []
