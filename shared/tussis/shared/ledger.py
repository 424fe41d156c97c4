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
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tussis.shared.batch_scripts import MOST_BATCHES
from tussis.shared.broker import broker_errors
from tussis.shared.broker_functions import call, function, is_missing
from tussis.shared.depth import Depth, read_depth, read_model_queues
from tussis.shared.errors import (
    BrokerRefused,
    BrokerUnavailable,
    JobIdMismatch,
    JobIdTaken,
    MalformedMessage,
    TooManyBatches,
    UnknownMessageVersion,
)
from tussis.shared.messages import Job, envelope, parse_message_text
from tussis.shared.moving import move_open
from tussis.shared.outcomes import DEFAULT_BOUNDS, JobOutcome, OutcomeBounds
from tussis.shared.queues import (
    DEFERRED_KEY,
    FAULTS_KEY,
    LEDGER_KEY,
    MODEL_QUEUES_KEY,
    MODELS_KEY,
    OPEN_KEY,
    OUTCOMES_COUNT_KEY,
    OUTCOMES_KEY,
    PRIORITIES,
    QUEUES,
    UNSERVED_KEY,
    ServedModel,
    device_queue,
    list_key,
    outcome_key,
    queue_name,
    sent_key,
)

#: Errors when a command cannot be sent.
_LOST = (RedisConnectionError, RedisTimeoutError)
#: Errors of messages whose job id is that of another job.
_NOT_ITS_ID = (JobIdMismatch.error_class, JobIdTaken.error_class)
#: The most model queues. The cost of a check of the reconciler and of :meth:`Ledger.depth` grows with their number.
MOST_MODEL_QUEUES = 200
#: Seconds for which a job is deferred that needs one more model queue.
_NO_QUEUE_S = 60.0


@dataclass(frozen=True)
class Unserved:
    """A job must fail: no worker serves the model that it names, and none has for the time that a job waits."""

    served_s: float | None
    """Seconds since a worker last served the model. None: no worker did, as far as the broker knows."""


@dataclass(frozen=True)
class Opening:
    """Several jobs as the arguments of the function ``tussis_open``. ``bounded``: of ``tussis_open_bounded``."""

    keys: list[str]
    arguments: list[str]
    bounded: bool = False
    devices: Sequence[tuple[str, str]] = ()
    """Job id and device of each job."""

    @property
    def function(self) -> str:
        """The function that opens them."""
        return "tussis_open_bounded" if self.bounded else "tussis_open"


