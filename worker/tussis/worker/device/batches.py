"""Which recordings share a run: what waits together, of one profile and of similar length, and never for long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tussis.worker.device.wire import Wave

#: The share of a run's segments that must be real: padding is computed as well.
_LEAST_FILL: Final = 0.75


@dataclass(frozen=True, eq=False)
class Request:
    """One recording that waits for a run. ``owner`` is whoever gets the answer; it has one request at a time."""

    wave: Wave
    alone: bool
    owner: Any
    arrived: float = field(default_factory=time.monotonic)
    """Seconds of the machine's monotonic clock."""


@dataclass(frozen=True)
class Limits:
    """Of one run."""

    segments: int
    """The most, padding included; at least those of one recording."""
    wait_s: float
    """The longest that a recording waits for company."""
    recordings: int | None = None
    """The most; None: no limit of its own."""
    fixed_segments: int | None = None
    """Of a graph that takes no other number: every recording is padded to it."""

    def width(self, segments: int) -> int:
        """What a recording of so many segments, the longest of its run, is padded to."""
        return self.fixed_segments or segments


def choose(waiting: Sequence[Request], limits: Limits) -> tuple[list[Request], bool]:
    """The next run from what waits, oldest first, and whether it is full: nobody else could still join.

    The oldest is always in it, so that nobody waits for ever. Who has to run alone, does.
    """
    first = waiting[0]
    if first.alone:
        return [first], True
    batch = [first]
    candidates = [one for one in waiting[1:] if not one.alone and one.wave.profile == first.wave.profile]
    # The nearest in length first: sorting is stable, so that the older goes before the younger of one length.
    candidates.sort(key=lambda one: abs(one.wave.segments - first.wave.segments))
    for one in candidates:
        if limits.recordings is not None and len(batch) >= limits.recordings:
            break
        joined = [*batch, one]
        width = max(request.wave.segments for request in joined)
        real = sum(request.wave.segments for request in joined)
        fits = limits.width(width) * len(joined) <= limits.segments
        if fits and (limits.fixed_segments is not None or real >= _LEAST_FILL * width * len(joined)):
            batch = joined
    widest = limits.width(max(request.wave.segments for request in batch))
    full = len(batch) == limits.recordings or widest * (len(batch) + 1) > limits.segments
    return batch, full


class Waiting:
    """The requests that wait, between the threads that read them and the one that runs them.

    ``company`` says how many owners there are: when all of them wait here, nobody else can come.
    """

    def __init__(self, limits: Limits, company: Callable[[], int]) -> None:
        self._limits = limits
        self._company = company
        self._requests: list[Request] = []
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, request: Request) -> None:
        """A recording has arrived."""
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()

    def drop(self, owner: Any) -> None:
        """Its owner is gone: nobody wants the answer."""
        with self._changed:
            self._requests = [one for one in self._requests if one.owner is not owner]
            self._changed.notify_all()

    def close(self) -> None:
        """Let :meth:`take` return."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self) -> list[Request]:
        """The next run, as soon as it is full, everybody is here, or its oldest has waited long enough.

        Empty when closed.
        """
        with self._changed:
            while not self._closed:
                if not self._requests:
                    self._changed.wait()
                    continue
                batch, full = choose(self._requests, self._limits)
                left = self._requests[0].arrived + self._limits.wait_s - time.monotonic()
                if full or left <= 0 or len(self._requests) >= self._company():
                    self._requests = [one for one in self._requests if one not in batch]
                    return batch
                self._changed.wait(left)
            return []
