"""The ledger of open jobs in the broker: jobs that were enqueued and have neither result nor failure.

A message leaves its Redis list when it is popped, but stays in the ledger. A job is opened in one atomic step with the
push into its list, so that both happen or neither. It is closed after the commit of its result.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tussis.shared.broker import broker_errors
from tussis.shared.errors import BrokerRefused, BrokerUnavailable, MalformedMessage, UnknownMessageVersion
from tussis.shared.ledger_scripts import (
    CLOSE_SCRIPT,
    DEFER_SCRIPT,
    OPEN_SCRIPT,
    SEND_AGAIN_SCRIPT,
)
from tussis.shared.messages import Job, envelope, parse_message_text
from tussis.shared.queues import (
    DEFERRED_KEY,
    FAULTS_KEY,
    LEDGER_KEY,
    OPEN_KEY,
    PRIORITIES,
    QUEUES,
    UNACKED_KEY,
    list_key,
    sent_key,
)

#: Errors when a command cannot be sent.
_LOST = (RedisConnectionError, RedisTimeoutError)
#: Every queue with every priority: each has a list.
LISTS = tuple((queue, priority) for queue in QUEUES for priority in PRIORITIES)


@dataclass(frozen=True)
class Depth:
    """The number of messages in the broker at one moment."""

    waiting: dict[str, dict[int, int]]
    """Queue -> priority -> messages in the list. Priorities without messages are left out."""
    in_flight: int
    """Delivered and not yet acknowledged."""
    open: int
    """Jobs in the ledger."""
    deferred: int
    """Jobs in the ledger that wait for the time of their next attempt."""
    oldest_open_s: float | None
    """Age of the oldest open job in seconds; None when no job is open."""

    @property
    def total_waiting(self) -> int:
        return sum(sum(steps.values()) for steps in self.waiting.values())


@dataclass(frozen=True)
class Opening:
    """A batch of jobs as the arguments of :data:`~tussis.shared.ledger_scripts.OPEN_SCRIPT`."""

    keys: list[str]
    arguments: list[str]

    @property
    def eval_args(self) -> list[Any]:
        """The arguments of the command EVAL."""
        return [OPEN_SCRIPT, len(self.keys), *self.keys, *self.arguments]


class SentOpening:
    """A batch that was sent and not yet answered. ``connection`` is None if it could not be sent."""

    def __init__(self, ledger: Ledger, opening: Opening, connection: redis.Connection | None) -> None:
        self._ledger = ledger
        self._opening = opening
        self._connection = connection

    def answers(self) -> list[bool]:
        """Wait for the answers: for each job, whether it was opened. Call this method only once."""
        connection, self._connection = self._connection, None
        answers = None if connection is None else self._ledger.read_sent(connection)
        return self._ledger.open_prepared(self._opening) if answers is None else answers

    def close(self) -> None:
        """Discard the answers and release the connection. Does nothing after :meth:`answers`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # An error here does not matter: the answer is discarded, and the broker processes the batch anyway.
            with suppress(BrokerUnavailable, BrokerRefused):
                self._ledger.read_sent(connection)


def prepare_opening(jobs: Sequence[Job]) -> Opening:
    """The first half of :meth:`Ledger.open_many`: builds the messages. It needs no broker."""
    keys = [LEDGER_KEY, OPEN_KEY]
    arguments: list[str] = []
    for job in jobs:
        keys += [sent_key(job.queue, job.priority), list_key(job.queue, job.priority)]
        arguments += _open_args(job)
    return Opening(keys, arguments)