class SentOpening:
    """Jobs that were sent and not yet answered. ``connection`` is None if it could not be sent."""

    def __init__(self, ledger: Ledger, opening: Opening, connection: redis.Connection | None) -> None:
        self._ledger = ledger
        self._opening = opening
        self._connection = connection

    def answers(self) -> list[bool]:
        """Wait for the answers, as those of :meth:`Ledger.open_many`. Call this method only once."""
        connection, self._connection = self._connection, None
        answers = None if connection is None else self._ledger.read_sent(connection, self._opening)
        return self._ledger.open_prepared(self._opening) if answers is None else answers

    def close(self) -> None:
        """Discard the answers and release the connection. Does nothing after :meth:`answers`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # An error here does not matter: the answer is discarded, and the broker processes the jobs anyway.
            with suppress(BrokerUnavailable, BrokerRefused):
                self._ledger.read_sent(connection, None)


def prepare_opening(jobs: Sequence[Job], batch: str | None = None, max_depth: int | None = None) -> Opening:
    """The first half of :meth:`Ledger.open_many`: builds the messages. It needs no broker."""
    bounded = batch is not None or max_depth is not None
    keys = [LEDGER_KEY, OPEN_KEY]
    arguments = ["" if max_depth is None else str(max_depth), batch or ""] if bounded else []
    for job in jobs:
        keys += [sent_key(job.queue, job.priority), list_key(job.queue, job.priority)]
        arguments += _open_args(job)
    return Opening(keys, arguments, bounded, [(job.job_id, job.device.value) for job in jobs])


class Ledger:
    """The ledger, over one Redis client. Every method raises :class:`BrokerUnavailable` or :class:`BrokerRefused`.

    ``serves`` is the model of the worker that uses it: the worker's jobs may come from the queues of this model.
    ``bounds``: how many outcomes :meth:`close` and :meth:`discard` leave in the broker.
    """

    def __init__(
        self,
        client: redis.Redis,
        where: str = "the broker",
        serves: ServedModel | None = None,
        bounds: OutcomeBounds = DEFAULT_BOUNDS,
    ) -> None:
        self._client = client
        self._where = where
        self._serves = serves
        self._bounds = bounds
        self._may_move = True
        self._close = function(client, "tussis_close")
        self._close_many = function(client, "tussis_close_many")
        self._defer = function(client, "tussis_defer")
        self._send_again = function(client, "tussis_send_again")
        self._route = function(client, "tussis_route")
        self._tell_again = function(client, "tussis_tell_again")

    def open(self, job: Job) -> bool:
        """Enter the job into the ledger and its message into its queue, in one step. False if it was already open.

        A job that is open for another device is moved to that of ``job`` (:mod:`tussis.shared.moving`).
        """
        return self.open_many([job])[0]

    def open_many(self, jobs: Sequence[Job], batch: str | None = None, max_depth: int | None = None) -> list[bool]:
        """:meth:`open` for several jobs, in one step: all, or none after an error (maybe all after a lost connection).

        ``batch``: they join this batch, also those that are open already. ``max_depth``: the most open jobs. The
        answers end before the first job for which there is no room; nothing is done for it and those behind it. Raises
        :class:`TooManyBatches`.

        It is one command and not a pipeline. A broker that syncs its append-only file does so once for a command, but
        for every few kilobytes of a pipeline.
        """
        return self.open_prepared(prepare_opening(jobs, batch, max_depth)) if jobs else []

    def open_jobs(self) -> int:
        """The number of open jobs: what ``max_depth`` limits."""
        with broker_errors(self._where):
            return int(self._client.zcard(OPEN_KEY))

    def open_prepared(self, opening: Opening) -> list[bool]:
        """The second half of :meth:`open_many`: sends the jobs and waits for the answer."""
        with broker_errors(self._where):
            opened = call(self._client, opening.function, opening.keys, opening.arguments)
        return self._moved(opening, _answers(opened))

    def _moved(self, opening: Opening, answers: list[bool]) -> list[bool]:
        """Move the jobs that were open already to the device for which they are enqueued now; returns the answers.

        A login without the right to it leaves them where they are.
        """
        wanted = [device for device, opened in zip(opening.devices, answers, strict=False) if not opened]
        if wanted and self._may_move:
            with broker_errors(self._where):
                self._may_move = move_open(self._client, wanted) is not None
        return answers

    def send_prepared(self, opening: Opening) -> SentOpening:
        """Send the jobs without waiting for the answers, so that the caller can work meanwhile.

        The connection is reserved until the answers are read or discarded. If it is lost, :meth:`SentOpening.answers`
        calls :meth:`open_prepared`, which sends the jobs again. Jobs that the broker had opened before then count as
        already open.
        """
        with broker_errors(self._where):
            pool = self._client.connection_pool
            try:
                connection = pool.get_connection()
            except _LOST:
                return SentOpening(self, opening, None)
            try:
                words = (opening.function, len(opening.keys), *opening.keys, *opening.arguments)
                connection.send_command("FCALL", *words)  # type: ignore[no-untyped-call]  # redis-py's
            except _LOST:
                pool.release(connection)
                return SentOpening(self, opening, None)
            except BaseException:
                pool.release(connection)
                raise
            return SentOpening(self, opening, connection)

    def read_sent(self, connection: redis.Connection, opening: Opening | None) -> list[bool] | None:
        """Read the answers to sent jobs. None if they must be sent again: the connection was lost, or the functions.

        ``opening``: the jobs. None: the caller discards the answers.
        """
        with broker_errors(self._where):
            try:
                # After a connection error the connection is closed. It reconnects when it is used again.
                answers = _answers(connection.read_response())
            except RedisConnectionError:
                return None
            except ResponseError as error:
                if is_missing(error):
                    return None
                raise
            finally:
                self._client.connection_pool.release(connection)
        return answers if opening is None else self._moved(opening, answers)

    def close(self, job: Job, outcome: JobOutcome | None = None, then: Job | None = None) -> bool:
        """Remove a job that has its result or failure, and tell its outcome, in one step. False if it was not open.

        Nothing is told of a job that was not open: its outcome was told when it was closed, or its message was pushed
        without the ledger. Without an ``outcome`` nothing is told either.

        ``then`` is a job with a model that is opened in the same step. Its message goes into the queue of the model. It
        is not opened if there are :data:`MOST_MODEL_QUEUES` other queues, or if the ledger holds a later job under the
        id of ``job``.
        """
        return self._end(job.job_id, repr(float(job.enqueued_at)), self._sent_keys(job), outcome, then, job)

    def close_each(self, ended: Sequence[tuple[Job, JobOutcome]]) -> list[bool]:
        """:meth:`close` for many jobs, in one step: whether each was open.

        The jobs may wait in any model queue of their device.
        """
        if not ended:
            return []
        with broker_errors(self._where):
            model_queues = read_model_queues(self._client)
            all_keys: list[str] = []
            all_arguments: list[Any] = []
            for job, outcome in ended:
                others = [queue for queue in model_queues if device_queue(queue) == job.queue]
                sent = [sent_key(queue, job.priority) for queue in (job.queue, *others)]
                keys, arguments = self._ending(job.job_id, repr(float(job.enqueued_at)), sent, outcome, job=job)
                all_keys += keys
                all_arguments += [len(keys), len(arguments), *arguments]
            return [bool(answer) for answer in self._close_many(keys=all_keys, args=all_arguments)]

    def _end(
        self,
        job_id: str | bytes,
        enqueued_at: str,
        sent: Sequence[str],
        outcome: JobOutcome | None,
        then: Job | None = None,
        job: Job | None = None,
    ) -> bool:
        keys, arguments = self._ending(job_id, enqueued_at, sent, outcome, then, job)
        with broker_errors(self._where):
            return bool(self._close(keys=keys, args=arguments))

    def _ending(
        self,
        job_id: str | bytes,
        enqueued_at: str,
        sent: Sequence[str],
        outcome: JobOutcome | None,
        then: Job | None = None,
        job: Job | None = None,
    ) -> tuple[list[str], list[Any]]:
        """Keys and arguments of :data:`~tussis.shared.ledger_scripts.CLOSE_SCRIPT`.

        ``job`` is None for a message that cannot be read. Its outcome, and that of a message with the id of another
        job, does not replace an outcome that the broker keeps under the id.
        """
        told = "" if outcome is None else outcome.to_json()
        own = outcome_key(job_id if isinstance(job_id, str) else job_id.decode("utf-8", "replace"))
        keys = [LEDGER_KEY, OPEN_KEY, DEFERRED_KEY, FAULTS_KEY, UNSERVED_KEY, OUTCOMES_KEY, OUTCOMES_COUNT_KEY, own]
        keys += sent
        stays = job is None or (outcome is not None and outcome.error_class in _NOT_ITS_ID)
        bucket, key = ("", "") if job is None else (job.bucket, job.key)
        arguments: list[Any] = [job_id, enqueued_at, told, self._bounds.kept, self._bounds.ttl_s]
        arguments += ["NX" if stays else "", bucket, key]
        if then is not None:
            queue = queue_name(then.device, then.model)
            keys += [MODEL_QUEUES_KEY, sent_key(queue, then.priority), list_key(queue, then.priority)]
            *described, _ = _open_args(then)
            arguments += [*described, envelope(then, queue=queue), queue, str(MOST_MODEL_QUEUES)]
        return keys, arguments

    def tell_again(self, outcomes: Sequence[JobOutcome]) -> None:
        """Send outcomes again, in one step. They become the kept outcomes of those jobs that have none."""
        if not outcomes:
            return
        with broker_errors(self._where):
            self._tell_again(
                keys=[OUTCOMES_KEY, OUTCOMES_COUNT_KEY, *(outcome_key(outcome.job_id) for outcome in outcomes)],
                args=[self._bounds.kept, self._bounds.ttl_s, *(outcome.to_json() for outcome in outcomes)],
            )

    def holds_unreadable(self, job_id: str | bytes, message: object) -> bool:
        """Whether the ledger holds exactly this message (decoded JSON) under the id, and it is no job of that id."""
        with broker_errors(self._where):
            text = self._client.hget(LEDGER_KEY, job_id)
        return text is not None and message_under(job_id, text) is None and decoded(text) == message

    def discard(self, job_id: str | bytes, message: object, outcome: JobOutcome | None = None) -> None:
        """Remove an unreadable message (decoded JSON) that the ledger holds under the id, and tell the outcome.

        Another message under the same id is not removed, and no message that can be read: its job is open.
        """
        if self.holds_unreadable(job_id, message):
            self.take_out(job_id, outcome)

    def take_out(self, job_id: str | bytes, outcome: JobOutcome | None = None) -> None:
        """Remove everything that the ledger has under an id, and tell the outcome, in one step."""
        with broker_errors(self._where):
            queues = (*QUEUES, *read_model_queues(self._client))
        sent = [sent_key(queue, priority) for queue in queues for priority in PRIORITIES]
        self._end(job_id, "", sent, outcome)

    def defer(self, job: Job, delay_s: float, *, fault: bool = True) -> None:
        """Schedule the job's next attempt after ``delay_s`` seconds, by the broker's clock.

        Set ``fault`` to False if no attempt failed and another attempt is running. Then :meth:`faults` does not change,
        and a job that is not in the ledger is not deferred: it has ended, or ends with the running attempt.
        """
        arguments = [job.job_id, job.to_json(), repr(float(job.enqueued_at)), repr(float(delay_s)), str(int(fault))]
        keys = [LEDGER_KEY, OPEN_KEY, DEFERRED_KEY, FAULTS_KEY, outcome_key(job.job_id), *self._sent_keys(job)]
        with broker_errors(self._where):
            self._defer(keys=keys, args=arguments)

    def send_again(self, job: Job, handed_back: str | None = None) -> None:
        """Push the job's message into its queue again, when a worker hands the job back.

        ``handed_back`` is the token of an attempt that could not be recorded in the store as handed back. The next
        attempt records it.
        """
        *described, _ = _open_args(job)
        own, *others = self._sent_keys(job)
        keys = [LEDGER_KEY, OPEN_KEY, list_key(job.queue, job.priority), own, outcome_key(job.job_id), *others]
        with broker_errors(self._where):
            self._send_again(keys=keys, args=[*described, envelope(job, handed_back=handed_back)])

    def route(self, job: Job, model: str, wait_s: float, handed_back: str | None = None) -> Unserved | None:
        """Send the job's message to the queue of ``model`` (``name`` or ``name@version``), in one step.

        The caller acknowledges its own copy next. Returns :class:`Unserved` if the job must fail instead, because the
        leader returned it and no worker has served the model for ``wait_s`` seconds. Nothing is changed then.
        Nothing is sent if the ledger holds a later job under this id. ``handed_back`` is that of the caller's copy.
        """
        queue = queue_name(job.device, model)
        *described, _ = _open_args(job)
        sent = sent_key(queue, job.priority)
        keys = [LEDGER_KEY, OPEN_KEY, DEFERRED_KEY, MODEL_QUEUES_KEY, MODELS_KEY, UNSERVED_KEY]
        keys += [sent, list_key(queue, job.priority), outcome_key(job.job_id)]
        keys += [key for key in self._sent_keys(job) if key != sent]
        pushed = envelope(job, handed_back=handed_back, queue=queue)
        limits = [repr(float(wait_s)), str(MOST_MODEL_QUEUES), repr(_NO_QUEUE_S)]
        with broker_errors(self._where):
            served = self._route(keys=keys, args=[*described, pushed, model, queue, *limits])
        if served is None:
            return None
        return Unserved(float(served) if served else None)

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
            return read_depth(self._client)

    def _sent_keys(self, job: Job) -> list[str]:
        """The sorted sets that may have the job: its queue's first, then those of the model queues that it may be in.

        A set that is left out here loses the job later: the reconciler finds that the job has ended.
        """
        models = [job.model, *(() if self._serves is None else self._serves.texts)]
        queues = dict.fromkeys([job.queue, *(queue_name(job.device, model) for model in models if model)])
        return [sent_key(queue, job.priority) for queue in queues]


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


def _answers(reply: object) -> list[bool]:
    """Whether each job was opened, from the reply of a script. Raises :class:`TooManyBatches`."""
    if reply is None:
        raise TooManyBatches(f"{MOST_BATCHES} batches have open jobs: wait until one of them is done")
    assert isinstance(reply, list)
    return [bool(answer) for answer in reply]
