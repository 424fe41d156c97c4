"""Enqueues the objects that an SQS queue names, until it is stopped. ``docs/s3-events.md`` describes what it keeps.

A message is deleted only after all its objects are enqueued. A crash in between lets SQS deliver it again, and the same
object has the same job id.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeVar

from tussis.producer.event_log import EventLog
from tussis.producer.sqs import SqsMessage, SqsQueue
from tussis.shared.broker import error_code
from tussis.shared.errors import (
    BrokerRefused,
    OperatorError,
    QueueFull,
    S3EventUnreadable,
    SqsUnavailable,
    TransientError,
    TussisError,
)
from tussis.shared.s3_events import CreatedObject, ObjectFilter, in_order, parse

if TYPE_CHECKING:
    from tussis.producer.client import Producer
    from tussis.shared.job_requests import JobRequest

_log = EventLog("listen")

#: Seconds before the next try after an error: the first pause, which doubles, and the longest.
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
#: Seconds between two looks at a full queue, at random.
_FULL_S: Final = (0.2, 1.0)
#: Seconds between two signs of life during a pause.
_SLICE_S: Final = 1.0

_T = TypeVar("_T")


@dataclass(frozen=True)
class ListenOptions:
    """``like`` has the fields of every job. ``wanted`` selects objects. ``max_depth`` is that of ``Admission``."""

    like: JobRequest
    wanted: ObjectFilter
    max_depth: int | None = None


@dataclass
class ListenCounts:
    """What a listener did."""

    messages: int = 0
    enqueued: int = 0
    open_already: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """Events that create no job, by reason."""
    kept: int = 0
    """Messages that stay in the SQS queue, because they cannot be read or enqueued."""

    def fields(self) -> dict[str, object]:
        """The fields of a log event."""
        return vars(self) | {"left_out": dict(self.left_out)}

    def add(self, other: ListenCounts) -> None:
        """Add the counts of other messages."""
        self.messages += other.messages
        self.enqueued += other.enqueued
        self.open_already += other.open_already
        self.left_out += other.left_out
        self.kept += other.kept


@dataclass(frozen=True)
class _Task:
    """An object of a message that has to be enqueued."""

    message: SqsMessage
    created: CreatedObject


class Listener:
    """One listener. :meth:`run` works until :meth:`stop`.

    ``check`` raises the errors of the broker if it cannot be used. ``alive`` is called at least every few seconds.
    """

    def __init__(
        self,
        queue: SqsQueue,
        producer: Producer,
        options: ListenOptions,
        *,
        check: Callable[[], object] = lambda: None,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._queue = queue
        self._producer = producer
        self._options = options
        self._check = check
        self._alive = alive
        self._stopping = threading.Event()
        self._counts = ListenCounts()
        self._proven: set[str] = set()
        """What has succeeded before. A refusal of another action is an error of the configuration."""
        self._in_hand: Sequence[SqsMessage] = ()
        self._hidden_at = 0.0
        self._told: str | None = None

    def stop(self) -> None:
        """Let :meth:`run` end, after the messages in hand. Safe in a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Work. Waits while SQS, the broker or S3 is away, or the queue is full.

        Raises :class:`OperatorError` and :class:`BrokerRefused` for a refusal of what never succeeded before.
        """
        self._persist("broker", self._check)
        if not self._stopping.is_set():
            _log.info("listener_ready", sqs_queue=self._queue.url)
        while not self._stopping.is_set():
            self._alive()
            messages = self._persist("receive", self._queue.receive)
            if messages:
                self._handle(messages)
        _log.info("listener_stopped", **self._counts.fields())

    def _handle(self, messages: Sequence[SqsMessage]) -> None:
        """Enqueue the objects of the messages, then delete the messages."""
        self._in_hand, self._hidden_at = messages, time.monotonic()
        counts = ListenCounts(messages=len(messages))
        kept: set[str] = set()
        pending = deque(in_order(self._read(messages, counts, kept), lambda task: task.created))
        if pending:
            self._persist("enqueue", lambda: self._enqueue(pending, counts, kept))
        unfinished = {task.message.id for task in pending}
        done = [message for message in messages if message.id not in kept | unfinished]
        if done:
            self._persist("delete", lambda: self._delete(done))
        if unfinished:
            self._hide([message for message in messages if message.id in unfinished - kept], 0)
        self._in_hand = ()
        counts.kept = len(kept)
        self._counts.add(counts)
        _log.info("s3_events", **counts.fields())

    def _read(self, messages: Sequence[SqsMessage], counts: ListenCounts, kept: set[str]) -> list[_Task]:
        tasks = []
        for message in messages:
            try:
                told = self._options.wanted.apply(parse(message.body))
            except S3EventUnreadable as error:
                kept.add(message.id)
                _log.error("s3_event_unreadable", message_id=message.id, reason=str(error))
                continue
            tasks += [_Task(message, created) for created in told.created]
            for entry in told.left_out:
                counts.left_out[entry.reason.value] += 1
                _log.debug("s3_event_left_out", reason=entry.reason.value, what=entry.what)
        return tasks

    def _enqueue(self, pending: deque[_Task], counts: ListenCounts, kept: set[str]) -> None:
        """Enqueue and remove the first tasks, until one has to wait: raises its error.

        A task that can never be enqueued is removed, and its message kept.
        """
        like, problem = self._options.like, None
        waiting: list[_Task] = []
        requests = [
            replace(like, uri=task.created.uri, version_id=task.created.version_id, etag=task.created.etag)
            for task in pending
        ]
        try:
            for item in self._producer.enqueue_many(requests, max_depth=self._options.max_depth):
                task = pending.popleft()
                if item.error is None:
                    counts.enqueued += item.sent
                    counts.open_already += not item.sent
                    _log.debug("s3_event_enqueued", uri=item.request.uri, job_id=item.job_id, sent=item.sent)
                elif isinstance(item.error, TransientError):
                    waiting.append(task)
                    problem = item.error
                else:
                    kept.add(task.message.id)
                    _log_refusal(task, item.error)
        finally:
            pending.extend(waiting)
        if problem is not None:
            raise problem

    def _delete(self, done: list[SqsMessage]) -> None:
        """Delete the messages. Raises :class:`SqsUnavailable`; ``done`` then has those that are left."""
        done[:] = self._queue.delete(done)
        if done:
            raise SqsUnavailable(f"SQS could not delete {len(done)} messages of {self._queue.url}")

    def _persist(self, action: str, do: Callable[[], _T]) -> _T | None:
        """Do it, again and again after errors that may end. None if the listener is stopped before."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                done = do()
            except TussisError as error:
                if not isinstance(error, TransientError | OperatorError) or self._is_fatal(action, error):
                    raise
                if isinstance(error, QueueFull):
                    wait_s = random.uniform(*_FULL_S)
                else:
                    wait_s, pause_s = pause_s * random.uniform(0.5, 1), min(_LONGEST_PAUSE_S, 2 * pause_s)
                self._say(error, wait_s)
            else:
                self._proven.add(action)
                self._say_over()
                return done
            if self._wait(wait_s):
                return None

    def _is_fatal(self, action: str, error: TussisError) -> bool:
        if action in self._proven:
            return False
        if isinstance(error, BrokerRefused):
            # A full broker is emptied by its workers.
            return not (isinstance(error.__cause__, Exception) and error_code(error.__cause__) == "OOM")
        return isinstance(error, OperatorError)

    def _wait(self, seconds: float) -> bool:
        """Wait, and keep the messages in hand. Whether the listener has to stop."""
        ends = time.monotonic() + seconds
        while (left_s := ends - time.monotonic()) > 0:
            self._alive()
            if self._in_hand and time.monotonic() >= self._hidden_at + self._queue.visibility_s / 3:
                self._hide(self._in_hand, self._queue.visibility_s)
            if self._stopping.wait(min(left_s, _SLICE_S)):
                return True
        return self._stopping.is_set()

    def _hide(self, messages: Sequence[SqsMessage], seconds: int) -> None:
        """Keep messages, or give them back. Without success they return by themselves: a job id absorbs a duplicate."""
        self._hidden_at = time.monotonic()
        try:
            self._queue.hide(messages, seconds)
        except TussisError as error:
            _log.warning("visibility_not_changed", error_class=error.error_class, reason=str(error))

    def _say(self, error: TussisError, wait_s: float) -> None:
        """Log each new error once."""
        if self._told == error.error_class:
            return
        self._told = error.error_class
        if isinstance(error, OperatorError):
            _log.error("paused", error_class=error.error_class, reason=str(error), seconds=round(wait_s, 1))
        else:
            _log.warning("holding", error_class=error.error_class, reason=str(error))

    def _say_over(self) -> None:
        if self._told is not None:
            self._told = None
            _log.info("holding_over")


def _log_refusal(task: _Task, error: TussisError) -> None:
    _log.error(
        "s3_event_refused",
        uri=task.created.uri,
        message_id=task.message.id,
        error_class=error.error_class,
        reason=str(error),
    )
