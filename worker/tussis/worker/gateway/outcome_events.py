"""Outcomes as server-sent events: from now on, behind an event, or of a group of readers."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from anyio import to_thread
from fastapi.sse import format_sse_event

from tussis.shared.broker import broker_errors
from tussis.shared.errors import OutcomesGap, TransientError
from tussis.shared.outcome_group import OutcomeGroup, Place
from tussis.shared.outcome_reader import Entry
from tussis.shared.queues import OUTCOMES_KEY
from tussis.worker import logs
from tussis.worker.gateway.services import Services
from tussis.worker.gateway.tail import call_soon

_log = logs.get("gateway")

#: Seconds after which a stream without events sends a comment, so that no proxy closes it.
_QUIET_S: Final = 15.0
#: Seconds until a stream reads again after the broker did not answer.
_RETRY_S: Final = 1.0
#: Milliseconds of one read. Waiting is done by the tail.
_READ_MS: Final = 1


@dataclass(frozen=True)
class Event:
    """A server-sent event. ``entry_id`` None: a reader cannot continue behind it."""

    kind: str
    text: str
    entry_id: str | None

    def encode(self) -> bytes:
        """Its bytes."""
        return format_sse_event(event=self.kind, data_str=self.text, id=self.entry_id)


class NewEvents:
    """The outcomes from now on, or behind the event with the id ``after``."""

    def __init__(self, services: Services, after: str | None) -> None:
        self._outcomes = services.outcomes
        self._after = after
        self._position = ""
        self._lost = False
        """Whether the broker has lost its data since the event ``after``."""

    async def begin(self) -> None:
        """Note the place from which to read. Raises the errors of the broker."""
        newest = await to_thread.run_sync(self._outcomes.last_id)
        self._position = self._after or newest
        if Place.of(self._position).count > Place.of(newest).count:
            self._position, self._lost = "0-0", True

    def read(self) -> list[Event]:
        """The next events, without waiting for them. A gap is the first of them."""
        entries = self._outcomes.read_after(self._position, _READ_MS)
        if not entries:
            return []
        last, first = Place.of(self._position), Place.of(entries[0].entry_id)
        missing = first.count - last.count - 1
        self._position = entries[-1].entry_id
        events = [_event(entry) for entry in entries]
        if self._lost or missing > 0:
            lost, self._lost = None if self._lost else missing, False
            gap = _gap(lost, last.ms / 1000, first.ms / 1000)
            # A reader that has seen the gap continues behind it.
            return [Event("gap", gap, f"{first.ms}-{first.count - 1}"), *events]
        return events

    def sent(self) -> None:
        """The events of the last read were sent."""


class GroupEvents:
    """The outcomes that a group of readers has not handled.

    An event that is not acknowledged comes again. ``acknowledge``: it is acknowledged when it was sent.
    """

    def __init__(self, services: Services, group: str, consumer: str, acknowledge: bool) -> None:
        self._client = services.redis
        self._where = services.where
        self._name = group
        self._group = OutcomeGroup(services.redis, services.where, group, consumer)
        self._acknowledge = acknowledge
        self._read: list[str] = []
        self._waiting: deque[Event] = deque()

    async def begin(self) -> None:
        """Read the first events. Raises the errors of the broker."""
        self._waiting.extend(await to_thread.run_sync(self.read))

    def read(self) -> list[Event]:
        """The next events, without waiting for them."""
        if self._waiting:
            found = list(self._waiting)
            self._waiting.clear()
            return found
        try:
            entries = self._group.receive()
        except OutcomesGap as gap:
            return [Event("gap", _gap(gap.lost, gap.after_s, gap.before_s), None)]
        self._read = [entry.entry_id for entry in entries]
        return [_event(entry) for entry in entries]

    def sent(self) -> None:
        """The events of the last read were sent."""
        if self._acknowledge and self._read:
            with broker_errors(self._where):
                self._client.xack(OUTCOMES_KEY, self._name, *self._read)
        self._read = []


async def stream(services: Services, source: NewEvents | GroupEvents) -> AsyncIterator[bytes]:
    """The bytes of a stream. It ends when the gateway stops."""
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()

    def wake(entries: Sequence[Entry]) -> None:
        call_soon(loop, woken.set)

    services.streams.add(woken)
    services.counts.streams.inc()
    held = False
    try:
        with services.tail.listening(wake):
            yield format_sse_event(comment="outcomes of jobs", retry=2000)
            quiet_since = time.monotonic()
            while not services.stopping.is_set():
                woken.clear()
                try:
                    events = await to_thread.run_sync(source.read)
                    if events:
                        yield b"".join(event.encode() for event in events)
                        quiet_since = time.monotonic()
                        await to_thread.run_sync(source.sent)
                        continue
                except TransientError as error:
                    if not held:
                        _log.warning("holding", error_class=error.error_class, reason=str(error))
                    held = True
                    await asyncio.sleep(_RETRY_S)
                    continue
                held = False
                if time.monotonic() >= quiet_since + _QUIET_S:
                    yield format_sse_event(comment="")
                    quiet_since = time.monotonic()
                await _wait(woken, _QUIET_S)
    finally:
        services.streams.discard(woken)
        services.counts.streams.dec()


async def _wait(woken: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(woken.wait(), seconds)
    except TimeoutError:
        return


def _event(entry: Entry) -> Event:
    text = entry.batch or entry.text
    return Event("batch" if entry.batch else "outcome", text.decode("utf-8", "replace"), entry.entry_id)


def _gap(lost: int | None, after_s: float, before_s: float) -> str:
    fields: dict[str, Any] = {"lost": lost, "after_s": after_s, "before_s": before_s}
    return json.dumps(fields)