class Ledger:
    """The ledger, over one Redis client. Every method raises :class:`BrokerUnavailable` or :class:`BrokerRefused`."""

    def __init__(self, client: redis.Redis, where: str = "the broker") -> None:
        self._client = client
        self._where = where
        self._close = client.register_script(CLOSE_SCRIPT)
        self._defer = client.register_script(DEFER_SCRIPT)
        self._send_again = client.register_script(SEND_AGAIN_SCRIPT)

    def open(self, job: Job) -> bool:
        """Enter the job into the ledger and its message into its queue, in one step. False if it was already open."""
        return self.open_many([job])[0]

    def open_many(self, jobs: Sequence[Job]) -> list[bool]:
        """:meth:`open` for a batch, in one step: all, or none after an exception (maybe all after a lost connection).

        The batch is one command and not a pipeline. A broker that syncs its append-only file does so once for a
        command, but for every few kilobytes of a pipeline. It uses EVAL and not EVALSHA, so that a producer's login
        needs no right to load scripts.
        """
        return self.open_prepared(prepare_opening(jobs)) if jobs else []

    def open_prepared(self, opening: Opening) -> list[bool]:
        """The second half of :meth:`open_many`: sends the batch and waits for the answer."""
        with broker_errors(self._where):
            opened = self._client.eval(*opening.eval_args)
        return [bool(answer) for answer in _replies(opened)]

    def send_prepared(self, opening: Opening) -> SentOpening:
        """Send the batch without waiting for the answers, so that the caller can work meanwhile.

        The connection is reserved until the answers are read or discarded. If it is lost, :meth:`SentOpening.answers`
        calls :meth:`open_prepared`, which sends the batch again. Jobs that the broker had opened before then count as
        already open.
        """
        with broker_errors(self._where):
            pool = self._client.connection_pool
            try:
                connection = pool.get_connection()
            except _LOST:
                return SentOpening(self, opening, None)
            try:
                connection.send_command("EVAL", *opening.eval_args)  # type: ignore[no-untyped-call]  # redis-py's
            except _LOST:
                pool.release(connection)
                return SentOpening(self, opening, None)
            except BaseException:
                pool.release(connection)
                raise
            return SentOpening(self, opening, connection)

    def read_sent(self, connection: redis.Connection) -> list[bool] | None:
        """Read the answers to a sent batch. None if the connection was lost before they arrived."""
        with broker_errors(self._where):
            try:
                # After a connection error the connection is closed. It reconnects when it is used again.
                return [bool(answer) for answer in _replies(connection.read_response())]
            except RedisConnectionError:
                return None
            finally:
                self._client.connection_pool.release(connection)

    def close(self, job: Job) -> bool:
        """Remove a job that has its result or failure. False if it was not open."""
        with broker_errors(self._where):
            return bool(self._close(keys=_keys(job), args=[job.job_id, repr(float(job.enqueued_at))]))

    def holds_unreadable(self, job_id: str | bytes, message: object) -> bool:
        """Whether the ledger holds exactly this message (decoded JSON) under the id, and it is no job of that id."""
        with broker_errors(self._where):
            text = self._client.hget(LEDGER_KEY, job_id)
        return text is not None and message_under(job_id, text) is None and decoded(text) == message

    def discard(self, job_id: str | bytes, message: object) -> None:
        """Remove an unreadable message (decoded JSON) that the ledger holds under the id.

        Another message under the same id is not removed, and no message that can be read: its job is open.
        """
        if self.holds_unreadable(job_id, message):
            self.take_out(job_id)

    def take_out(self, job_id: str | bytes) -> None:
        """Remove everything that the ledger has under an id."""
        with broker_errors(self._where):
            pipe = self._client.pipeline(transaction=True)
            pipe.hdel(LEDGER_KEY, job_id)
            pipe.hdel(FAULTS_KEY, job_id)
            pipe.zrem(OPEN_KEY, job_id)
            pipe.zrem(DEFERRED_KEY, job_id)
            for queue, priority in LISTS:
                pipe.zrem(sent_key(queue, priority), job_id)
            pipe.execute()

    def defer(self, job: Job, delay_s: float, *, fault: bool = True) -> None:
        """Schedule the job's next attempt after ``delay_s`` seconds, by the broker's clock.

        Set ``fault`` to False if no attempt failed and another attempt is running. Then :meth:`faults` does not change,
        and a job that is not in the ledger is not deferred: it has ended, or ends with the running attempt.
        """
        arguments = [job.job_id, job.to_json(), repr(float(job.enqueued_at)), repr(float(delay_s)), str(int(fault))]
        with broker_errors(self._where):
            self._defer(keys=_keys(job), args=arguments)

    def send_again(self, job: Job, handed_back: str | None = None) -> None:
        """Push the job's message into its queue again, when a worker hands the job back.

        ``handed_back`` is the token of an attempt that could not be recorded in the store as handed back. The next
        attempt records it.
        """
        *described, _ = _open_args(job)
        with broker_errors(self._where):
            self._send_again(keys=_open_keys(job), args=[*described, envelope(job, handed_back=handed_back)])

    def route(self, job: Job, model: str) -> None:
        """Push the job's message into the lists of ``model`` (``name`` or ``name@version``)."""
        *described, pushed = _open_args(job)
        queue = f"{job.queue}@{model}"
        keys = [LEDGER_KEY, OPEN_KEY, sent_key(queue, job.priority), list_key(queue, job.priority)]
        with broker_errors(self._where):
            self._send_again(keys=keys, args=[*described, pushed])

    def faults(self, job_id: str) -> int:
        """The number of attempts that ended in a transient error since the job was enqueued."""
        with broker_errors(self._where):
            return int(self._client.hget(FAULTS_KEY, job_id) or 0)

    def which_open(self, job_ids: Sequence[str]) -> set[str]:
        """The ids of those jobs that are open, in one command."""
        if not job_ids:
            return set()
        with broker_errors(self._where):
            scores = self._client.zmscore(OPEN_KEY, list(job_ids))
        return {job_id for job_id, score in zip(job_ids, scores, strict=True) if score is not None}

    def find(self, job_id: str) -> Job | None:
        """The open job with this id, or None."""
        with broker_errors(self._where):
            text = self._client.hget(LEDGER_KEY, job_id)
        return None if text is None else parse_message_text(text)

    def due_at(self, job_id: str) -> float | None:
        """The time at which the next attempt is due, seconds since the epoch; None if the job is not deferred."""
        with broker_errors(self._where):
            due = self._client.zscore(DEFERRED_KEY, job_id)
        return None if due is None else float(due)

    def depth(self) -> Depth:
        """Count the messages that wait, are in flight and are open. The cost does not grow with the backlog."""
        with broker_errors(self._where):
            pipe = self._client.pipeline(transaction=True)
            for queue, priority in LISTS:
                pipe.llen(list_key(queue, priority))
            pipe.hlen(UNACKED_KEY)
            pipe.zcard(OPEN_KEY)
            pipe.zcard(DEFERRED_KEY)
            pipe.zrange(OPEN_KEY, 0, 0, withscores=True)
            pipe.time()
            *lengths, in_flight, opened, deferred, oldest, (seconds, microseconds) = pipe.execute()
        waiting: dict[str, dict[int, int]] = {queue: {} for queue in QUEUES}
        for (queue, priority), length in zip(LISTS, lengths, strict=True):
            if length:
                waiting[queue][priority] = length
        age = max(0.0, seconds + microseconds / 1e6 - oldest[0][1]) if oldest else None
        return Depth(waiting, in_flight, opened, deferred, age)


def _keys(job: Job) -> list[str]:
    return [LEDGER_KEY, OPEN_KEY, sent_key(job.queue, job.priority), DEFERRED_KEY, FAULTS_KEY]


def _open_keys(job: Job) -> list[str]:
    return [LEDGER_KEY, OPEN_KEY, sent_key(job.queue, job.priority), list_key(job.queue, job.priority)]


def _open_args(job: Job) -> list[str]:
    message = job.to_json()
    return [job.job_id, message, repr(float(job.enqueued_at)), envelope(job, message)]


def message_under(job_id: str | bytes, text: str | bytes) -> Job | None:
    """The message that the ledger holds under an id. None if it cannot be read or has another id."""
    try:
        job = parse_message_text(text)
    except (MalformedMessage, UnknownMessageVersion):
        return None
    return job if job_id in (job.job_id, job.job_id.encode()) else None


def decoded(text: str | bytes) -> object:
    """The decoded JSON of an entry of the ledger; None if the text is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _replies(reply: object) -> list[object]:
    assert isinstance(reply, list)
    return reply
