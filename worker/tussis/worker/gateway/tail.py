"""Follows the stream of outcomes in one thread, for all requests that wait for the end of jobs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import redis

from tussis.shared.errors import OutcomeUnreadable, TransientError
from tussis.shared.outcome_reader import BLOCK_MS, Entry, OutcomeReader
from tussis.shared.outcomes import JobOutcome, parse_outcome
from tussis.worker import logs

_log = logs.get("gateway")

#: Seconds after a failed read until the next one.
_RETRY_S: Final = 1.0
#: Seconds between two looks at a job that is awaited. A look finds an end that the tail did not see.
_LOOK_S: Final = 5.0


class OutcomeTail:
    """Wakes those who wait for entries of the stream. The thread starts at the first wait, and ends at :meth:`close`.

    The client is of its own, because a read blocks its connection.
    """

    def __init__(self, client: redis.Redis, where: str) -> None:
        self._client = client
        self._reader = OutcomeReader(client, where)
        self._lock = threading.Lock()
        self._listeners: set[Callable[[list[Entry]], None]] = set()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    @contextmanager
    def listening(self, listener: Callable[[list[Entry]], None]) -> Iterator[None]:
        """Call ``listener`` with the new entries, in the thread of the tail, and with none after a failure."""
        with self._lock:
            self._listeners.add(listener)
            if self._thread is None:
                self._thread = threading.Thread(target=self._follow, name="tussis-tail", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._listeners.discard(listener)

    async def wait(self, job_id: str, timeout_s: float, look: Callable[[], JobOutcome | None]) -> JobOutcome | None:
        """Wait until a job ends; returns its outcome. None if it is still open after ``timeout_s``.

        ``look`` returns the outcome of the job if it is not open any more. It is called in a thread: at once, and
        every few seconds. Raises what it raises.
        """
        from anyio import to_thread

        loop = asyncio.get_running_loop()
        ends = time.monotonic() + timeout_s
        told: asyncio.Queue[JobOutcome | None] = asyncio.Queue()

        def listen(entries: list[Entry]) -> None:
            for entry in entries:
                if job_id.encode() in entry.text:
                    with suppress(OutcomeUnreadable):
                        outcome = parse_outcome(entry.text)
                        if outcome.job_id == job_id:
                            call_soon(loop, told.put_nowait, outcome)

        with self.listening(listen):
            while True:
                outcome = await to_thread.run_sync(look)
                left_s = ends - time.monotonic()
                if outcome is not None or left_s <= 0:
                    return outcome
                with suppress(TimeoutError):
                    outcome = await asyncio.wait_for(told.get(), min(_LOOK_S, left_s))
                    if outcome is not None:
                        return outcome

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._client.close()
        if self._thread is not None:
            self._thread.join(timeout=BLOCK_MS / 1000 + 1)

    def _follow(self) -> None:
        position: str | None = None
        held = False
        while not self._closing.is_set():
            try:
                if position is None:
                    position = self._reader.last_id()
                entries = self._reader.read_after(position, BLOCK_MS)
            except TransientError as error:
                if self._closing.is_set():
                    return
                if not held:
                    _log.warning("holding", error_class=error.error_class, reason=str(error))
                position, entries, held = None, [], True
                self._closing.wait(_RETRY_S)
            else:
                if held:
                    _log.info("holding_over")
                    held = False
                if not entries:
                    continue
                position = entries[-1].entry_id
            with self._lock:
                listeners = list(self._listeners)
            for listener in listeners:
                listener(entries)


def call_soon(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *arguments: object) -> None:
    """Call in the thread of a loop. Does nothing if the loop has ended."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *arguments)
