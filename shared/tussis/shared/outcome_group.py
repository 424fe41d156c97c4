"""Reads all outcomes of jobs in a group of readers, which the broker remembers."""

from __future__ import annotations

import math
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import redis
from redis.exceptions import ResponseError

from tussis.shared.batches import BatchOutcome, parse_batch_outcome
from tussis.shared.broker import broker_errors
from tussis.shared.errors import OutcomesGap
from tussis.shared.outcome_reader import BLOCK_MS, Entry, OutcomeReader, entries_of
from tussis.shared.outcomes import JobOutcome, parse_outcome
from tussis.shared.queues import OUTCOMES_KEY

#: Seconds after which an entry that a consumer has received and not acknowledged goes to another one.
TAKE_OVER_S = 60.0
#: Entries of one read. The caller handles them one by one, so that few are received twice after a crash.
_READ = 16


@dataclass(frozen=True)
class Place:
    """A place in the stream of outcomes: a time in milliseconds, and the number of outcomes up to there."""

    ms: int
    count: int

    @classmethod
    def of(cls, entry_id: str) -> Place:
        """The place of an entry, from its id."""
        ms, _, count = entry_id.partition("-")
        return cls(int(ms), int(count))


class OutcomeGroup:
    """Iterates over all outcomes, over one Redis client. Not for several threads; each reader has its own.

    ``group`` names the group of readers. The broker remembers which outcomes the group has received, and each outcome
    goes to one consumer of the group. A new group begins with the oldest outcome that the broker keeps. ``consumer``
    names this reader; of readers that run at the same time each needs a name of its own. None: the name of the host.

    An outcome is acknowledged when the caller asks for the next one, or by :meth:`acknowledge`. Otherwise it comes
    again: by this consumer when it starts again, or by another one after ``take_over_s`` seconds. So an outcome may be
    received more than once, and its handling must take less than ``take_over_s`` seconds.

    ``on_batch`` is called with the end of a batch, in the order of the stream. It is acknowledged when ``on_batch`` has
    returned. None: ends of batches are skipped.

    ``idle_s``: the iteration ends after so many seconds without an outcome; None: it never ends.

    Iterating raises :class:`OutcomesGap` once for outcomes that the broker no longer keeps; the next call of ``next``,
    or a new reader, continues behind the gap. It raises :class:`OutcomeUnreadable` for an outcome of a newer version,
    which counts as received; and :class:`BrokerUnavailable` and :class:`BrokerRefused`, after which ``next`` may be
    called again.
    """

    def __init__(
        self,
        client: redis.Redis,
        where: str,
        group: str,
        consumer: str | None = None,
        *,
        idle_s: float | None = None,
        take_over_s: float = TAKE_OVER_S,
        on_batch: Callable[[BatchOutcome], None] | None = None,
    ) -> None:
        if not group:
            raise ValueError("a group needs a name")
        self._client = client
        self._where = where
        self._group = group
        self._consumer = consumer or socket.gethostname()
        self._idle_s = idle_s
        self._take_over_s = take_over_s
        self._on_batch = on_batch
        self._received: deque[Entry] = deque()
        self._received_at = 0.0
        self._current: str | None = None
        self._own: str | None = "0"
        """Where to continue in the entries that this consumer has received earlier; None when all were read."""
        self._claimed_at: float | None = None
        self._made = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> JobOutcome:
        while True:
            entry = self.next_entry()
            if entry is None:
                raise StopIteration
            if not entry.batch:
                return parse_outcome(entry.text)
            if self._on_batch is not None:
                self._on_batch(parse_batch_outcome(entry.batch))

    def next_entry(self) -> Entry | None:
        """As ``next``, but the entry as the worker wrote it, also the end of a batch. None after ``idle_s`` without."""
        self.acknowledge()
        if self._received and time.monotonic() >= self._received_at + self._take_over_s / 2:
            # Other consumers may take these entries over. What this consumer still has is read again.
            self._received.clear()
            self._own = "0"
        ends = None if self._idle_s is None else time.monotonic() + self._idle_s
        while not self._received:
            self._receive(ends)
            if not self._received and ends is not None and time.monotonic() >= ends:
                return None
        entry = self._received.popleft()
        self._current = entry.entry_id
        return entry

    def receive(self) -> list[Entry]:
        """The entries that wait, some at a time, without waiting for any. The caller acknowledges them by their ids.

        Those that are not acknowledged come again as by iterating. Raises :class:`OutcomesGap` and the errors of the
        broker. Not to be mixed with iterating.
        """
        self._receive(time.monotonic())
        found = list(self._received)
        self._received.clear()
        return found

    def acknowledge(self) -> None:
        """Acknowledge the last outcome. Call it when you stop after an outcome that you have handled."""
        if self._current is not None:
            with broker_errors(self._where):
                self._client.xack(OUTCOMES_KEY, self._group, self._current)
            self._current = None

    def _receive(self, ends: float | None) -> None:
        """Receive entries, or wait for some. Raises :class:`OutcomesGap`."""
        with broker_errors(self._where):
            if not self._made:
                self._make_group()
            try:
                if self._read_own() or self._take_over():
                    return
                position = self._read_new()
            except ResponseError as error:
                if "NOGROUP" not in str(error) and "no such key" not in str(error):
                    raise
                self._made, self._own = False, "0"  # the broker has lost its data
                return
        if not self._received:
            until = [self._next_claim(), *([] if ends is None else [ends])]
            left_ms = (min(until) - time.monotonic()) * 1000
            if left_ms > 0:
                OutcomeReader(self._client, self._where).wait_after(position, min(BLOCK_MS, left_ms))

    def _make_group(self) -> None:
        """Make the group, unless it exists: before the oldest entry that is kept."""
        oldest: Any = self._client.xrange(OUTCOMES_KEY, count=1)
        start = "0"
        if oldest:
            place = Place.of(oldest[0][0].decode())
            start = f"{place.ms}-{place.count - 1}"
        try:
            self._client.xgroup_create(OUTCOMES_KEY, self._group, id=start, mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        self._made = True

    def _read_own(self) -> bool:
        """Read what this consumer received earlier and did not acknowledge. False if there is nothing."""
        if self._own is None:
            return False
        streams: Any = self._client.xreadgroup(self._group, self._consumer, {OUTCOMES_KEY: self._own}, count=_READ)
        found = list(entries_of(streams))
        self._own = found[-1].entry_id if found else None
        removed = [entry.entry_id for entry in found if not (entry.text or entry.batch)]
        self._keep(entry for entry in found if entry.text or entry.batch)
        if removed:
            self._client.xack(OUTCOMES_KEY, self._group, *removed)
            raise self._gap(removed)
        return bool(found)

    def _take_over(self) -> bool:
        """Take over entries of consumers that did not acknowledge them in time. False if there are none."""
        if time.monotonic() < self._next_claim():
            return False
        cursor: Any = "0-0"
        while True:
            reply: Any = self._client.xautoclaim(
                OUTCOMES_KEY, self._group, self._consumer, int(self._take_over_s * 1000), cursor, count=_READ
            )
            cursor, claimed, removed = reply
            if claimed or removed or cursor == b"0-0":
                break
        self._keep(entries_of([(OUTCOMES_KEY, claimed)]))
        if not claimed and not removed:
            self._claimed_at = time.monotonic()
        if removed:
            raise self._gap([entry_id.decode() for entry_id in removed])
        return bool(claimed)

    def _next_claim(self) -> float:
        """The time (monotonic) of the next look for entries to take over."""
        return -math.inf if self._claimed_at is None else self._claimed_at + self._take_over_s / 2

    def _read_new(self) -> str:
        """Read entries that the group has not received. Returns the place of the group before that."""
        pipe = self._client.pipeline(transaction=True)
        pipe.xinfo_groups(OUTCOMES_KEY)
        pipe.xreadgroup(self._group, self._consumer, {OUTCOMES_KEY: ">"}, count=_READ)
        groups, streams = pipe.execute()
        before: str = next(
            group["last-delivered-id"].decode() for group in groups if group["name"] == self._group.encode()
        )
        self._keep(entries_of(streams))
        if self._received:
            first, last = Place.of(self._received[0].entry_id), Place.of(before)
            if first.count > last.count + 1:
                raise _gap(self._group, first.count - last.count - 1, last.ms, first.ms)
        return before

    def _keep(self, entries: Any) -> None:
        self._received.extend(entries)
        self._received_at = time.monotonic()

    def _gap(self, removed: Sequence[str]) -> OutcomesGap:
        """The error for entries that left the stream after a consumer received them and before it acknowledged them."""
        places = [Place.of(entry_id) for entry_id in removed]
        return _gap(self._group, len(places), places[0].ms, places[-1].ms)


def _gap(group: str, lost: int, after_ms: int, before_ms: int) -> OutcomesGap:
    after, before = (datetime.fromtimestamp(ms / 1000, UTC).isoformat("T", "seconds") for ms in (after_ms, before_ms))
    return OutcomesGap(
        f"the broker no longer keeps {lost} outcomes that the group {group!r} has not read, between {after} and "
        f"{before}: read on, and let an operator run `tussis outcomes replay --since {after}`",
        lost=lost,
        after_s=after_ms / 1000,
        before_s=before_ms / 1000,
    )
