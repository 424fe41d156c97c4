"""Chooses the recordings of a run: they wait at the same time and have the same profile and similar lengths."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tussis.worker.device.wire import ScoreRequest

#: The least share of a run's segments that must not be padding, because padding costs as much time.
_LEAST_FILL: Final = 0.75


@dataclass(frozen=True, eq=False)
class Queued:
    """A request that waits for a run. ``owner`` gets the reply; it has one request at a time."""

    request: ScoreRequest
    owner: Any
    arrived: float = field(default_factory=time.monotonic)
    """Seconds of the machine's monotonic clock."""

    @property
    def segments(self) -> int:
        """Number of segments of the recording."""
        return self.request.wave.segments

    @property
    def exclusive(self) -> bool:
        """Whether the recording must not share the run."""
        return self.request.exclusive

    @property
    def profile(self) -> str:
        """The recording's profile."""
        return self.request.wave.profile


@dataclass(frozen=True)
class RunLimits:
    """Limits of one run of the model."""

    segments: int
    """Most segments, padding included; not less than those of one recording."""
    wait_s: float
    """The longest time that a recording waits for others, in seconds."""
    recordings: int | None = None
    """Most recordings; None: no separate limit."""
    fixed_segments: int | None = None
    """The only number of segments that the graph takes; every recording is padded to it. None: any number."""

    def width(self, segments: int) -> int:
        """The padded number of segments of every recording in a run whose longest one has ``segments``."""
        return self.fixed_segments or segments


def choose(waiting: Sequence[Queued], limits: RunLimits) -> tuple[list[Queued], bool]:
    """Choose the next run from the waiting requests, oldest first. Also return whether the run is full.

    The oldest request is always in the run, so that no request waits for ever. An exclusive request gets its own run.
    """
    first = waiting[0]
    if first.exclusive:
        return [first], True
    batch = [first]
    candidates = [one for one in waiting[1:] if not one.exclusive and one.profile == first.profile]
    # The nearest in length first. Sorting is stable, so of two that are equally near the older one is first.
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


class WaitingRequests:
    """The waiting requests, shared by the threads that read them and the thread that runs them.

    ``owners`` returns the number of owners. When all of them have a request here, no other request can come.
    """

    def __init__(self, limits: RunLimits, owners: Callable[[], int]) -> None:
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
        """Remove the requests of an owner whose connection has ended."""
        with self._changed:
            self._requests = [one for one in self._requests if one.owner is not owner]
            self._changed.notify_all()

    def close(self) -> None:
        """Make :meth:`take` return."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self) -> list[Queued]:
        """Wait until the next run is full, every owner has a waiting request, or the oldest has waited ``wait_s``.

        Returns an empty list when closed.
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
